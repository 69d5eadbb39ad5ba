//! Every adapter of a model with the layer that it is on, for who names layers: files.

use crate::{Adapters, Lora, Model, Targets};

/// An adapter on a layer of a model.
pub(crate) struct Pair<'a> {
    /// The block that the layer is in; none for patch embedding and head.
    pub(crate) block: Option<usize>,
    /// The layer's place in [`Targets::NAMES`].
    pub(crate) target: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    /// `[r, inputs]`
    pub(crate) a: &'a [f32],
    /// `[outputs, r]`
    pub(crate) b: &'a [f32],
}

impl Pair<'_> {
    /// The path of the layer's parameters in the checkpoint.
    pub(crate) fn path(&self, model: &dyn Model) -> String {
        match (self.block, self.target) {
            (Some(block), linear) => {
                let (block, linear) = (model.block_path(block), model.linears()[linear].name);
                format!("{block}.{linear}")
            }
            (None, Targets::PATCH) => model.patch().path.to_string(),
            (None, _) => model.head_path().to_string(),
        }
    }
}

/// All adapters, which must fit the model: the patch embedding's, the blocks', the head's.
pub(crate) fn pairs<'a>(model: &dyn Model, lora: Lora, adapters: &'a Adapters) -> Vec<Pair<'a>> {
    let (patch, head) = (model.patch(), &adapters.head);
    let linears = model.linears().iter().enumerate();
    let linears: Vec<_> = linears.map(|(i, l)| (i, l.inputs, l.outputs)).collect();
    let mut pairs = Vec::new();
    let mut take = |block, layers: &[(usize, usize, usize)], mut vector: &'a [f32]| {
        for &(target, inputs, outputs) in layers {
            let rank = lora.rank_of(target);
            let (a, rest) = vector.split_at(rank * inputs);
            let (b, rest) = rest.split_at(rank * outputs);
            vector = rest;
            if rank > 0 {
                pairs.push(Pair {
                    block,
                    target,
                    inputs,
                    outputs,
                    rank,
                    scale: lora.scale(),
                    a,
                    b,
                });
            }
        }
    };
    let patch = (Targets::PATCH, patch.inputs(), patch.outputs);
    take(None, &[patch], &adapters.patch);
    for (index, block) in adapters.blocks.iter().enumerate() {
        take(Some(index), &linears, block);
    }
    let outer = (Targets::HEAD, model.width(), head.classes());
    take(None, &[outer], &head.adapter);
    pairs
}
