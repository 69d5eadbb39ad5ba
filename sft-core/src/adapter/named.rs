//! Every adapter of a model with the layer that it is on, for who names layers: files.

use super::{Adapters, Head, LinearSpec, Lora, ModelSpec, NamedShape, Path, Place};

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
    let mut take = |lora: Lora,
                    place: fn(usize) -> Place,
                    layers: &[(Path, LinearSpec)],
                    mut rest: &'a [f32]| {
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
        lora,
        Place::Embedding,
        &embedding_layers(spec),
        &adapters.embedding,
    );
    for (index, block) in adapters.blocks.iter().enumerate() {
        let layers = block_layers(spec, index);
        take(lora.in_block(index), Place::Block, &layers, block);
    }
    let head = head_layer(spec, adapters.head.classes);
    take(lora, |_| Place::Head, &[head], &adapters.head.adapter);
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

/// What a device trains under a cut layer, by name: the adapters before the blocks and those of the
/// first `cut` blocks, in the order of [`device_vectors`](super::device_vectors).
pub(crate) fn device_layout(spec: &ModelSpec, lora: Lora, cut: usize) -> Vec<NamedShape> {
    let mut layout = pairs(lora, Place::Embedding, &embedding_layers(spec));
    let blocks = 0..cut.min(spec.depth);
    let of_block = |i| pairs(lora.in_block(i), Place::Block, &block_layers(spec, i));
    layout.extend(blocks.flat_map(of_block));
    layout
}

/// The lengths of the vectors that hold it.
pub(crate) fn device_lengths(spec: &ModelSpec, lora: Lora, cut: usize) -> Vec<usize> {
    let of_block = |i| lora.in_block(i).block_parameters(spec);
    let blocks = (0..cut.min(spec.depth)).map(of_block);
    [lora.embedding_parameters(spec)]
        .into_iter()
        .chain(blocks)
        .collect()
}

/// All that is trained in a whole model, by name, in the order of [`Adapters::vectors`].
pub(crate) fn whole_layout(spec: &ModelSpec, lora: Lora, head: &Head) -> Vec<NamedShape> {
    let mut layout = device_layout(spec, lora, spec.depth);
    layout.extend(head_layout(spec, lora, head));
    layout
}

/// What is trained of the head, by name, in the order of [`Head::trained`]; nothing of a language
/// model's.
pub(crate) fn head_layout(spec: &ModelSpec, lora: Lora, head: &Head) -> Vec<NamedShape> {
    if head.is_none() {
        return Vec::new();
    }
    if lora.rank_of(Place::Head) > 0 {
        let layer = head_layer(spec, head.classes);
        return pairs(lora, |_| Place::Head, &[layer]);
    }
    head_shapes(spec, head)
}

/// The head's weight, and its bias where it has one.
pub(crate) fn head_shapes(spec: &ModelSpec, head: &Head) -> Vec<NamedShape> {
    let (path, classes) = (&spec.head.module, head.classes);
    let weight = ("weight", vec![classes, spec.width]);
    let bias = spec.head_bias.then(|| ("bias", vec![classes]));
    let named = |(part, shape)| {
        let name = format!("{path}.{part}");
        NamedShape { name, shape }
    };
    [weight].into_iter().chain(bias).map(named).collect()
}

/// `A` and `B` of each of the layers that is a target.
fn pairs(lora: Lora, place: fn(usize) -> Place, layers: &[(Path, LinearSpec)]) -> Vec<NamedShape> {
    let layers = layers.iter().enumerate();
    let targets = layers.filter(|(i, _)| lora.rank_of(place(*i)) > 0);
    let pair = |(_, (path, layer)): (usize, &(Path, LinearSpec))| {
        let [a, b] = layer.pair_shapes(lora.rank());
        [("lora_A.weight", a), ("lora_B.weight", b)].map(|(part, shape)| {
            let name = format!("{}.{part}", path.module);
            NamedShape { name, shape }
        })
    };
    targets.flat_map(pair).collect()
}
