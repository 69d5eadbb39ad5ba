//! Which elements are kept, as finite numbers.

/// Exact selection of the largest magnitudes.
mod topk;

use crate::config::{Config, Energy, MOST_CHANGED, NonFinite, Quantize, Sparsify};
use crate::error::{Error, ErrorKind, Result};
use crate::parallel::{self, PART};
use crate::simd::{self, Bulk, Candidates, Level};
use crate::tensor::{Elements, row_len};
use crate::value::points::LEAST_STEP;
use crate::value::profile::{DEAD_BELOW, Profile};
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
    /// The step of the quantizer, if it has one.
    pub(crate) step: f32,
    /// The largest magnitude, if there is a step.
    pub(crate) largest: f32,
    profile: Profile,
    parts: Vec<Bulk>,
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
        (self.step, self.all, self.span) = (1.0, false, None);
        self.kept.clear();
        if let Quantize::DeadZone { .. } | Quantize::Unbiased { .. } | Quantize::Error { .. } =
            config.quantize
        {
            self.profile.fill(data);
            let limit = match config.quantize {
                Quantize::Error {
                    of: Energy::All, ..
                } => f32::MAX,
                _ => self.profile.bulk(),
            };
            let bulk = bulk(data, limit, &mut self.parts);
            if bulk.largest >= f32::INFINITY.to_bits() {
                return false;
            }
            if bulk.largest == 0 {
                return true;
            }
            self.step = self.step_of(config.quantize, limit, &bulk, data.len());
            self.largest = f32::from_bits(bulk.largest);
            if !matches!(config.quantize, Quantize::Unbiased { .. }) {
                // A little below 5/8, so that rounding cannot drop too much.
                least = (0.62 * self.step).to_bits();
            }
            self.all = config.sparsify == Sparsify::None && self.step > LEAST_STEP;
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

    /// Δ, positive and finite; the largest element is outside of a dead zone.
    fn step_of(&self, quantize: Quantize, limit: f32, bulk: &Bulk, elements: usize) -> f32 {
        let largest = f32::from_bits(bulk.largest);
        let for_error = |error| {
            self.profile
                .step(error * bulk.power / elements as f64, limit)
        };
        // No square of a finite number overflows a double.
        let scaled = |step: f64| (step * (bulk.power / bulk.count as f64).sqrt()) as f32;
        // What a sample does not show is small in number, and cannot cost much.
        let unseen = largest / 16.0;
        let step = match quantize {
            Quantize::Error { relative_mse, .. } => for_error(relative_mse).unwrap_or(unseen),
            Quantize::Unbiased { step } if bulk.power > 0.0 => scaled(step),
            Quantize::DeadZone { step } if bulk.power > 0.0 => {
                let scaled = scaled(step);
                // Below this no zone can drop so much.
                let safe = step * DEAD_BELOW < MOST_CHANGED.sqrt();
                let most = (!safe).then(|| for_error(MOST_CHANGED));
                most.flatten().map_or(scaled, |most| scaled.min(most))
            }
            _ => unseen,
        };
        // The inverse of a step is a normal number, and an index a whole one of single precision.
        let most = match quantize {
            Quantize::Unbiased { .. } => f32::MAX,
            _ => 1.5 * largest,
        };
        let most = most.min(2.0_f32.powi(126));
        step.clamp(largest / (1 << 24) as f32, most)
            .max(f32::from_bits(1))
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

/// The bulk of a tensor: that of each part, added in order.
fn bulk(data: &[f32], limit: f32, parts: &mut Vec<Bulk>) -> Bulk {
    parts.resize(data.len().div_ceil(PART), Bulk::default());
    parallel::for_each(parts, |number, bulk| {
        let part = &data[number * PART..data.len().min((number + 1) * PART)];
        *bulk = simd::bulk(Level::best(), part, limit);
    });
    let whole = |sum: Bulk, part: &Bulk| Bulk {
        power: sum.power + part.power,
        count: sum.count + part.count,
        largest: sum.largest.max(part.largest),
    };
    parts.iter().fold(Bulk::default(), whole)
}

/// Equation (10) solved for K: the number of elements to keep of `elements`.
fn kept_count(keep: f64, elements: usize) -> usize {
    let rounded = (keep * elements as f64).round() as usize;
    rounded.max(1).min(elements)
}
