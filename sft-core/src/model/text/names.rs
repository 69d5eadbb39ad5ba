//! How the families of text models name their parameters.

/// A family of text models: what its files are called and what its blocks are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextFamily {
    /// `LLaMA` 1 to 3 and whatever is built like it, such as `SmolLM2`.
    Llama,
    /// Mistral: `LLaMA` with a sliding window.
    Mistral,
    /// Qwen 2 and 2.5: `LLaMA` with biases of queries, keys and values.
    Qwen2,
    /// Qwen 3: `LLaMA` with norms of each head's queries and keys.
    Qwen3,
    /// Gemma 2 without soft-capping: norms before and after each branch, windows in every other
    /// block.
    Gemma2,
    /// Gemma 3 for text: norms before and after each branch and of each head's queries and keys,
    /// windows in most blocks.
    Gemma3,
    /// BERT.
    Bert,
    /// `RoBERTa` and `XLM-RoBERTa`: BERT whose positions begin after the padding's id.
    Roberta,
    /// `DistilBERT`: BERT without token types, under other names.
    DistilBert,
    /// GPT-2: learned positions, and one linear for queries, keys and values.
    Gpt2,
}

/// What follows the layer before a head.
#[derive(Clone, Copy, Debug)]
pub(super) enum PoolerActivation {
    Tanh,
    Relu,
}

