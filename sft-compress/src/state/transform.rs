use std::ops::Range;
use std::sync::Arc;

use super::samples::SampleMemory;
use super::{Compressor, Context, Decompressor, SampleId, Stateful};
use crate::coding::adaptive::{Reader, Writer};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Header, Method, Shape};
use crate::parallel;
use crate::simd::MAX_INDEX;
use crate::tensor::{Tensor, TensorView, element_count};
use crate::transform::{Basis, Models, Work};

/// The index that a sample had is kept while the coefficient is within so many steps of it.
const HYSTERESIS: f32 = 0.8;

/// The sending side of the transform codec: samples as coefficients of a [`Basis`].
///
/// For tensors `[…, S, D]` whose rows are tokens that lie as the basis says. With a
/// [memory](Self::with_memory) each sample that comes again is coded by what it was last time.
#[derive(Clone, Debug)]
pub struct TransformEncoder {
    basis: Arc<Basis>,
    memory: SampleMemory,
    parts: Vec<Part>,
}

/// The receiving side of a [`TransformEncoder`] with the same basis and memory.
#[derive(Clone, Debug)]
pub struct TransformDecoder {
    basis: Arc<Basis>,
    memory: SampleMemory,
    parts: Vec<Part>,
}

/// Some samples of a message, and what they are transformed in.
#[derive(Clone, Debug, Default)]
struct Part {
    samples: Range<usize>,
    work: Work,
    /// `[n, S, K]`
    indices: Vec<i32>,
    /// Those that the samples had, where they had some.
    references: Vec<i32>,
    has_reference: Vec<bool>,
}

/// The sizes of a message.
#[derive(Clone, Copy)]
struct Sizes {
    samples: usize,
    /// Elements of a sample.
    elements: usize,
    /// Indices of a sample.
    indices: usize,
}

macro_rules! common {
    ($side:ident) => {
        impl $side {
            /// One without memory of samples.
            pub fn new(basis: Arc<Basis>) -> Self {
                Self {
                    basis,
                    memory: SampleMemory::default(),
                    parts: Vec::new(),
                }
            }

            /// The same with a memory of so many bytes for samples that have
            /// [numbers](Context::samples), about a byte for forty elements; the other side must have
            /// the same. Of a basis that is relative to each tensor nothing is remembered.
            #[must_use]
            pub fn with_memory(self, limit_bytes: usize) -> Self {
                let limit_bytes = if self.basis.is_relative() {
                    0
                } else {
                    limit_bytes
                };
                let memory = SampleMemory::new(limit_bytes);
                Self { memory, ..self }
            }

            /// The basis.
            pub fn basis(&self) -> &Arc<Basis> {
                &self.basis
            }

            /// Bytes of samples in memory.
            pub fn memory_bytes(&self) -> usize {
                self.memory.used_bytes()
            }

            /// Samples that were forgotten for want of memory.
            pub fn evicted(&self) -> u64 {
                self.memory.evicted()
            }
        }

        impl Stateful for $side {
            /// Forgets the samples, not the basis.
            fn reset(&mut self) {
                self.memory.clear();
            }

            /// The name of the basis and the samples; nothing without any.
            fn save(&self) -> Result<Vec<u8>> {
                if self.memory.used_bytes() == 0 {
                    return Ok(Vec::new());
                }
                let mut state = self.basis.name().to_le_bytes().to_vec();
                self.memory.save(&mut state);
                Ok(state)
            }

            fn restore(&mut self, state: &[u8]) -> Result<()> {
                if state.is_empty() {
                    self.memory.clear();
                    return Ok(());
                }
                let mut state = ByteReader::new(state);
                let (name, ours) = (state.u32()?, self.basis.name());
                if name != ours {
                    return Err(Error::corrupt(format!(
                        "samples of the basis {name:08x}, this is {ours:08x}"
                    )));
                }
                let memory = self.memory.restored(&self.basis, &mut state)?;
                state.finish()?;
                self.memory = memory;
                Ok(())
            }
        }
    };
}

common!(TransformEncoder);
common!(TransformDecoder);

impl Compressor for TransformEncoder {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()> {
        message.clear();
        let written = self.write(tensor, context, message);
        if written.is_err() {
            message.clear();
        }
        let scale = written?;
        if let Some(decoded) = decoded {
            let sizes = Sizes::of(&self.basis, context.shape)?;
            reconstruct(&self.basis, &mut self.parts, sizes, scale, decoded);
            decoded.shape = context.shape.to_vec();
            decoded.dtype = tensor.elements().dtype();
        }
        remember(
            &self.basis,
            &mut self.memory,
            &mut self.parts,
            context.samples,
        )
    }
}

