//! What comes before the blocks: patches, class token and positions.

use candle_core::{Result, Tensor};

use super::{VitConfig, VitWeights};
use crate::adapter::{Lora, ModelSpec, Place};
use crate::layers::{LowRank, with_gradients};

/// The embedding of images as tokens.
#[derive(Clone, Debug)]
pub(super) struct Stem {
    /// `[D, C * P * P]`
    patch_weight: Tensor,
    patch_bias: Tensor,
    class_token: Tensor,
    positions: Tensor,
    image: usize,
    /// Side of a patch, pixels.
    patch: usize,
    spec: ModelSpec,
}

impl Stem {
    pub(super) fn new(config: &VitConfig, weights: &VitWeights) -> Result<Self> {
        let spec = config.spec();
        let part = |part| weights.get(&format!("{}.{part}", spec.embedding[0].path.checkpoint));
        Ok(Self {
            patch_weight: part("weight").flatten_from(1)?,
            patch_bias: part("bias").clone(),
            class_token: weights.get("vit.embeddings.cls_token").clone(),
            positions: weights.get("vit.embeddings.position_embeddings").clone(),
            image: config.image_size,
            patch: config.patch_size,
            spec,
        })
    }

    /// `[B, C, H, H]` pixels to `[B, S, D]` tokens, in candle's operations.
    pub(super) fn embed(
        &self,
        pixels: &Tensor,
        adapter: Option<(&Tensor, Lora)>,
    ) -> Result<Tensor> {
        let patches = self.patches(pixels)?;
        let mut tokens = patches
            .matmul(&self.patch_weight.t()?)?
            .broadcast_add(&self.patch_bias)?;
        if let Some((adapter, lora)) = adapter
            && let Some(adapter) = self.adapter(adapter, lora)?
        {
            tokens = (tokens + adapter.change(&patches)?)?;
        }
        let (batch, width) = (pixels.dim(0)?, self.spec.width);
        let tokens = tokens.reshape((batch, (), width))?;
        let class = self.class_token.expand((batch, 1, width))?;
        Tensor::cat(&[&class, &tokens], 1)?.broadcast_add(&self.positions)
    }

    /// The same on the CPU as one operation, which computes the adapter's gradient only.
    pub(super) fn embed_frozen(
        &self,
        pixels: &Tensor,
        adapter: &Tensor,
        lora: Lora,
    ) -> Result<Tensor> {
        let detached = adapter.detach();
        let value = self.embed(pixels, Some((&detached, lora)))?;
        let Some(adapter_pair) = self.adapter(&detached, lora)? else {
            return Ok(value);
        };
        let (stem, input) = (self.clone(), pixels.clone());
        with_gradients(&value, [pixels, adapter], move |dy| {
            let patches = stem.patches(&input)?;
            // The first token is the class token.
            let dy = dy
                .narrow(1, 1, dy.dim(1)? - 1)?
                .contiguous()?
                .flatten_to(1)?;
            Ok((None, adapter_pair.gradients(&patches, &dy)?.1))
        })
    }

    fn adapter(&self, vector: &Tensor, lora: Lora) -> Result<Option<LowRank>> {
        let wanted = lora.embedding_parameters(&self.spec);
        if vector.dims() != [wanted] {
            let got = vector.shape();
            candle_core::bail!("the patch embedding's adapter has {wanted} values, got {got:?}")
        }
        let layer = &self.spec.embedding[0];
        let sizes = [layer.inputs, layer.outputs];
        LowRank::new(lora, Place::Embedding(0), sizes, vector, 0)
    }

    /// The pixels of every patch as a row, in the order of the convolution's weight.
    fn patches(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = pixels.dims4()?;
        if (height, width) != (self.image, self.image) {
            candle_core::bail!(
                "the model takes {0}x{0} images, got {height}x{width}",
                self.image
            )
        }
        let p = self.patch;
        let side = self.image / p;
        pixels
            .reshape(&[batch, channels, side, p, side, p][..])?
            .permute([0, 2, 4, 1, 3, 5])? // [B, side, side, C, P, P]
            .reshape((batch * side * side, channels * p * p))
    }
}
