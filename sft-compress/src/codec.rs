use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{self, Header, Method};
use crate::paper;
use crate::quantize::{Levels, Range};
use crate::tensor::{Tensor, TensorView, element_count};

/// How tensors are encoded: the paper's codec (section IV-B) or no compression.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, Range};
///
/// let codec = Codec::paper(0.2, 8)?.with_range(Range::Row);
/// assert_eq!(codec.to_string(), "paper(keep 0.2, levels 8, range row)");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Codec {
    settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Settings {
    Raw,
    Paper { keep: f64, levels: Levels },
}

impl Codec {
    /// The paper's codec: Top-K, stochastic quantization, lossless coding.
    ///
    /// `keep` in (0, 1] is the paper's ρ: of n elements the
    /// max(1, round(ρ·n)) of largest magnitude are kept. `levels` in 2..=256 is
    /// the number of quantization points, the paper's E + 1. All kept
    /// magnitudes share one range; see [`with_range`](Self::with_range).
    ///
    /// # Errors
    /// `InvalidArgument` if `keep` or `levels` is not in its range.
    pub fn paper(keep: f64, levels: u32) -> Result<Self> {
        if !(keep > 0.0 && keep <= 1.0) {
            return Err(Error::invalid(format!(
                "keep must be in (0, 1], got {keep}"
            )));
        }
        if !(2..=256).contains(&levels) {
            return Err(Error::invalid(format!(
                "levels must be in 2..=256, got {levels}"
            )));
        }
        let levels = Levels {
            count: levels,
            range: Range::Tensor,
        };
        Ok(Self {
            settings: Settings::Paper { keep, levels },
        })
    }

    /// No compression: every element as an `f32`, bit for bit, NaN included.
    pub fn raw() -> Self {
        Self {
            settings: Settings::Raw,
        }
    }

    /// The same codec with another choice of which magnitudes share a range;
    /// no effect on [`raw`](Self::raw), which does not quantize.
    #[must_use]
    pub fn with_range(mut self, range: Range) -> Self {
        if let Settings::Paper { levels, .. } = &mut self.settings {
            levels.range = range;
        }
        self
    }

    /// The fraction of elements kept, in (0, 1]; 1 for [`raw`](Self::raw).
    pub fn keep(&self) -> f64 {
        match self.settings {
            Settings::Raw => 1.0,
            Settings::Paper { keep, .. } => keep,
        }
    }

    /// The number of quantization points; none for [`raw`](Self::raw).
    pub fn levels(&self) -> Option<u32> {
        match self.settings {
            Settings::Raw => None,
            Settings::Paper { levels, .. } => Some(levels.count),
        }
    }

    /// Which magnitudes share a quantization range; none for [`raw`](Self::raw).
    pub fn range(&self) -> Option<Range> {
        match self.settings {
            Settings::Raw => None,
            Settings::Paper { levels, .. } => Some(levels.range),
        }
    }

    /// Encodes a tensor as one self-describing [frame](crate::frame_format).
    ///
    /// The same tensor, settings and `seed` give the same bytes everywhere. The
    /// seed decides the random roundings: take a new one for every message, or
    /// their errors do not average out. [`raw`](Self::raw) ignores it.
    ///
    /// # Errors
    /// `NonFinite` if the tensor holds NaN or an infinity, except for `raw`;
    /// `TooLarge` if the frame would hold 4 GiB or more.
    pub fn encode(&self, tensor: TensorView<'_>, seed: u64) -> Result<Vec<u8>> {
        let mut frame = format::begin();
        let shape = tensor.shape().to_vec();
        match self.settings {
            Settings::Raw => {
                let method = Method::Raw;
                Header { method, shape }.write(&mut frame);
                write_raw(&mut frame, tensor.data());
            }
            Settings::Paper { keep, levels } => {
                let method = Method::Paper(levels);
                Header { method, shape }.write(&mut frame);
                paper::write(&mut frame, tensor, keep, levels, seed)?;
            }
        }
        format::seal(frame)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.settings {
            Settings::Raw => f.write_str("raw"),
            Settings::Paper { keep, levels } => write!(
                f,
                "paper(keep {keep}, levels {}, range {})",
                levels.count, levels.range
            ),
        }
    }
}

/// Elements that [`decode`] accepts whatever the length of the frame: 64 MiB of `f32`.
const FREE_ELEMENTS: usize = 1 << 24;
/// Elements that [`decode`] accepts in addition for each byte of the frame.
const ELEMENTS_PER_BYTE: usize = 1 << 10;

/// Decodes one frame, whichever codec wrote it.
///
/// A few bytes can stand for any number of zeros, so the number of elements is
/// bounded by 2²⁴ plus 2¹⁰ for each byte of the frame. Use [`decode_limited`]
/// where the receiver knows what to expect.
///
/// # Errors
/// `Truncated`, `TrailingBytes`, `UnsupportedVersion`, `Checksum` or `Corrupt`
/// by what is wrong with the bytes; `TooLarge` beyond the bound above.
pub fn decode(frame: &[u8]) -> Result<Tensor> {
    let allowed = frame.len().saturating_mul(ELEMENTS_PER_BYTE);
    decode_limited(frame, allowed.saturating_add(FREE_ELEMENTS))
}

/// Decodes one frame of at most `max_elements` elements.
///
/// Allocates no more than 4 bytes for each element, 160 for each byte of the
/// frame, and 64 KiB.
///
/// # Errors
/// As [`decode`], with `TooLarge` for more than `max_elements` elements.
pub fn decode_limited(frame: &[u8], max_elements: usize) -> Result<Tensor> {
    let mut body = format::open(frame)?;
    let Header { method, shape } = Header::read(&mut body)?;
    let elements = element_count(&shape)?;
    if elements > max_elements {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("a tensor of {elements} elements, above the limit of {max_elements}"),
        ));
    }
    let data = match method {
        Method::Raw => read_raw(body.take_rest(), elements)?,
        Method::Paper(levels) => paper::read(&mut body, &shape, levels)?,
    };
    body.finish()?;
    Ok(Tensor::new(shape, data))
}

fn write_raw(out: &mut Vec<u8>, data: &[f32]) {
    let start = out.len();
    out.resize(start + size_of_val(data), 0);
    for (bytes, x) in out[start..].chunks_exact_mut(4).zip(data) {
        bytes.copy_from_slice(&x.to_le_bytes());
    }
}

fn read_raw(bytes: &[u8], elements: usize) -> Result<Vec<f32>> {
    let (words, rest) = bytes.as_chunks::<4>();
    if words.len() != elements || !rest.is_empty() {
        return Err(Error::corrupt(format!(
            "{} bytes for {elements} raw elements",
            bytes.len()
        )));
    }
    Ok(words.iter().copied().map(f32::from_le_bytes).collect())
}
