//! Samples to learn from.

use super::MAX_MEAN;
use crate::error::{Error, ErrorKind, Result};
use crate::state::Context;
use crate::tensor::TensorView;
use crate::transform::tokens::Tokens;

/// Samples of some tokens each.
pub(super) struct Samples {
    pub(super) values: Vec<f32>,
    /// The first row of each sample, and the end of the last.
    pub(super) bounds: Vec<usize>,
    pub(super) width: usize,
    pub(super) tokens: Tokens,
}

impl Samples {
    /// Those of a tensor `[n, S, D]`, or of one `[S, D]` with so many tokens each.
    pub(super) fn of(
        name: &str,
        tensor: TensorView<'_>,
        lengths: &[usize],
        tokens: Tokens,
        step: f64,
    ) -> Result<Self> {
        if !(0.001..=1000.0).contains(&step) {
            return Err(Error::invalid(format!(
                "step must be in 0.001..=1000, got {step}"
            )));
        }
        let context = Context::new(tensor.shape(), 0).with_lengths(lengths);
        context.check(Some(tensor))?;
        let (lengths, width) = match (tensor.shape(), lengths) {
            (&[_, width], [_, ..]) => (lengths.to_vec(), width),
            (&[count, rows, width], []) => (vec![rows; count], width),
            (shape, _) => {
                return Err(Error::invalid(format!(
                    "{name} must have the shape [n, S, D], or [S, D] with lengths, got {shape:?}"
                )));
            }
        };
        if lengths.is_empty() || width == 0 || lengths.iter().all(|&len| len <= tokens.prefix()) {
            let shape = tensor.shape();
            return Err(Error::invalid(format!(
                "{name} must hold samples, got the shape {shape:?}"
            )));
        }
        let mut bounds = vec![0];
        for &len in &lengths {
            tokens.check(len)?;
            if len.saturating_mul(width) > MAX_MEAN {
                return Err(Error::invalid(format!(
                    "{name} must have at most {MAX_MEAN} elements a sample, got {len} x {width}"
                )));
            }
            bounds.push(bounds.last().map_or(0, |end| end + len));
        }
        let values = tensor.elements().to_f32().into_owned();
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            let message = format!(
                "element {at} of {name} is {}, but must be finite",
                values[at]
            );
            return Err(Error::new(ErrorKind::NonFinite, message));
        }
        Ok(Self {
            values,
            bounds,
            width,
            tokens,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    pub(super) fn each<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        let bounds = self.bounds.windows(2);
        bounds.map(move |bound| &values[bound[0] * self.width..bound[1] * self.width])
    }
}
