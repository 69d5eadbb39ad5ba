//! Reading pre-trained models: agreement with other frameworks, and refusals.
//!
//! `fixtures/make_fixtures.py` wrote the expected values with torch 2.15,
//! transformers 5 and timm 1.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sft_core::adapter::{Adapters, Lora};
use sft_core::data::{Data, Inputs, cifar100};
use sft_core::model::{Model, PlainVit, Pretrained, Vit};
use sft_core::run::logits;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn load(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn assert_logits(folder: &str, file: &str, heads: Option<usize>) {
    let pretrained = Pretrained::open(&fixture(folder).join(file), heads).unwrap();
    let expected = load(&fixture(folder).join("expected.safetensors"));
    let lora = Lora::new(2, 2.0).unwrap();
    let engine = Vit::new(&pretrained.config, &pretrained.weights).unwrap();
    let head = pretrained.head.clone().expect("the fixture has a head");
    let adapters = Adapters::new(engine.spec(), lora, head, 1);
    let engine_logits = logits(
        &engine,
        lora,
        &adapters,
        &Inputs::Pixels(expected["images"].clone()),
    )
    .unwrap();
    let plain = PlainVit::new(&pretrained.config, &pretrained.weights).unwrap();
    let plain_logits = logits(
        &plain,
        lora,
        &adapters,
        &Inputs::Pixels(expected["images"].clone()),
    )
    .unwrap();
    for got in [engine_logits, plain_logits] {
        let error = (got - &expected["logits"])
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap();
        let error = error.to_scalar::<f32>().unwrap();
        assert!(
            error < 1e-4,
            "{folder}: the largest difference of a logit is {error:e}"
        );
    }
}

#[test]
fn logits_agree_with_transformers() {
    assert_logits("hugging_face", "model.safetensors", None);
    assert_logits("hugging_face", "modules.safetensors", None);
}

#[test]
fn logits_agree_with_timm() {
    assert_logits("timm", "model.safetensors", Some(4));
}

#[test]
fn sizes_come_from_the_shapes_where_config_json_is_missing() {
    let path = fixture("hugging_face").join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let inferred = Pretrained::from_bytes(&bytes, None, None, Some(4)).unwrap();
    let read = Pretrained::open(&path, None).unwrap();
    assert_eq!(inferred.config, read.config);
    assert_eq!(inferred.input.mean, [0.5; 3]);
    let default = Pretrained::from_bytes(&bytes, None, None, None).unwrap();
    assert_eq!(
        default.config.num_attention_heads, 1,
        "one head for every 64 features"
    );
}

#[test]
fn the_preprocessor_decides_the_normalisation() {
    let bytes = std::fs::read(fixture("hugging_face").join("model.safetensors")).unwrap();
    let json = r#"{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 12}"#;
    let input = Pretrained::from_bytes(&bytes, None, Some(json), Some(4))
        .unwrap()
        .input;
    assert_eq!(
        (input.mean, input.std),
        (vec![0.1, 0.2, 0.3], vec![0.4, 0.5, 0.6])
    );
    let timm = r#"{"architecture": "vit_tiny", "pretrained_cfg":
        {"mean": [0.7, 0.8, 0.9], "std": [0.1, 0.2, 0.3]}}"#;
    let input = Pretrained::from_bytes(&bytes, Some(timm), None, Some(4))
        .unwrap()
        .input;
    assert_eq!(
        (input.mean, input.std),
        (vec![0.7, 0.8, 0.9], vec![0.1, 0.2, 0.3])
    );
    let error = Pretrained::from_bytes(&bytes, None, Some("{}"), Some(4)).unwrap_err();
    assert!(
        error.contains("mean and std must be lists of numbers, got null"),
        "{error}"
    );
    let json = r#"{"image_mean": [0.1], "image_std": [0.4]}"#;
    let error = Pretrained::from_bytes(&bytes, None, Some(json), Some(4)).unwrap_err();
    assert!(error.contains("need 3 values, got 1 and 1"), "{error}");
}

/// A model file of random weights, changed by `edit`, and what reading it says.
fn refusal(config: Option<&str>, edit: impl Fn(&mut HashMap<String, Tensor>)) -> String {
    let mut tensors = common::tensors(&common::config(), 1);
    edit(&mut tensors);
    let bytes = safetensors::serialize(&tensors, None).unwrap();
    Pretrained::from_bytes(&bytes, config, None, Some(3)).unwrap_err()
}

#[test]
fn a_missing_or_misshapen_tensor_is_named() {
    let query = "vit.encoder.layer.1.attention.attention.query.weight";
    let missing = refusal(None, |tensors| drop(tensors.remove(query)));
    assert_eq!(missing, format!("missing tensor {query}"));
    let wrong = common::random(&[12, 11], 1.0, 1);
    let misshapen = refusal(None, |tensors| {
        drop(tensors.insert(query.into(), wrong.clone()));
    });
    assert_eq!(
        misshapen,
        format!("tensor {query} has shape [12, 11], expected [12, 12]")
    );
    let cls = "vit.embeddings.cls_token";
    let integers = Tensor::zeros((1, 1, 12), candle_core::DType::U32, &Device::Cpu).unwrap();
    let integers = refusal(None, |tensors| {
        drop(tensors.insert(cls.into(), integers.clone()));
    });
    assert_eq!(integers, format!("tensor {cls} is U32, expected floats"));
}

