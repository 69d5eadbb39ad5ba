//! A run as a file, to go on from.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{CodecState, RoundRecord, Run};
use crate::adapter::{Adapters, Head};
use crate::atomic_write::write_whole;
use crate::split::Bases;
use crate::{Error, Result, digest};

/// The entries of the file's metadata: what the run is, and the checksum of that and all tensors.
const KEY: &str = "sft_checkpoint";
const CHECKSUM: &str = "sft_checksum";
/// Raised whenever the contents change their meaning.
const VERSION: u32 = 6;

/// The names of the vectors outside the blocks.
const EMBEDDING: &str = "embedding";
const HEAD: [&str; 3] = ["head.weight", "head.bias", "head.adapter"];

/// The parts of a [`CodecState`] in their order.
const CODECS: [&str; 11] = [
    "device.up",
    "device.down",
    "device.held",
    "device.update",
    "device.features",
    "device.feature_gradient",
    "server.up",
    "server.down",
    "server.held",
    "server.features",
    "server.feature_gradient",
];

/// What the file holds beside the tensors.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    configuration: Map<String, Value>,
    rounds: Vec<RoundRecord>,
}

/// Writes a run after any of its rounds as one safetensors file, whole or not at all.
///
/// `configuration` is what decides the run's results, by name; [`load_checkpoint`] refuses
/// another one. The partition is kept as well, for the same purpose. Neither the optimizers nor
/// the random generators have a state between rounds, see [`Run`]; codecs may.
///
/// # Errors
/// A folder that cannot be written or a full disk; an earlier file of this name stays as it was.
pub fn save_checkpoint(
    path: &Path,
    configuration: &Map<String, Value>,
    partition: &[Vec<usize>],
    run: &Run,
) -> Result<()> {
    let header = Header {
        version: VERSION,
        configuration: configuration.clone(),
        rounds: run.rounds.clone(),
    };
    let json = serde_json::to_string(&header).map_err(|e| Error::file(path, e))?;
    let mut tensors = Vec::new();
    for (name, values) in vectors(&run.adapters) {
        let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        tensors.push((name, tensor));
    }
    let head = &run.adapters.head;
    let shape = (head.classes, head.weight.len() / head.classes.max(1));
    let weight = Tensor::from_slice(&head.weight, shape, &Device::Cpu)?;
    tensors.push((HEAD[0].into(), weight));
    for (n, part) in partition.iter().enumerate() {
        let indices = part
            .iter()
            .map(|&i| u32::try_from(i))
            .collect::<Result<Vec<_>, _>>();
        let indices = indices.map_err(|e| Error::argument("partition", e.to_string()))?;
        let tensor = Tensor::from_vec(indices, part.len(), &Device::Cpu)?;
        tensors.push((device(n), tensor));
    }
    for (&device, state) in &run.codecs {
        for (name, bytes) in codec_vectors(device, state) {
            tensors.push((name, Tensor::from_slice(bytes, bytes.len(), &Device::Cpu)?));
        }
    }
    for (cut, bases) in &run.bases {
        let bytes = bases.to_bytes();
        let tensor = Tensor::from_slice(&bytes, bytes.len(), &Device::Cpu)?;
        tensors.push((format!("bases.{cut}"), tensor));
    }
    let sum = checksum(
        &json,
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)),
    )?;
    let metadata = HashMap::from([
        (KEY.to_string(), json),
        (CHECKSUM.to_string(), sum.to_string()),
    ]);
    let bytes = safetensors::serialize(tensors, Some(metadata));
    write_whole(path, &bytes.map_err(|e| Error::file(path, e))?)
}

