use std::ops::Range;

use crate::coding::bytes::ByteReader;
use crate::config::Code;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Header, Method};
use crate::method::context::Frame;
use crate::method::{context, paper, raw};
use crate::tensor::{Tensor, element_count};

/// Elements that [`decode`] accepts whatever the length of the frame: 64 MiB of `f32`.
const FREE_ELEMENTS: usize = 1 << 24;
/// Elements that [`decode`] accepts in addition for each byte of the frame.
const ELEMENTS_PER_BYTE: usize = 1 << 10;

/// Decodes one frame, whichever codec wrote it.
///
/// A few bytes can stand for any number of zeros, so the number of elements is
/// bounded by 2²⁴ plus 2¹⁰ for each byte of the frame. Use [`decode_expected`]
/// where the receiver knows the shape, [`decode_limited`] where it knows a
/// bound, [`Decoder`] where messages keep coming.
///
/// # Errors
/// `Truncated`, `TrailingBytes`, `UnsupportedVersion`, `Checksum` or `Corrupt`
/// by what is wrong with the bytes; `TooLarge` beyond the bound above.
pub fn decode(frame: &[u8]) -> Result<Tensor> {
    let mut tensor = Tensor::default();
    Decoder::new().decode_into(frame, &mut tensor)?;
    Ok(tensor)
}

/// Decodes one frame of a tensor whose shape the receiver knows, without any
/// other limit.
///
/// Allocates no more than [`decode_limited`] with that many elements.
///
/// # Errors
/// As [`decode`], with `OtherShape` for a tensor of another shape.
pub fn decode_expected(frame: &[u8], shape: &[usize]) -> Result<Tensor> {
    let mut tensor = Tensor::default();
    Decoder::new().decode_expected_into(frame, shape, &mut tensor)?;
    Ok(tensor)
}

/// Decodes one frame of at most `max_elements` elements.
///
/// Allocates no more than 24 bytes for each element, 160 for each byte of the
/// frame, and 64 KiB.
///
/// # Errors
/// As [`decode`], with `TooLarge` for more than `max_elements` elements.
pub fn decode_limited(frame: &[u8], max_elements: usize) -> Result<Tensor> {
    let mut tensor = Tensor::default();
    Decoder::new()
        .with_max_elements(max_elements)
        .decode_into(frame, &mut tensor)?;
    Ok(tensor)
}

/// What a decoder accepts.
#[derive(Clone, Copy)]
enum Accept<'a> {
    /// As many elements as a frame of so many bytes may claim.
    Default,
    AtMost(usize),
    Exactly(&'a [usize]),
}

impl Accept<'_> {
    /// Checks what a frame of `bytes` bytes claims.
    fn check(self, shape: &[usize], elements: usize, bytes: usize) -> Result<()> {
        match self {
            Self::Exactly(expected) if shape == expected => Ok(()),
            Self::Exactly(expected) => Err(Error::new(
                ErrorKind::OtherShape,
                format!("a tensor of shape {shape:?}, where {expected:?} is expected"),
            )),
            Self::AtMost(limit) if elements <= limit => Ok(()),
            Self::AtMost(limit) => Err(above(elements, limit, "")),
            Self::Default => {
                let allowed = bytes.saturating_mul(ELEMENTS_PER_BYTE);
                let limit = allowed.saturating_add(FREE_ELEMENTS);
                if elements <= limit {
                    return Ok(());
                }
                let why = format!(
                    " for a frame of {bytes} bytes: few bytes can stand for any number of zeros, \
                     so more is only decoded by an expected shape or a limit of the receiver's own"
                );
                Err(above(elements, limit, &why))
            }
        }
    }
}

fn above(elements: usize, limit: usize, why: &str) -> Error {
    let message = format!("a tensor of {elements} elements, above the limit of {limit}{why}");
    Error::new(ErrorKind::TooLarge, message)
}

/// Decodes one message after the other in the same memory.
///
/// No memory is allocated by [`decode_into`](Self::decode_into) once frames of
/// the same size have been decoded, except to share work among threads with the
/// feature `rayon`. See [`Encoder`](crate::Encoder) for an example.
#[derive(Debug, Default)]
pub struct Decoder {
    max_elements: Option<usize>,
    memory: context::DecodeMemory,
    paper: paper::DecodeMemory,
}

impl Decoder {
    /// A decoder with the limit of [`decode`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The same decoder with the limit of [`decode_limited`].
    #[must_use]
    pub fn with_max_elements(mut self, max_elements: usize) -> Self {
        self.max_elements = Some(max_elements);
        self
    }

    /// Decodes one frame, which replaces the content of `tensor`.
    ///
    /// # Errors
    /// As [`decode`]; `tensor` is then empty.
    pub fn decode_into(&mut self, frame: &[u8], tensor: &mut Tensor) -> Result<()> {
        self.decode_accepted(frame, self.accept(), tensor)
    }

    /// Decodes one frame of a tensor of `shape`, which replaces the content of
    /// `tensor`. Only the shape limits the number of elements.
    ///
    /// # Errors
    /// As [`decode_expected`]; `tensor` is then empty.
    pub fn decode_expected_into(
        &mut self,
        frame: &[u8],
        shape: &[usize],
        tensor: &mut Tensor,
    ) -> Result<()> {
        self.decode_accepted(frame, Accept::Exactly(shape), tensor)
    }

