use std::sync::Arc;

use super::parts::{self, Part};
use super::rows::RowCache;
use super::samples::SampleMemory;
use super::sizes::Sizes;
use super::{Compressor, Context, Decompressor, SampleId, Stateful};
use crate::coding::adaptive::{Reader, Writer};
use crate::coding::bytes::{ByteReader, put_varint};
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Header, Method, Shape};
use crate::tensor::{Tensor, TensorView};
use crate::transform::{Basis, Models};

/// The sending side of the transform codec: samples as coefficients of a [`Basis`].
///
/// For tensors `[…, S, D]` whose rows are tokens that lie as the basis says. With a
/// [memory](Self::with_memory) each sample that comes again is coded by what it was last time.
#[derive(Clone, Debug)]
pub struct TransformEncoder {
    basis: Arc<Basis>,
    memory: SampleMemory,
    cache: RowCache,
}

/// The receiving side of a [`TransformEncoder`] with the same basis and memory.
#[derive(Clone, Debug)]
pub struct TransformDecoder {
    basis: Arc<Basis>,
    memory: SampleMemory,
    cache: RowCache,
}

macro_rules! common {
    ($side:ident) => {
        impl $side {
            /// One without memory of samples.
            pub fn new(basis: Arc<Basis>) -> Self {
                Self {
                    memory: SampleMemory::default(),
                    cache: RowCache::new(&basis),
                    basis,
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

        impl $side {
            /// Remembers what a message became.
            fn remember(
                &mut self,
                parts: &mut [Part],
                sizes: &Sizes,
                samples: &[SampleId],
            ) -> Result<()> {
                self.cache.commit();
                parts::remember(&self.basis, &mut self.memory, parts, sizes, samples)
            }
        }

        impl Stateful for $side {
            /// Forgets samples and rows, not the basis.
            fn reset(&mut self) {
                self.memory.clear();
                self.cache.clear();
            }

            /// The name of the basis, the samples and the rows; nothing without any.
            fn save(&self) -> Result<Vec<u8>> {
                if self.memory.used_bytes() == 0 && self.cache.is_empty() {
                    return Ok(Vec::new());
                }
                let mut state = self.basis.name().to_le_bytes().to_vec();
                self.memory.save(&mut state);
                self.cache.save(&self.basis, &mut state)?;
                Ok(state)
            }

            fn restore(&mut self, state: &[u8]) -> Result<()> {
                if state.is_empty() {
                    self.reset();
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
                let cache = self.cache.restored(&self.basis, &mut state)?;
                state.finish()?;
                (self.memory, self.cache) = (memory, cache);
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
        parts::with(|parts| {
            let written = self.write(tensor, context, parts, message);
            if written.is_err() {
                message.clear();
                self.cache.undo();
            }
            let (scale, sizes) = written?;
            if let Some(decoded) = decoded {
                decoded.dtype = tensor.elements().dtype();
                parts::reconstruct(&self.basis, parts, &sizes, scale, decoded);
                decoded.shape = context.shape.to_vec();
            }
            self.remember(parts, &sizes, context.samples)
        })
    }
}

impl TransformEncoder {
    /// Writes a message, and tells the scale of its steps and the sizes.
    fn write(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        parts: &mut Vec<Part>,
        message: &mut Vec<u8>,
    ) -> Result<(f32, Sizes)> {
        context.check(Some(tensor))?;
        let (basis, sizes) = (&*self.basis, Sizes::of(&self.basis, context)?);
        let data = tensor.elements().to_f32();
        let cache = &mut self.cache;
        parts::divide(parts, &sizes, cache);
        let remembered = parts::find(basis, &self.memory, parts, &sizes, context.samples)?;
        let cached = (!cache.is_off()).then(|| cache.checksum());
        let mut scale = if basis.is_relative() {
            parts::rms(&data)
        } else {
            1.0
        };
        parts::scale_rows(basis, parts, &sizes, scale, &data);
        parts::transform(basis, parts, cache, &sizes, scale, &data)?;
        parts::check(parts, &data)?;
        let mut kept: usize = parts.iter().map(|part| part.kept).sum();
        if kept == 0 && basis.is_relative() && scale > 0.0 {
            // What is not zero does not become zero.
            scale *= parts::largest(basis, parts, &sizes, scale, &data);
            parts::transform(basis, parts, cache, &sizes, scale, &data)?;
            parts::check(parts, &data)?;
            kept = parts.iter().map(|part| part.kept).sum();
        }
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
        message.push(u8::from(remembered.is_some()));
        if let Some(checksum) = remembered {
            parts::put_flags(message, parts.iter().flat_map(|part| &part.has_reference));
            message.extend(checksum.to_le_bytes());
        }
        message.extend(cached.into_iter().flat_map(u32::to_le_bytes));
        let (mut models, mut writer) = (Models::new(), Writer::new(message));
        for part in parts {
            part.code(basis, cache, &sizes, &mut models, &mut writer)?;
        }
        writer.finish();
        format::seal(message)?;
        Ok((scale, sizes))
    }
}

impl Decompressor for TransformDecoder {
    fn decompress(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        parts::with(|parts| {
            let read = self.read(message, context, parts);
            if read.is_err() {
                tensor.clear();
                self.cache.undo();
            }
            let (dtype, scale, sizes) = read?;
            tensor.dtype = dtype;
            parts::reconstruct(&self.basis, parts, &sizes, scale, tensor);
            tensor.shape = context.shape.to_vec();
            self.remember(parts, &sizes, context.samples)
        })
    }
}

impl TransformDecoder {
    /// Reads the indices of a message, and tells type, scale and sizes.
    fn read(
        &mut self,
        message: &[u8],
        context: &Context<'_>,
        parts: &mut Vec<Part>,
    ) -> Result<(Dtype, f32, Sizes)> {
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
        let (basis, sizes) = (Arc::clone(&self.basis), Sizes::of(&self.basis, context)?);
        let (name, ours) = (body.u32()?, basis.name());
        if name != ours {
            let message = format!("the message needs the basis {name:08x}, this is {ours:08x}");
            return Err(Error::new(ErrorKind::LostReference, message));
        }
        let kept = body.varint_up_to(
            sizes.all_rows() * sizes.channels,
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
        parts::divide(parts, &sizes, &self.cache);
        match body.u8()? {
            0 => {}
            1 => self.references(&mut body, &sizes, context.samples, parts)?,
            kind => return Err(Error::corrupt(format!("a message of kind {kind}"))),
        }
        if !self.cache.is_off() && body.u32()? != self.cache.checksum() {
            let message = "the message builds on rows that are not remembered";
            return Err(Error::new(ErrorKind::LostReference, message));
        }
        let mut reader = Reader::new(body.take_rest());
        let mut models = Models::new();
        for part in parts {
            part.indices.clear();
            part.indices.resize(part.rows.len() * sizes.channels, 0);
            part.code(&basis, &mut self.cache, &sizes, &mut models, &mut reader)?;
        }
        if !reader.is_at_end() || models.kept() != kept {
            return Err(Error::corrupt("the coefficients do not end with the body"));
        }
        Ok((header.dtype, scale, sizes))
    }

    /// Reads which samples build on what they were, and finds that.
    fn references(
        &self,
        body: &mut ByteReader<'_>,
        sizes: &Sizes,
        samples: &[SampleId],
        parts: &mut [Part],
    ) -> Result<()> {
        let flags = body.take(sizes.samples().div_ceil(8))?;
        let checksum = body.u32()?;
        let flag = |sample: usize| flags[sample / 8] >> (sample % 8) & 1 == 1;
        let lost = || {
            let message = "the message builds on samples that are not remembered";
            Error::new(ErrorKind::LostReference, message)
        };
        let known = |at: usize| self.memory.checksum(*samples.get(at)?, sizes.indices(at));
        let wanted = (0..sizes.samples()).filter(|&at| flag(at)).map(known);
        let found = wanted.collect::<Option<Vec<u32>>>().ok_or_else(lost)?;
        if parts::combined(found.into_iter()) != checksum {
            return Err(lost());
        }
        for part in parts {
            part.has_reference = part.samples.clone().map(flag).collect();
            part.read_references(&self.basis, &self.memory, sizes, samples)?;
        }
        Ok(())
    }
}
