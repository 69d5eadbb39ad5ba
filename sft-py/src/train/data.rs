use candle_core::{Device, Tensor};
use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sft_core::data::{Augment, Batch, Data, Examples, ImageInput, Images};
use sft_core::{Error, Result};

/// Images of `sft.finetune`, `[n, c, h, h]`, as pixels or the model's own input, and their classes.
pub(super) type Labelled<'py> = (Bound<'py, PyAny>, Vec<u32>);

/// Training and test images.
pub(super) struct Pair(Arrays, Arrays);

impl Pair {
    pub(super) fn extract(train: Labelled<'_>, test: Labelled<'_>) -> PyResult<Self> {
        Ok(Self(
            Arrays::extract("data", &train.0, train.1)?,
            Arrays::extract("test", &test.0, test.1)?,
        ))
    }

    /// The data sets for a model that wants `input`; `full` is the byte of full intensity, and only
    /// training images are augmented.
    pub(super) fn examples(
        self,
        full: u8,
        input: &ImageInput,
        augment: Option<Augment>,
    ) -> Result<Examples> {
        let Self(train, test) = self;
        let labels = train.labels().iter().chain(test.labels());
        let classes = labels.max().map_or(0, |&label| label as usize + 1);
        Ok((
            train.data(classes, full, input, augment)?,
            test.data(classes, full, input, None)?,
        ))
    }
}

/// One data set of arrays, taken out of Python's hands.
#[derive(Clone)]
pub(super) enum Arrays {
    /// Pixels and labels of `[n, c, h, h]`, channels and side.
    Bytes(Vec<u8>, Vec<u32>, [usize; 2]),
    Floats(Vec<f32>, Vec<u32>, Vec<usize>),
}

impl Arrays {
    /// Copies what `name` gives: training outlives any lock on it.
    pub(super) fn extract(
        name: &str,
        images: &Bound<'_, PyAny>,
        labels: Vec<u32>,
    ) -> PyResult<Self> {
        if let Ok(bytes) = images.cast::<PyArrayDyn<u8>>() {
            let shape = [bytes.shape()[1], bytes.shape()[3]];
            return Ok(Self::Bytes(bytes.to_vec()?, labels, shape));
        }
        let floats = images.cast::<PyArrayDyn<f32>>().map_err(|_| {
            PyValueError::new_err(format!("{name} must be images of uint8 or float32"))
        })?;
        Ok(Self::Floats(
            floats.to_vec()?,
            labels,
            floats.shape().to_vec(),
        ))
    }

    pub(super) fn labels(&self) -> &[u32] {
        match self {
            Self::Bytes(_, labels, _) | Self::Floats(_, labels, _) => labels,
        }
    }

    /// The data set for a model that wants `input`; `full` is the byte of full intensity.
    pub(super) fn data(
        self,
        classes: usize,
        full: u8,
        input: &ImageInput,
        augment: Option<Augment>,
    ) -> Result<Box<dyn Data + Send>> {
        match self {
            Self::Bytes(pixels, labels, [channels, side]) => {
                let wanted = input.mean.len();
                if channels != wanted {
                    let reason = format!(
                        "of uint8 must have the {wanted} channels of the model, got {channels}"
                    );
                    return Err(Error::argument("images", reason));
                }
                let images = Images::new(pixels, labels, classes, side, full, input.clone())?;
                Ok(Box::new(images.with_augmentation(augment)))
            }
            Self::Floats(values, labels, shape) => {
                if augment.is_some() {
                    let reason = "needs images of uint8, got float32";
                    return Err(Error::argument("augment", reason));
                }
                let wanted = [input.mean.len(), input.side, input.side];
                if shape[1..] != wanted {
                    let [channels, side, _] = wanted;
                    let reason = format!(
                        "of float32 must be [n, {side}, {side}, {channels}] as the model takes \
                         them, got [n, {}, {}, {}]",
                        shape[2], shape[3], shape[1]
                    );
                    return Err(Error::argument("images", reason));
                }
                Ok(Box::new(Floats {
                    values,
                    labels,
                    classes,
                    shape: wanted,
                }))
            }
        }
    }
}

/// Images as a model takes them.
struct Floats {
    /// `[n, c, h, h]`.
    values: Vec<f32>,
    labels: Vec<u32>,
    classes: usize,
    /// `[c, h, h]`.
    shape: [usize; 3],
}

impl Data for Floats {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        let size: usize = self.shape.iter().product();
        let image = |&index: &usize| &self.values[index * size..][..size];
        let values: Vec<f32> = indices.iter().flat_map(image).copied().collect();
        let [channels, height, width] = self.shape;
        let shape = (indices.len(), channels, height, width);
        let pixels = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(Batch::images(self, indices, pixels))
    }
}
