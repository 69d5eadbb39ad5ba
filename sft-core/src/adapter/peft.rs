//! Adapters as PEFT's folder: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::peft_config::{config, read_config};
use super::{
    Adapters, Head, LinearSpec, Lora, ModelSpec, Path as ModulePath, Place, Targets,
    adapted_layers, block_layers, check_adapters, embedding_layers, head_layer,
};
use crate::atomic_write::{write_tensors, write_whole};
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
pub(crate) const TENSORS: &str = "adapter_model.safetensors";
/// What PEFT puts before every name.
const PREFIX: &str = "base_model.model.";
/// How PEFT calls the frozen layer under an adapter.
const BASE: &str = "base_layer";
/// The parts of a pair, below the layer.
const A: &str = "lora_A.weight";
const B: &str = "lora_B.weight";

/// How the modules are named that PEFT looks for in the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ModuleNames {
    /// `vit.layers.0.attention.q_proj`: transformers 5.
    #[default]
    Transformers5,
    /// `vit.encoder.layer.0.attention.attention.query`: transformers 4, and all checkpoints.
    Transformers4,
}

impl ModuleNames {
    /// The path by this naming.
    pub(super) fn of(self, path: &ModulePath) -> &str {
        match self {
            Self::Transformers5 => &path.module,
            Self::Transformers4 => &path.checkpoint,
        }
    }

    /// What PEFT finds a layer of a block by.
    pub(super) fn target<'l>(self, spec: &ModelSpec, layer: &'l LinearSpec) -> &'l str {
        match self {
            Self::Transformers5 => spec.module(layer),
            Self::Transformers4 => &layer.path.checkpoint,
        }
    }
}

/// Writes adapters and head as PEFT reads them: `PeftModel.from_pretrained(model, folder)`.
///
/// `A` is `[r, inputs]` and `B` `[outputs, r]`, for the patch embedding as convolutions
/// `[r, C, P, P]` and `[D, r, 1, 1]`. A head that is trained in full is among `modules_to_save`.
/// The frozen head under an adapter may be new, and PEFT would save no more than its adapter: it
/// is written beside it, as `base_layer`, where PEFT puts it into the model again. So is the frozen
/// `pooler` before the head, weight and bias as
/// [`Pretrained::pooler`](crate::model::Pretrained::pooler) has them, which the base model's files may
/// not hold. Of a language model's own head nothing is written, and the folder is for
/// `AutoModelForCausalLM`.
///
/// Real PEFT gives the same logits on Transformers' model for sequence classification, of a text model
/// where the head reads what the family's do: the last token of decoders, else the first.
///
/// Each of the two files appears whole or not at all, the tensors first.
///
/// # Errors
/// Adapters that do not fit the model, or a folder that cannot be written.
pub fn save_peft(
    folder: &Path,
    spec: &ModelSpec,
    lora: Lora,
    adapters: &Adapters,
    pooler: Option<[Tensor; 2]>,
    names: ModuleNames,
) -> Result<()> {
    check_adapters(spec, lora, adapters)?;
    if pooler.is_some() != spec.pooler.is_some() {
        let accepted = ["none for this model", "given for this model"];
        let accepted = accepted[usize::from(spec.pooler.is_some())];
        return Err(Error::argument("pooler", format!("must be {accepted}")));
    }
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let path = folder.join(TENSORS);
    let mut tensors = named_tensors(spec, lora, adapters, names)?;
    for (path, pooler) in spec.pooler.iter().zip(pooler) {
        let named = pooler_names(names.of(path)).into_iter().zip(pooler);
        tensors.extend(named.map(|(name, tensor)| (format!("{PREFIX}{name}"), tensor)));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(&path, &tensors, metadata)?;
    let config = config(spec, lora, &adapters.head, names);
    write_whole(&folder.join(CONFIG), format!("{config:#}\n").as_bytes())
}

fn named_tensors(
    spec: &ModelSpec,
    lora: Lora,
    adapters: &Adapters,
    names: ModuleNames,
) -> Result<HashMap<String, Tensor>> {
    let mut tensors = HashMap::new();
    let mut put = |name: String, values: &[f32], shape: &[usize]| -> Result<()> {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu)?;
        tensors.insert(format!("{PREFIX}{name}"), tensor);
        Ok(())
    };
    for adapted in adapted_layers(spec, lora, adapters) {
        let path = names.of(&adapted.path);
        let [a, b] = adapted.layer.pair_shapes(adapted.rank);
        put(format!("{path}.{A}"), adapted.a, &a)?;
        put(format!("{path}.{B}"), adapted.b, &b)?;
    }
    let (head, mut path) = (&adapters.head, names.of(&spec.head).to_string());
    if head.is_none() {
        return Ok(tensors);
    }
    if !head.adapter.is_empty() {
        path = format!("{path}.{BASE}");
    }
    let shape = [head.classes, spec.width];
    put(format!("{path}.weight"), &head.weight, &shape)?;
    if spec.head_bias {
        put(format!("{path}.bias"), &head.bias, &shape[..1])?;
    }
    Ok(tensors)
}