impl TransformEncoder {
    /// Writes a message, and tells the scale of its steps.
    fn write(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
    ) -> Result<f32> {
        context.check(Some(tensor))?;
        let (basis, sizes) = (&*self.basis, Sizes::of(&self.basis, context.shape)?);
        let data = tensor.elements().to_f32();
        if let Some(at) = data.iter().position(|x| !x.is_finite()) {
            let message = format!("element {at} is {}, but must be finite", data[at]);
            return Err(Error::new(ErrorKind::NonFinite, message));
        }
        let parts = &mut self.parts;
        divide(parts, sizes);
        let remembered = find(basis, &self.memory, parts, sizes, context.samples)?;
        let mut scale = if basis.is_relative() { rms(&data) } else { 1.0 };
        transform(basis, parts, sizes, scale, &data);
        let mut kept = count(parts);
        if kept == 0 && basis.is_relative() && scale > 0.0 {
            // What is not zero does not become zero.
            scale *= largest(basis, parts, sizes, scale, &data);
            transform(basis, parts, sizes, scale, &data);
            kept = count(parts);
        }
        check_range(parts)?;
        format::begin(message);
        let header = Header {
            method: Method::Transform,
            dtype: tensor.elements().dtype(),
            shape: Shape::new(context.shape),
        };
        header.write(message);
        message.extend(basis.name().to_le_bytes());
        put_varint(message, kept as u64);
        if basis.is_relative() {
            message.extend(scale.to_le_bytes());
        }
        match remembered {
            None => message.push(0),
            Some(checksum) => {
                message.push(1);
                put_flags(message, parts.iter().flat_map(|part| &part.has_reference));
                message.extend(checksum.to_le_bytes());
            }
        }
        let (mut models, mut writer) = (Models::new(), Writer::new(message));
        for part in parts {
            part.code(basis, sizes, &mut models, &mut writer)?;
        }
        writer.finish();
        format::seal(message)?;
        Ok(scale)
    }
}

impl Decompressor for TransformDecoder {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        tensor.clear();
        let (dtype, scale, sizes) = self.read(message, context)?;
        reconstruct(&self.basis, &mut self.parts, sizes, scale, tensor);
        tensor.shape = context.shape.to_vec();
        tensor.dtype = dtype;
        remember(
            &self.basis,
            &mut self.memory,
            &mut self.parts,
            context.samples,
        )
    }
}

