//! Folders of Hugging Face's files.

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value};
use sft_core::model::PretrainedText;

use super::{copy, edit_json, refusal, scratch};

/// A change of an index.
type Edit = fn(&mut Map<String, Value>);

#[test]
fn leftover_tensors_are_refused_and_known_ones_are_not() {
    let folder = copy("bert", "leftover");
    let path = folder.join("model.safetensors");
    let plain = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let zeros = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
    for (name, known) in [
        ("embeddings.position_ids", true),
        ("cls.predictions.bias", true),
        ("qa_outputs.weight", true),
        (
            "encoder.layer.0.attention.self.distance_embedding.weight",
            false,
        ),
        ("encoder.layer.2.output.dense.bias", false),
        ("score.weight", false),
    ] {
        let mut tensors = plain.clone();
        tensors.insert(name.into(), zeros.clone());
        candle_core::safetensors::save(&tensors, &path).unwrap();
        match PretrainedText::open(&folder) {
            Ok(model) => assert!(known && model.head.is_none(), "{name}"),
            Err(e) => assert!(!known && e.to_string().contains(name), "{name}: {e}"),
        }
    }
    // The first BERT's names of norms.
    let renamed = plain.into_iter().map(|(name, tensor)| {
        let name = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        (name.replace("LayerNorm.bias", "LayerNorm.beta"), tensor)
    });
    candle_core::safetensors::save(&renamed.collect(), &path).unwrap();
    PretrainedText::open(&folder).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn shards_that_are_not_what_their_index_says_are_refused() {
    let first = "model-00001-of-00003.safetensors";
    let cases: [(&str, Edit, &str); 4] = [
        (
            "moved",
            |map| map["model.norm.weight"] = "model-00001-of-00003.safetensors".into(),
            "missing tensor model.norm.weight in model-00001",
        ),
        (
            "outside",
            |map| map["model.norm.weight"] = "../model.safetensors".into(),
            "tensor model.norm.weight must be in a file beside it",
        ),
        (
            "absent",
            |map| map["model.norm.weight"] = "other.safetensors".into(),
            "other.safetensors: ",
        ),
        (
            "unnamed",
            |map| drop(map.remove("model.norm.weight")),
            "does not name tensor model.norm.weight",
        ),
    ];
    for (test, edit, wanted) in cases {
        let folder = copy("llama_shards", test);
        edit_json(&folder.join("model.safetensors.index.json"), |json| {
            edit(json["weight_map"].as_object_mut().unwrap());
        });
        let error = refusal(&folder);
        assert!(error.contains(wanted), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
    let folder = copy("llama_shards", "cut");
    let bytes = std::fs::read(folder.join(first)).unwrap();
    std::fs::write(folder.join(first), &bytes[..bytes.len() - 1]).unwrap();
    let error = refusal(&folder);
    assert!(
        error.contains(first) && error.contains("the tensors have"),
        "{error}"
    );
    std::fs::remove_file(folder.join(first)).unwrap();
    assert!(refusal(&folder).contains(first));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn folders_without_files_are_refused() {
    let folder = scratch("empty");
    assert!(refusal(&folder).contains("has neither model.safetensors nor"));
    std::fs::write(folder.join("model.safetensors"), b"").unwrap();
    assert!(refusal(&folder).contains("config.json"));
    std::fs::write(folder.join("config.json"), b"[").unwrap();
    assert!(refusal(&folder).contains("config.json"));
    std::fs::write(folder.join("model.gguf"), b"GGML").unwrap();
    assert!(refusal(&folder.join("model.gguf")).contains("does not begin with GGUF"));
    assert!(refusal(&folder.join("none.gguf")).contains("none.gguf"));
    std::fs::remove_dir_all(folder).unwrap();
}