    fn decode_accepted(
        &mut self,
        frame: &[u8],
        accept: Accept<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        let decoded = self.decode_unchecked(frame, accept, tensor);
        if decoded.is_err() {
            tensor.clear();
        }
        decoded
    }

    /// Decodes a frame; `tensor` is only one if it succeeds.
    fn decode_unchecked(
        &mut self,
        frame: &[u8],
        accept: Accept<'_>,
        tensor: &mut Tensor,
    ) -> Result<()> {
        let (mut body, header, elements) = open(frame, accept)?;
        let shape = header.shape.as_slice();
        tensor.shape.clear();
        tensor.shape.extend_from_slice(shape);
        tensor.dtype = header.dtype;
        match header.method {
            Method::Raw => raw::read(body.take_rest(), elements, header.dtype, &mut tensor.data)?,
            Method::Paper(levels) => {
                paper::read(&mut body, shape, levels, &mut tensor.data, &mut self.paper)?;
            }
            Method::Context(range) => {
                let memory = &mut self.memory;
                let frame = Frame::read(&mut body, shape, elements, range, memory)?;
                tensor.data.resize(elements, 0.0);
                frame.decode(&mut tensor.data, memory)?;
            }
            Method::Transform => return Err(needs_basis(&mut body)),
        }
        body.finish()
    }

    /// Decodes the part of a tensor that is coded independently of the others:
    /// chunk `index` of [`Info::chunks`]. Replaces the content of `data` and
    /// tells which elements, in row-major order, they are.
    ///
    /// # Errors
    /// As [`decode`], and `InvalidArgument` if there is no such chunk.
    pub fn decode_chunk(
        &mut self,
        frame: &[u8],
        index: usize,
        data: &mut Vec<f32>,
    ) -> Result<Range<usize>> {
        let (mut body, header, elements) = open(frame, self.accept())?;
        if let Method::Context(range) = header.method {
            let memory = &mut self.memory;
            let shape = header.shape.as_slice();
            let frame = Frame::read(&mut body, shape, elements, range, memory)?;
            check_chunk(index, frame.chunks())?;
            let chunk = frame.chunk(index);
            data.resize(chunk.len(), 0.0);
            frame.decode_chunk(index, data, memory)?;
            body.finish()?;
            return Ok(chunk);
        }
        check_chunk(index, 1)?;
        let mut tensor = Tensor::default();
        self.decode_into(frame, &mut tensor)?;
        *data = tensor.data;
        Ok(0..elements)
    }

    fn accept(&self) -> Accept<'static> {
        self.max_elements.map_or(Accept::Default, Accept::AtMost)
    }
}

/// A frame that no decoder without its basis can read.
fn needs_basis(body: &mut ByteReader<'_>) -> Error {
    body.u32().map_or_else(
        |error| error,
        |name| Error::new(
            ErrorKind::LostReference,
            format!("the frame needs the basis {name:08x}: decompress it with a TransformDecoder of that"),
        ),
    )
}

/// The body of a frame behind its header, if it is accepted.
fn open<'a>(frame: &'a [u8], accept: Accept<'_>) -> Result<(ByteReader<'a>, Header, usize)> {
    let mut body = format::open(frame)?;
    let header = Header::read(&mut body)?;
    let shape = header.shape.as_slice();
    let elements = element_count(shape)?;
    accept.check(shape, elements, frame.len())?;
    Ok((body, header, elements))
}

/// What a frame holds, as [`inspect`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: Dtype,
    /// How they are coded.
    pub code: Code,
    /// The number of elements that are kept; all if the code is none.
    pub kept: usize,
    /// Bytes of the frame beside its envelope and header.
    pub payload_bytes: usize,
    /// The parts that [`Decoder::decode_chunk`] can decode, in the order of
    /// their elements.
    pub chunks: usize,
}

/// Checks a frame's envelope and reads its headers, without decoding elements.
///
/// Allocates no more than 160 bytes for each byte of the frame and 64 KiB.
///
/// # Errors
/// As [`decode`], but for damage that only decoding finds, and without a limit
/// of elements.
pub fn inspect(frame: &[u8]) -> Result<Info> {
    let mut body = format::open(frame)?;
    let header = Header::read(&mut body)?;
    let shape = header.shape.as_slice().to_vec();
    let elements = element_count(&shape)?;
    let payload_bytes = body.remaining();
    let (code, kept, chunks) = match header.method {
        Method::Raw => (Code::None, elements, 1),
        Method::Paper(_) => (Code::Golomb, paper::read_count(&mut body, elements)?, 1),
        Method::Context(range) => {
            let (kept, chunks) = context::inspect(&mut body, &shape, elements, range)?;
            (Code::Context, kept, chunks)
        }
        Method::Transform => {
            body.u32()?;
            // Coefficients are at most as many as elements.
            let kept = body.varint_up_to(elements, "the number of kept coefficients")?;
            (Code::Context, kept, 1)
        }
    };
    Ok(Info {
        shape,
        dtype: header.dtype,
        code,
        kept,
        payload_bytes,
        chunks,
    })
}

fn check_chunk(index: usize, chunks: usize) -> Result<()> {
    if index < chunks {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "chunk must be below {chunks}, got {index}"
    )))
}