fn pooler_names(path: &str) -> [String; 2] {
    ["weight", "bias"].map(|part| format!("{path}.{part}"))
}

/// The layer before the head of a folder that PEFT or [`save_peft`] wrote for a model, weight and bias,
/// where the folder has it and the model too: the adapters are over a model with this one.
///
/// # Errors
/// A file that cannot be read, or tensors of another shape.
pub fn load_pooler(folder: &Path, spec: &ModelSpec) -> Result<Option<[Tensor; 2]>> {
    if spec.pooler.is_none() {
        return Ok(None);
    }
    let path = folder.join(TENSORS);
    let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
    let found = Found::read(&bytes).and_then(|mut found| found.pooler(spec));
    found.map_err(|reason| Error::file(&path, reason))
}

/// Reads a folder that PEFT or [`save_peft`] wrote for a model, with either naming of modules.
///
/// Which layers have adapters is read off the tensors; every block must have the same, but the first
/// may have none where the configuration leaves them out, by whole paths or `layers_to_transform`.
/// `head` is what the adapters were trained under, or over where the head has one, for folders
/// without it. The folder's layer before the head is left to [`load_pooler`].
///
/// # Errors
/// A file that cannot be read, another kind of adapter than plain LoRA of one rank and scale over
/// unchanged frozen weights, a setting that is not known and not off, or tensors that do not fit
/// the model; the message names the file and the setting or tensor.
pub fn load_peft(folder: &Path, spec: &ModelSpec, head: Option<&Head>) -> Result<(Lora, Adapters)> {
    let named = folder.join(CONFIG);
    let text = std::fs::read_to_string(&named).map_err(|e| Error::file(&named, e))?;
    let config = read_config(&text, spec).map_err(|reason| Error::file(&named, reason))?;
    let path = folder.join(TENSORS);
    let bytes = std::fs::read(&path).map_err(|e| Error::file(&path, e))?;
    let found = read_tensors(&bytes, spec, config.lora, head);
    let (lora, adapters) = found.map_err(|reason| Error::file(&path, reason))?;
    let layers = adapted_layers(spec, lora, &adapters);
    let bare = (0..lora.frozen_blocks())
        .flat_map(|index| block_layers(spec, index).into_iter().enumerate());
    let bare = bare.filter(|(i, _)| lora.targets().contains(Place::Block(*i)));
    if let Some((_, (layer, _))) = bare
        .into_iter()
        .find(|(_, (layer, _))| config.is_target(layer))
    {
        let reason = format!("missing tensor {}.{A}", layer.module);
        return Err(Error::file(&path, reason));
    }
    let stray = layers.iter().find(|layer| !config.is_target(&layer.path));
    if let Some(layer) = stray {
        let name = &layer.path.module;
        let reason = format!(
            "target_modules, exclude_modules or layers_to_transform leave out {name}, which has tensors"
        );
        return Err(Error::file(&named, reason));
    }
    Ok((lora, adapters))
}

fn read_tensors(
    bytes: &[u8],
    spec: &ModelSpec,
    lora: Lora,
    head: Option<&Head>,
) -> Result<(Lora, Adapters), String> {
    let mut found = Found::read(bytes)?;
    let frozen = found.frozen_blocks(spec);
    let lora = lora.with_targets(found.targets(spec, frozen)?);
    let lora = lora.with_frozen_blocks(frozen);
    let embedding = found.pairs(lora, Place::Embedding, &embedding_layers(spec))?;
    let blocks = (0..spec.depth)
        .map(|index| {
            let lora = lora.in_block(index);
            found.pairs(lora, Place::Block, &block_layers(spec, index))
        })
        .collect::<Result<_, _>>()?;
    let head = found.head(spec, lora, head)?;
    found.pooler(spec)?;
    if let Some(name) = found.0.keys().min() {
        return Err(format!("tensor {name} has no place in the model"));
    }
    let adapters = Adapters {
        embedding,
        blocks,
        head,
    };
    Ok((lora, adapters))
}

/// The tensors of a file that have not been taken yet, without PEFT's prefix.
struct Found(HashMap<String, Tensor>);

