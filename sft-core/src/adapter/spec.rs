//! What a model tells of itself: its sizes, and every layer that may take an adapter by name.

use sft_compress::Tokens;

use crate::Result;

/// The two names of a place in a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// As the model's checkpoints name it, for example `vit.encoder.layer`.
    pub checkpoint: String,
    /// As the modules of the newest Transformers name it, and with them PEFT: `vit.layers`.
    pub module: String,
}

impl Path {
    /// A place with two names.
    pub fn new(checkpoint: impl Into<String>, module: impl Into<String>) -> Self {
        Self {
            checkpoint: checkpoint.into(),
            module: module.into(),
        }
    }

    /// A place with one name.
    pub fn same(path: impl Into<String>) -> Self {
        let path = path.into();
        Self::new(path.clone(), path)
    }

    /// A place below this one.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        let join = |above: &str, below: &str| format!("{above}.{below}");
        Self {
            checkpoint: join(&self.checkpoint, &below.checkpoint),
            module: join(&self.module, &below.module),
        }
    }

    /// Whether `name` is this path or its end, cut where a component begins: PEFT's rule for
    /// target modules, for either of the names.
    pub fn ends_with(&self, name: &str) -> bool {
        let ends = |path: &str| {
            let rest = path.strip_suffix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !name.is_empty() && (ends(&self.checkpoint) || ends(&self.module))
    }
}

/// A linear layer that may take an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSpec {
    /// Where it is: in a block, below the block; else in the model.
    pub path: Path,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
    /// Channels and side of the square kernel of a convolution whose stride is its kernel, so that
    /// it is a linear layer on the pixels of a patch; none of other layers.
    pub kernel: Option<[usize; 2]>,
}

impl LinearSpec {
    /// The shapes of a LoRA pair of this rank, as PEFT writes them: `A` `[r, inputs]` and `B`
    /// `[outputs, r]`, of a convolution `[r, C, P, P]` and `[D, r, 1, 1]`.
    pub fn pair_shapes(&self, rank: usize) -> [Vec<usize>; 2] {
        match self.kernel {
            Some([channels, side]) => [
                vec![rank, channels, side, side],
                vec![self.outputs, rank, 1, 1],
            ],
            None => [vec![rank, self.inputs], vec![self.outputs, rank]],
        }
    }

    /// The last part of its path, which PEFT takes a layer before the blocks by.
    pub fn module(&self) -> &str {
        let module = &self.path.module;
        module.rsplit('.').next().unwrap_or(module)
    }
}

/// The sizes of a model and the layers of it that may take adapters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// Number of blocks, L.
    pub depth: usize,
    /// Features of a hidden state, D.
    pub width: usize,
    /// The most tokens of a sample, S; samples without lengths of their own have all of them.
    pub tokens: usize,
    /// Height and width of the grid in which the last tokens lie, if they do.
    pub grid: Option<[usize; 2]>,
    /// Whether a token sees only those before it, as in a decoder.
    pub causal: bool,
    /// Where the blocks are; block `i` is at this path, then `i`.
    pub blocks: Path,
    /// The linear layers of a block, the same in every block, in the order of the adapter vector.
    pub block: Vec<LinearSpec>,
    /// Whether the model's files have the weights of the blocks' linears as `[inputs, outputs]`, as
    /// Transformers' `Conv1D` does; PEFT is told.
    pub fan_in_fan_out: bool,
    /// The linear layers before the blocks.
    pub embedding: Vec<LinearSpec>,
    /// Where the head is.
    pub head: Path,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// Where the frozen layer `[D, D]` with a bias is whose output the head reads, in models that
    /// have one: BERT's pooler.
    pub pooler: Option<Path>,
}

impl ModelSpec {
    /// A number that differs with near certainty between models of other sizes or layers.
    pub fn fingerprint(&self) -> u32 {
        let mut text = format!(
            "{} {} {} {}",
            self.depth, self.width, self.tokens, self.head.module
        );
        for layer in self.block.iter().chain(&self.embedding) {
            let LinearSpec {
                path,
                inputs,
                outputs,
                ..
            } = layer;
            text += "\n";
            text += &[
                path.module.as_str(),
                &inputs.to_string(),
                &outputs.to_string(),
            ]
            .join(" ");
        }
        crc32fast::hash(text.as_bytes())
    }

    /// How the tokens of a sample lie: those of a grid last.
    ///
    /// # Errors
    /// A grid of a side above 1024, or more than 64 tokens before it.
    pub fn layout(&self) -> Result<Tokens> {
        Ok(match self.grid {
            Some([height, width]) => {
                Tokens::grid(self.tokens.saturating_sub(height * width), height, width)?
            }
            None => Tokens::sequence(1)?,
        })
    }

    /// The name that PEFT takes a layer of the blocks by among its target modules: the shortest end of
    /// its path that no other layer of a block has, such as `q_proj`, else all of its path.
    pub fn module<'l>(&self, layer: &'l LinearSpec) -> &'l str {
        let path = layer.path.module.as_str();
        let ends = path.rmatch_indices('.').map(|(at, _)| &path[at + 1..]);
        let others = || self.block.iter().filter(|other| *other != layer);
        let mut own = ends.filter(|end| !others().any(|other| other.path.ends_with(end)));
        own.next().unwrap_or(path)
    }

    /// The path of a block.
    pub fn block_path(&self, index: usize) -> Path {
        self.blocks.join(&Path::same(index.to_string()))
    }

    /// The names of all that may be a target: the linears of a block, those before the blocks, the
    /// head.
    pub fn modules(&self) -> Vec<&str> {
        let block = self.block.iter().map(|layer| self.module(layer));
        let embedding = self.embedding.iter().map(LinearSpec::module);
        let head = std::iter::once(self.head.module.as_str());
        block.chain(embedding).chain(head).collect()
    }
}

/// A tensor of the adapters as messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedShape {
    /// As PEFT names it, such as `vit.layers.0.attention.q_proj.lora_A.weight`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl NamedShape {
    /// A number that differs with near certainty between other tensors or orders of them: the
    /// CRC-32 of lines as `name [2, 3]`, joined by line feeds.
    pub fn fingerprint(layout: &[Self]) -> u32 {
        let lines: Vec<_> = layout.iter().map(ToString::to_string).collect();
        crc32fast::hash(lines.join("\n").as_bytes())
    }
}

impl std::fmt::Display for NamedShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name, self.shape)
    }
}