impl TransformDecoder {
    /// Reads the indices of a message, and tells type, scale and sizes.
    fn read(&mut self, message: &[u8], context: &Context<'_>) -> Result<(Dtype, f32, Sizes)> {
        context.check(None)?;
        let mut body = format::open(message)?;
        let header = Header::read(&mut body)?;
        if header.method != Method::Transform {
            let message = "a frame without a basis, where one with is expected";
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        let shape = header.shape.as_slice();
        if shape != context.shape {
            return Err(Error::new(
                ErrorKind::OtherShape,
                format!(
                    "a tensor of shape {shape:?}, where {:?} is expected",
                    context.shape
                ),
            ));
        }
        let (basis, sizes) = (Arc::clone(&self.basis), Sizes::of(&self.basis, shape)?);
        let (name, ours) = (body.u32()?, basis.name());
        if name != ours {
            let message = format!("the message needs the basis {name:08x}, this is {ours:08x}");
            return Err(Error::new(ErrorKind::LostReference, message));
        }
        let kept = body.varint_up_to(
            sizes.samples * sizes.indices,
            "the number of kept coefficients",
        )?;
        let scale = if basis.is_relative() {
            body.f32()?
        } else {
            1.0
        };
        if !(0.0..=f32::MAX).contains(&scale) {
            return Err(Error::corrupt(format!("steps times {scale}")));
        }
        divide(&mut self.parts, sizes);
        match body.u8()? {
            0 => clear_references(&mut self.parts),
            1 => self.references(&mut body, sizes, context.samples)?,
            kind => return Err(Error::corrupt(format!("a message of kind {kind}"))),
        }
        let mut reader = Reader::new(body.take_rest());
        let mut models = Models::new();
        for part in &mut self.parts {
            part.indices.clear();
            part.indices.resize(part.samples.len() * sizes.indices, 0);
            part.code(&basis, sizes, &mut models, &mut reader)?;
        }
        if !reader.is_at_end() || count(&self.parts) != kept {
            return Err(Error::corrupt("the coefficients do not end with the body"));
        }
        Ok((header.dtype, scale, sizes))
    }

    /// Reads which samples build on what they were, and finds that.
    fn references(
        &mut self,
        body: &mut ByteReader<'_>,
        sizes: Sizes,
        samples: &[SampleId],
    ) -> Result<()> {
        let flags = body.take(sizes.samples.div_ceil(8))?;
        let checksum = body.u32()?;
        let flag = |sample: usize| flags[sample / 8] >> (sample % 8) & 1 == 1;
        let lost = || {
            let message = "the message builds on samples that are not remembered";
            Error::new(ErrorKind::LostReference, message)
        };
        let known = |at: usize| self.memory.checksum(*samples.get(at)?, sizes.indices);
        let wanted = (0..sizes.samples).filter(|&at| flag(at)).map(known);
        let found = wanted.collect::<Option<Vec<u32>>>().ok_or_else(lost)?;
        if combined(found.into_iter()) != checksum {
            return Err(lost());
        }
        for part in &mut self.parts {
            part.has_reference = part.samples.clone().map(flag).collect();
            part.read_references(&self.basis, &self.memory, sizes, samples)?;
        }
        Ok(())
    }
}

impl Sizes {
    fn of(basis: &Basis, shape: &[usize]) -> Result<Self> {
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
fn divide(parts: &mut Vec<Part>, sizes: Sizes) {
    let count = parallel::threads().clamp(1, sizes.samples);
    parts.resize_with(count, Part::default);
    let bound = |part: usize| part * sizes.samples / count;
    for (number, part) in parts.iter_mut().enumerate() {
        part.samples = bound(number)..bound(number + 1);
    }
}

/// Finds what samples were; none if none of them is remembered, else the checksum of all.
fn find(
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

fn clear_references(parts: &mut [Part]) {
    for part in parts {
        part.references.clear();
        part.has_reference.clear();
        part.has_reference.resize(part.samples.len(), false);
    }
}

/// The checksum of checksums.
fn combined(checksums: impl Iterator<Item = u32>) -> u32 {
    let bytes: Vec<u8> = checksums.flat_map(u32::to_le_bytes).collect();
    crc32fast::hash(&bytes)
}

/// Appends flags, eight to a byte, the first the lowest.
fn put_flags<'a>(out: &mut Vec<u8>, flags: impl Iterator<Item = &'a bool>) {
    let flags: Vec<bool> = flags.copied().collect();
    let byte = |flags: &[bool]| {
        let bits = flags.iter().enumerate();
        bits.fold(0, |byte, (at, &flag)| byte | u8::from(flag) << at)
    };
    out.extend(flags.chunks(8).map(byte));
}

fn rms(data: &[f32]) -> f32 {
    let energy: f64 = data.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    ((energy / data.len() as f64).sqrt() as f32).max(f32::from(energy > 0.0) * f32::MIN_POSITIVE)
}

/// Makes indices of samples.
fn transform(basis: &Basis, parts: &mut [Part], sizes: Sizes, scale: f32, data: &[f32]) {
    parallel::for_each(parts, |_, part| {
        let Part {
            samples,
            work,
            indices,
            references,
            has_reference,
        } = part;
        indices.resize(samples.len() * sizes.indices, 0);
        let data = &data[samples.start * sizes.elements..][..samples.len() * sizes.elements];
        let each = data
            .chunks_exact(sizes.elements)
            .zip(indices.chunks_exact_mut(sizes.indices));
        for (at, (sample, indices)) in each.enumerate() {
            basis.forward(sample, work);
            if scale > 0.0 {
                basis.quantize(work, scale, indices);
            } else {
                indices.fill(0);
            }
            if has_reference[at] {
                let reference = &references[at * sizes.indices..][..sizes.indices];
                basis.stay(work, scale, HYSTERESIS, reference, indices);
            }
        }
    });
}

/// The largest coefficient in steps.
fn largest(basis: &Basis, parts: &mut [Part], sizes: Sizes, scale: f32, data: &[f32]) -> f32 {
    let Some(Part { work, .. }) = parts.first_mut() else {
        return 0.0;
    };
    let samples = data.chunks_exact(sizes.elements);
    samples.fold(0.0, |largest, sample| {
        basis.forward(sample, work);
        largest.max(basis.largest(work, scale))
    })
}

/// Fails where a coefficient is beyond what an index can tell.
fn check_range(parts: &[Part]) -> Result<()> {
    let mut indices = parts.iter().flat_map(|part| &part.indices);
    if indices.all(|index| index.unsigned_abs() < MAX_INDEX.unsigned_abs()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "tensor must lie within {MAX_INDEX} steps of what its basis was learnt from, got more"
    )))
}

/// Coefficients that are not zero, or that changed.
fn count(parts: &[Part]) -> usize {
    let changed = |part: &Part| {
        let len = part.indices.len() / part.samples.len().max(1);
        (part
            .indices
            .chunks(len.max(1))
            .zip(&part.has_reference)
            .enumerate())
        .map(|(at, (indices, &has_reference))| {
            if has_reference {
                let reference = &part.references[at * len..];
                indices
                    .iter()
                    .zip(reference)
                    .filter(|(a, b)| a != b)
                    .count()
            } else {
                indices.iter().filter(|&&index| index != 0).count()
            }
        })
        .sum::<usize>()
    };
    parts.iter().map(changed).sum()
}

impl Part {
    /// Reads the references of those samples that have one, and zeros for the others.
    fn read_references(
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
    fn code<C: crate::coding::adaptive::Coder>(
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

/// Makes samples of indices.
fn reconstruct(basis: &Basis, parts: &mut [Part], sizes: Sizes, scale: f32, out: &mut Tensor) {
    out.clear();
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
        }
    });
}

/// Remembers what samples became.
fn remember(
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
