use crate::coding::bytes::{ByteReader, put_varint};
use crate::config::Range;
use crate::dtype::Dtype;
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{MAX_DIMS, element_count};
use crate::value::Levels;

const MAGIC: [u8; 4] = *b"SFTZ";
const VERSION: u8 = 1;
/// Magic, version and the body's length.
const PREFIX_BYTES: usize = 9;
const CHECKSUM_BYTES: usize = 4;

const METHOD_RAW: u8 = 0;
const METHOD_PAPER: u8 = 1;
const METHOD_CONTEXT: u8 = 2;
const METHOD_TRANSFORM: u8 = 3;
const FLAG_ROWS: u8 = 1;

/// What stands at the start of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) method: Method,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Shape,
}

/// How the elements are coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    Raw,
    Paper(Levels),
    Context(Range),
    Transform,
}

/// Up to eight dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    dims: [usize; MAX_DIMS],
    len: usize,
}

impl Shape {
    /// Of at most eight dimensions.
    pub(crate) fn new(shape: &[usize]) -> Self {
        let mut dims = [0; MAX_DIMS];
        dims[..shape.len()].copy_from_slice(shape);
        let len = shape.len();
        Self { dims, len }
    }

    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.dims[..self.len]
    }
}

impl Header {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (method, range) = match self.method {
            Method::Raw => (METHOD_RAW, Range::Tensor),
            Method::Paper(levels) => (METHOD_PAPER, levels.range),
            Method::Context(range) => (METHOD_CONTEXT, range),
            Method::Transform => (METHOD_TRANSFORM, Range::Tensor),
        };
        let flags = match range {
            Range::Tensor => 0,
            Range::Row => FLAG_ROWS,
        };
        let dtype = match self.dtype {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::Bf16 => 2,
        };
        let shape = self.shape.as_slice();
        out.extend_from_slice(&[method, flags, dtype, shape.len() as u8]);
        for &dim in shape {
            put_varint(out, dim as u64);
        }
        if let Method::Paper(levels) = self.method {
            out.push((levels.count - 1) as u8);
        }
    }

    pub(crate) fn read(body: &mut ByteReader<'_>) -> Result<Self> {
        let (method, flags, dtype) = (body.u8()?, body.u8()?, body.u8()?);
        let dtype = match dtype {
            0 => Dtype::F32,
            1 => Dtype::F16,
            2 => Dtype::Bf16,
            _ => return Err(reserved("dtype", dtype)),
        };
        let shape = read_shape(body)?;
        let range = match flags {
            0 => Range::Tensor,
            FLAG_ROWS if matches!(method, METHOD_PAPER | METHOD_CONTEXT) => Range::Row,
            _ => return Err(reserved("flags", flags)),
        };
        let method = match method {
            METHOD_RAW => Method::Raw,
            METHOD_PAPER => Method::Paper(read_levels(body, range)?),
            METHOD_CONTEXT => Method::Context(range),
            METHOD_TRANSFORM => Method::Transform,
            _ => return Err(reserved("method", method)),
        };
        Ok(Self {
            method,
            dtype,
            shape,
        })
    }
}

fn reserved(field: &str, value: u8) -> Error {
    Error::new(
        ErrorKind::UnsupportedVersion,
        format!("{field} {value} is not defined in frame version {VERSION}"),
    )
}

fn read_shape(body: &mut ByteReader<'_>) -> Result<Shape> {
    let dims = body.u8()?;
    if !(1..=MAX_DIMS).contains(&usize::from(dims)) {
        return Err(Error::corrupt(format!("a tensor of {dims} dimensions")));
    }
    let mut shape = Shape::new(&[0; MAX_DIMS][..dims.into()]);
    for dim in &mut shape.dims[..dims.into()] {
        *dim = body.varint_up_to(u32::MAX as usize, "a dimension")?;
    }
    element_count(shape.as_slice())?;
    Ok(shape)
}

fn read_levels(body: &mut ByteReader<'_>, range: Range) -> Result<Levels> {
    match body.u8()? {
        0 => Err(Error::corrupt("a single quantization level")),
        last => Ok(Levels {
            count: u32::from(last) + 1,
            range,
        }),
    }
}

/// Starts a frame in `frame`, to which the header and the elements are appended next.
pub(crate) fn begin(frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(&MAGIC);
    frame.push(VERSION);
    frame.resize(PREFIX_BYTES, 0);
}

/// Completes a frame with the body's length and the checksum.
pub(crate) fn seal(frame: &mut Vec<u8>) -> Result<()> {
    let body_len = frame.len() - PREFIX_BYTES;
    let length = u32::try_from(body_len).map_err(|_| {
        Error::new(
            ErrorKind::TooLarge,
            format!(
                "a frame body of {body_len} bytes, above the limit of {}",
                u32::MAX
            ),
        )
    })?;
    frame[MAGIC.len() + 1..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(frame);
    frame.extend_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// The body in a frame's envelope, its length and checksum verified.
pub(crate) fn open(frame: &[u8]) -> Result<ByteReader<'_>> {
    check_magic_and_version(frame)?;
    let prefix = frame
        .first_chunk::<PREFIX_BYTES>()
        .ok_or_else(|| truncated(frame.len(), PREFIX_BYTES + CHECKSUM_BYTES))?;
    let [.., a, b, c, d] = *prefix;
    let body_len = u32::from_le_bytes([a, b, c, d]) as usize;
    let needed = (PREFIX_BYTES + CHECKSUM_BYTES).saturating_add(body_len);
    if frame.len() < needed {
        return Err(truncated(frame.len(), needed));
    }
    if frame.len() > needed {
        return Err(Error::new(
            ErrorKind::TrailingBytes,
            format!(
                "the frame ends after {needed} bytes, but {} were given",
                frame.len()
            ),
        ));
    }
    let (checked, stored) = frame.split_at(needed - CHECKSUM_BYTES);
    if crc32fast::hash(checked).to_le_bytes() != *stored {
        return Err(Error::new(
            ErrorKind::Checksum,
            "the checksum does not match: the frame was damaged",
        ));
    }
    Ok(ByteReader::new(&checked[PREFIX_BYTES..]))
}

fn check_magic_and_version(frame: &[u8]) -> Result<()> {
    let known = frame.len().min(MAGIC.len());
    if frame[..known] != MAGIC[..known] {
        return Err(Error::corrupt(
            "the bytes do not start with a frame's magic",
        ));
    }
    match frame.get(MAGIC.len()) {
        Some(&version) if version != VERSION => Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("frame version {version} is not supported, only {VERSION} is"),
        )),
        _ => Ok(()),
    }
}

fn truncated(len: usize, needed: usize) -> Error {
    Error::new(
        ErrorKind::Truncated,
        format!("the frame is cut off after {len} bytes, at least {needed} are needed"),
    )
}
