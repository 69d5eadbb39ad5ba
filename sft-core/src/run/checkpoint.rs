//! A run as a file, to go on from.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::safetensors::Load as _;
use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, View as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::entry::Entry;
use super::{CodecState, RoundRecord, Run};
use crate::adapter::{Adapters, Head};
use crate::atomic_write::write_tensors;
use crate::split::Bases;
use crate::{Error, Result, digest};

/// The entries of the file's metadata: what the run is, and the checksum of that and all tensors.
const KEY: &str = "sft_checkpoint";
const CHECKSUM: &str = "sft_checksum";
/// Raised whenever the contents change their meaning.
const VERSION: u32 = 7;

/// The names of the vectors outside the blocks.
const EMBEDDING: &str = "embedding";
const HEAD: [&str; 3] = ["head.weight", "head.bias", "head.adapter"];

/// The parts of a [`CodecState`], in their order.
const HELD: [&str; 2] = ["device.held", "server.held"];
const STREAMS: [&str; 9] = [
    "device.up",
    "device.down",
    "device.update",
    "device.features",
    "device.feature_gradient",
    "server.up",
    "server.down",
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
    let mut entries = BTreeMap::new();
    for (name, values) in vectors(&run.adapters) {
        entries.insert(name, Entry::from(values));
    }
    let head = &run.adapters.head;
    entries.insert(HEAD[0].into(), Entry::matrix(&head.weight, head.classes));
    for (n, part) in partition.iter().enumerate() {
        let indices = part.iter().map(|&i| u32::try_from(i));
        let indices = indices.collect::<Result<Vec<_>, _>>();
        let indices = indices.map_err(|e| Error::argument("partition", e.to_string()))?;
        entries.insert(device(n), Entry::numbers(indices));
    }
    for (&device, state) in &run.codecs {
        entries.extend(codec_entries(device, state));
    }
    for (cut, bases) in &run.bases {
        entries.insert(format!("bases.{cut}"), Entry::bytes(bases.to_bytes()));
    }
    let named = entries.iter();
    let sum = checksum(
        &json,
        named.map(|(name, entry)| (name.as_str(), entry.data())),
    );
    let metadata = HashMap::from([
        (KEY.to_string(), json),
        (CHECKSUM.to_string(), sum.to_string()),
    ]);
    write_tensors(path, entries, metadata)
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
    let views = SafeTensors::deserialize(bytes).map_err(|e| incomplete(&e))?;
    let mut views: Vec<_> = views.iter().collect();
    views.sort_unstable_by_key(|(name, _)| *name);
    let named = views.iter().map(|(name, view)| (*name, view.data().into()));
    let sum = checksum(json, named);
    if entries.get(CHECKSUM) != Some(&sum.to_string()) {
        return Err("damaged checkpoint: its checksum is not that of its contents".into());
    }
    let header = serde_json::from_str(json).map_err(|e| format!("damaged checkpoint: {e}"))?;
    let load = |(name, view): (&str, TensorView<'_>)| Ok((name.into(), view.load(&Device::Cpu)?));
    let tensors = views.into_iter().map(load).collect::<Result<_>>();
    Ok((header, tensors.map_err(|e| incomplete(&e))?))
}

/// The checksum of the header and of every tensor's bytes, in the order of their names.
fn checksum<'a>(json: &str, tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(json.as_bytes());
    for (name, bytes) in tensors {
        sum.update(name.as_bytes());
        sum.update(&bytes);
    }
    sum.finalize()
}

/// What a device's codecs remember, where that is something, by its names.
fn codec_entries(device: usize, state: &CodecState) -> impl Iterator<Item = (String, Entry<'_>)> {
    let held = [&state.device.held, &state.server.held].into_iter();
    let held = held.zip(HELD).filter(|(held, _)| !held.is_empty());
    let held = held.map(|(held, part)| (part, Entry::from(held.values())));
    let streams = state.device.streams.iter().chain(&state.server.streams);
    let streams = streams.zip(STREAMS).filter(|(bytes, _)| !bytes.is_empty());
    let streams = streams.map(|(bytes, part)| (part, Entry::bytes(bytes.as_slice())));
    held.chain(streams)
        .map(move |(part, entry)| (format!("codec.{device}.{part}"), entry))
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
        let CodecState { device, server } = codecs.entry(device).or_default();
        let mut held = HELD.iter().zip([&mut device.held, &mut server.held]);
        let streams = device.streams.iter_mut().chain(&mut server.streams);
        if let Some((_, held)) = held.find(|(known, _)| **known == part) {
            *held = tensor.to_vec1::<f32>()?.as_slice().into();
        } else if let Some((_, stream)) = STREAMS
            .iter()
            .zip(streams)
            .find(|(known, _)| **known == part)
        {
            *stream = tensor.to_vec1()?;
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
