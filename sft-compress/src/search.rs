use crate::codec::Codec;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorView};

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

impl Codec {
    /// The [dead zone](Self::dead_zone) of largest step whose relative mean
    /// squared error on `sample` is at most `relative_mse`; the finest if none.
    ///
    /// # Errors
    /// `InvalidArgument` if `relative_mse` is not positive; as [`encode`](Self::encode).
    pub fn dead_zone_for_error(sample: TensorView<'_>, relative_mse: f64) -> Result<Self> {
        check_positive("relative_mse", relative_mse)?;
        let fits = |measure: Measure| measure.relative_mse <= relative_mse;
        search_step(sample, fits).map(|(within, _)| within)
    }

    /// The [dead zone](Self::dead_zone) of least step whose frame of `sample`
    /// has at most `bits` bits an element; the coarsest if none.
    ///
    /// # Errors
    /// `InvalidArgument` if `bits` is not positive; as [`encode`](Self::encode).
    pub fn dead_zone_for_bits(sample: TensorView<'_>, bits: f64) -> Result<Self> {
        check_positive("bits", bits)?;
        let too_long = |measure: Measure| measure.bits_per_element > bits;
        search_step(sample, too_long).map(|(_, beyond)| beyond)
    }
}

/// The largest step for which `holds` and the least for which it does not, up
/// to a part in a thousand; it holds below some step.
fn search_step(sample: TensorView<'_>, holds: impl Fn(Measure) -> bool) -> Result<(Codec, Codec)> {
    let (mut within, mut beyond) = (1e-3, 1e3);
    if holds(measure(Codec::dead_zone(beyond)?, sample, 0)?) {
        within = beyond;
    }
    while beyond / within > 1.001 {
        let step = f64::sqrt(within * beyond);
        if holds(measure(Codec::dead_zone(step)?, sample, 0)?) {
            within = step;
        } else {
            beyond = step;
        }
    }
    Ok((Codec::dead_zone(within)?, Codec::dead_zone(beyond)?))
}

fn check_positive(name: &str, value: f64) -> Result<()> {
    if value > 0.0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name} must be positive, got {value}"
    )))
}
