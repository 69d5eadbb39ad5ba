//! The sizes of a vision transformer, as Hugging Face's `ViTConfig` names them.

use serde::{Deserialize, Serialize};

use sft_opt::Transformer;
use sft_opt::system::Qkv;

use crate::adapter::{LinearSpec, ModelSpec, Path};

/// The largest size that is believed: products of two stay far from overflow.
const MAX_SIZE: usize = 1 << 16;

/// Sizes and constants of a `ViTForImageClassification`.
///
/// The fields and their defaults are those of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VitConfig {
    /// Features of a hidden state, D.
    pub hidden_size: usize,
    /// Number of blocks, L.
    pub num_hidden_layers: usize,
    /// Attention heads, A; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// The MLP's activation; only the exact `gelu` is implemented.
    pub hidden_act: String,
    /// The epsilon of every layer normalisation.
    pub layer_norm_eps: f64,
    /// Side of the square input image, pixels.
    pub image_size: usize,
    /// Side of a square patch, pixels; divides `image_size`.
    pub patch_size: usize,
    /// Channels of the input image.
    pub num_channels: usize,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Whether both branches of a block are scaled feature by feature before they are added
    /// (`LayerScale`), as in `DINOv2`; the file's tensors tell.
    #[serde(skip)]
    pub layer_scale: bool,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            image_size: 224,
            patch_size: 16,
            num_channels: 3,
            qkv_bias: true,
            layer_scale: false,
        }
    }
}

impl VitConfig {
    /// Tokens of a hidden state: the patches and the class token, S.
    pub fn tokens(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }

    /// The same sizes for the cost model, with adapters of `rank` and a head of `classes`.
    pub fn transformer(&self, classes: usize, rank: usize) -> Transformer {
        let (blocks, width, heads) = (
            self.num_hidden_layers,
            self.hidden_size,
            self.num_attention_heads,
        );
        let mut model = Transformer::vit(blocks, width, heads, classes)
            .with_image(self.image_size, self.patch_size)
            .with_lora(rank, Qkv::Separate);
        model.mlp_width = self.intermediate_size;
        model.channels = self.num_channels;
        model
    }

    /// What the model tells of itself: the six linears of a block, the patch embedding, the head.
    pub fn spec(&self) -> ModelSpec {
        let (d, m) = (self.hidden_size, self.intermediate_size);
        let linear = |checkpoint: &str, module: &str, inputs, outputs| LinearSpec {
            path: Path::new(checkpoint, module),
            inputs,
            outputs,
            kernel: None,
        };
        let patch = LinearSpec {
            path: Path::same("vit.embeddings.patch_embeddings.projection"),
            inputs: self.num_channels * self.patch_size * self.patch_size,
            outputs: d,
            kernel: Some([self.num_channels, self.patch_size]),
        };
        ModelSpec {
            depth: self.num_hidden_layers,
            width: d,
            tokens: self.tokens(),
            grid: Some([self.image_size / self.patch_size; 2]),
            causal: false,
            blocks: Path::new("vit.encoder.layer", "vit.layers"),
            block: vec![
                linear("attention.attention.query", "attention.q_proj", d, d),
                linear("attention.attention.key", "attention.k_proj", d, d),
                linear("attention.attention.value", "attention.v_proj", d, d),
                linear("attention.output.dense", "attention.o_proj", d, d),
                linear("intermediate.dense", "mlp.fc1", d, m),
                linear("output.dense", "mlp.fc2", m, d),
            ],
            fan_in_fan_out: false,
            embedding: vec![patch],
            head: Path::same("classifier"),
            head_bias: true,
            pooler: None,
        }
    }

    /// Checks that the sizes fit together; the message names what does not.
    ///
    /// # Errors
    /// A size that is not in 1 to 65,536, heads that do not divide the width, a patch that does not
    /// divide the image, or an activation other than `gelu`.
    pub fn validate(&self) -> Result<(), String> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("image_size", self.image_size),
            ("patch_size", self.patch_size),
            ("num_channels", self.num_channels),
        ];
        if let Some((name, size)) = sizes
            .iter()
            .find(|(_, size)| !(1..=MAX_SIZE).contains(size))
        {
            return Err(format!("{name} must be in 1..={MAX_SIZE}, got {size}"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let (heads, width) = (self.num_attention_heads, self.hidden_size);
            return Err(format!("heads must divide the width {width}, got {heads}"));
        }
        if !self.image_size.is_multiple_of(self.patch_size) {
            let (patch, image) = (self.patch_size, self.image_size);
            return Err(format!(
                "patch_size must divide image_size {image}, got {patch}"
            ));
        }
        if self.hidden_act != "gelu" {
            return Err(format!("hidden_act must be gelu, got {}", self.hidden_act));
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps < 1.0) {
            let eps = self.layer_norm_eps;
            return Err(format!("layer_norm_eps must be in [0, 1), got {eps}"));
        }
        Ok(())
    }

    /// Name and shape of every parameter but the head's, in the checkpoint's order.
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let (d, p, c) = (self.hidden_size, self.patch_size, self.num_channels);
        let mut list = vec![
            ("vit.embeddings.cls_token".into(), vec![1, 1, d]),
            (
                "vit.embeddings.position_embeddings".into(),
                vec![1, self.tokens(), d],
            ),
            (
                "vit.embeddings.patch_embeddings.projection.weight".into(),
                vec![d, c, p, p],
            ),
            (
                "vit.embeddings.patch_embeddings.projection.bias".into(),
                vec![d],
            ),
        ];
        for block in 0..self.num_hidden_layers {
            let path = block_path(block);
            for norm in ["layernorm_before", "layernorm_after"] {
                list.extend(affine(&format!("{path}.{norm}"), vec![d]));
            }
            for (_, scale) in SCALED.iter().filter(|_| self.layer_scale) {
                list.push((format!("{path}.{scale}"), vec![d]));
            }
            for (i, linear) in self.spec().block.into_iter().enumerate() {
                let path = format!("{path}.{}", linear.path.checkpoint);
                let [weight, bias] = affine(&path, vec![linear.outputs, linear.inputs]);
                list.push(weight);
                if i >= 3 || self.qkv_bias {
                    list.push(bias);
                }
            }
        }
        list.extend(affine("vit.layernorm", vec![d]));
        list
    }
}

/// The linears at the end of a block's branches, and the factors of what they give.
pub(super) const SCALED: [(&str, &str); 2] = [
    ("attention.output.dense", "layer_scale1.lambda1"),
    ("output.dense", "layer_scale2.lambda1"),
];

/// The path of a block's parameters.
pub(crate) fn block_path(index: impl std::fmt::Display) -> String {
    format!("vit.encoder.layer.{index}")
}

/// A weight of the given shape, and the bias beside it.
fn affine(path: &str, weight: Vec<usize>) -> [(String, Vec<usize>); 2] {
    let bias = vec![weight[0]];
    [
        (format!("{path}.weight"), weight),
        (format!("{path}.bias"), bias),
    ]
}
