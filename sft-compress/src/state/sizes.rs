//! Where the samples of a message lie.

use std::ops::Range;

use super::Context;
use crate::error::{Error, Result};
use crate::tensor::element_count;
use crate::transform::Basis;

/// The samples of a message.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// The first row of each sample, and the end of the last.
    bounds: Vec<usize>,
    /// Channels of elements and of indices.
    pub(super) width: usize,
    pub(super) channels: usize,
}

impl Sizes {
    pub(super) fn of(basis: &Basis, context: &Context<'_>) -> Result<Self> {
        let shape = context.shape;
        let (tokens, width) = match shape {
            [.., tokens, width] => (*tokens, *width),
            _ => (0, 0),
        };
        if width != basis.width() || element_count(shape)? == 0 {
            let expected = basis.width();
            return Err(Error::invalid(format!(
                "shape must be [..., S, {expected}] of some elements for this basis, got {shape:?}"
            )));
        }
        let bounds = if context.lengths.is_empty() {
            basis.tokens().check(tokens)?;
            let samples: usize = shape[..shape.len() - 2].iter().product();
            (0..=samples).map(|sample| sample * tokens).collect()
        } else {
            let mut bounds = vec![0];
            for &length in context.lengths {
                basis.tokens().check(length)?;
                bounds.push(bounds.last().map_or(0, |end| end + length));
            }
            bounds
        };
        let (numbers, samples) = (context.samples.len(), bounds.len() - 1);
        if numbers != 0 && numbers != samples {
            return Err(Error::invalid(format!(
                "samples must be one for each of the {samples} of shape {shape:?}, or none, got \
                 {numbers}"
            )));
        }
        Ok(Self {
            bounds,
            width,
            channels: basis.channels(),
        })
    }

    pub(super) fn samples(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The rows of samples.
    pub(super) fn rows(&self, samples: Range<usize>) -> Range<usize> {
        self.bounds[samples.start]..self.bounds[samples.end]
    }

    /// All rows.
    pub(super) fn all_rows(&self) -> usize {
        self.rows(0..self.samples()).end
    }

    /// The indices of a sample.
    pub(super) fn indices(&self, sample: usize) -> usize {
        self.rows(sample..sample + 1).len() * self.channels
    }

    /// The samples of a part, each with its rows in the part.
    pub(super) fn each(&self, samples: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let start = self.bounds[samples.start];
        samples.map(move |sample| {
            let rows = self.rows(sample..sample + 1);
            rows.start - start..rows.end - start
        })
    }
}

/// The elements of rows of so many channels.
pub(super) fn times(rows: &Range<usize>, channels: usize) -> Range<usize> {
    rows.start * channels..rows.end * channels
}
