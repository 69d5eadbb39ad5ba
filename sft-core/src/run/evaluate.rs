//! Accuracy of adapters on a data set.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;

use crate::adapter::{Adapters, Lora, check_adapters};
use crate::data::{Data, Inputs};
use crate::model::Model;
use crate::parallel::parallel;
use crate::split::forward;
use crate::task::{Classifier, correct};
use crate::{Error, Result};

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
    inputs: &Inputs,
) -> Result<Tensor> {
    check_adapters(model.spec(), lora, adapters)?;
    let classifier = Classifier::new(&adapters.head, model.backend())?;
    let vectors = adapters
        .vectors()
        .map(|values| Tensor::from_slice(values, values.len(), model.device()))
        .collect::<Result<Vec<_>, _>>()?;
    forward::logits(model, lora, &vectors, &classifier, inputs)
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
    let right = parallel(threads, data.len().div_ceil(BATCH), |batch| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let indices: Vec<usize> = (batch * BATCH..data.len().min((batch + 1) * BATCH)).collect();
        let batch = data.batch(&indices)?;
        let inputs = batch.inputs.to_device(model.device())?;
        correct(&logits(model, lora, adapters, &inputs)?, &batch.labels)
    })?;
    Ok(right.iter().sum::<usize>() as f64 / data.len() as f64)
}
