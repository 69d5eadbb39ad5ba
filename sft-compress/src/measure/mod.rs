//! What a codec makes of a tensor, and the settings for a wanted size or error.

/// Measured rate and error over the settings.
mod rate;
/// Settings for a wanted size or error.
mod search;

use crate::codec::Codec;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::Result;
use crate::tensor::{Tensor, TensorView};

pub use rate::{Choice, RateTable};

/// What a codec makes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// Bytes of the frame.
    pub bytes: usize,
    /// Bits of the frame for each element.
    pub bits_per_element: f64,
    /// Σ(x − y)² / Σx² of the elements x and their decoded values y; 0 for a
    /// tensor without any error.
    pub relative_mse: f64,
}

/// Encodes and decodes `tensor` and compares.
///
/// # Errors
/// As [`Codec::encode`].
pub fn measure(codec: Codec, tensor: TensorView<'_>, seed: u64) -> Result<Measure> {
    let (mut frame, mut decoded) = (Vec::new(), Tensor::default());
    Encoder::new(codec).encode_into(tensor, seed, &mut frame)?;
    let elements = tensor.elements();
    Decoder::new()
        .with_max_elements(elements.len())
        .decode_into(&frame, &mut decoded)?;
    let (mut error, mut power) = (0.0, 0.0);
    for (x, &y) in elements.to_f32().iter().zip(decoded.data()) {
        let (x, y) = (f64::from(*x), f64::from(y));
        error += (x - y) * (x - y);
        power += x * x;
    }
    Ok(Measure {
        bytes: frame.len(),
        bits_per_element: 8.0 * frame.len() as f64 / elements.len().max(1) as f64,
        relative_mse: if error == 0.0 { 0.0 } else { error / power },
    })
}
