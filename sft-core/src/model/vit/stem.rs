//! What comes before the blocks: patches, class token and positions.

use candle_core::{Result, Tensor};

use super::{VitConfig, VitWeights};
use crate::adapter::{Lora, ModelSpec, Place};
use crate::layers::{Backend, LowRank, bytes};

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
    backend: Backend,
}

impl Stem {
    pub(super) fn new(config: &VitConfig, weights: &VitWeights, backend: &Backend) -> Result<Self> {
        let (spec, device) = (config.spec(), backend.device());
        let get = |name: &str| weights.0.get(name)?.to_device(device);
        let projection = &spec.embedding[0].path.checkpoint;
        Ok(Self {
            patch_weight: get(&format!("{projection}.weight"))?.flatten_from(1)?,
            patch_bias: get(&format!("{projection}.bias"))?,
            class_token: get("vit.embeddings.cls_token")?,
            positions: get("vit.embeddings.position_embeddings")?,
            image: config.image_size,
            patch: config.patch_size,
            spec,
            backend: backend.clone(),
        })
    }

    /// Memory of the weights.
    pub(super) fn bytes(&self) -> usize {
        let projection = bytes(&self.patch_weight) + bytes(&self.patch_bias);
        projection + bytes(&self.class_token) + bytes(&self.positions)
    }

    /// `[B, C, H, H]` pixels to `[B, S, D]` tokens.
    pub(super) fn embed(
        &self,
        pixels: &Tensor,
        adapter: Option<(&Tensor, Lora)>,
    ) -> Result<Tensor> {
        let patches = self.patches(pixels)?;
        let Some((vector, lora)) = adapter else {
            return self.tokens(&patches, None);
        };
        let value = |_: &Tensor, vector: &Tensor| {
            self.tokens(&patches, self.adapter(vector, lora)?.as_ref())
        };
        let Some(pair) = self.adapter(&vector.detach(), lora)? else {
            return value(pixels, vector);
        };
        let (stem, input) = (self.clone(), pixels.clone());
        self.backend.adapted([pixels, vector], value, move |dy| {
            let patches = stem.patches(&input)?;
            // The first token is the class token.
            let dy = dy
                .narrow(1, 1, dy.dim(1)? - 1)?
                .contiguous()?
                .flatten_to(1)?;
            Ok((None, pair.gradients(&patches, &dy)?.1))
        })
    }

    /// The tokens `[B, S, D]` of patches, in candle's operations.
    fn tokens(&self, patches: &Tensor, adapter: Option<&LowRank>) -> Result<Tensor> {
        let mut tokens = patches
            .matmul(&self.patch_weight.t()?)?
            .broadcast_add(&self.patch_bias)?;
        if let Some(adapter) = adapter {
            tokens = (tokens + adapter.change(patches)?)?;
        }
        let (count, width) = ((self.image / self.patch).pow(2), self.spec.width);
        let tokens = tokens.reshape(((), count, width))?;
        let class = self.class_token.expand((tokens.dim(0)?, 1, width))?;
        Tensor::cat(&[&class, &tokens], 1)?.broadcast_add(&self.positions)
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
