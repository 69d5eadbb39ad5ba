//! A tensor in memory, or in a file that it is read from when it is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device, Result as TensorResult, Tensor};
use safetensors::Dtype;

use super::source::Source;
use crate::layers::Matrix;
use crate::mapped::MappedFloats;

/// A tensor by its place; cloning copies no values.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    place: Place,
    shape: Vec<usize>,
    order: Order,
    /// Whether a matrix may be left in its file.
    mapped: bool,
}

/// How a place has the elements.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// As the tensor.
    Same,
    /// The rows of each of these heads in pairs that are rotated together, one beside the other: the
    /// tensor has the first of all pairs of a head, then the second.
    Interleaved { heads: usize },
    /// As the transpose of the tensor, a matrix.
    Transposed,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Tensor),
    Stored(Stored),
}

/// A tensor in a file.
#[derive(Clone, Debug)]
struct Stored {
    source: Arc<Source>,
    name: String,
    form: Form,
    /// Where its bytes begin.
    from: u64,
    bytes: usize,
}

/// How a file has the elements.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Safetensors(Dtype),
    Ggml(GgmlDType),
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self {
            shape: tensor.dims().to_vec(),
            place: Place::Memory(tensor),
            order: Order::Same,
            mapped: false,
        }
    }
}

impl Weight {
    /// The tensor of this name and shape in these bytes of a file, which must have them.
    pub(super) fn stored(
        source: Arc<Source>,
        name: &str,
        form: Form,
        shape: &[usize],
        (from, bytes): (u64, usize),
    ) -> Self {
        let name = name.to_string();
        Self {
            place: Place::Stored(Stored {
                source,
                name,
                form,
                from,
                bytes,
            }),
            shape: shape.to_vec(),
            order: Order::Same,
            mapped: false,
        }
    }

    /// The same of a file that this program wrote for itself: a matrix of it may be left there.
    pub(crate) fn mapped(self) -> Self {
        Self {
            mapped: true,
            ..self
        }
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// Its kind of number, and whether that is a float.
    pub(crate) fn dtype(&self) -> (String, bool) {
        match &self.place {
            Place::Memory(tensor) => {
                let dtype = tensor.dtype();
                (format!("{dtype:?}"), dtype.is_float())
            }
            Place::Stored(stored) => match stored.form {
                Form::Safetensors(dtype) => {
                    let float = DType::try_from(dtype).is_ok_and(|dtype| dtype.is_float());
                    (format!("{dtype:?}"), float)
                }
                Form::Ggml(dtype) => (format!("{dtype:?}"), true),
            },
        }
    }

    /// Three tensors of as many rows each; none where the rows are no multiple of three.
    pub(crate) fn thirds(&self) -> TensorResult<Option<[Self; 3]>> {
        let rows = self.dims().first().copied().unwrap_or(0);
        if rows == 0 || !rows.is_multiple_of(3) {
            return Ok(None);
        }
        let third = |i: usize| match &self.place {
            Place::Memory(tensor) => {
                TensorResult::Ok(tensor.narrow(0, i * rows / 3, rows / 3)?.into())
            }
            Place::Stored(stored) => {
                let mut third = self.clone();
                let bytes = stored.bytes / 3;
                let from = stored.from + (i * bytes) as u64;
                third.shape[0] = rows / 3;
                third.place = Place::Stored(Stored {
                    from,
                    bytes,
                    ..stored.clone()
                });
                Ok(third)
            }
        };
        Ok(Some([third(0)?, third(1)?, third(2)?]))
    }

    /// The same of a file that has the rows of each of these heads in pairs that are rotated
    /// together.
    pub(crate) fn interleaved(self, heads: usize) -> Self {
        Self {
            order: Order::Interleaved { heads },
            ..self
        }
    }

    /// The transpose of a matrix.
    pub(crate) fn transposed(mut self) -> Self {
        self.shape.reverse();
        self.order = Order::Transposed;
        self
    }

    /// The matrix as f32: in its file where it may be left there and lies there so.
    pub(crate) fn matrix(&self) -> TensorResult<Matrix> {
        match (&self.place, self.order, &self.shape[..]) {
            (Place::Stored(stored), Order::Same, &[outputs, inputs]) if self.mapped => {
                match stored.floats() {
                    Some(values) => Ok(Matrix::File {
                        values,
                        outputs,
                        inputs,
                    }),
                    None => self.load().map(Into::into),
                }
            }
            _ => self.load().map(Into::into),
        }
    }

    /// The tensor as f32; a variable stays one.
    pub(crate) fn load(&self) -> TensorResult<Tensor> {
        let mut shape = self.shape.clone();
        if let Order::Transposed = self.order {
            shape.reverse();
        }
        let tensor = match &self.place {
            Place::Memory(tensor) => tensor.to_dtype(DType::F32)?,
            Place::Stored(stored) => stored.read(&shape)?,
        };
        match self.order {
            Order::Same => Ok(tensor),
            Order::Interleaved { heads } => half_split(&tensor, heads),
            Order::Transposed => tensor.t()?.contiguous(),
        }
    }
}

/// Bytes that are read at a time: a multiple of any number's.
const PART_BYTES: usize = 1 << 20;

impl Stored {
    fn read(&self, shape: &[usize]) -> TensorResult<Tensor> {
        match self.form {
            Form::Safetensors(dtype) => {
                let values = self.numbers(DType::try_from(dtype)?)?;
                Tensor::from_vec(values, shape, &Device::Cpu)
            }
            Form::Ggml(dtype) => {
                let bytes = self.bytes(0, self.bytes)?;
                let quantized = qtensor_from_ggml(dtype, &bytes, shape.to_vec(), &Device::Cpu)?;
                quantized.dequantize(&Device::Cpu)
            }
        }
    }

