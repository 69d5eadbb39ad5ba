use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Tensor, TensorView, element_count};

/// What a codec dropped from one tensor, to be added to the next (error
/// feedback: Seide et al., 2014; Karimireddy et al., 2019).
///
/// Independent of the codec: [`add`](Self::add) before encoding, and
/// [`keep`](Self::keep) afterwards with what the receiver decodes. For tensors
/// that change little from one message to the next, such as gradients of the
/// same parameters, not for activations of different samples.
///
/// ```
/// # fn main() -> sft_compress::Result<()> {
/// use sft_compress::{Codec, ErrorFeedback, TensorView, decode};
///
/// let (x, shape) = ([1.0, 0.4, 0.4], [3]);
/// let codec = Codec::paper(0.34, 2)?; // one element of three
/// let mut feedback = ErrorFeedback::new(&shape)?;
/// let mut sum = [0.0; 3];
/// for seed in 0..10 {
///     let wanted = feedback.add(TensorView::new(&x, &shape)?)?;
///     let sent = decode(&codec.encode(wanted, seed)?)?;
///     feedback.keep(&sent)?;
///     sum = std::array::from_fn(|i| sum[i] + sent.data()[i]);
/// }
/// // What was dropped comes later: nothing is lost but the last remainder.
/// assert!((sum[1] - 4.0).abs() < 1.5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorFeedback {
    shape: Vec<usize>,
    residual: Vec<f32>,
}

impl ErrorFeedback {
    /// Nothing dropped so far from tensors of `shape`.
    ///
    /// # Errors
    /// `InvalidArgument` or `TooLarge` if `shape` is not that of a tensor.
    pub fn new(shape: &[usize]) -> Result<Self> {
        let residual = vec![0.0; element_count(shape)?];
        Self::restore(shape, residual)
    }

    /// A state that was saved as its [`shape`](Self::shape) and
    /// [`residual`](Self::residual).
    ///
    /// # Errors
    /// `InvalidArgument` if they do not fit; `NonFinite` for NaN or infinities.
    pub fn restore(shape: &[usize], residual: Vec<f32>) -> Result<Self> {
        TensorView::new(&residual, shape)?;
        if let Some(index) = residual.iter().position(|x| !x.is_finite()) {
            return Err(Error::new(
                ErrorKind::NonFinite,
                format!(
                    "residual {index} is {}, but must be finite",
                    residual[index]
                ),
            ));
        }
        Ok(Self {
            shape: shape.to_vec(),
            residual,
        })
    }

    /// The shape of the tensors.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What was dropped, in row-major order.
    pub fn residual(&self) -> &[f32] {
        &self.residual
    }

    /// Adds what was dropped to a tensor; the sum is what to encode.
    ///
    /// # Errors
    /// `InvalidArgument` if the shape is another.
    pub fn add(&mut self, tensor: TensorView<'_>) -> Result<TensorView<'_>> {
        self.check(tensor.shape())?;
        for (kept, x) in self
            .residual
            .iter_mut()
            .zip(tensor.elements().to_f32().iter())
        {
            *kept += x;
        }
        TensorView::new(&self.residual, &self.shape)
    }

    /// Keeps what the decoded frame of the last sum lacks of it.
    ///
    /// # Errors
    /// `InvalidArgument` if the shape is another.
    pub fn keep(&mut self, decoded: &Tensor) -> Result<()> {
        self.check(decoded.shape())?;
        for (kept, y) in self.residual.iter_mut().zip(decoded.data()) {
            *kept -= y;
        }
        Ok(())
    }

    fn check(&self, shape: &[usize]) -> Result<()> {
        if shape == self.shape {
            return Ok(());
        }
        let expected = &self.shape;
        Err(Error::invalid(format!(
            "shape must be {expected:?}, got {shape:?}"
        )))
    }
}
