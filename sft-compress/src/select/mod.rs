//! Which elements are kept, as finite numbers.

/// Exact selection of the largest magnitudes.
mod topk;

use crate::config::{Config, NonFinite, Quantize, Sparsify};
use crate::error::{Error, ErrorKind, Result};
use crate::parallel::{self, PART};
use crate::simd::{self, Candidates, Level};
use crate::tensor::{Elements, row_len};
use crate::value::points::{LEAST_STEP, dead_zone_step};
use crate::value::ranges::Span;

/// What [`select`] works in and what it finds.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The elements to keep; before a dead zone, all that may lie outside it.
    pub(crate) kept: Candidates,
    /// Whether that is every element, and `kept` is not filled.
    pub(crate) all: bool,
    /// The span of `kept`, or of all numbers; none if all elements are zero.
    pub(crate) span: Option<Span>,
    /// The root mean square of the tensor, if the quantizer needs it.
    pub(crate) rms: f64,
    powers: Vec<f64>,
    row: Candidates,
    topk: topk::Memory,
}

/// Finds the elements to keep of a tensor of `shape`, and gives all as finite
/// numbers, in `memory` if they are not already.
pub(crate) fn select<'a>(
    elements: Elements<'a>,
    shape: &[usize],
    config: &Config,
    memory: &'a mut Vec<f32>,
    found: &mut Selection,
) -> Result<&'a [f32]> {
    memory.clear();
    match elements {
        Elements::F32(data) if found.fill(data, shape, config) => return Ok(data),
        Elements::F32(data) => memory.extend_from_slice(data),
        Elements::F16(bits) => simd::extend_f16(Level::best(), bits, memory),
        Elements::Bf16(bits) => simd::extend_bf16(Level::best(), bits, memory),
    }
    if !matches!(elements, Elements::F32(_)) && found.fill(memory, shape, config) {
        return Ok(memory);
    }
    if config.non_finite == NonFinite::Refuse {
        return Err(refusal(memory));
    }
    for x in memory.iter_mut() {
        *x = if x.is_nan() {
            0.0
        } else {
            x.clamp(-f32::MAX, f32::MAX)
        };
    }
    found.fill(memory, shape, config);
    Ok(memory)
}

fn refusal(data: &[f32]) -> Error {
    let not_finite = data.iter().enumerate().find(|(_, x)| !x.is_finite());
    let (index, x) = not_finite.unwrap_or((0, &f32::NAN));
    Error::new(
        ErrorKind::NonFinite,
        format!("element {index} is {x}, but only finite elements can be quantized"),
    )
}

impl Selection {
    /// Finds the elements to keep; false if not all elements are finite.
    fn fill(&mut self, data: &[f32], shape: &[usize], config: &Config) -> bool {
        let mut least = 0;
        (self.rms, self.all, self.span) = (0.0, false, None);
        self.kept.clear();
        if let Quantize::DeadZone { step } = config.quantize {
            // No square of a finite number overflows a double.
            let power = power(data, &mut self.powers);
            if !power.is_finite() {
                return false;
            }
            if power == 0.0 {
                return true;
            }
            self.rms = (power / data.len() as f64).sqrt();
            // A little below 5/8, so that rounding cannot drop too much.
            let step = dead_zone_step(step, self.rms);
            least = (0.62 * step).to_bits();
            self.all = config.sparsify == Sparsify::None && step > LEAST_STEP;
        }
        if self.all {
            self.span = Some(Span::ALL);
            return true;
        }
        self.sparsify(data, shape, config.sparsify, least);
        let (lo, hi) = simd::span(Level::best(), &self.kept.values);
        self.span = Span::from_bits(lo, hi);
        hi < f32::INFINITY.to_bits()
    }

    /// Fills `kept`, which is empty, with elements of magnitude bits from `least` on.
    fn sparsify(&mut self, data: &[f32], shape: &[usize], sparsify: Sparsify, least: u32) {
        let (kept, memory) = (&mut self.kept, &mut self.topk);
        match sparsify {
            Sparsify::None => topk::at_least(data, 0, least, kept, &mut memory.parts),
            Sparsify::Threshold(t) => {
                let least = least.max(t.to_bits());
                topk::at_least(data, 0, least, kept, &mut memory.parts);
            }
            Sparsify::TopK(keep) => {
                topk::largest(data, 0, kept_count(keep, data.len()), kept, memory);
            }
            Sparsify::RowTopK(keep) => {
                let row_len = row_len(shape).max(1);
                for (row, start) in data.chunks(row_len).zip((0..).step_by(row_len)) {
                    let (k, found) = (kept_count(keep, row.len()), &mut self.row);
                    topk::largest(row, start, k, found, memory);
                    kept.positions.extend_from_slice(&found.positions);
                    kept.values.extend_from_slice(&found.values);
                }
            }
        }
    }
}

/// The sum of squares: that of each part, added in order.
fn power(data: &[f32], parts: &mut Vec<f64>) -> f64 {
    parts.resize(data.len().div_ceil(PART), 0.0);
    parallel::for_each(parts, |number, power| {
        let part = &data[number * PART..data.len().min((number + 1) * PART)];
        *power = simd::square_sums(Level::best(), part);
    });
    parts.iter().sum()
}

/// Equation (10) solved for K: the number of elements to keep of `elements`.
fn kept_count(keep: f64, elements: usize) -> usize {
    let rounded = (keep * elements as f64).round() as usize;
    rounded.max(1).min(elements)
}