#[test]
fn a_head_of_another_number_of_classes_is_refused() {
    let head = |tensors: &mut HashMap<String, Tensor>, rows: usize, biases: usize| {
        tensors.insert(
            "classifier.weight".into(),
            common::random(&[rows, 12], 1.0, 1),
        );
        tensors.insert("classifier.bias".into(), common::random(&[biases], 1.0, 1));
    };
    let uneven = refusal(None, |tensors| head(tensors, 7, 6));
    assert_eq!(uneven, "tensor classifier.bias has shape [6], expected [7]");
    let config = |extra: &str| {
        format!(
            r#"{{"model_type": "vit", "hidden_size": 12, "num_hidden_layers": 4,
                "num_attention_heads": 3, "intermediate_size": 20, "image_size": 6,
                "patch_size": 2, "num_channels": 2, {extra}}}"#
        )
    };
    for extra in [r#""id2label": {"0": "a", "1": "b"}"#, r#""num_labels": 2"#] {
        let other = refusal(Some(&config(extra)), |tensors| head(tensors, 7, 7));
        assert_eq!(
            other,
            "config.json names 2 classes, classifier.weight has 7"
        );
    }
}

#[test]
fn another_architecture_is_refused() {
    let bert = refusal(Some(r#"{"model_type": "bert"}"#), |_| ());
    assert_eq!(bert, "config.json: model_type must be vit, got bert");
    let none = refusal(Some("{}"), |_| ());
    assert_eq!(none, "config.json: no model_type, expected vit");
    let huge = r#"{"model_type": "vit", "num_hidden_layers": 1000000000000}"#;
    let message = "num_hidden_layers must be in 1..=65536, got 1000000000000";
    assert_eq!(refusal(Some(huge), |_| ()), message);
    let relu = refusal(
        Some(r#"{"model_type": "vit", "hidden_act": "relu"}"#),
        |_| (),
    );
    assert_eq!(relu, "hidden_act must be gelu, got relu");
    let resnet = refusal(Some(r#"{"architecture": "resnet50"}"#), |_| ());
    assert_eq!(
        resnet,
        "config.json: architecture must be a vit, got \"resnet50\""
    );
    let broken = refusal(Some("{"), |_| ());
    assert!(broken.starts_with("config.json: "), "{broken}");
    let other = refusal(None, |tensors| {
        tensors.clear();
        tensors.insert("conv1.weight".into(), common::random(&[3, 3], 1.0, 1));
    });
    assert!(
        other.contains("neither a Hugging Face nor a timm ViT"),
        "{other}"
    );
}

#[test]
fn heads_must_divide_the_width() {
    let bytes = std::fs::read(fixture("hugging_face").join("model.safetensors")).unwrap();
    for heads in [0, 5] {
        let error = Pretrained::from_bytes(&bytes, None, None, Some(heads)).unwrap_err();
        assert!(error.contains("heads"), "{error}");
    }
}

#[test]
fn every_truncation_is_an_error_and_names_the_file() {
    let folder = std::env::temp_dir().join(format!("sft-truncated-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(fixture("hugging_face").join("model.safetensors")).unwrap();
    for length in (0..bytes.len())
        .step_by(bytes.len() / 97)
        .chain([bytes.len() - 1])
    {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = Pretrained::open(&path, Some(4)).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("not a complete safetensors file"), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        Pretrained::open(&path, None)
            .unwrap_err()
            .to_string()
            .contains("model.safetensors")
    );
}

/// A real model on real images, where they are at hand; `make_cifar_predictions.py` made the list.
#[test]
fn a_real_vit_classifies_cifar_as_transformers_does() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let weights = shared.join("weights/vit_tiny_patch16_224_tinyimagenet200.safetensors");
    if !weights.exists() {
        eprintln!("skipped: {} is absent", weights.display());
        return;
    }
    let list = std::fs::read_to_string(fixture("cifar_predictions.json")).unwrap();
    let expected: Vec<u32> = serde_json::from_str(&list).unwrap();
    let pretrained = Pretrained::open(&weights, None).unwrap();
    let (_, test) = cifar100(&shared.join("cifar100"), &pretrained.input).unwrap();
    let model = Vit::new(&pretrained.config, &pretrained.weights).unwrap();
    let lora = Lora::new(1, 1.0).unwrap();
    let adapters = Adapters::new(model.spec(), lora, pretrained.head.unwrap(), 1);
    for (batch, expected) in expected.chunks(10).enumerate() {
        let indices: Vec<usize> = (10 * batch..10 * batch + 10).collect();
        let logits = logits(
            &model,
            lora,
            &adapters,
            &test.batch(&indices).unwrap().inputs,
        )
        .unwrap();
        let classes = logits
            .argmax(candle_core::D::Minus1)
            .unwrap()
            .to_vec1::<u32>()
            .unwrap();
        assert_eq!(classes, expected, "images {indices:?}");
    }
}
