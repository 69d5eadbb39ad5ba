//! What comes before the blocks: patches, class token and positions.

use candle_core::{Result, Tensor};

use super::{VitConfig, VitWeights};

/// The embedding of images as tokens.
#[derive(Clone, Debug)]
pub(super) struct Stem {
    /// `[D, C * P * P]`
    patch_weight: Tensor,
    patch_bias: Tensor,
    class_token: Tensor,
    positions: Tensor,
    image: usize,
    patch: usize,
}

impl Stem {
    pub(super) fn new(config: &VitConfig, weights: &VitWeights) -> Result<Self> {
        let patch_weight = weights.get("vit.embeddings.patch_embeddings.projection.weight");
        Ok(Self {
            patch_weight: patch_weight.flatten_from(1)?,
            patch_bias: weights
                .get("vit.embeddings.patch_embeddings.projection.bias")
                .clone(),
            class_token: weights.get("vit.embeddings.cls_token").clone(),
            positions: weights.get("vit.embeddings.position_embeddings").clone(),
            image: config.image_size,
            patch: config.patch_size,
        })
    }

    /// `[B, C, H, H]` pixels to `[B, S, D]` tokens.
    pub(super) fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        if (height, width) != (self.image, self.image) {
            candle_core::bail!(
                "the model takes {0}x{0} images, got {height}x{width}",
                self.image
            )
        }
        let (side, p) = (self.image / self.patch, self.patch);
        let patches = pixels
            .reshape(&[batch, channels, side, p, side, p][..])?
            .permute([0, 2, 4, 1, 3, 5])? // [B, side, side, C, P, P]
            .reshape((batch * side * side, channels * p * p))?;
        let tokens = patches
            .matmul(&self.patch_weight.t()?)?
            .broadcast_add(&self.patch_bias)?
            .reshape((batch, side * side, ()))?;
        let class = self.class_token.expand((batch, 1, tokens.dim(2)?))?;
        Tensor::cat(&[&class, &tokens], 1)?.broadcast_add(&self.positions)
    }
}
