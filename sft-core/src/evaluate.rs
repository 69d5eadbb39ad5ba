//! Accuracy of adapters on a data set.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{D, Tensor};

use crate::fit::check_adapters;
use crate::forward;
use crate::head::Classifier;
use crate::parallel::parallel;
use crate::{Adapters, Data, Error, Lora, Model, Result};

/// Examples per forward pass.
const BATCH: usize = 32;

/// The logits `[B, K]` of the whole adapted model, without a graph.
///
/// # Errors
/// Adapters, a head or an input that do not fit the model.
pub fn logits(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    input: &Tensor,
) -> Result<Tensor> {
    check_adapters(model, lora, adapters)?;
    let classifier = Classifier::new(&adapters.head, model.device())?;
    let vectors = adapters
        .vectors()
        .map(|values| Tensor::from_slice(values, values.len(), model.device()))
        .collect::<Result<Vec<_>, _>>()?;
    forward::logits(model, lora, &vectors, &classifier, input)
}

/// The fraction of `data` that the adapted model classifies correctly.
///
/// # Errors
/// Shapes that do not fit the model.
pub fn accuracy(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    data: &dyn Data,
    threads: usize,
) -> Result<f64> {
    accuracy_until(
        model,
        lora,
        adapters,
        data,
        threads,
        &AtomicBool::new(false),
    )
}

/// The same, given up with [`Error::Stopped`] once `stop` is set.
pub(crate) fn accuracy_until(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    data: &dyn Data,
    threads: usize,
    stop: &AtomicBool,
) -> Result<f64> {
    let correct = parallel(threads, data.len().div_ceil(BATCH), |batch| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let indices: Vec<usize> = (batch * BATCH..data.len().min((batch + 1) * BATCH)).collect();
        let logits = logits(
            model,
            lora,
            adapters,
            &data.inputs(&indices)?.to_device(model.device())?,
        )?;
        let classes = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let right = |(i, class): &(&usize, &u32)| data.label(**i) == **class;
        Ok(indices.iter().zip(&classes).filter(right).count())
    })?;
    Ok(correct.iter().sum::<usize>() as f64 / data.len() as f64)
}
