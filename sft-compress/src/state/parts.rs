//! The samples of a message, in parts for the threads: to indices and back.

use std::cell::Cell;
use std::ops::Range;

use super::SampleId;
use super::rows::RowCache;
use super::samples::SampleMemory;
use super::sizes::{Sizes, times};
use crate::coding::adaptive::Coder;
use crate::error::{Error, ErrorKind, Result};
use crate::parallel;
use crate::simd::{self, Level, MAX_INDEX};
use crate::tensor::Tensor;
use crate::transform::{Basis, Known, Models, Row, Work};

/// The index that a sample had is kept while the coefficient is within so many steps of it.
const HYSTERESIS: f32 = 0.8;
/// The same of a row of another sample: what it says of this one is less.
const ROW_HYSTERESIS: f32 = 0.6;

/// Some samples of a message, and what they are transformed in.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) samples: Range<usize>,
    pub(super) work: Work,
    /// Of each row, `[n, S]`.
    pub(super) rows: Vec<Row>,
    /// `[n, S, K]`
    pub(super) indices: Vec<i32>,
    /// What they are expected to be, 0 without a reference; empty where nothing has one.
    pub(super) references: Vec<i32>,
    /// Whether a sample builds on what it was.
    pub(super) has_reference: Vec<bool>,
    /// Indices that are not what is expected.
    pub(super) kept: usize,
    /// All bits of the magnitudes of indices.
    bits: u32,
    /// Whether all elements are finite.
    is_finite: bool,
}

thread_local! {
    static PARTS: Cell<Vec<Part>> = const { Cell::new(Vec::new()) };
}

/// Lends what messages of this thread are made in: of many codecs none has its own. It stays as large as the
/// largest of them needed it.
pub(super) fn with<T>(work: impl FnOnce(&mut Vec<Part>) -> T) -> T {
    let mut parts = PARTS.take();
    let done = work(&mut parts);
    PARTS.set(parts);
    done
}

/// Gives each thread its samples; one has them all where rows name those before.
pub(super) fn divide(parts: &mut Vec<Part>, sizes: &Sizes, cache: &RowCache) {
    let threads = if cache.is_off() {
        parallel::threads()
    } else {
        1
    };
    let count = threads.clamp(1, sizes.samples());
    parts.resize_with(count, Part::default);
    let bound = |part: usize| part * sizes.samples() / count;
    for (number, part) in parts.iter_mut().enumerate() {
        part.samples = bound(number)..bound(number + 1);
        // Of another basis.
        part.work.coefficients.clear();
        let rows = sizes.rows(part.samples.clone()).len();
        part.rows.clear();
        part.rows.resize(rows, Row::default());
        part.references.clear();
        if !cache.is_off() {
            part.references.resize(rows * sizes.channels, 0);
        }
        part.has_reference.clear();
        part.has_reference.resize(part.samples.len(), false);
    }
}

