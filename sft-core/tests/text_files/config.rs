//! Configurations.

use serde_json::{Value, json};
use sft_core::model::PretrainedText;

use super::{copy, edit_json, refusal};

/// A fixture, a setting, its value, and what the refusal says.
type Case = (&'static str, &'static str, Value, &'static str);

fn llama() -> Vec<Case> {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0});
    let narrow = json!({"rope_type": "default", "partial_rotary_factor": 0.5});
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
        "original_max_position_embeddings": 16,
    });
    vec![
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
    ]
}

fn others() -> Vec<Case> {
    vec![
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
        ("gpt2", "n_head", json!(3), "divide the width 16, got 3"),
        (
            "gpt2",
            "scale_attn_weights",
            json!(false),
            "true, got false",
        ),
        (
            "gpt2",
            "scale_attn_by_inverse_layer_idx",
            json!(true),
            "off",
        ),
        ("gpt2", "add_cross_attention", json!(true), "off"),
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
    ]
}

#[test]
fn configurations_that_ask_for_what_is_not_done_are_refused_by_name_and_value() {
    for (model, name, value, wanted) in llama().into_iter().chain(others()) {
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
        assert!(
            shown || value.is_null() || error.contains("got 20"),
            "{error}"
        );
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
