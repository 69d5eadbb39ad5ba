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
use sft_core::model::{Backend, Model, Pretrained, PretrainedVit, Vit};
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
    let pretrained = PretrainedVit::open(&fixture(folder).join(file), heads).unwrap();
    let expected = load(&fixture(folder).join("expected.safetensors"));
    let lora = Lora::new(2, 2.0).unwrap();
    let engine = Vit::new(&pretrained.config, &pretrained.weights, Backend::default()).unwrap();
    let head = pretrained.head.clone().expect("the fixture has a head");
    let adapters = Adapters::new(engine.spec(), lora, head, 1);
    let engine_logits = logits(
        &engine,
        lora,
        &adapters,
        &Inputs::Pixels(expected["images"].clone()),
    )
    .unwrap();
    let plain = Vit::new(
        &pretrained.config,
        &pretrained.weights,
        Backend::Candle(Device::Cpu),
    )
    .unwrap();
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
    let inferred = PretrainedVit::from_bytes(&bytes, None, None, Some(4)).unwrap();
    let read = PretrainedVit::open(&path, None).unwrap();
    assert_eq!(inferred.config, read.config);
    assert_eq!(inferred.input.mean, [0.5; 3]);
    let default = PretrainedVit::from_bytes(&bytes, None, None, None).unwrap();
    assert_eq!(
        default.config.num_attention_heads, 1,
        "one head for every 64 features"
    );
}

#[test]
fn the_preprocessor_decides_the_normalisation() {
    let bytes = std::fs::read(fixture("hugging_face").join("model.safetensors")).unwrap();
    let json = r#"{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": 12}"#;
    let input = PretrainedVit::from_bytes(&bytes, None, Some(json), Some(4))
        .unwrap()
        .input;
    assert_eq!(
        (input.mean, input.std),
        (vec![0.1, 0.2, 0.3], vec![0.4, 0.5, 0.6])
    );
    let timm = r#"{"architecture": "vit_tiny", "pretrained_cfg":
        {"mean": [0.7, 0.8, 0.9], "std": [0.1, 0.2, 0.3]}}"#;
    let input = PretrainedVit::from_bytes(&bytes, Some(timm), None, Some(4))
        .unwrap()
        .input;
    assert_eq!(
        (input.mean, input.std),
        (vec![0.7, 0.8, 0.9], vec![0.1, 0.2, 0.3])
    );
    let error = PretrainedVit::from_bytes(&bytes, None, Some("{}"), Some(4)).unwrap_err();
    assert!(
        error.contains("mean and std must be lists of numbers, got null"),
        "{error}"
    );
    let json = r#"{"image_mean": [0.1], "image_std": [0.4]}"#;
    let error = PretrainedVit::from_bytes(&bytes, None, Some(json), Some(4)).unwrap_err();
    assert!(error.contains("need 3 values, got 1 and 1"), "{error}");
}

/// A model file of random weights, changed by `edit`, and what reading it says.
fn refusal(config: Option<&str>, edit: impl Fn(&mut HashMap<String, Tensor>)) -> String {
    let mut tensors = common::tensors(&common::config(), 1);
    edit(&mut tensors);
    let bytes = safetensors::serialize(&tensors, None).unwrap();
    PretrainedVit::from_bytes(&bytes, config, None, Some(3)).unwrap_err()
}

