//! Every adapter of a model with the layer that it is on, for who names layers: files.

use super::{Adapters, LinearSpec, Lora, ModelSpec, Path, Place};

/// A LoRA pair on a layer of a model.
pub(crate) struct AdaptedLayer<'a> {
    /// Where the layer is in the model.
    pub(crate) path: Path,
    pub(crate) layer: LinearSpec,
    pub(crate) rank: usize,
    pub(crate) scale: f64,
    /// `[r, inputs]`
    pub(crate) a: &'a [f32],
    /// `[outputs, r]`
    pub(crate) b: &'a [f32],
}

/// All of them, which must fit the model: those before the blocks, the blocks', the head's.
pub(crate) fn adapted_layers<'a>(
    spec: &ModelSpec,
    lora: Lora,
    adapters: &'a Adapters,
) -> Vec<AdaptedLayer<'a>> {
    let mut all = Vec::new();
    let mut take =
        |place: fn(usize) -> Place, layers: &[(Path, LinearSpec)], mut rest: &'a [f32]| {
            for (i, (path, layer)) in layers.iter().enumerate() {
                let rank = lora.rank_of(place(i));
                let (a, tail) = rest.split_at(rank * layer.inputs);
                let (b, tail) = tail.split_at(rank * layer.outputs);
                rest = tail;
                if rank > 0 {
                    all.push(AdaptedLayer {
                        path: path.clone(),
                        layer: layer.clone(),
                        rank,
                        scale: lora.scale(),
                        a,
                        b,
                    });
                }
            }
        };
    take(
        Place::Embedding,
        &embedding_layers(spec),
        &adapters.embedding,
    );
    for (index, block) in adapters.blocks.iter().enumerate() {
        take(Place::Block, &block_layers(spec, index), block);
    }
    let head = head_layer(spec, adapters.head.classes());
    take(|_| Place::Head, &[head], &adapters.head.adapter);
    all
}

/// The linears before the blocks with their places in the model.
pub(crate) fn embedding_layers(spec: &ModelSpec) -> Vec<(Path, LinearSpec)> {
    let layers = spec.embedding.iter().cloned();
    layers.map(|layer| (layer.path.clone(), layer)).collect()
}

/// The linears of a block with their places in the model.
pub(crate) fn block_layers(spec: &ModelSpec, index: usize) -> Vec<(Path, LinearSpec)> {
    let block = spec.block_path(index);
    let layers = spec.block.iter().cloned();
    layers
        .map(|layer| (block.join(&layer.path), layer))
        .collect()
}

/// The head with its place in the model.
pub(crate) fn head_layer(spec: &ModelSpec, classes: usize) -> (Path, LinearSpec) {
    let layer = LinearSpec {
        path: spec.head.clone(),
        inputs: spec.width,
        outputs: classes,
        kernel: None,
    };
    (spec.head.clone(), layer)
}