/// The linears of queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Qkv {
    /// One each.
    Apart([&'static str; 3]),
    /// One whose outputs are all of them in this order.
    Fused(&'static str),
}

impl Qkv {
    /// Their paths.
    pub(super) fn paths(&self) -> &[&'static str] {
        match self {
            Self::Apart(paths) => paths,
            Self::Fused(path) => std::slice::from_ref(path),
        }
    }
}

/// Paths below the model's, those of a block below the block's.
pub(super) struct Names {
    /// Where the model is in one with a head.
    pub(super) model: &'static str,
    pub(super) blocks: &'static str,
    pub(super) qkv: Qkv,
    /// The linear behind the heads.
    pub(super) output: &'static str,
    /// Norms of each head's queries and keys.
    pub(super) head_norms: [&'static str; 2],
    pub(super) gate: Option<&'static str>,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
    /// Whether files have the weights of blocks' linears as `[inputs, outputs]`.
    pub(super) is_transposed: bool,
    /// The norms of the attention's branch and of the MLP's.
    pub(super) norms: [&'static str; 2],
    /// The norms of what the branches give.
    pub(super) out_norms: Option<[&'static str; 2]>,
    pub(super) tokens: &'static str,
    pub(super) positions: Option<&'static str>,
    pub(super) types: Option<&'static str>,
    pub(super) embedding_norm: Option<&'static str>,
    pub(super) final_norm: Option<&'static str>,
    /// Where the head of a classifier is in the model with a head.
    pub(super) head: &'static str,
    /// Where the layer before it is, and what it ends with.
    pub(super) pooler: Option<(&'static str, PoolerActivation)>,
    /// What files have besides and no feature needs: buffers, and heads for other tasks. Ends of
    /// names, or beginnings where they end with a dot.
    pub(super) unused: &'static [&'static str],
}

impl TextFamily {
    pub(super) fn names(self) -> &'static Names {
        match self {
            Self::Llama | Self::Mistral | Self::Qwen2 | Self::Qwen3 => &LLAMA,
            Self::Gemma2 | Self::Gemma3 => &GEMMA,
            Self::Bert => &BERT,
            Self::Roberta => &ROBERTA,
            Self::DistilBert => &DISTILBERT,
            Self::Gpt2 => &GPT2,
        }
    }

    /// Whether each token sees those before it only.
    pub(super) fn is_decoder(self) -> bool {
        !matches!(self, Self::Bert | Self::Roberta | Self::DistilBert)
    }
}

const LLAMA: Names = Names {
    model: "model",
    blocks: "layers",
    qkv: Qkv::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    output: "self_attn.o_proj",
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    gate: Some("mlp.gate_proj"),
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    is_transposed: false,
    norms: ["input_layernorm", "post_attention_layernorm"],
    out_norms: None,
    tokens: "embed_tokens",
    positions: None,
    types: None,
    embedding_norm: None,
    final_norm: Some("norm"),
    head: "score",
    pooler: None,
    unused: &["rotary_emb.inv_freq"],
};

const GEMMA: Names = Names {
    norms: ["input_layernorm", "pre_feedforward_layernorm"],
    out_norms: Some(["post_attention_layernorm", "post_feedforward_layernorm"]),
    ..LLAMA
};

const BERT: Names = Names {
    model: "bert",
    blocks: "encoder.layer",
    qkv: Qkv::Apart([
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ]),
    output: "attention.output.dense",
    head_norms: ["", ""],
    gate: None,
    up: "intermediate.dense",
    down: "output.dense",
    is_transposed: false,
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    out_norms: None,
    tokens: "embeddings.word_embeddings",
    positions: Some("embeddings.position_embeddings"),
    types: Some("embeddings.token_type_embeddings"),
    embedding_norm: Some("embeddings.LayerNorm"),
    final_norm: None,
    head: "classifier",
    pooler: Some(("bert.pooler.dense", PoolerActivation::Tanh)),
    unused: &[
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "cls.",
        "classifier.",
        "qa_outputs.",
        "lm_head.",
    ],
};

const ROBERTA: Names = Names {
    model: "roberta",
    head: "classifier.out_proj",
    pooler: Some(("classifier.dense", PoolerActivation::Tanh)),
    unused: &[
        "embeddings.position_ids",
        "embeddings.token_type_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "classifier.",
        "qa_outputs.",
        "lm_head.",
    ],
    ..BERT
};

const DISTILBERT: Names = Names {
    model: "distilbert",
    blocks: "transformer.layer",
    qkv: Qkv::Apart(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
    output: "attention.out_lin",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norms: ["sa_layer_norm", "output_layer_norm"],
    types: None,
    pooler: Some(("pre_classifier", PoolerActivation::Relu)),
    unused: &[
        "embeddings.position_ids",
        "vocab_transform.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "classifier.",
        "qa_outputs.",
    ],
    ..BERT
};

const GPT2: Names = Names {
    model: "transformer",
    blocks: "h",
    qkv: Qkv::Fused("attn.c_attn"),
    output: "attn.c_proj",
    head_norms: ["", ""],
    gate: None,
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    is_transposed: true,
    norms: ["ln_1", "ln_2"],
    out_norms: None,
    tokens: "wte",
    positions: Some("wpe"),
    types: None,
    embedding_norm: None,
    final_norm: Some("ln_f"),
    head: "score",
    pooler: None,
    unused: &[".attn.bias", ".attn.masked_bias"],
};

impl Names {
    /// A place below the model, as files with a head name it.
    pub(super) fn at(&self, below: &str) -> String {
        format!("{}.{below}", self.model)
    }

    /// A place in a block.
    pub(super) fn in_block(&self, index: usize, below: &str) -> String {
        format!("{}.{}.{index}.{below}", self.model, self.blocks)
    }

    /// Whether files have a tensor as `[inputs, outputs]`.
    pub(super) fn is_transposed(&self, tensor: &str) -> bool {
        let mut linears = (self.qkv.paths().iter()).chain([&self.output, &self.up, &self.down]);
        let path = tensor.strip_suffix(".weight").unwrap_or_default();
        self.is_transposed && linears.any(|linear| path.ends_with(linear))
    }

    /// Whether a tensor is outside the model, in one with a head.
    pub(super) fn is_outside(&self, tensor: &str) -> bool {
        let pooler = self
            .pooler
            .is_some_and(|(path, _)| tensor.starts_with(path));
        pooler || tensor.starts_with(self.head) || self.is_unused(tensor)
    }

    /// Whether a tensor is known to have no part in features.
    pub(super) fn is_unused(&self, tensor: &str) -> bool {
        self.unused.iter().any(|name| match name.strip_suffix('.') {
            Some(_) => tensor.starts_with(name),
            None => tensor.ends_with(name),
        })
    }
}
