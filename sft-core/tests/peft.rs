//! PEFT folders and merged models: agreement with real PEFT, round trips, refusals.
//!
//! `fixtures/make_peft.py` wrote `fixtures/peft` and `fixtures/peft_outer` with peft 0.21;
//! `python/tests/test_peft.py` reads `fixtures/peft_saved` and `fixtures/peft_saved_outer`, which
//! this crate wrote, with real PEFT.

mod common;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::Folder;
use sft_core::adapter::{Adapters, Head, Lora, ModuleNames, load_peft, save_peft};
use sft_core::data::{Fit, ImageInput, Inputs};
use sft_core::model::{Backend, Model, Pretrained, PretrainedVit, Vit};
use sft_core::run::logits;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn tensor(path: &str, name: &str) -> Tensor {
    candle_core::safetensors::load(fixture(path), &Device::Cpu).unwrap()[name].clone()
}

fn base() -> (PretrainedVit, Vit) {
    let base = PretrainedVit::open(&fixture("hugging_face/model.safetensors"), None).unwrap();
    let vit = Vit::new(&base.config, &base.weights, Backend::default()).unwrap();
    (base, vit)
}

/// Adapters whose B is not zero, and a head of 5 classes; cheap to compute in any language.
fn adapters(model: &dyn Model, lora: Lora) -> Adapters {
    let wave = |count: usize, phase: usize| -> Vec<f32> {
        let value = |i: usize| ((i * 37 + phase * 11) % 101) as f32 / 101.0 - 0.5;
        (0..count).map(value).collect()
    };
    let length = |i| {
        let tuned = i >= lora.frozen_blocks();
        usize::from(tuned) * lora.block_parameters(model.spec())
    };
    Adapters {
        embedding: wave(lora.embedding_parameters(model.spec()), 5),
        blocks: (0..model.spec().depth)
            .map(|i| wave(length(i), i))
            .collect(),
        head: Head {
            classes: 5,
            weight: wave(5 * model.spec().width, 7),
            bias: wave(5, 8),
            adapter: wave(lora.head_parameters(model.spec(), 5), 9),
        },
    }
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap();
    difference.to_scalar().unwrap()
}

#[test]
fn what_peft_saved_gives_pefts_logits() {
    let (base, vit) = base();
    for (folder, targets) in [
        ("peft", "q_proj,v_proj,o_proj,fc2"),
        ("peft_outer", "k_proj,fc1,projection,classifier"),
    ] {
        // PEFT keeps a head that is trained in full, but not one under an adapter.
        let head = base.head.as_ref().filter(|_| folder == "peft_outer");
        let (lora, adapters) = load_peft(&fixture(folder), vit.spec(), head).unwrap();
        assert_eq!((lora.rank(), lora.alpha(), lora.dropout()), (3, 7.0, 0.1));
        assert_eq!(lora.targets(), common::targets(targets));
        let images = tensor("hugging_face/expected.safetensors", "images");
        let got = logits(&vit, lora, &adapters, &Inputs::Pixels(images.clone())).unwrap();
        let want = tensor(&format!("{folder}/expected.safetensors"), "logits");
        let error = difference(&got, &want);
        assert!(error < 1e-5, "{folder}: a logit is off by {error:e}");
    }
    let error = load_peft(&fixture("peft_outer"), vit.spec(), None).unwrap_err();
    let wanted = "missing tensor classifier.base_layer.weight, and the model has no head";
    assert!(error.to_string().ends_with(wanted), "{error}");
}

