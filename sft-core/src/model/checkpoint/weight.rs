//! A tensor in memory, or in a file that it is read from when it is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use candle_core::{DType, Device, Result as TensorResult, Tensor};
use safetensors::Dtype;

use super::source::Source;

/// A tensor by its place; cloning copies no values.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    place: Place,
    shape: Vec<usize>,
    order: Order,
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

impl Stored {
    fn read(&self, shape: &[usize]) -> TensorResult<Tensor> {
        let what = format!("tensor {}", self.name);
        let bytes = self.source.read(self.from, self.bytes, &what)?;
        match self.form {
            Form::Safetensors(dtype) => {
                let dtype = DType::try_from(dtype)?;
                Tensor::from_raw_buffer(&bytes, dtype, shape, &Device::Cpu)?.to_dtype(DType::F32)
            }
            Form::Ggml(dtype) => {
                let quantized = qtensor_from_ggml(dtype, &bytes, shape.to_vec(), &Device::Cpu)?;
                quantized.dequantize(&Device::Cpu)
            }
        }
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