/// A pipe would wait for who writes into it.
#[test]
fn what_is_no_regular_file_is_no_model() {
    let folder = std::env::temp_dir().join(format!("sft-no-file-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("pipe.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    let pipe = made.is_ok_and(|status| status.success()).then_some(pipe);
    let refused = |path: &Path| PretrainedVit::open(path, None).unwrap_err().to_string();
    if let Some(pipe) = pipe {
        let error = refused(&pipe);
        assert!(error.ends_with("must be a regular file"), "{error}");
    }
    let error = refused(&folder);
    assert!(error.contains("model.safetensors: No such file"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
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
    assert_eq!(
        bert,
        "config.json: model_type must be vit or dinov2, got bert"
    );
    let none = refusal(Some("{}"), |_| ());
    assert_eq!(none, "config.json: no model_type, expected vit or dinov2");
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

/// Weights that change the features must not be left out in silence.
#[test]
fn a_tensor_without_a_place_is_refused_by_name() {
    let names = [
        "vit.encoder.layer.0.attention.q_norm.weight",
        "vit.encoder.layer.4.layernorm_before.weight",
        "blocks.0.attn.q_norm.weight",
        "norm_pre.weight",
        "fc_norm.weight",
        "reg_token",
        "dist_token",
        "head_dist.weight",
        "vit.embeddings.distillation_token",
    ];
    for name in names {
        let error = refusal(Some(TINY), |tensors| {
            tensors.insert(name.into(), common::random(&[12], 1.0, 1));
        });
        let blocks = "config.json: num_hidden_layers is 4, the file has 5 blocks".to_string();
        let place = format!("tensor {name} has no place in this architecture");
        let want = if name.contains("layer.4") {
            blocks
        } else {
            place
        };
        assert_eq!(error, want);
    }
    let twice = refusal(Some(TINY), |tensors| {
        tensors.insert("pos_embed".into(), common::random(&[1, 10, 12], 1.0, 1));
    });
    assert!(
        twice.contains("is a second vit.embeddings.position_embeddings"),
        "{twice}"
    );
}

const TINY: &str = r#"{"model_type": "vit", "hidden_size": 12, "num_hidden_layers": 4,
    "num_attention_heads": 3, "intermediate_size": 20, "image_size": 6, "patch_size": 2,
    "num_channels": 2}"#;

#[test]
fn a_configuration_that_contradicts_the_file_is_refused() {
    let fewer = TINY.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 3");
    let want = "config.json: num_hidden_layers is 3, the file has 4 blocks";
    assert_eq!(refusal(Some(&fewer), |_| ()), want);
    let unbiased = TINY.replace("\"patch_size\"", "\"qkv_bias\": false, \"patch_size\"");
    let want = "config.json: qkv_bias is false, the file has such biases";
    assert_eq!(refusal(Some(&unbiased), |_| ()), want);
}

/// As `ViTModel` saves itself: no `vit.`, a pooler; and buffers that are no floats.
#[test]
fn a_model_without_a_head_may_leave_out_the_prefix() {
    let tensors = common::tensors(&common::config(), 1);
    let want = PretrainedVit::from_bytes(&bytes(&tensors), Some(TINY), None, None).unwrap();
    let stripped = tensors.iter().map(|(name, tensor)| {
        let name = name.strip_prefix("vit.").unwrap();
        (name.to_string(), tensor.clone())
    });
    let mut stripped: HashMap<_, _> = stripped.collect();
    stripped.insert(
        "pooler.dense.weight".into(),
        common::random(&[12, 12], 1.0, 1),
    );
    stripped.insert("pooler.dense.bias".into(), common::random(&[12], 1.0, 1));
    let got = PretrainedVit::from_bytes(&bytes(&stripped), Some(TINY), None, None).unwrap();
    assert!(got.head.is_none());
    let images = common::random(&[2, 2, 6, 6], 1.0, 9);
    let features = |from: &PretrainedVit| {
        let vit = Vit::new(&from.config, &from.weights, Backend::default()).unwrap();
        vit.features(&images).unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(features(&got), features(&want));
}

/// A safetensors file with these tensors and buffers of other kinds.
fn bytes(tensors: &HashMap<String, Tensor>) -> Vec<u8> {
    use safetensors::tensor::{Dtype, TensorView};
    let raw = tensors.iter().map(|(name, tensor)| {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        (name.clone(), tensor.dims().to_vec(), raw)
    });
    let raw: Vec<_> = raw.collect();
    let mut views: Vec<_> = raw
        .iter()
        .map(|(name, shape, raw)| {
            let view = TensorView::new(Dtype::F32, shape.clone(), raw).unwrap();
            (name.as_str(), view)
        })
        .collect();
    let mask = TensorView::new(Dtype::BOOL, vec![3], &[1, 0, 1]).unwrap();
    views.push(("vit.embeddings.some_mask", mask));
    let numbers = TensorView::new(Dtype::I64, vec![1, 2], &[0; 16]).unwrap();
    views.push(("vit.embeddings.position_ids", numbers));
    safetensors::serialize(views, None).unwrap()
}

/// The tensors as Hugging Face's `Dinov2Model` names them.
fn as_dinov2(tensors: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
    let renamed = tensors.iter().map(|(name, tensor)| {
        let name = name.strip_prefix("vit.").unwrap();
        let name = [
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("intermediate.dense", "mlp.fc1"),
        ]
        .iter()
        .fold(name.to_string(), |name, (vit, dino)| {
            name.replace(vit, dino)
        });
        let output = (0..4).find(|i| name.starts_with(&format!("encoder.layer.{i}.output.dense")));
        let name = output.map_or(name.clone(), |_| name.replace("output.dense", "mlp.fc2"));
        (name, tensor.clone())
    });
    renamed.collect()
}

/// `DINOv2` scales what attention and MLP add; merged, the factors are in the linears.
#[test]
fn scaled_branches_are_read_run_and_folded_into_a_merged_model() {
    let config = sft_core::model::VitConfig {
        layer_scale: true,
        intermediate_size: 24,
        ..common::config()
    };
    let tensors = common::tensors(&config, 1);
    let json = r#"{"model_type": "dinov2", "hidden_size": 12, "num_hidden_layers": 4,
        "num_attention_heads": 3, "mlp_ratio": 2, "image_size": 6, "patch_size": 2,
        "num_channels": 2, "layer_norm_eps": 1e-12}"#;
    let read =
        PretrainedVit::from_bytes(&bytes(&as_dinov2(&tensors)), Some(json), None, None).unwrap();
    assert_eq!(read.config, config);

    let images = Inputs::Pixels(common::random(&[2, 2, 6, 6], 1.0, 9));
    let lora = Lora::new(2, 3.0).unwrap();
    let head = sft_core::adapter::Head::new(3, 12, 1);
    let mut adapters = Adapters::new(&config.spec(), lora, head, 1);
    for vector in &mut adapters.blocks {
        let len = vector.len();
        *vector = common::random(&[len], 0.2, 3).to_vec1().unwrap();
    }
    let found = |from: &PretrainedVit, backend: Backend, lora: Lora, adapters: &Adapters| {
        let vit = Vit::new(&from.config, &from.weights, backend).unwrap();
        logits(&vit, lora, adapters, &images).unwrap()
    };
    let engine = found(&read, Backend::default(), lora, &adapters);
    let plain = found(&read, Backend::Candle(Device::Cpu), lora, &adapters);
    let folder = std::env::temp_dir().join(format!("sft-folded-{}", std::process::id()));
    read.save_merged(&folder, Some(lora), &adapters).unwrap();
    let merged = PretrainedVit::open(&folder.join("model.safetensors"), None).unwrap();
    assert!(!merged.config.layer_scale);
    let none = Adapters {
        blocks: vec![Vec::new(); 4],
        ..adapters.clone()
    };
    let no_targets = lora.with_targets(common::targets("classifier"));
    let none = Adapters {
        head: sft_core::adapter::Head {
            adapter: vec![0.0; 2 * (12 + 3)],
            ..none.head
        },
        ..none
    };
    let merged = found(&merged, Backend::default(), no_targets, &none);
    std::fs::remove_dir_all(&folder).unwrap();
    let unscaled = sft_core::model::VitConfig {
        layer_scale: false,
        ..config
    };
    let unscaled = PretrainedVit {
        weights: sft_core::model::VitWeights::new(&unscaled, &tensors).unwrap(),
        config: unscaled,
        ..read
    };
    let unscaled = found(&unscaled, Backend::default(), lora, &adapters);
    let difference = |other: &Tensor| {
        let difference = (&engine - other).unwrap().abs().unwrap();
        difference.max_all().unwrap().to_scalar::<f32>().unwrap()
    };
    assert!(difference(&plain) < 1e-5, "{}", difference(&plain));
    assert!(difference(&merged) < 1e-5, "{}", difference(&merged));
    assert!(difference(&unscaled) > 1e-2, "{}", difference(&unscaled));
}

/// timm's files name neither heads nor epsilon.
#[test]
fn timm_models_get_the_heads_of_their_architecture_and_its_epsilon() {
    let config = sft_core::model::VitConfig {
        hidden_size: 32,
        ..common::config()
    };
    let wide = bytes(&common::tensors(&config, 1));
    let read = |name: &str, heads| {
        let json = format!(
            r#"{{"architecture": "{name}", "pretrained_cfg":
            {{"mean": [0.5, 0.5], "std": [0.5, 0.5]}}}}"#
        );
        PretrainedVit::from_bytes(&wide, Some(&json), None, heads).map(|read| read.config)
    };
    let huge = read("vit_huge_patch14_224", None).unwrap();
    assert_eq!((huge.num_attention_heads, huge.layer_norm_eps), (16, 1e-6));
    let name = "vit_so150m_patch16_reg4_gap_256";
    let error = read(name, None).unwrap_err();
    let want = format!("config.json: the number of heads of {name:?} is not known: give it");
    assert_eq!(error, want);
    assert_eq!(read(name, Some(8)).unwrap().num_attention_heads, 8);

    let timm = std::fs::read(fixture("timm").join("model.safetensors")).unwrap();
    let bare = PretrainedVit::from_bytes(&timm, None, None, Some(4)).unwrap();
    assert!((bare.config.layer_norm_eps - 1e-6).abs() < 1e-18);

    let mut wide = common::tensors(&common::config(), 1);
    wide.insert(
        "vit.embeddings.patch_embeddings.projection.weight".into(),
        common::random(&[1280, 2, 2, 2], 1.0, 1),
    );
    let wide = PretrainedVit::from_bytes(&bytes(&wide), None, None, None).unwrap_err();
    assert_eq!(
        wide,
        "the number of heads at width 1280 is not known: give it"
    );
}

#[test]
fn heads_must_divide_the_width() {
    let bytes = std::fs::read(fixture("hugging_face").join("model.safetensors")).unwrap();
    for heads in [0, 5] {
        let error = PretrainedVit::from_bytes(&bytes, None, None, Some(heads)).unwrap_err();
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
        let error = PretrainedVit::open(&path, Some(4)).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("not a complete safetensors file"), "{error}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(
        PretrainedVit::open(&path, None)
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
    let pretrained = PretrainedVit::open(&weights, None).unwrap();
    let (_, test) = cifar100(&shared.join("cifar100"), &pretrained.input).unwrap();
    let model = Vit::new(&pretrained.config, &pretrained.weights, Backend::default()).unwrap();
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
