//! The transformer: its shape, and how many parameters each part has.

use serde::{Deserialize, Serialize};

use crate::error::{Result, check};

/// Whether query, key and value are one linear layer or three; decides their adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Qkv {
    /// One layer `D → 3D` with one adapter of `4Dr` parameters: the paper's Table III.
    #[default]
    Fused,
    /// Three layers `D → D` with an adapter of `2Dr` parameters each: the paper's section V.
    Separate,
}

/// Parameters and operations of one part of a model, counted elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Parameters without adapters.
    pub parameters: u64,
    /// Parameters of its adapters.
    #[serde(default)]
    pub lora_parameters: u64,
    /// FLOP of the forward pass of one sample, adapters included.
    #[serde(default)]
    pub forward_flop: u64,
    /// FLOP of the backward pass of one sample, adapters included.
    #[serde(default)]
    pub backward_flop: u64,
}

/// A transformer by what its parts count, in place of the formulas of a vision transformer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// One block, frozen but for its adapters.
    pub block: Part,
    /// The embedding, frozen.
    pub embedding: Part,
    /// The head with everything after the last block, trained.
    pub head: Part,
}

/// Shape of a vision transformer with LoRA adapters on every linear layer of its blocks.
///
/// All counts are returned as `f64`: exact up to 2⁵³, and free of overflow.
/// Fields may be set freely; [`System::new`](crate::System::new) checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Transformer {
    /// Number of blocks `L`, at least 1.
    pub blocks: usize,
    /// Width of the residual stream `D`, at least 1.
    pub width: usize,
    /// Width of the feed-forward layer `D_mlp`, at least 1.
    pub mlp_width: usize,
    /// Attention heads `A`, a divisor of `width`.
    pub heads: usize,
    /// Tokens per sample `S`, the class token included, at least 1.
    pub tokens: usize,
    /// Side of a square patch `P` in pixels, at least 1.
    pub patch: usize,
    /// Image channels `C`, at least 1.
    pub channels: usize,
    /// Side of a square image in pixels, at least `patch`.
    pub image: usize,
    /// Classes of the head `K`, at least 1.
    pub classes: usize,
    /// Rank of the adapters `r`; 0 means no adapters.
    pub lora_rank: usize,
    /// Layout of query, key and value.
    pub qkv: Qkv,
    /// Parameters and operations of the parts, where the formulas of a vision transformer do not
    /// hold; the shape then says only what is sent and kept: `tokens`, `width`, `heads`, and
    /// `channels` and `image` of the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

impl Transformer {
    /// A vision transformer at 224×224 with patches of 16, `D_mlp = 4D` and fused adapters of rank 16.
    pub fn vit(blocks: usize, width: usize, heads: usize, classes: usize) -> Self {
        let shape = Self {
            blocks,
            width,
            mlp_width: width.saturating_mul(4),
            heads,
            tokens: 0,
            patch: 0,
            channels: 3,
            image: 0,
            classes,
            lora_rank: 16,
            qkv: Qkv::Fused,
            counts: None,
        };
        shape.with_image(224, 16)
    }

    /// ViT-Tiny: 12 blocks of width 192 with 3 heads.
    pub fn vit_tiny(classes: usize) -> Self {
        Self::vit(12, 192, 3, classes)
    }

    /// ViT-Small: 12 blocks of width 384 with 6 heads.
    pub fn vit_small(classes: usize) -> Self {
        Self::vit(12, 384, 6, classes)
    }

    /// ViT-Base, the paper's model: 12 blocks of width 768 with 12 heads.
    pub fn vit_base(classes: usize) -> Self {
        Self::vit(12, 768, 12, classes)
    }

    /// ViT-Large: 24 blocks of width 1024 with 16 heads.
    pub fn vit_large(classes: usize) -> Self {
        Self::vit(24, 1024, 16, classes)
    }

    /// Any transformer, by what its parts count.
    ///
    /// A sample is one number (`channels` and `image` are 1): set them where the input takes
    /// memory that matters. [`Flops`](super::Flops) makes no difference but for the backward
    /// pass of full training, which is twice the forward pass.
    ///
    /// ```
    /// use sft_opt::system::{Counts, Part, Transformer};
    ///
    /// let part = |parameters, forward_flop| Part {
    ///     parameters,
    ///     forward_flop,
    ///     backward_flop: forward_flop,
    ///     ..Part::default()
    /// };
    /// let counts = Counts {
    ///     block: part(202_383_360, 415_000_000_000),
    ///     embedding: part(131_072_000, 0),
    ///     head: part(131_076_096, 268_000_000_000),
    /// };
    /// let llama = Transformer::counted(32, 1024, 4096, 32, counts);
    /// assert_eq!(llama.parameters(), 6_738_415_616.0);
    /// ```
    pub fn counted(
        blocks: usize,
        tokens: usize,
        width: usize,
        heads: usize,
        counts: Counts,
    ) -> Self {
        let mut model = Self::vit(blocks, width, heads, 1)
            .with_image(1, 1)
            .with_lora(0, Qkv::Fused);
        (model.channels, model.tokens) = (1, tokens);
        model.counts = Some(counts);
        model
    }