/// The committed folders, which real PEFT is tested on, are what is written today.
#[test]
fn what_is_saved_is_what_peft_was_tested_with() {
    let (_, vit) = base();
    for (name, targets, frozen) in [
        ("peft_saved", "q_proj,k_proj,v_proj,o_proj,fc1,fc2", 0),
        ("peft_saved_outer", "q_proj,fc2,projection,classifier", 0),
        ("peft_saved_frozen", "q_proj,fc2,classifier", 1),
    ] {
        let lora = Lora::new(2, 6.0).unwrap().with_frozen_blocks(frozen);
        let lora = lora.with_targets(common::targets(targets));
        let adapters = adapters(&vit, lora);
        let images = tensor("hugging_face/expected.safetensors", "images");
        let got = logits(&vit, lora, &adapters, &Inputs::Pixels(images.clone())).unwrap();
        let folder = Folder::new(name);
        save_peft(
            &folder.0,
            vit.spec(),
            lora,
            &adapters,
            None,
            ModuleNames::default(),
        )
        .unwrap();
        let committed = fixture(name);
        if !committed.exists() {
            std::fs::create_dir_all(&committed).unwrap();
            save_peft(
                &committed,
                vit.spec(),
                lora,
                &adapters,
                None,
                ModuleNames::default(),
            )
            .unwrap();
            got.save_safetensors("logits", committed.join("expected.safetensors"))
                .unwrap();
            panic!("wrote the missing {}", committed.display());
        }
        for file in ["adapter_config.json", "adapter_model.safetensors"] {
            let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
            assert_eq!(read(&folder.0), read(&committed), "{file}");
        }
        let want = tensor(&format!("{name}/expected.safetensors"), "logits");
        let error = difference(&got, &want);
        assert!(error < 1e-5, "{name}: {error:e}");
    }
}

#[test]
fn what_is_saved_loads_again_under_either_naming() {
    let (_, vit) = base();
    for names in [ModuleNames::Transformers4, ModuleNames::Transformers5] {
        for targets in [
            "q_proj,k_proj,v_proj,o_proj,fc1,fc2",
            "fc2",
            "q_proj,fc1",
            "k_proj,projection",
            "projection",
            "classifier",
            "v_proj,o_proj,projection,classifier",
        ] {
            let lora = Lora::new(2, 6.0).unwrap();
            let lora = lora.with_targets(common::targets(targets));
            let adapters = adapters(&vit, lora);
            let folder = Folder::new("peft-again");
            save_peft(&folder.0, vit.spec(), lora, &adapters, None, names).unwrap();
            assert_eq!(
                load_peft(&folder.0, vit.spec(), None).unwrap(),
                (lora, adapters)
            );
        }
    }
}

#[test]
fn blocks_without_adapters_are_named_nowhere() {
    let (_, vit) = base();
    for names in [ModuleNames::Transformers4, ModuleNames::Transformers5] {
        for targets in [
            "q_proj,k_proj,v_proj,o_proj,fc1,fc2",
            "o_proj,classifier",
            "fc2",
        ] {
            let lora = Lora::new(2, 6.0).unwrap().with_frozen_blocks(1);
            let lora = lora.with_targets(common::targets(targets));
            let (adapters, folder) = (adapters(&vit, lora), Folder::new("peft-frozen"));
            save_peft(&folder.0, vit.spec(), lora, &adapters, None, names).unwrap();
            let read = || load_peft(&folder.0, vit.spec(), None);
            assert_eq!(read().unwrap(), (lora, adapters));
            let file = folder.0.join("adapter_model.safetensors");
            let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
            let (first, second) = (".0.", ".1.");
            assert!(tensors.keys().any(|name| name.contains(second)));
            assert!(!tensors.keys().any(|name| name.contains(first)));
            // Tensors that the configuration wants are missing.
            let config = folder.0.join("adapter_config.json");
            let text = std::fs::read_to_string(&config).unwrap();
            assert!(text.contains(second) && !text.contains(first));
            std::fs::write(&config, text.replace(second, first)).unwrap();
            let error = read().unwrap_err().to_string();
            assert!(error.contains("missing tensor vit.layers.0."), "{error}");
        }
    }
}