/// Finds what samples were; none if none of them is remembered, else the checksum of all.
pub(super) fn find(
    basis: &Basis,
    memory: &SampleMemory,
    parts: &mut [Part],
    sizes: &Sizes,
    samples: &[SampleId],
) -> Result<Option<u32>> {
    let known = |(at, &sample)| memory.checksum(sample, sizes.indices(at));
    let known: Vec<Option<u32>> = samples.iter().enumerate().map(known).collect();
    if memory.is_off() || known.iter().all(Option::is_none) {
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

/// Gives rows their steps, for a tensor of this root mean square.
pub(super) fn scale_rows(basis: &Basis, parts: &mut [Part], sizes: &Sizes, rms: f32, data: &[f32]) {
    for part in parts {
        let data = &data[times(&sizes.rows(part.samples.clone()), sizes.width)];
        basis.scale_rows(data, rms, &mut part.rows);
    }
}

/// Makes indices of samples.
pub(super) fn transform(
    basis: &Basis,
    parts: &mut [Part],
    cache: &mut RowCache,
    sizes: &Sizes,
    scale: f32,
    data: &[f32],
) -> Result<()> {
    if let ([part], false) = (&mut *parts, cache.is_off()) {
        return part.transform(basis, Some(cache), sizes, scale, data);
    }
    let mut done: Vec<_> = parts.iter_mut().map(|part| (part, Ok(()))).collect();
    parallel::for_each(&mut done, |_, (part, done)| {
        *done = part.transform(basis, None, sizes, scale, data);
    });
    done.into_iter().try_for_each(|(_, done)| done)
}

/// The largest coefficient in steps.
pub(super) fn largest(
    basis: &Basis,
    parts: &mut [Part],
    sizes: &Sizes,
    scale: f32,
    data: &[f32],
) -> f32 {
    let mut largest = 0.0;
    for part in parts {
        let start = sizes.rows(part.samples.clone()).start * sizes.width;
        for rows in sizes.each(part.samples.clone()) {
            let sample = &data[start..][times(&rows, sizes.width)];
            let of_rows = &part.rows[rows];
            basis.forward(sample, of_rows, &mut part.work);
            largest = f32::max(largest, basis.largest(&part.work, of_rows, scale));
        }
    }
    largest
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
    /// Reads the references of those samples that have one.
    pub(super) fn read_references(
        &mut self,
        basis: &Basis,
        memory: &SampleMemory,
        sizes: &Sizes,
        samples: &[SampleId],
    ) -> Result<()> {
        self.references.resize(self.rows.len() * sizes.channels, 0);
        let each = self.samples.clone().zip(sizes.each(self.samples.clone()));
        for ((sample, rows), has) in each.zip(&self.has_reference) {
            if *has {
                let reference = &mut self.references[times(&rows, sizes.channels)];
                memory.read(basis, samples[sample], reference, &mut self.rows[rows])?;
            }
        }
        Ok(())
    }

    fn transform(
        &mut self,
        basis: &Basis,
        mut cache: Option<&mut RowCache>,
        sizes: &Sizes,
        scale: f32,
        data: &[f32],
    ) -> Result<()> {
        let data = &data[times(&sizes.rows(self.samples.clone()), sizes.width)];
        let (level, each) = (Level::best(), sizes.each(self.samples.clone()));
        (self.kept, self.bits, self.is_finite) = (0, 0, true);
        // Every index is written.
        self.indices.resize(self.rows.len() * sizes.channels, 0);
        for (rows, &has_reference) in each.zip(&self.has_reference) {
            let sample = &data[times(&rows, sizes.width)];
            let planes = times(&rows, sizes.channels);
            let indices = &mut self.indices[planes.clone()];
            let references = self.references.get_mut(planes).unwrap_or_default();
            let rows = &mut self.rows[rows];
            // What is asked of a sample is asked while it is in the cache.
            self.is_finite &= f32::from_bits(simd::span(level, sample).1).is_finite();
            if !has_reference {
                basis.find_sinks(sample, rows);
            }
            basis.forward(sample, rows, &mut self.work);
            if scale > 0.0 {
                basis.quantize(&self.work, rows, scale, indices);
            } else {
                indices.fill(0);
            }
            let steps = match &mut cache {
                Some(cache) if !has_reference => {
                    let steps = basis.in_steps(&self.work, rows);
                    for (row, found) in rows.iter_mut().zip(cache.search(&steps)) {
                        row.reference = found;
                    }
                    cache.predict(rows, references)?;
                    ROW_HYSTERESIS
                }
                _ => HYSTERESIS,
            };
            let (some, bits) = simd::survey(level, indices);
            self.bits |= bits;
            if !has_reference && rows.iter().all(|row| row.reference.is_none()) {
                self.kept += some;
            } else {
                let each = indices.chunks_exact_mut(sizes.channels);
                let each = each
                    .zip(references.chunks_exact(sizes.channels))
                    .zip(&*rows);
                for (number, ((indices, reference), &row)) in each.enumerate() {
                    if has_reference || row.reference.is_some() {
                        let place = (number, row);
                        basis.stay(&self.work, place, scale, steps, reference, indices);
                    }
                    let each = indices.iter().zip(reference);
                    self.kept += each.map(|(a, b)| usize::from(a != b)).sum::<usize>();
                }
            }
            if let Some(cache) = &mut cache {
                cache.push(indices);
            }
        }
        Ok(())
    }

    /// Codes the samples' indices, as differences where they have a reference.
    pub(super) fn code<C: Coder>(
        &mut self,
        basis: &Basis,
        cache: &mut RowCache,
        sizes: &Sizes,
        models: &mut Models,
        coder: &mut C,
    ) -> Result<()> {
        let each = sizes.each(self.samples.clone());
        for (rows, &has) in each.zip(&self.has_reference) {
            let planes = times(&rows, sizes.channels);
            let before = rows.start;
            let indices = &mut self.indices[planes.clone()];
            let rows = &mut self.rows[rows];
            let Some(references) = self.references.get_mut(planes) else {
                models.code(coder, basis, indices, rows, Known::Nothing)?;
                continue;
            };
            if C::WRITES {
                subtract(indices, references);
            }
            let known = if has {
                Known::Sample(references)
            } else {
                Known::Rows(cache.known(before))
            };
            models.code(coder, basis, indices, rows, known)?;
            if !C::WRITES && !has {
                cache.predict(rows, references)?;
            }
            let mut in_range = true;
            for (index, reference) in indices.iter_mut().zip(&*references) {
                *index = index.saturating_add(*reference);
                in_range &= index.unsigned_abs() < MAX_INDEX.unsigned_abs();
            }
            if !in_range {
                return Err(Error::corrupt("an index out of range"));
            }
            if !C::WRITES {
                cache.push(indices);
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
    sizes: &Sizes,
    scale: f32,
    out: &mut Tensor,
) {
    let largest = out.dtype.largest();
    // Every element is written.
    out.data.resize(sizes.all_rows() * sizes.width, 0.0);
    let mut rest = &mut out.data[..];
    let mut each = Vec::with_capacity(parts.len());
    for part in parts {
        let (samples, after) = rest.split_at_mut(part.rows.len() * sizes.width);
        each.push((part, samples));
        rest = after;
    }
    parallel::for_each(&mut each, |_, (part, samples)| {
        for rows in sizes.each(part.samples.clone()) {
            let sample = &mut samples[times(&rows, sizes.width)];
            let indices = &part.indices[times(&rows, sizes.channels)];
            basis.inverse(indices, &part.rows[rows], scale, &mut part.work, sample);
            simd::limit(Level::best(), sample, largest);
        }
    });
}

/// Remembers what samples became.
pub(super) fn remember(
    basis: &Basis,
    memory: &mut SampleMemory,
    parts: &mut [Part],
    sizes: &Sizes,
    samples: &[SampleId],
) -> Result<()> {
    if memory.is_off() || samples.is_empty() {
        return Ok(());
    }
    for part in parts {
        let each = samples[part.samples.clone()].iter();
        for (&sample, rows) in each.zip(sizes.each(part.samples.clone())) {
            let indices = &mut part.indices[times(&rows, sizes.channels)];
            memory.keep(basis, sample, indices, &mut part.rows[rows])?;
        }
    }
    Ok(())
}