    /// Sets the sides of image and patch, and with them `tokens = (image / patch)² + 1`.
    #[must_use]
    pub fn with_image(mut self, image: usize, patch: usize) -> Self {
        let grid = image.checked_div(patch).unwrap_or(0);
        self.image = image;
        self.patch = patch;
        self.tokens = grid.saturating_mul(grid).saturating_add(1);
        self
    }

    /// Sets rank and layout of the adapters.
    #[must_use]
    pub fn with_lora(mut self, rank: usize, qkv: Qkv) -> Self {
        self.lora_rank = rank;
        self.qkv = qkv;
        self
    }

    /// Parameters of one block without adapters: `4D² + 2·D·D_mlp + 9D + D_mlp`,
    /// which is `12D² + 13D` for `D_mlp = 4D` (weights, biases and two layer norms).
    pub fn block_parameters(&self) -> f64 {
        if let Some(counts) = self.counts {
            return counts.block.parameters as f64;
        }
        let (d, mlp) = (self.width as f64, self.mlp_width as f64);
        4.0 * d * d + 2.0 * d * mlp + 9.0 * d + mlp
    }

    /// Adapter parameters of one block `p_L`: attention plus `2r(D + D_mlp)`.
    ///
    /// Attention has `8Dr` with [`Qkv::Separate`] (`p_L = 18Dr` for `D_mlp = 4D`) and
    /// `6Dr` with [`Qkv::Fused`] (`p_L = 16Dr`).
    pub fn lora_parameters_per_block(&self) -> f64 {
        if let Some(counts) = self.counts {
            return counts.block.lora_parameters as f64;
        }
        let (d, mlp, r) = (
            self.width as f64,
            self.mlp_width as f64,
            self.lora_rank as f64,
        );
        let attention = match self.qkv {
            Qkv::Fused => 6.0,
            Qkv::Separate => 8.0,
        };
        attention * d * r + 2.0 * r * (d + mlp)
    }

    /// Parameters of the patch projection, `P²CD + D`, or of a counted embedding.
    pub fn patch_parameters(&self) -> f64 {
        if let Some(counts) = self.counts {
            return counts.embedding.parameters as f64;
        }
        let (p, c, d) = (self.patch as f64, self.channels as f64, self.width as f64);
        p * p * c * d + d
    }

    /// Parameters of the embedding: patch projection, positions and class token, `(P²C + S + 2)D`.
    pub fn embedding_parameters(&self) -> f64 {
        if self.counts.is_some() {
            return self.patch_parameters();
        }
        self.patch_parameters() + (self.tokens as f64 + 1.0) * self.width as f64
    }

    /// Parameters of the head: `DK + K`.
    pub fn head_parameters(&self) -> f64 {
        if let Some(counts) = self.counts {
            return counts.head.parameters as f64;
        }
        (self.width as f64 + 1.0) * self.classes as f64
    }

    /// Parameters of the whole model without adapters: embedding, blocks, last layer norm, head.
    pub fn parameters(&self) -> f64 {
        let last_norm = match self.counts {
            Some(_) => 0.0,
            None => 2.0 * self.width as f64,
        };
        self.embedding_parameters()
            + self.blocks as f64 * self.block_parameters()
            + last_norm
            + self.head_parameters()
    }

    /// Adapter parameters of embedding and head where these have adapters: `2Dr` on the patch
    /// projection, `r(D + K)` on the head.
    pub(crate) fn outer_lora_parameters(&self) -> [f64; 2] {
        if let Some(Counts {
            embedding, head, ..
        }) = self.counts
        {
            return [embedding, head].map(|part| part.lora_parameters as f64);
        }
        let (d, r) = (self.width as f64, self.lora_rank as f64);
        [2.0 * d * r, r * (d + self.classes as f64)]
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let positive = [
            ("blocks", self.blocks),
            ("width", self.width),
            ("mlp_width", self.mlp_width),
            ("heads", self.heads),
            ("tokens", self.tokens),
            ("patch", self.patch),
            ("channels", self.channels),
            ("classes", self.classes),
        ];
        for (name, value) in positive {
            check(value >= 1, name, value as f64, "at least 1")?;
        }
        let (heads, image) = (self.heads, self.image);
        let divides = self.width.is_multiple_of(heads);
        check(divides, "heads", heads as f64, "a divisor of width")?;
        check(
            image >= self.patch,
            "image",
            image as f64,
            "at least the side of a patch",
        )
    }
}