/// Reads a run that [`save_checkpoint`] wrote under the same configuration and partition.
///
/// # Errors
/// A file that cannot be read or is no complete checkpoint; a configuration that differs, with
/// the name of the first setting that does and both values; another partition.
pub fn load_checkpoint(
    path: &Path,
    configuration: &Map<String, Value>,
    partition: &[Vec<usize>],
) -> Result<Run> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let (header, tensors) = read(&bytes).map_err(|reason| Error::file(path, reason))?;
    if let Some(difference) = difference(&header.configuration, configuration) {
        return Err(Error::file(path, difference));
    }
    if read_partition(&tensors)? != partition {
        let reason = "the checkpoint's partition differs from this run's";
        return Err(Error::file(path, reason));
    }
    Ok(Run {
        adapters: read_adapters(&tensors).map_err(|e| Error::file(path, e))?,
        rounds: header.rounds,
        codecs: read_codecs(&tensors).map_err(|e| Error::file(path, e))?,
        bases: read_bases(&tensors).map_err(|e| Error::file(path, e))?,
    })
}

/// The configuration that a checkpoint was made under.
pub(super) fn saved_configuration(path: &Path) -> Result<Map<String, Value>> {
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let (header, _) = read(&bytes).map_err(|reason| Error::file(path, reason))?;
    Ok(header.configuration)
}

/// Every vector of the adapters by its name in the file; the head's weight is a matrix.
fn vectors(adapters: &Adapters) -> impl Iterator<Item = (String, &[f32])> {
    let Adapters {
        embedding,
        blocks,
        head,
    } = adapters;
    let blocks = blocks.iter().enumerate();
    let outer = [
        (EMBEDDING, embedding),
        (HEAD[1], &head.bias),
        (HEAD[2], &head.adapter),
    ];
    let outer = outer.map(|(name, vector)| (name.to_string(), vector.as_slice()));
    (blocks.map(|(i, vector)| (block(i), vector.as_slice()))).chain(outer)
}

fn read_adapters(tensors: &HashMap<String, Tensor>) -> candle_core::Result<Adapters> {
    let named = |name: &str| match tensors.get(name) {
        Some(tensor) => tensor.to_vec1(),
        None => candle_core::bail!("missing tensor {name}"),
    };
    let blocks = (0..).map_while(|i| tensors.get(&block(i)));
    let Some(weight) = tensors.get(HEAD[0]) else {
        candle_core::bail!("missing tensor {}", HEAD[0])
    };
    Ok(Adapters {
        embedding: named(EMBEDDING)?,
        blocks: blocks.map(Tensor::to_vec1).collect::<Result<_, _>>()?,
        head: Head {
            classes: weight.dims2()?.0,
            weight: weight.flatten_all()?.to_vec1()?,
            bias: named(HEAD[1])?,
            adapter: named(HEAD[2])?,
        },
    })
}

/// Header and tensors of a file of which every byte is as it was written.
fn read(bytes: &[u8]) -> Result<(Header, HashMap<String, Tensor>), String> {
    let incomplete = |e: &dyn std::fmt::Display| format!("not a complete checkpoint: {e}");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| incomplete(&e))?;
    let entries = metadata.metadata().clone().unwrap_or_default();
    let json = entries
        .get(KEY)
        .ok_or("a safetensors file, but no checkpoint of a run")?;
    let version = serde_json::from_str::<Value>(json).ok();
    let version = version.and_then(|header| header["version"].as_u64());
    if version != Some(u64::from(VERSION)) {
        let got = version.map_or("none".to_string(), |version| version.to_string());
        return Err(format!(
            "the checkpoint's version must be {VERSION}, got {got}"
        ));
    }
    // The header alone may be there of a file that was cut.
    let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu);
    let tensors = tensors.map_err(|e| incomplete(&e))?;
    let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    let sum = checksum(json, named).map_err(|e| incomplete(&e))?;
    if entries.get(CHECKSUM) != Some(&sum.to_string()) {
        return Err("damaged checkpoint: its checksum is not that of its contents".into());
    }
    let header = serde_json::from_str(json).map_err(|e| format!("damaged checkpoint: {e}"))?;
    Ok((header, tensors))
}

