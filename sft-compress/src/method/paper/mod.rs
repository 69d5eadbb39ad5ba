//! Method 1: the paper's, Golomb-coded positions, signs, and entropy-coded levels.

/// Entropy coder of the level indices.
mod entropy;
/// The set of kept positions as Golomb-coded gaps.
mod mask;

use crate::coding::bytes::{ByteReader, put_varint};
use crate::config::Range;
use crate::error::{Error, Result};
use crate::select::Selection;
use crate::simd::{Candidates, Level};
use crate::tensor::{element_count, row_len};
use crate::value::levels::{Spaced, quantize};
use crate::value::ranges::{Ranges, Span};
use crate::value::{Levels, Noise};

/// What [`write`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct EncodeMemory {
    mask: mask::Memory,
    ranges: Ranges,
    indices: Vec<u32>,
    entropy: entropy::Memory,
}

/// Appends the selected elements of a tensor of `shape`; `noise` decides
/// stochastic roundings, none the nearest.
pub(crate) fn write(
    out: &mut Vec<u8>,
    shape: &[usize],
    found: &Selection,
    levels: Levels,
    noise: Option<Noise>,
    memory: &mut EncodeMemory,
) {
    let Candidates { positions, values } = &found.kept;
    put_varint(out, positions.len() as u64);
    let Some(span) = found.span else {
        return;
    };
    let elements = shape.iter().product();
    span.write(out);
    mask::write(out, positions, elements, &mut memory.mask);
    out.extend(sign_bytes(values));
    if span.lo < span.hi {
        memory.quantize(out, shape, found, span, levels, noise);
        entropy::write(out, &memory.indices, levels.count, &mut memory.entropy);
    }
}

impl EncodeMemory {
    /// The index of each kept element; appends the ranges of rows.
    fn quantize(
        &mut self,
        out: &mut Vec<u8>,
        shape: &[usize],
        found: &Selection,
        span: Span,
        levels: Levels,
        noise: Option<Noise>,
    ) {
        let Candidates { positions, values } = &found.kept;
        match levels.range {
            Range::Tensor => self.ranges.share(span, shape.iter().product()),
            Range::Row => self.ranges.write(out, &found.kept, row_len(shape), span),
        }
        self.indices.clear();
        for (row, scale) in self.ranges.scales(positions, levels.count) {
            let (spaced, indices) = (Spaced::Linear(&scale), &mut self.indices);
            let (positions, values) = (&positions[row.clone()], &values[row]);
            quantize(Level::best(), spaced, positions, values, noise, indices);
        }
    }
}

/// What [`read`] works in, kept from one message to the next.
#[derive(Debug, Default)]
pub(crate) struct DecodeMemory {
    kept: Vec<u32>,
    dropped: Vec<u32>,
    ranges: Ranges,
    symbols: Vec<u8>,
    tables: entropy::DecodeTable,
}

/// Reads the elements of a tensor of `shape` into `data`.
pub(crate) fn read(
    body: &mut ByteReader<'_>,
    shape: &[usize],
    levels: Levels,
    data: &mut Vec<f32>,
    memory: &mut DecodeMemory,
) -> Result<()> {
    let elements = element_count(shape)?;
    let count = read_count(body, elements)?;
    data.clear();
    if count == 0 {
        data.resize(elements, 0.0);
        return Ok(());
    }
    let DecodeMemory {
        kept,
        dropped,
        ranges,
        symbols,
        tables,
    } = memory;
    let span = Span::read(body)?;
    mask::read(body, count, elements, kept, dropped)?;
    let signs = read_signs(body, count)?;
    ranges.share(span, elements);
    symbols.clear();
    if span.lo < span.hi {
        if levels.range == Range::Row {
            ranges.read(body, kept, row_len(shape), span)?;
        }
        entropy::read(body, count, levels.count, symbols, tables)?;
    } else {
        symbols.resize(count, 0);
    }
    data.resize(elements, 0.0);
    for (row, scale) in ranges.scales(kept, levels.count) {
        let points: [f32; 256] = std::array::from_fn(|level| scale.point(level as u8));
        for index in row {
            let negative = u32::from(signs[index / 8] >> (index % 8) & 1);
            let magnitude = points[usize::from(symbols[index])];
            data[kept[index] as usize] = f32::from_bits(magnitude.to_bits() | negative << 31);
        }
    }
    Ok(())
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