impl Found {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|e| format!("not a complete safetensors file: {e}"))?;
        let named = tensors.into_iter().map(|(name, tensor)| {
            let short = name.strip_prefix(PREFIX).map(str::to_string);
            (short.unwrap_or(name), tensor)
        });
        Ok(Self(named.collect()))
    }

    /// Weight and bias of the layer before the head, where the file and the model have it.
    fn pooler(&mut self, spec: &ModelSpec) -> Result<Option<[Tensor; 2]>, String> {
        let Some(path) = spec.pooler.as_ref().filter(|path| self.has(path, "weight")) else {
            return Ok(None);
        };
        let mut take = |part: &str, shape: &[usize]| {
            let values = self.take(path, part, shape)?;
            if !values.iter().all(|value| value.is_finite()) {
                return Err(format!(
                    "{}.{part} has a value that is not finite",
                    path.module
                ));
            }
            Tensor::from_vec(values, shape, &Device::Cpu).map_err(|e| e.to_string())
        };
        let shape = [spec.width; 2];
        Ok(Some([take("weight", &shape)?, take("bias", &shape[..1])?]))
    }

    /// The name of a part of a layer in the file, by either naming.
    fn name(&self, path: &ModulePath, part: &str) -> String {
        let module = format!("{}.{part}", path.module);
        if self.0.contains_key(&module) {
            return module;
        }
        format!("{}.{part}", path.checkpoint)
    }

    fn has(&self, path: &ModulePath, part: &str) -> bool {
        self.0.contains_key(&self.name(path, part))
    }

    /// Blocks before the first that has an `A`, where one has.
    fn frozen_blocks(&self, spec: &ModelSpec) -> usize {
        let has = |index| (block_layers(spec, index).iter()).any(|(path, _)| self.has(path, A));
        (0..spec.depth).find(|&index| has(index)).unwrap_or(0)
    }

    /// The layers that have an `A`, the linears in the block with index `block`.
    fn targets(&self, spec: &ModelSpec, block: usize) -> Result<Targets, String> {
        let mut targets = Targets::NONE;
        let mut look = |place: Place, path: &ModulePath| {
            if self.has(path, A) {
                targets = targets.with(place);
            }
        };
        for (i, (path, _)) in block_layers(spec, block).iter().enumerate() {
            look(Place::Block(i), path);
        }
        for (i, (path, _)) in embedding_layers(spec).iter().enumerate() {
            look(Place::Embedding(i), path);
        }
        look(Place::Head, &spec.head);
        if targets == Targets::NONE {
            return Err("no adapter before the blocks, on a block or on the head".into());
        }
        Ok(targets.in_model(spec))
    }

    /// The pairs of those layers that are targets, one after the other.
    fn pairs(
        &mut self,
        lora: Lora,
        place: fn(usize) -> Place,
        layers: &[(ModulePath, LinearSpec)],
    ) -> Result<Vec<f32>, String> {
        let mut values = Vec::new();
        for (i, (path, layer)) in layers.iter().enumerate() {
            if lora.targets().contains(place(i)) {
                let [a, b] = layer.pair_shapes(lora.rank());
                values.extend(self.take(path, A, &a)?);
                values.extend(self.take(path, B, &b)?);
            }
        }
        Ok(values)
    }

    /// The head of the file, else the given one; with its adapter where it has one.
    fn head(&mut self, spec: &ModelSpec, lora: Lora, given: Option<&Head>) -> Result<Head, String> {
        let adapted = lora.targets().contains(Place::Head);
        let below = |part: &str| {
            if adapted {
                format!("{BASE}.{part}")
            } else {
                part.into()
            }
        };
        let [weight, bias] = ["weight", "bias"].map(below);
        let classes = self.0.get(&self.name(&spec.head, &weight));
        let classes = classes.map(|tensor| tensor.dims().first().copied().unwrap_or(0));
        let mut head = if let Some(classes) = classes {
            let biased = spec
                .head_bias
                .then(|| self.take(&spec.head, &bias, &[classes]));
            Head {
                classes,
                bias: biased.transpose()?.unwrap_or_default(),
                weight: self.take(&spec.head, &weight, &[classes, spec.width])?,
                adapter: Vec::new(),
            }
        } else {
            let name = self.name(&spec.head, &weight);
            let missing = || format!("missing tensor {name}, and the model has no head");
            given.cloned().ok_or_else(missing)?
        };
        if head.is_none() {
            return Ok(head);
        }
        let layer = head_layer(spec, head.classes);
        head.adapter = self.pairs(lora, |_| Place::Head, &[layer])?;
        Ok(head)
    }

    fn take(&mut self, path: &ModulePath, part: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let name = self.name(path, part);
        let tensor = self.0.remove(&name);
        let tensor = tensor.ok_or_else(|| format!("missing tensor {name}"))?;
        if tensor.dims() != shape {
            let got = tensor.dims();
            return Err(format!(
                "tensor {name} has shape {got:?}, expected {shape:?}"
            ));
        }
        let values = || tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1();
        values().map_err(|e| format!("tensor {name}: {e}"))
    }
}