    /// The numbers as f32, read a part at a time: a large tensor has no room twice.
    fn numbers(&self, dtype: DType) -> TensorResult<Vec<f32>> {
        let mut values = Vec::with_capacity(self.bytes / dtype.size_in_bytes());
        for from in (0..self.bytes).step_by(PART_BYTES) {
            let bytes = self.bytes(from, PART_BYTES.min(self.bytes - from))?;
            let count = bytes.len() / dtype.size_in_bytes();
            let part = Tensor::from_raw_buffer(&bytes, dtype, &[count], &Device::Cpu)?;
            values.extend(part.to_dtype(DType::F32)?.to_vec1::<f32>()?);
        }
        Ok(values)
    }

    fn bytes(&self, from: usize, len: usize) -> TensorResult<Vec<u8>> {
        let what = format!("tensor {}", self.name);
        self.source.read(self.from + from as u64, len, &what)
    }

    fn floats(&self) -> Option<MappedFloats> {
        matches!(self.form, Form::Safetensors(Dtype::F32))
            .then(|| self.source.floats(self.from, self.bytes))?
    }
}

/// The rows `[heads * d, ..]`, those of a head from (0, 1), (2, 3), .. to 0, 2, .., 1, 3, ...
fn half_split(rows: &Tensor, heads: usize) -> TensorResult<Tensor> {
    let pairs = rows.reshape((heads, rows.dim(0)? / heads / 2, 2, ()))?;
    pairs.transpose(1, 2)?.contiguous()?.reshape(rows.shape())
}

/// The tensor of this name, which must be floats of this shape.
pub(crate) fn checked<'w>(
    weights: &'w HashMap<String, Weight>,
    name: &str,
    shape: &[usize],
) -> Result<&'w Weight, String> {
    let weight = weights
        .get(name)
        .ok_or_else(|| format!("missing tensor {name}"))?;
    if weight.dims() != shape {
        return Err(format!(
            "tensor {name} has shape {:?}, expected {shape:?}",
            weight.dims()
        ));
    }
    match weight.dtype() {
        (_, true) => Ok(weight),
        (dtype, false) => Err(format!("tensor {name} is {dtype}, expected floats")),
    }
}
