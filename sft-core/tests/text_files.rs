//! Text models in files that lie, are cut short, or ask for what is not done.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::{Map, Value, json};
use sft_core::model::{Backend, Pooling, PretrainedText, TextModel};

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
    fixtures.join(name)
}

/// A folder of one test, empty.
fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sft-text-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The files of a fixture in a folder of one test.
fn copy(model: &str, test: &str) -> PathBuf {
    let folder = scratch(&format!("{model}-{test}"));
    for file in std::fs::read_dir(fixture(model)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
    }
    folder
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut json: Map<String, Value> = serde_json::from_str(&text).unwrap();
    edit(&mut json);
    std::fs::write(path, Value::from(json).to_string()).unwrap();
}

/// What opening says, which must name the path.
fn refusal(path: &Path) -> String {
    let error = PretrainedText::open(path).unwrap_err().to_string();
    let named = path.display().to_string();
    assert!(
        error.starts_with(&named),
        "{error} does not begin with {named}"
    );
    error
}

#[test]
fn configurations_that_ask_for_what_is_not_done_are_refused_by_name_and_value() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    let narrow = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
        "original_max_position_embeddings": 16,
    });
    let cases = [
        (
            "llama",
            "model_type",
            json!("mixtral"),
            "one of llama, mistral",
        ),
        ("llama", "model_type", Value::Null, "one of llama, mistral"),
        ("llama", "hidden_act", json!("mish"), "one of gelu"),
        ("llama", "hidden_size", json!(0), "in 1..=65536"),
        ("llama", "hidden_size", json!(-1), "in 1..=65536"),
        ("llama", "hidden_size", json!("16"), "in 1..=65536"),
        ("llama", "hidden_size", Value::Null, "a whole number"),
        (
            "llama",
            "num_hidden_layers",
            json!(1u64 << 60),
            "in 1..=1024",
        ),
        (
            "llama",
            "num_key_value_heads",
            json!(3),
            "a divisor of 4 heads",
        ),
        ("llama", "rms_norm_eps", json!(-1.0), "a positive number"),
        (
            "llama",
            "rope_parameters",
            yarn,
            "default, linear or llama3",
        ),
        ("llama", "rope_parameters", json!([1]), "a table"),
        (
            "llama",
            "rope_parameters",
            narrow,
            "partial_rotary_factor must be 1",
        ),
        (
            "llama",
            "rope_parameters",
            llama3,
            "high_freq_factor must be above 4",
        ),
        ("llama", "attention_bias", json!(3), "true or false"),
        ("llama", "quantization_config", json!({"bits": 4}), "off"),
        (
            "llama_shards",
            "rope_scaling",
            json!({"type": "dynamic"}),
            "default, linear or llama3",
        ),
        ("mistral", "sliding_window", json!(0), "in 1..="),
        ("mistral", "attention_bias", json!(true), "off"),
        ("qwen2", "use_sliding_window", json!(true), "off"),
        (
            "qwen3",
            "layer_types",
            json!(["full_attention"]),
            "2 times full_attention or",
        ),
        (
            "qwen3",
            "layer_types",
            json!(["chunked_attention", "chunked_attention"]),
            "2 times full_attention or",
        ),
        ("gemma2", "attn_logit_softcapping", json!(50.0), "off"),
        ("gemma2", "final_logit_softcapping", json!(30.0), "off"),
        ("gemma3", "use_bidirectional_attention", json!(true), "off"),
        (
            "gemma3",
            "sliding_window",
            Value::Null,
            "the tokens of a window",
        ),
        (
            "bert",
            "position_embedding_type",
            json!("relative_key"),
            "absolute",
        ),
        ("bert", "is_decoder", json!(true), "off"),
        (
            "bert",
            "num_attention_heads",
            json!(3),
            "divide the width 16, got 3",
        ),
        (
            "roberta",
            "pad_token_id",
            json!(19),
            "max_position_embeddings must be above 20",
        ),
        ("distilbert", "activation", json!("silly"), "one of gelu"),
    ];
    for (model, name, value, wanted) in cases {
        let folder = copy(model, "config");
        let config = folder.join("config.json");
        edit_json(&config, |json| {
            json.insert(name.into(), value.clone());
        });
        let error = PretrainedText::open(&folder).unwrap_err().to_string();
        assert!(error.starts_with(&config.display().to_string()), "{error}");
        assert!(error.contains(wanted), "{model} {name} {value}: {error}");
        // A table is refused by what is wrong in it.
        let shown = value.is_object() || value.is_array() || error.contains(&value.to_string());
        assert!(shown || value.is_null() || error.contains("got 20"), "{error}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn sizes_that_the_tensors_do_not_have_are_refused() {
    for (model, name, value, wanted) in [
        (
            "llama",
            "hidden_size",
            32,
            "model.embed_tokens.weight has shape [48, 16], expected [48, 32]",
        ),
        (
            "llama",
            "num_hidden_layers",
            3,
            "missing tensor model.layers.2.",
        ),
        ("llama", "num_hidden_layers", 1, "tensor model.layers.1."),
        (
            "llama",
            "vocab_size",
            47,
            "model.embed_tokens.weight has shape [48, 16]",
        ),
        (
            "mistral",
            "head_dim",
            4,
            "model.layers.0.self_attn.q_proj.weight has shape",
        ),
        (
            "bert",
            "type_vocab_size",
            3,
            "bert.embeddings.token_type_embeddings.weight has shape",
        ),
        (
            "distilbert",
            "n_layers",
            1,
            "tensor distilbert.transformer.layer.1.",
        ),
    ] {
        let folder = copy(model, "sizes");
        edit_json(&folder.join("config.json"), |json| {
            json.insert(name.into(), value.into());
        });
        let error = refusal(&folder);
        assert!(
            error.contains(wanted) && error.contains("model.safetensors"),
            "{error}"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
    let folder = copy("llama", "labels");
    edit_json(&folder.join("config.json"), |json| {
        json.insert("id2label".into(), json!({"0": "a", "1": "b"}));
    });
    let error = refusal(&folder);
    assert!(
        error.contains("id2label names 2 classes, the head has 3"),
        "{error}"
    );
}

#[test]
fn leftover_tensors_are_refused_and_known_ones_are_not() {
    let folder = copy("bert", "leftover");
    let path = folder.join("model.safetensors");
    let plain = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let zeros = Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap();
    for (name, known) in [
        ("embeddings.position_ids", true),
        ("pooler.dense.bias", true),
        ("cls.predictions.bias", true),
        ("classifier.weight", true),
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
    let cases: [(&str, fn(&mut Map<String, Value>), &str); 4] = [
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

/// A GGUF file with other bytes after a text in its header.
fn patched(bytes: &[u8], after: &[u8], by: &[u8]) -> Vec<u8> {
    let found = bytes
        .windows(after.len())
        .position(|window| window == after);
    let from = found.expect("the text is in the file") + after.len();
    let mut patched = bytes.to_vec();
    patched[from..from + by.len()].copy_from_slice(by);
    patched
}

#[test]
fn gguf_files_that_lie_are_refused_with_the_tensor_or_the_setting() {
    let folder = scratch("gguf");
    let path = folder.join("model.gguf");
    let plain = std::fs::read(fixture("llama.gguf")).unwrap();
    let most = u64::MAX.to_le_bytes();
    let count = |at: usize| {
        let mut bytes = plain.clone();
        bytes[at..at + 8].copy_from_slice(&most);
        bytes
    };
    let many = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    // Rank, the dimensions, the type.
    let shape = |sides: [u64; 2], kind: u32, offset: u64| {
        let sides = sides.map(u64::to_le_bytes).concat();
        [
            &2u32.to_le_bytes()[..],
            &sides,
            &kind.to_le_bytes(),
            &offset.to_le_bytes(),
        ]
        .concat()
    };
    let up = b"blk.0.ffn_up.weight";
    let cases = [
        (count(8), "18446744073709551615 tensors"),
        (count(16), "18446744073709551615 settings"),
        (
            patched(&plain, b"GGUF", &[9]),
            "the version must be 2 or 3, got 9",
        ),
        (
            patched(
                &plain,
                b"general.architecture",
                &[8, 0, 0, 0, 255, 255, 255, 255],
            ),
            "bytes are claimed",
        ),
        (
            patched(
                &plain,
                b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0",
                b"grama",
            ),
            "general.architecture must be one of llama, qwen2, qwen3, gemma3, got \"grama\"",
        ),
        (
            patched(
                &plain,
                b"tokenizer.ggml.tokens\x09\0\0\0",
                &many(8, 1 << 40),
            ),
            "tokenizer.ggml.tokens: an array of 1099511627776",
        ),
        (
            patched(&plain, b"tokenizer.ggml.tokens\x09\0\0\0", &many(9, 2)),
            "an array of arrays",
        ),
        (
            patched(&plain, b"llama.block_count", &13u32.to_le_bytes()),
            "llama.block_count: a value of type 13",
        ),
        (
            patched(&plain, b"llama.block_count\x04\0\0\0", &9u32.to_le_bytes()),
            "missing tensor model.layers.2.",
        ),
        (
            patched(
                &plain,
                b"llama.attention.head_count\x04\0\0\0",
                &0u32.to_le_bytes(),
            ),
            "llama.attention.head_count",
        ),
        (
            patched(&plain, up, &shape([32, 32], 16, 0)),
            "tensor blk.0.ffn_up.weight is of ggml's type 16",
        ),
        (
            patched(&plain, up, &shape([u64::MAX, u64::MAX], 0, 0)),
            "tensor blk.0.ffn_up.weight of shape",
        ),
        (
            patched(&plain, up, &shape([32, 32], 0, u64::MAX)),
            "tensor blk.0.ffn_up.weight of shape",
        ),
        (
            patched(&plain, up, &shape([32, 32], 0, 1 << 40)),
            "tensor blk.0.ffn_up.weight of shape",
        ),
        (
            patched(&plain, up, &shape([33, 32], 2, 0)),
            "has rows of 33, expected a multiple of Q4_0's 32",
        ),
        (
            patched(&plain, up, &shape([32, 31], 0, 0)),
            "has shape [31, 32], expected [32, 32]",
        ),
        (
            patched(&plain, up, &0u32.to_le_bytes()),
            "tensor blk.0.ffn_up.weight has 0 dimensions",
        ),
        (plain[..plain.len() - 64].to_vec(), "ends after the file"),
    ];
    for (bytes, wanted) in cases {
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        assert!(error.contains(wanted), "{error} does not say {wanted}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Alignments are settings that this file does not have: they take another's place.
#[test]
fn alignments_that_are_no_power_of_two_are_refused() {
    let folder = scratch("alignment");
    let path = folder.join("model.gguf");
    let plain = std::fs::read(fixture("llama.gguf")).unwrap();
    let name = b"llama.context_length";
    let at = plain
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    for alignment in [0u32, 24] {
        // "general.alignment" is three bytes shorter: a general.architecture goes before it.
        let mut bytes = plain[..at - 8].to_vec();
        bytes.extend(17u64.to_le_bytes());
        bytes.extend(b"general.alignment");
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(alignment.to_le_bytes());
        bytes.extend(&plain[at + name.len() + 8..]);
        std::fs::write(&path, bytes).unwrap();
        let error = refusal(&path);
        let wanted = format!("general.alignment must be a power of two, got {alignment}");
        assert!(error.contains(&wanted), "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn cut_or_flipped_gguf_files_never_panic() {
    let folder = scratch("flipped");
    let path = folder.join("model.gguf");
    let plain = std::fs::read(fixture("llama.gguf")).unwrap();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let model = PretrainedText::open(&path)?;
        let backend = Backend::Candle(Device::Cpu);
        let made = TextModel::new(&model.config, &model.weights, Pooling::Last, backend)?;
        Ok::<_, sft_core::Error>(made.bytes())
    };
    assert!(open(&plain).is_ok());
    for len in (0..plain.len() - 32).step_by(149) {
        assert!(open(&plain[..len]).is_err(), "{len} bytes");
    }
    let tensors = b"rope_freqs.weight";
    let tensors = plain
        .windows(17)
        .position(|window| window == tensors)
        .unwrap();
    let header = (0..1200).chain(tensors - 8..tensors + 1600);
    for at in header.step_by(3) {
        for bit in [0, 5, 7] {
            let mut bytes = plain.clone();
            bytes[at] ^= 1 << bit;
            let _ = open(&bytes);
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}
