use crate::config::{Config, NonFinite, Quantize, Sparsify};
use crate::context::{dead_zone_step, row_len};
use crate::dtype::{bf16_to_f32, f16_to_f32};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Elements;
use crate::topk;

/// What [`select`] works in and what it finds.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// The kept positions, ascending.
    pub(crate) positions: Vec<u32>,
    /// The elements there.
    pub(crate) values: Vec<f32>,
    /// The root mean square of the tensor, if the quantizer needs it.
    pub(crate) rms: f64,
    row: Vec<u32>,
    topk: topk::Memory,
}

/// The elements as finite `f32`, in `memory` if they are not already.
pub(crate) fn finite<'a>(
    elements: Elements<'a>,
    non_finite: NonFinite,
    memory: &'a mut Vec<f32>,
) -> Result<&'a [f32]> {
    memory.clear();
    match elements {
        Elements::F32(data) if first_non_finite(data).is_none() => return Ok(data),
        Elements::F32(data) => memory.extend_from_slice(data),
        Elements::F16(bits) => memory.extend(bits.iter().map(|&bits| f16_to_f32(bits))),
        Elements::Bf16(bits) => memory.extend(bits.iter().map(|&bits| bf16_to_f32(bits))),
    }
    match (first_non_finite(memory), non_finite) {
        (None, _) => {}
        (Some(index), NonFinite::Refuse) => {
            return Err(Error::new(
                ErrorKind::NonFinite,
                format!(
                    "element {index} is {}, but only finite elements can be quantized",
                    memory[index]
                ),
            ));
        }
        (Some(_), NonFinite::Saturate) => {
            for x in memory.iter_mut() {
                *x = if x.is_nan() {
                    0.0
                } else {
                    x.clamp(-f32::MAX, f32::MAX)
                };
            }
        }
    }
    Ok(memory)
}

fn first_non_finite(data: &[f32]) -> Option<usize> {
    let all_finite = |block: &[f32]| block.iter().fold(true, |all, x| all & x.is_finite());
    if data.chunks(1024).all(all_finite) {
        return None;
    }
    data.iter().position(|x| !x.is_finite())
}

/// Finds the elements to keep of a finite tensor of `shape`; before a dead
/// zone, all that may lie outside it.
pub(crate) fn select(data: &[f32], shape: &[usize], config: &Config, found: &mut Selection) {
    found.rms = 0.0;
    let mut least = 0;
    if let Quantize::DeadZone { step } = config.quantize {
        found.rms = root_mean_square(data);
        // A little below 5/8, so that rounding cannot drop too much.
        least = (0.62 * dead_zone_step(step, found.rms)).to_bits();
        if found.rms == 0.0 {
            least = u32::MAX;
        }
    }
    let (positions, memory) = (&mut found.positions, &mut found.topk);
    match config.sparsify {
        Sparsify::None => topk::at_least(data, least, positions),
        Sparsify::Threshold(t) => topk::at_least(data, least.max(t.to_bits()), positions),
        Sparsify::TopK(keep) => {
            topk::largest(data, kept_count(keep, data.len()), positions, memory);
        }
        Sparsify::RowTopK(keep) => {
            positions.clear();
            let row_len = row_len(shape).max(1);
            for (r, row) in data.chunks(row_len).enumerate() {
                topk::largest(row, kept_count(keep, row.len()), &mut found.row, memory);
                let start = (r * row_len) as u32;
                positions.extend(found.row.iter().map(|p| start + p));
            }
        }
    }
    found.values.clear();
    found
        .values
        .extend(positions.iter().map(|&p| data[p as usize]));
}

/// Equation (10) solved for K: the number of elements to keep of `elements`.
fn kept_count(keep: f64, elements: usize) -> usize {
    let rounded = (keep * elements as f64).round() as usize;
    rounded.max(1).min(elements)
}

/// Summed in eight lanes, element i in lane i mod 8, and those in order.
fn root_mean_square(data: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let (blocks, rest) = data.as_chunks::<8>();
    for block in blocks {
        for (sum, &x) in sums.iter_mut().zip(block) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x) * f64::from(x);
    }
    let total: f64 = sums.iter().sum();
    (total / data.len().max(1) as f64).sqrt()
}