/// The checksum of the header and of every tensor, in the order of their names.
fn checksum<'a>(
    json: &str,
    tensors: impl Iterator<Item = (&'a str, &'a Tensor)>,
) -> candle_core::Result<u32> {
    let mut tensors: Vec<_> = tensors.collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    let mut sum = crc32fast::Hasher::new();
    sum.update(json.as_bytes());
    for (name, tensor) in tensors {
        sum.update(name.as_bytes());
        match tensor.dtype() {
            DType::F32 => tensor
                .flatten_all()?
                .to_vec1::<f32>()?
                .iter()
                .for_each(|v| sum.update(&v.to_le_bytes())),
            DType::U32 => tensor
                .to_vec1::<u32>()?
                .iter()
                .for_each(|v| sum.update(&v.to_le_bytes())),
            DType::U8 => sum.update(&tensor.to_vec1::<u8>()?),
            other => candle_core::bail!("tensor {name} is {other:?}"),
        }
    }
    Ok(sum.finalize())
}

/// The names of what a device's codecs remember, and the bytes of those that remember something.
fn codec_vectors(device: usize, state: &CodecState) -> impl Iterator<Item = (String, &[u8])> {
    let sides = state.device.iter().chain(&state.server);
    let named = CODECS
        .iter()
        .zip(sides)
        .filter(|(_, bytes)| !bytes.is_empty());
    named.map(move |(part, bytes)| (format!("codec.{device}.{part}"), &**bytes))
}

fn read_codecs(
    tensors: &HashMap<String, Tensor>,
) -> candle_core::Result<BTreeMap<usize, CodecState>> {
    let mut codecs = BTreeMap::<usize, CodecState>::new();
    for (name, tensor) in tensors {
        let parts = name
            .strip_prefix("codec.")
            .and_then(|rest| rest.split_once('.'));
        let Some((Ok(device), part)) = parts.map(|(device, part)| (device.parse(), part)) else {
            continue;
        };
        let state = codecs.entry(device).or_default();
        let sides = state.device.iter_mut().chain(&mut state.server);
        if let Some((_, side)) = CODECS.iter().zip(sides).find(|(known, _)| **known == part) {
            *side = tensor.to_vec1()?.into();
        }
    }
    Ok(codecs)
}

fn read_bases(tensors: &HashMap<String, Tensor>) -> Result<BTreeMap<usize, Bases>> {
    let named = tensors.iter().filter_map(|(name, tensor)| {
        let cut = name.strip_prefix("bases.")?.parse().ok()?;
        Some((cut, tensor))
    });
    let read =
        |(cut, tensor): (usize, &Tensor)| Ok((cut, Bases::from_bytes(&tensor.to_vec1::<u8>()?)?));
    named.map(read).collect()
}

/// The first setting, in alphabetical order, that the two do not share.
pub(super) fn difference(theirs: &Map<String, Value>, ours: &Map<String, Value>) -> Option<String> {
    let mut names: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
    names.sort_unstable();
    let name = names.into_iter().find(|&n| theirs.get(n) != ours.get(n))?;
    let shown = |map: &Map<String, Value>| map.get(name).map_or("none".into(), Value::to_string);
    let (theirs, ours) = (shown(theirs), shown(ours));
    if [&theirs, &ours].iter().all(|shown| is_digest(shown)) {
        return Some(format!(
            "it is of another {name}: its contents have the digest {theirs}, this run's {ours}"
        ));
    }
    Some(format!(
        "it is of another configuration: its {name} is {theirs}, this run's is {ours}"
    ))
}

/// Whether JSON is the text of a digest.
fn is_digest(json: &str) -> bool {
    json.strip_prefix('"')
        .is_some_and(|text| text.starts_with(digest::PREFIX))
}

fn read_partition(tensors: &HashMap<String, Tensor>) -> Result<Vec<Vec<usize>>> {
    let parts = (0..).map_while(|n| tensors.get(&device(n)));
    let indices = |part: &Tensor| {
        let indices = part.to_vec1::<u32>()?;
        Ok(indices.into_iter().map(|i| i as usize).collect())
    };
    parts.map(indices).collect()
}

fn block(index: usize) -> String {
    format!("block.{index}")
}

fn device(index: usize) -> String {
    format!("partition.{index}")
}
