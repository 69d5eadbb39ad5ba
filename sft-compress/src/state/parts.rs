//! The samples of a message, in parts for the threads: to indices and back.

use std::ops::Range;

use super::SampleId;
use super::samples::SampleMemory;
use crate::coding::adaptive::Coder;
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::simd::{self, Level, MAX_INDEX};
use crate::tensor::{Tensor, element_count};
use crate::transform::{Basis, Models, Work};

/// The index that a sample had is kept while the coefficient is within so many steps of it.
const HYSTERESIS: f32 = 0.8;

/// Some samples of a message, and what they are transformed in.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) samples: Range<usize>,
    pub(super) work: Work,
    /// `[n, S, K]`
    pub(super) indices: Vec<i32>,
    /// Those that the samples had, where they had some.
    pub(super) references: Vec<i32>,
    pub(super) has_reference: Vec<bool>,
    /// Indices that are not zero, or that differ from those.
    pub(super) kept: usize,
    /// All bits of the magnitudes of indices.
    bits: u32,
    /// Whether all elements are finite.
    is_finite: bool,
}

/// The sizes of a message.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) samples: usize,
    /// Elements of a sample.
    pub(super) elements: usize,
    /// Indices of a sample.
    pub(super) indices: usize,
}

impl Sizes {
    pub(super) fn of(basis: &Basis, shape: &[usize]) -> Result<Self> {
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
        basis.tokens().check(tokens)?;
        Ok(Self {
            samples: shape[..shape.len() - 2].iter().product(),
            elements: tokens * width,
            indices: tokens * basis.channels(),
        })
    }
}

/// Gives each thread its samples.
pub(super) fn divide(parts: &mut Vec<Part>, sizes: Sizes) {
    let count = parallel::threads().clamp(1, sizes.samples);
    parts.resize_with(count, Part::default);
    let bound = |part: usize| part * sizes.samples / count;
    for (number, part) in parts.iter_mut().enumerate() {
        part.samples = bound(number)..bound(number + 1);
    }
}

/// Finds what samples were; none if none of them is remembered, else the checksum of all.
pub(super) fn find(
    basis: &Basis,
    memory: &SampleMemory,
    parts: &mut [Part],
    sizes: Sizes,
    samples: &[SampleId],
) -> Result<Option<u32>> {
    let known: Vec<Option<u32>> = samples
        .iter()
        .map(|&sample| memory.checksum(sample, sizes.indices))
        .collect();
    if memory.is_off() || known.iter().all(Option::is_none) {
        clear_references(parts);
        return Ok(None);
    }
    for part in parts {
        part.has_reference = known[part.samples.clone()]
            .iter()
            .map(Option::is_some)
            .collect();
        part.read_references(basis, memory, sizes, samples)?;
    }
    Ok(Some(combined(known.into_iter().flatten())))
}

pub(super) fn clear_references(parts: &mut [Part]) {
    for part in parts {
        part.references.clear();
        part.has_reference.clear();
        part.has_reference.resize(part.samples.len(), false);
    }
}

/// The checksum of checksums.
pub(super) fn combined(checksums: impl Iterator<Item = u32>) -> u32 {
    let bytes: Vec<u8> = checksums.flat_map(u32::to_le_bytes).collect();
    crc32fast::hash(&bytes)
}

/// Appends flags, eight to a byte, the first the lowest.
pub(super) fn put_flags<'a>(out: &mut Vec<u8>, flags: impl Iterator<Item = &'a bool>) {
    let flags: Vec<bool> = flags.copied().collect();
    let byte = |flags: &[bool]| {
        let bits = flags.iter().enumerate();
        bits.fold(0, |byte, (at, &flag)| byte | u8::from(flag) << at)
    };
    out.extend(flags.chunks(8).map(byte));
}

pub(super) fn rms(data: &[f32]) -> f32 {
    let energy: f64 = data.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    ((energy / data.len() as f64).sqrt() as f32).max(f32::from(energy > 0.0) * f32::MIN_POSITIVE)
}

/// Makes indices of samples.
pub(super) fn transform(basis: &Basis, parts: &mut [Part], sizes: Sizes, scale: f32, data: &[f32]) {
    parallel::for_each(parts, |_, part| {
        let Part {
            samples,
            work,
            indices,
            references,
            has_reference,
            kept,
            bits,
            is_finite,
        } = part;
        let level = Level::best();
        indices.resize(samples.len() * sizes.indices, 0);
        (*kept, *bits, *is_finite) = (0, 0, true);
        let data = &data[samples.start * sizes.elements..][..samples.len() * sizes.elements];
        let each = data
            .chunks_exact(sizes.elements)
            .zip(indices.chunks_exact_mut(sizes.indices));
        for (at, (sample, indices)) in each.enumerate() {
            // What is asked of a sample is asked while it is in the cache.
            *is_finite &= f32::from_bits(simd::span(level, sample).1).is_finite();
            basis.forward(sample, work);
            if scale > 0.0 {
                basis.quantize(work, scale, indices);
            } else {
                indices.fill(0);
            }
            let (some, sample_bits) = simd::survey(level, indices);
            *bits |= sample_bits;
            if has_reference[at] {
                let reference = &references[at * sizes.indices..][..sizes.indices];
                basis.stay(work, scale, HYSTERESIS, reference, indices);
                let differs = |(a, b)| usize::from(a != b);
                *kept += indices.iter().zip(reference).map(differs).sum::<usize>();
            } else {
                *kept += some;
            }
        }
    });
}