/// As PEFT itself writes a folder with `layers_to_transform`.
#[test]
fn the_last_blocks_may_be_named_by_number() {
    let (_, vit) = base();
    for names in [ModuleNames::Transformers4, ModuleNames::Transformers5] {
        let lora = Lora::new(2, 6.0).unwrap();
        let (frozen, folder) = (lora.with_frozen_blocks(1), Folder::new("peft-layers"));
        let config = folder.0.join("adapter_config.json");
        // The configuration of adapters on all blocks, the tensors of those behind the first.
        save_peft(
            &folder.0,
            vit.spec(),
            lora,
            &adapters(&vit, lora),
            None,
            names,
        )
        .unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        let write = |layers: &str| {
            let to = format!("\"layers_to_transform\": {layers}");
            std::fs::write(&config, text.replace("\"use_dora\": false", &to)).unwrap();
        };
        let refused = |reason: &str| {
            let error = load_peft(&folder.0, vit.spec(), None)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        };
        write("[1]");
        refused("layers_to_transform leave out vit.layers.0.attention.q_proj, which has tensors");
        let tuned = adapters(&vit, frozen);
        save_peft(&folder.0, vit.spec(), frozen, &tuned, None, names).unwrap();
        for layers in ["[1]", "1", "[1, 2]"] {
            write(layers);
            let read = load_peft(&folder.0, vit.spec(), None).unwrap();
            assert_eq!(read, (frozen, tuned.clone()), "{layers}");
        }
        write("[1, 0]");
        refused("missing tensor vit.layers.0.");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let (_, vit) = base();
    let lora = Lora::new(2, 6.0).unwrap();
    let folder = Folder::new("peft-refused");
    let missing = load_peft(&folder.0, vit.spec(), None)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("adapter_config.json"), "{missing}");
    save_peft(
        &folder.0,
        vit.spec(),
        lora,
        &adapters(&vit, lora),
        None,
        ModuleNames::default(),
    )
    .unwrap();
    let config = folder.0.join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, message) in [
        ("\"LORA\"", "\"IA3\"", "peft_type must be LORA, got \"IA3\""),
        (
            "\"use_dora\": false",
            "\"use_dora\": true",
            "use_dora must not be used, got true",
        ),
        ("\"r\": 2", "\"r\": 0", "rank must be at least 1, got 0"),
        (
            "\"r\": 2",
            "\"r\": \"2\"",
            "r must be a whole number, got \"2\"",
        ),
        (
            "\"r\": 2",
            "\"r\": 2.0",
            "r must be a whole number, got 2.0",
        ),
        ("\"r\": 2", "\"q\": null", "missing r"),
        (
            "\"lora_alpha\": 6.0",
            "\"lora_alpha\": \"6\"",
            "lora_alpha must be a number, got \"6\"",
        ),
        ("\"lora_alpha\": 6.0,", "", "missing lora_alpha"),
        (
            "\"lora_dropout\": 0.0",
            "\"lora_dropout\": \"0.1\"",
            "lora_dropout must be a number, got \"0.1\"",
        ),
        (
            "\"use_dora\": false",
            "\"use_what_comes_next\": true",
            "use_what_comes_next must not be used, got true",
        ),
        (
            "\"fc2\"",
            "\"fc3\"",
            "leave out vit.layers.0.mlp.fc2, which has tensors",
        ),
        (
            "\"exclude_modules\": null",
            "\"exclude_modules\": [\"query\"]",
            "leave out vit.layers.0.attention.q_proj, which has tensors",
        ),
        (
            "\"use_dora\": false",
            "\"layers_to_transform\": [0]",
            "layers_to_transform must have all blocks from one to the last, 1, got [0]",
        ),
        (
            "\"use_dora\": false",
            "\"init_lora_weights\": \"pissa_niter_4\"",
            "init_lora_weights must be true, false or one of gaussian, eva, orthogonal, mica, got \
             \"pissa_niter_4\"",
        ),
        (
            "\"r\": 2",
            "\"r\": 3",
            "has shape [2, 24], expected [3, 24]",
        ),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).unwrap();
        let error = load_peft(&folder.0, vit.spec(), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
    std::fs::write(&config, &text).unwrap();
    let tensors = folder.0.join("adapter_model.safetensors");
    let bytes = std::fs::read(&tensors).unwrap();
    for length in (0..bytes.len()).step_by(bytes.len() / 53) {
        std::fs::write(&tensors, &bytes[..length]).unwrap();
        let error = load_peft(&folder.0, vit.spec(), None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("adapter_model.safetensors: not a complete"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_or_foreign_tensor_is_named() {
    let (_, vit) = base();
    let lora = Lora::new(2, 6.0).unwrap();
    let lora = lora.with_targets(common::targets("q_proj,projection,classifier"));
    let folder = Folder::new("peft-tensors");
    let save = |names| {
        save_peft(
            &folder.0,
            vit.spec(),
            lora,
            &adapters(&vit, lora),
            None,
            names,
        )
        .unwrap();
    };
    save(ModuleNames::default());
    let path = folder.0.join("adapter_model.safetensors");
    let whole = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let refused = |tensors| {
        candle_core::safetensors::save(&tensors, &path).unwrap();
        load_peft(&folder.0, vit.spec(), None)
            .unwrap_err()
            .to_string()
    };
    let patch = "vit.embeddings.patch_embeddings.projection";
    for (name, message) in [
        (format!("{patch}.lora_B.weight"), "missing tensor"),
        (
            format!("{patch}.lora_A.weight"),
            "has no place in the model",
        ),
        ("classifier.lora_B.weight".into(), "missing tensor"),
        ("classifier.base_layer.bias".into(), "missing tensor"),
        ("classifier.base_layer.weight".into(), "missing tensor"),
    ] {
        let mut fewer = whole.clone();
        let removed = fewer.remove(&format!("base_model.model.{name}"));
        assert!(removed.is_some(), "{name}");
        let error = refused(fewer);
        assert!(error.contains(message), "{name}: {error}");
    }
    let with = |name: &str, tensor: &Tensor| {
        let mut more = whole.clone();
        more.insert(format!("base_model.model.{name}"), tensor.clone());
        refused(more)
    };
    let flat = Tensor::zeros((2, 12), candle_core::DType::F32, &Device::Cpu).unwrap();
    let error = with(&format!("{patch}.lora_A.weight"), &flat);
    assert!(
        error.contains("has shape [2, 12], expected [2, "),
        "{error}"
    );
    let error = with("vit.pooler.dense.lora_A.weight", &flat);
    assert!(
        error.ends_with("vit.pooler.dense.lora_A.weight has no place in the model"),
        "{error}"
    );
}

#[test]
fn the_merged_model_is_the_adapted_one() {
    let (base, vit) = base();
    let images = tensor("hugging_face/expected.safetensors", "images");
    for targets in [
        "q_proj,k_proj,v_proj,o_proj,fc1,fc2",
        "k_proj,fc2",
        "projection",
        "q_proj,projection,classifier",
    ] {
        let lora = Lora::new(2, 6.0).unwrap();
        let lora = lora.with_targets(common::targets(targets));
        let adapters = adapters(&vit, lora);
        let folder = Folder::new("merged");
        base.save_merged(&folder.0, Some(lora), &adapters).unwrap();
        let merged = PretrainedVit::open(&folder.0.join("model.safetensors"), None).unwrap();
        let whole = Fit::whole(base.input.side);
        let input = ImageInput {
            fit: base.input.fit.or(Some(whole)),
            ..base.input.clone()
        };
        assert_eq!((&merged.config, &merged.input), (&base.config, &input));
        let plain = Vit::new(&merged.config, &merged.weights, Backend::default()).unwrap();
        let head = merged.head.expect("the tuned head");
        let new = Lora::new(2, 6.0).unwrap();
        let none = Adapters::new(plain.spec(), new, head, 1);
        let got = logits(&plain, new, &none, &Inputs::Pixels(images.clone())).unwrap();
        let error = difference(
            &got,
            &logits(&vit, lora, &adapters, &Inputs::Pixels(images.clone())).unwrap(),
        );
        assert!(
            error < 1e-5,
            "the largest difference of a logit is {error:e}"
        );
    }
}
