//! Classification: one class for each sample.

use candle_core::{D, Tensor};

use crate::data::Labels;
use crate::{Error, Result};

/// The mean cross-entropy of the logits `[B, K]` of a mini-batch, a scalar.
///
/// # Errors
/// Shapes that do not fit, or a class that is not below K.
pub fn cross_entropy(logits: &Tensor, labels: &Labels) -> Result<Tensor> {
    let classes = Tensor::new(classes(labels)?, logits.device())?;
    Ok(candle_nn::loss::cross_entropy(logits, &classes)?)
}

/// How many of the logits `[B, K]` are largest at the right class.
///
/// # Errors
/// Logits of another shape.
pub fn correct(logits: &Tensor, labels: &Labels) -> Result<usize> {
    let classes = classes(labels)?;
    let found = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    Ok(found.iter().zip(classes).filter(|(a, b)| a == b).count())
}

fn classes(labels: &Labels) -> Result<&[u32]> {
    match labels {
        Labels::Classes(classes) => Ok(classes),
        Labels::Tokens(_) => {
            let reason = "must be classes for a head that has some, got next tokens";
            Err(Error::argument("labels", reason))
        }
    }
}