/// The largest coefficient in steps.
pub(super) fn largest(
    basis: &Basis,
    parts: &mut [Part],
    sizes: Sizes,
    scale: f32,
    data: &[f32],
) -> f32 {
    let Some(Part { work, .. }) = parts.first_mut() else {
        return 0.0;
    };
    let samples = data.chunks_exact(sizes.elements);
    samples.fold(0.0, |largest, sample| {
        basis.forward(sample, work);
        largest.max(basis.largest(work, scale))
    })
}

/// Fails where an element is not finite, or a coefficient beyond what an index can tell.
pub(super) fn check(parts: &[Part], data: &[f32]) -> Result<()> {
    if parts.iter().any(|part| !part.is_finite)
        && let Some(at) = data.iter().position(|x| !x.is_finite())
    {
        let message = format!("element {at} is {}, but must be finite", data[at]);
        return Err(Error::new(ErrorKind::NonFinite, message));
    }
    let most = MAX_INDEX.unsigned_abs();
    if parts.iter().all(|part| part.bits < most) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "tensor must lie within {MAX_INDEX} steps of what its basis was learnt from, got more"
    )))
}

impl Part {
    /// Reads the references of those samples that have one, and zeros for the others.
    pub(super) fn read_references(
        &mut self,
        basis: &Basis,
        memory: &SampleMemory,
        sizes: Sizes,
        samples: &[SampleId],
    ) -> Result<()> {
        self.references.clear();
        self.references
            .resize(self.samples.len() * sizes.indices, 0);
        let each = self.references.chunks_exact_mut(sizes.indices);
        for ((at, reference), has) in self.samples.clone().zip(each).zip(&self.has_reference) {
            if *has {
                memory.read(basis, samples[at], reference)?;
            }
        }
        Ok(())
    }

    /// Codes the samples' indices, as differences where they have a reference.
    pub(super) fn code<C: Coder>(
        &mut self,
        basis: &Basis,
        sizes: Sizes,
        models: &mut Models,
        coder: &mut C,
    ) -> Result<()> {
        let each = self.indices.chunks_exact_mut(sizes.indices);
        for (at, (indices, &has)) in each.zip(&self.has_reference).enumerate() {
            if !has {
                models.code(coder, basis, indices, None)?;
                continue;
            }
            let reference = &self.references[at * sizes.indices..][..sizes.indices];
            if C::WRITES {
                subtract(indices, reference);
            }
            models.code(coder, basis, indices, Some(reference))?;
            let mut in_range = true;
            for (index, before) in indices.iter_mut().zip(reference) {
                *index = index.saturating_add(*before);
                in_range &= index.unsigned_abs() < MAX_INDEX.unsigned_abs();
            }
            if !in_range {
                return Err(Error::corrupt("an index out of range"));
            }
        }
        Ok(())
    }
}

fn subtract(indices: &mut [i32], reference: &[i32]) {
    for (index, before) in indices.iter_mut().zip(reference) {
        *index -= before;
    }
}

/// Makes samples of indices, within what the type of `out` can hold.
pub(super) fn reconstruct(
    basis: &Basis,
    parts: &mut [Part],
    sizes: Sizes,
    scale: f32,
    out: &mut Tensor,
) {
    let largest = out.dtype.largest();
    // Every element is written.
    out.data.resize(sizes.samples * sizes.elements, 0.0);
    let mut rest = &mut out.data[..];
    let mut each = Vec::with_capacity(parts.len());
    for part in parts {
        let (samples, after) = rest.split_at_mut(part.samples.len() * sizes.elements);
        each.push((part, samples));
        rest = after;
    }
    parallel::for_each(&mut each, |_, (part, samples)| {
        let indices = part.indices.chunks_exact(sizes.indices);
        for (indices, sample) in indices.zip(samples.chunks_exact_mut(sizes.elements)) {
            basis.inverse(indices, scale, &mut part.work, sample);
            simd::limit(Level::best(), sample, largest);
        }
    });
}

/// Remembers what samples became.
pub(super) fn remember(
    basis: &Basis,
    memory: &mut SampleMemory,
    parts: &mut [Part],
    samples: &[SampleId],
) -> Result<()> {
    if memory.is_off() || samples.is_empty() {
        return Ok(());
    }
    for part in parts {
        let len = part.indices.len() / part.samples.len().max(1);
        let each = part.indices.chunks_exact_mut(len);
        for (&sample, indices) in samples[part.samples.clone()].iter().zip(each) {
            memory.keep(basis, sample, indices)?;
        }
    }
    Ok(())
}
