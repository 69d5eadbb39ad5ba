//! The models that are measured, with values that any language can compute.
//!
//! Every number comes from a hash of its tensor's number and its place, so that `train_peers.py`
//! trains the same model on the same images and must find the same losses.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sft_core::adapter::{Adapters, Head, Lora};
use sft_core::model::{Backend, Vit, VitConfig, VitWeights};

use crate::Outcome;

/// The numbers of the first adapter matrix, of the head and of the images; the model's parameters
/// count from 0, in the order of [`VitConfig::parameters`].
pub(crate) const ADAPTERS: u64 = 1_000_000;
pub(crate) const HEAD: u64 = 2_000_000;
const IMAGES: u64 = 3_000_000;

/// A model, its cut and its mini-batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// What it is called in tables.
    pub name: String,
    /// The model's sizes.
    pub config: VitConfig,
    /// Samples of a mini-batch, B.
    pub batch: usize,
    /// Rank of the adapters on all six linears of a block; their scale is 1.
    pub rank: usize,
    /// Blocks on the device.
    pub cut: usize,
    /// Classes of the head, K.
    pub classes: usize,
}

impl Shape {
    /// The model of the examples.
    pub fn digits() -> Self {
        let config = VitConfig {
            hidden_size: 64,
            num_hidden_layers: 6,
            num_attention_heads: 4,
            intermediate_size: 256,
            image_size: 8,
            patch_size: 2,
            num_channels: 1,
            ..VitConfig::default()
        };
        Self::new("digits", config, 16, 8, 10)
    }

    /// A ViT-Tiny on images of 32x32.
    pub fn tiny() -> Self {
        let config = VitConfig {
            image_size: 32,
            patch_size: 4,
            ..Self::vit_tiny().config
        };
        Self::new("tiny", config, 32, 16, 100)
    }

    /// A ViT-Tiny as it is published.
    pub fn vit_tiny() -> Self {
        let config = VitConfig {
            hidden_size: 192,
            num_attention_heads: 3,
            intermediate_size: 768,
            ..VitConfig::default()
        };
        Self::new("ViT-Tiny", config, 8, 16, 100)
    }

    /// The paper's model.
    pub fn vit_base() -> Self {
        Self::new("ViT-B", VitConfig::default(), 8, 16, 100)
    }

    /// Cut in the middle.
    fn new(name: &str, config: VitConfig, batch: usize, rank: usize, classes: usize) -> Self {
        Self {
            name: name.into(),
            cut: config.num_hidden_layers / 2,
            config,
            batch,
            rank,
            classes,
        }
    }

    /// The same, cut after `cut` blocks.
    #[must_use]
    pub fn cut_at(&self, cut: usize) -> Self {
        let shape = self.clone();
        Self { cut, ..shape }
    }

    /// The same without the blocks behind the cut: what a device holds.
    #[must_use]
    pub fn device_part(&self) -> Self {
        let mut shape = self.clone();
        shape.config.num_hidden_layers = self.cut;
        shape
    }

    /// Its name with what decides time and memory.
    pub fn title(&self) -> String {
        let Self {
            name,
            config,
            batch,
            rank,
            cut,
            ..
        } = self;
        let (width, blocks, tokens) = (
            config.hidden_size,
            config.num_hidden_layers,
            config.tokens(),
        );
        format!(
            "{name} (D {width}, {blocks} blocks, {tokens} tokens, batch {batch}, rank {rank}, \
             cut {cut})"
        )
    }

    /// The frozen model in the engine.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn model(&self) -> Outcome<Vit> {
        self.model_on(Backend::default())
    }

    /// The frozen model on a backend.
    ///
    /// # Errors
    /// Sizes that do not fit together.
    pub fn model_on(&self, backend: Backend) -> Outcome<Vit> {
        let mut tensors = HashMap::new();
        for (number, (name, shape)) in (0..).zip(self.config.parameters()) {
            let gain = name.contains("norm") && name.ends_with("weight");
            let mean = if gain { 1.0 } else { 0.0 };
            let values = values(number, shape.iter().product(), mean, 0.02);
            tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        let weights = VitWeights::new(&self.config, &tensors)?;
        Ok(Vit::new(&self.config, &weights, backend)?)
    }

    /// The kind of its adapters.
    ///
    /// # Errors
    /// A rank of 0.
    pub fn lora(&self) -> Outcome<Lora> {
        Ok(Lora::new(self.rank, self.rank as f64)?)
    }

    /// Adapters of all blocks, and the head.
    pub fn adapters(&self) -> Adapters {
        let linears = self.config.spec().block;
        let block = |block| {
            let mut vector = Vec::new();
            for (number, linear) in (ADAPTERS + 6 * block..).zip(&linears) {
                let deviation = 1.0 / self.rank as f64;
                vector.extend(values(number, self.rank * linear.inputs, 0.0, deviation));
                vector.resize(vector.len() + self.rank * linear.outputs, 0.0);
            }
            vector
        };
        let weights = self.classes * self.config.hidden_size;
        Adapters {
            embedding: Vec::new(),
            blocks: (0..self.config.num_hidden_layers as u64)
                .map(block)
                .collect(),
            head: Head {
                classes: self.classes,
                weight: values(HEAD, weights, 0.0, 0.02),
                bias: vec![0.0; self.classes],
                adapter: Vec::new(),
            },
        }
    }

    /// A mini-batch of images.
    ///
    /// # Errors
    /// None for a shape of this module.
    pub fn images(&self) -> Outcome<Tensor> {
        let (channels, side) = (self.config.num_channels, self.config.image_size);
        let shape = [self.batch, channels, side, side];
        let values = values(IMAGES, shape.iter().product(), 0.0, 1.0);
        Ok(Tensor::from_vec(values, &shape, &Device::Cpu)?)
    }

    /// Their classes.
    pub fn labels(&self) -> Vec<u32> {
        (0..self.batch)
            .map(|i| (37 * i % self.classes) as u32)
            .collect()
    }
}

/// `count` numbers, uniform around `mean` with this standard deviation.
pub(crate) fn values(tensor: u64, count: usize, mean: f32, deviation: f64) -> Vec<f32> {
    let width = (12f64.sqrt() * deviation) as f32;
    let value = |place| {
        let uniform = (hash((tensor << 32) + place) >> 40) as f32 / (1 << 24) as f32;
        mean + width * (uniform - 0.5)
    };
    (0..count as u64).map(value).collect()
}

/// The finaliser of `SplitMix64`.
fn hash(key: u64) -> u64 {
    let x = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_mean_and_deviation_asked_for() {
        let values = values(7, 100_000, 1.0, 0.5);
        let mean = values.iter().copied().map(f64::from).sum::<f64>() / 1e5;
        let square = |&v: &f32| (f64::from(v) - mean).powi(2);
        let deviation = (values.iter().map(square).sum::<f64>() / 1e5).sqrt();
        // Five standard errors.
        assert!((mean - 1.0).abs() < 5.0 * 0.5 / 1e5f64.sqrt(), "{mean}");
        assert!((deviation - 0.5).abs() < 5e-3, "{deviation}");
    }

    #[test]
    fn adapters_fit_their_model() {
        let shape = Shape::digits();
        let adapters = shape.adapters();
        let want = shape.lora().unwrap().block_parameters(&shape.config.spec());
        assert_eq!(adapters.blocks.len(), 6);
        assert!(adapters.blocks.iter().all(|block| block.len() == want));
        assert_eq!(shape.cut_at(2).device_part().adapters().blocks.len(), 2);
    }
}
