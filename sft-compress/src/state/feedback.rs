use super::{Compressor, Context, Stateful};
use crate::codec::Codec;
use crate::coding::bytes::{ByteReader, put_varint};
use crate::config::Code;
use crate::decoder::{decode, inspect};
use crate::dtype::{Dtype, f32_to_bf16, f32_to_f16};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::{Elements, Tensor, TensorView};

/// A compressor that adds what it dropped from one tensor to the next (error
/// feedback: Seide et al., 2014; Karimireddy et al., 2019).
///
/// The receiver is that of the compressor within. For tensors that change
/// little from one message to the next, such as gradients of the same
/// parameters, not for activations of different samples. A tensor of another
/// shape than the one before begins anew. See [`Compressor`] for an example.
///
/// The sum is sent in the type of the tensor; what of it that type cannot hold
/// comes later. Elements that are not finite leave nothing behind. Around a
/// compressor that [owes nothing](Compressor::owes) it does nothing.
#[derive(Clone, Debug)]
pub struct ErrorFeedback<C> {
    inner: C,
    /// What was dropped; the empty tensor at the beginning.
    residual: Tensor,
    memory: Memory,
}

/// What a message is made in, kept from one to the next.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// The tensor and what was dropped before it.
    sum: Vec<f32>,
    /// The same in half precision.
    halves: Vec<u16>,
    /// What the receiver makes of it.
    decoded: Tensor,
}

impl<C> ErrorFeedback<C> {
    /// Error feedback around a compressor, with nothing dropped so far.
    pub fn new(inner: C) -> Self {
        Self {
            inner,
            residual: Tensor::default(),
            memory: Memory::default(),
        }
    }

    /// The same with `residual` as what was dropped so far.
    ///
    /// # Errors
    /// `NonFinite` for NaN or infinities.
    pub fn with_residual(mut self, residual: Tensor) -> Result<Self> {
        check_finite(&residual)?;
        self.residual = residual;
        Ok(self)
    }

    /// The compressor within.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    /// What was dropped, of the shape of the last tensor; empty before the first.
    pub fn residual(&self) -> &Tensor {
        &self.residual
    }
}

impl Memory {
    /// Adds a tensor and what was dropped, and views the sum in the tensor's type.
    fn add(&mut self, tensor: TensorView<'_>, residual: &Tensor) -> Elements<'_> {
        let elements = tensor.elements();
        self.sum.clear();
        self.sum.extend_from_slice(&elements.to_f32());
        if residual.shape() == tensor.shape() {
            // What is not finite is for the codec to judge.
            for (sum, dropped) in self.sum.iter_mut().zip(residual.data()) {
                if sum.is_finite() {
                    *sum = (*sum + dropped).clamp(-f32::MAX, f32::MAX);
                }
            }
        }
        let dtype = elements.dtype();
        let fit = |&x: &f32| dtype.saturate(x);
        self.halves.clear();
        match dtype {
            Dtype::F32 => Elements::F32(&self.sum),
            Dtype::F16 => {
                let halves = self.sum.iter().map(fit).map(f32_to_f16);
                self.halves.extend(halves);
                Elements::F16(&self.halves)
            }
            Dtype::Bf16 => {
                let halves = self.sum.iter().map(fit).map(f32_to_bf16);
                self.halves.extend(halves);
                Elements::Bf16(&self.halves)
            }
        }
    }
}

impl<C: Compressor> Compressor for ErrorFeedback<C> {
    fn compress(
        &mut self,
        tensor: TensorView<'_>,
        context: &Context<'_>,
        message: &mut Vec<u8>,
        decoded: Option<&mut Tensor>,
    ) -> Result<()> {
        if !self.inner.owes() {
            return self.inner.compress(tensor, context, message, decoded);
        }
        let mut received = std::mem::take(&mut self.memory.decoded);
        let sum = self.memory.add(tensor, &self.residual);
        let sum = TensorView::of(sum, tensor.shape())?;
        self.inner
            .compress(sum, context, message, Some(&mut received))?;
        if let Some(decoded) = decoded {
            decoded.clone_from(&received);
        }
        for (received, sum) in received.data_mut().iter_mut().zip(&self.memory.sum) {
            let dropped = sum - *received;
            *received = if dropped.is_finite() { dropped } else { 0.0 };
        }
        self.memory.decoded = std::mem::replace(&mut self.residual, received);
        Ok(())
    }
}

impl<C: Stateful> Stateful for ErrorFeedback<C> {
    fn reset(&mut self) {
        self.inner.reset();
        self.residual.clear();
    }

    /// The length and the bytes of the memory within, and a raw
    /// [frame](crate::frame_format) of the residual, if there is one.
    fn save(&self) -> Result<Vec<u8>> {
        let (inner, mut state) = (self.inner.save()?, Vec::new());
        put_varint(&mut state, inner.len() as u64);
        state.extend(inner);
        if !self.residual.data().is_empty() {
            state.extend(Codec::raw().encode(self.residual.view(), 0)?);
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let mut state = ByteReader::new(state);
        let len = state.varint_up_to(state.remaining(), "the length of a state")?;
        let inner = state.take(len)?;
        let residual = match state.take_rest() {
            [] => Tensor::default(),
            frame => read_residual(frame)?,
        };
        self.inner.restore(inner)?;
        self.residual = residual;
        Ok(())
    }
}

fn read_residual(frame: &[u8]) -> Result<Tensor> {
    let info = inspect(frame)?;
    if info.code != Code::None || info.dtype != Dtype::F32 {
        return Err(Error::corrupt("a residual that is not a raw frame of f32"));
    }
    let residual = decode(frame)?;
    check_finite(&residual)?;
    Ok(residual)
}

fn check_finite(residual: &Tensor) -> Result<()> {
    let data = residual.data();
    match data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::new(
            ErrorKind::NonFinite,
            format!("residual {index} is {}, but must be finite", data[index]),
        )),
    }
}
