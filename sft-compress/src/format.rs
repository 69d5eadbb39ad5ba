use crate::bytes::{ByteReader, put_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::quantize::{Levels, Range};
use crate::tensor::{MAX_DIMS, element_count};

const MAGIC: [u8; 4] = *b"SFTZ";
const VERSION: u8 = 1;
/// Magic, version and the body's length.
const PREFIX_BYTES: usize = 9;
const CHECKSUM_BYTES: usize = 4;

const METHOD_RAW: u8 = 0;
const METHOD_PAPER: u8 = 1;
const FLAG_ROWS: u8 = 1;
const DTYPE_F32: u8 = 0;

/// What stands at the start of a body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) method: Method,
    pub(crate) shape: Vec<usize>,
}

/// How the elements are coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Method {
    Raw,
    Paper(Levels),
}

impl Header {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (method, flags) = match self.method {
            Method::Raw => (METHOD_RAW, 0),
            Method::Paper(levels) if levels.range == Range::Row => (METHOD_PAPER, FLAG_ROWS),
            Method::Paper(_) => (METHOD_PAPER, 0),
        };
        out.extend_from_slice(&[method, flags, DTYPE_F32, self.shape.len() as u8]);
        for &dim in &self.shape {
            put_varint(out, dim as u64);
        }
        if let Method::Paper(levels) = self.method {
            out.push((levels.count - 1) as u8);
        }
    }

    pub(crate) fn read(body: &mut ByteReader<'_>) -> Result<Self> {
        let (method, flags, dtype) = (body.u8()?, body.u8()?, body.u8()?);
        if dtype != DTYPE_F32 {
            return Err(reserved("dtype", dtype));
        }
        let shape = read_shape(body)?;
        let method = match (method, flags) {
            (METHOD_RAW, 0) => Method::Raw,
            (METHOD_PAPER, 0) => Method::Paper(read_levels(body, Range::Tensor)?),
            (METHOD_PAPER, FLAG_ROWS) => Method::Paper(read_levels(body, Range::Row)?),
            (METHOD_RAW | METHOD_PAPER, _) => return Err(reserved("flags", flags)),
            _ => return Err(reserved("method", method)),
        };
        Ok(Self { method, shape })
    }
}

fn reserved(field: &str, value: u8) -> Error {
    Error::new(
        ErrorKind::UnsupportedVersion,
        format!("{field} {value} is not defined in frame version {VERSION}"),
    )
}

fn read_shape(body: &mut ByteReader<'_>) -> Result<Vec<usize>> {
    let dims = body.u8()?;
    if !(1..=MAX_DIMS).contains(&usize::from(dims)) {
        return Err(Error::corrupt(format!("a tensor of {dims} dimensions")));
    }
    let shape: Vec<usize> = (0..dims)
        .map(|_| body.varint_up_to(u32::MAX as usize, "a dimension"))
        .collect::<Result<_>>()?;
    element_count(&shape)?;
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

/// Starts a frame, to which the header and the elements are appended next.
pub(crate) fn begin() -> Vec<u8> {
    let mut frame = MAGIC.to_vec();
    frame.push(VERSION);
    frame.resize(PREFIX_BYTES, 0);
    frame
}

/// Completes a frame with the body's length and the checksum.
pub(crate) fn seal(mut frame: Vec<u8>) -> Result<Vec<u8>> {
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
    let checksum = crc32fast::hash(&frame);
    frame.extend_from_slice(&checksum.to_le_bytes());
    Ok(frame)
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
