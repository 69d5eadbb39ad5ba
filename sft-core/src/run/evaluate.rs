//! How well adapters do on a data set.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;

use crate::adapter::{Adapters, Lora, check_adapters};
use crate::data::{Batch, Data, Inputs, Labels};
use crate::model::Model;
use crate::parallel::parallel;
use crate::split::forward::{features, task_head};
use crate::task::{Score, TaskHead};
use crate::{Error, Result};

/// Examples per forward pass.
const BATCH: usize = 32;
/// Tokens per forward pass, where examples have their own numbers of them, unless one has more.
const BATCH_TOKENS: usize = 2048;

/// An adapted model where it runs.
pub(super) struct Adapted<'a> {
    model: &'a dyn Model,
    lora: Lora,
    pub(super) vectors: Vec<Tensor>,
    pub(super) head: TaskHead,
}

impl<'a> Adapted<'a> {
    pub(super) fn new(model: &'a dyn Model, lora: Lora, adapters: &Adapters) -> Result<Self> {
        check_adapters(model.spec(), lora, adapters)?;
        let vectors = adapters
            .vectors()
            .map(|values| Tensor::from_slice(values, values.len(), model.device()));
        Ok(Self {
            model,
            lora,
            vectors: vectors.collect::<Result<_, _>>()?,
            head: task_head(model, &adapters.head)?,
        })
    }

    fn features(&self, inputs: &Inputs) -> Result<Tensor> {
        features(self.model, self.lora, &self.vectors, &self.head, inputs)
    }

    /// What is trained of the head.
    fn trained(&self) -> &[Tensor] {
        &self.vectors[self.vectors.len() - self.head.trained()..]
    }

    fn score(&self, batch: &Batch) -> Result<Score> {
        let inputs = batch.inputs.to_device(self.model.device())?;
        self.score_of(&self.features(&inputs)?, &batch.labels)
    }

    /// The score of features.
    pub(super) fn score_of(&self, features: &Tensor, labels: &Labels) -> Result<Score> {
        self.head.score(features, self.trained(), self.lora, labels)
    }
}

/// The logits of the whole adapted model, without a graph: `[B, K]`, or where the head is the language
/// model's `[T, V]`.
///
/// # Errors
/// Adapters, a head or an input that do not fit the model.
pub fn logits(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    inputs: &Inputs,
) -> Result<Tensor> {
    let adapted = Adapted::new(model, lora, adapters)?;
    let features = adapted.features(inputs)?;
    adapted.head.logits(&features, adapted.trained(), lora)
}

/// How well the adapted model tells the labels of `data`: their number that it tells right and the sum of their
/// cross-entropies, of classes or of next tokens.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn evaluate(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    data: &dyn Data,
    threads: usize,
) -> Result<Score> {
    evaluate_until(
        model,
        lora,
        adapters,
        data,
        threads,
        &AtomicBool::new(false),
    )
}

/// The same, given up with [`Error::Stopped`] once `stop` is set.
pub(crate) fn evaluate_until(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    data: &dyn Data,
    threads: usize,
    stop: &AtomicBool,
) -> Result<Score> {
    let (adapted, batches) = (Adapted::new(model, lora, adapters)?, batches(data));
    let scores = parallel(threads, batches.len(), |i| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        adapted.score(&data.batch(&batches[i])?)
    })?;
    Ok(scores.into_iter().sum())
}

/// All samples in their order, some at a time.
fn batches(data: &dyn Data) -> Vec<Vec<usize>> {
    let mut batches = Vec::<Vec<usize>>::new();
    let mut longest = 0;
    for sample in 0..data.len() {
        let tokens = data.tokens(sample).unwrap_or(0);
        match batches.last_mut() {
            Some(last)
                if last.len() < BATCH && (last.len() + 1) * longest.max(tokens) <= BATCH_TOKENS =>
            {
                last.push(sample);
                longest = longest.max(tokens);
            }
            _ => {
                batches.push(vec![sample]);
                longest = tokens;
            }
        }
    }
    batches
}
