use crate::bytes::{ByteReader, put_varint};
use crate::context::row_len;
use crate::error::{Error, Result};
use crate::quantize::{Levels, Noise, Range};
use crate::ranges::{Ranges, Span};
use crate::tensor::element_count;
use crate::{entropy, mask};

/// Appends the elements at the `kept` positions, ascending, with their `values`
/// of a tensor of `shape`; `noise` decides stochastic roundings, none the nearest.
pub(crate) fn write(
    out: &mut Vec<u8>,
    shape: &[usize],
    kept: &[u32],
    values: &[f32],
    levels: Levels,
    noise: Option<Noise>,
) {
    put_varint(out, kept.len() as u64);
    let Some(span) = Span::of(values) else {
        return;
    };
    let elements = shape.iter().product();
    span.write(out);
    mask::write(out, kept, elements);
    out.extend(sign_bytes(values));
    if span.lo < span.hi {
        let ranges = match levels.range {
            Range::Tensor => Ranges::shared(span, elements),
            Range::Row => Ranges::write(out, kept, values, row_len(shape), span),
        };
        let symbols = quantize(kept, values, &ranges, levels, noise);
        entropy::write(out, &symbols, levels.count);
    }
}

/// Reads the elements of a tensor of `shape`.
pub(crate) fn read(body: &mut ByteReader<'_>, shape: &[usize], levels: Levels) -> Result<Vec<f32>> {
    let elements = element_count(shape)?;
    let count = read_count(body, elements)?;
    if count == 0 {
        return Ok(vec![0.0; elements]);
    }
    let span = Span::read(body)?;
    let kept = mask::read(body, count, elements)?;
    let signs = read_signs(body, count)?;
    let (ranges, symbols) = if span.lo < span.hi {
        let ranges = match levels.range {
            Range::Tensor => Ranges::shared(span, elements),
            Range::Row => Ranges::read(body, &kept, row_len(shape), span)?,
        };
        (ranges, entropy::read(body, count, levels.count)?)
    } else {
        (Ranges::shared(span, elements), vec![0; count])
    };
    Ok(dequantize(
        elements, &kept, &ranges, levels, &symbols, signs,
    ))
}

/// Reads the number of kept elements, each of which has a sign bit.
pub(crate) fn read_count(body: &mut ByteReader<'_>, elements: usize) -> Result<usize> {
    let max_kept = elements.min(body.remaining().saturating_mul(8));
    body.varint_up_to(max_kept, "the number of kept elements")
}

/// One bit per value, 1 for negative.
fn sign_bytes(values: &[f32]) -> impl Iterator<Item = u8> {
    values.chunks(8).map(|chunk| {
        chunk.iter().rev().fold(0, |byte, value| {
            byte << 1 | u8::from(value.is_sign_negative())
        })
    })
}

fn read_signs<'a>(body: &mut ByteReader<'a>, count: usize) -> Result<&'a [u8]> {
    let signs = body.take(count.div_ceil(8))?;
    match signs.last() {
        Some(&last) if !count.is_multiple_of(8) && last >> (count % 8) != 0 => {
            Err(Error::corrupt("the padding of the signs is not zero"))
        }
        _ => Ok(signs),
    }
}

/// The level of each of the `values` at the `kept` positions.
fn quantize(
    kept: &[u32],
    values: &[f32],
    ranges: &Ranges,
    levels: Levels,
    noise: Option<Noise>,
) -> Vec<u8> {
    let mut symbols = Vec::with_capacity(kept.len());
    for (row, scale) in ranges.scales(kept, levels.count) {
        let row = kept[row.clone()].iter().zip(&values[row]);
        symbols.extend(row.map(|(&position, x)| {
            let uniform = noise.map_or(0.5, |noise| noise.uniform(position));
            scale.quantize(x.abs(), uniform)
        }));
    }
    symbols
}

/// The tensor with the kept elements at their levels and zero elsewhere.
fn dequantize(
    elements: usize,
    kept: &[u32],
    ranges: &Ranges,
    levels: Levels,
    symbols: &[u8],
    signs: &[u8],
) -> Vec<f32> {
    let mut data = vec![0.0; elements];
    for (row, scale) in ranges.scales(kept, levels.count) {
        for index in row {
            let negative = signs[index / 8] >> (index % 8) & 1;
            let magnitude = scale.point(symbols[index]);
            data[kept[index] as usize] =
                f32::from_bits(magnitude.to_bits() | u32::from(negative) << 31);
        }
    }
    data
}
