//! PEFT folders and merged models of texts: agreement with real PEFT, round trips, refusals.
//!
//! `fixtures/make_text_peft.py` wrote `fixtures/text_peft` with peft 0.21 and transformers 5.24;
//! `python/tests/test_text_peft.py` reads what a run writes with real PEFT and Transformers.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use common::Folder;
use sft_core::adapter::{
    Adapters, Head, Lora, ModuleNames, Targets, load_peft, load_pooler, save_peft,
};
use sft_core::data::Inputs;
use sft_core::model::{Backend, Pooling, Pretrained, PretrainedText, Tokenizer};
use sft_core::run::logits;

const FAMILIES: [&str; 7] = [
    "llama",
    "qwen3",
    "gemma3",
    "gpt2",
    "bert",
    "roberta",
    "distilbert",
];

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
    fixtures.join(name)
}

fn saved(name: &str) -> PathBuf {
    fixture("../text_peft").join(name)
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn inputs(name: &str) -> Inputs {
    let tensors = tensors(&fixture(name));
    let u32s = |name: &str| tensors[name].to_dtype(DType::U32).unwrap();
    Inputs::Tokens {
        ids: u32s("ids"),
        lengths: u32s("lengths").to_vec1().unwrap(),
    }
}

fn assert_close(got: &Tensor, want: &Tensor, what: &str) {
    let largest = |x: Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f32>();
    let error = largest((got - want).unwrap()).unwrap() / largest(want.clone()).unwrap();
    assert!(error < 1e-4, "{what}: {error:e}");
}

/// The fixture's model with what real PEFT saved for it.
fn tuned(name: &str) -> (PretrainedText, Lora, Adapters) {
    let mut model = PretrainedText::open(&fixture(name)).unwrap();
    let folder = saved(name);
    if let Some(pooler) = load_pooler(&folder, &model.spec()).unwrap() {
        model.take_pooler(pooler);
    }
    let (lora, adapters) = load_peft(&folder, &model.spec(), None).unwrap();
    (model, lora, adapters)
}

fn logits_of(model: &PretrainedText, lora: Lora, adapters: &Adapters, inputs: &Inputs) -> Tensor {
    let made = model.model(Backend::default()).unwrap();
    logits(made.as_ref(), lora, adapters, inputs).unwrap()
}

/// The logits of a merged model by its own head.
fn merged_logits(folder: &Path, inputs: &Inputs) -> Tensor {
    let model = PretrainedText::open(folder).unwrap();
    let lora = Lora::new(1, 1.0).unwrap();
    let adapters = Adapters::new(&model.spec(), lora, model.head.clone().unwrap(), 1);
    logits_of(&model, lora, &adapters, inputs)
}

#[test]
fn what_peft_saved_gives_pefts_logits_and_is_saved_as_it_was() {
    for name in FAMILIES {
        let (model, lora, adapters) = tuned(name);
        let spec = model.spec();
        assert_eq!((lora.rank(), lora.alpha()), (3, 7.0), "{name}");
        let inputs = inputs(&format!("{name}/expected.safetensors"));
        let got = logits_of(&model, lora, &adapters, &inputs);
        let expected = saved(name).join("expected.safetensors");
        assert_close(&got, &tensors(&expected)["logits"], name);

        let folder = Folder::new(&format!("text-peft-{name}"));
        let pooler = model.pooler().unwrap();
        let names = ModuleNames::default();
        save_peft(&folder.0, &spec, lora, &adapters, pooler, names).unwrap();
        let file = "adapter_model.safetensors";
        let theirs = tensors(&saved(name).join(file));
        let mut ours = tensors(&folder.0.join(file));
        for (name, tensor) in theirs {
            let same = ours.remove(&name).unwrap();
            assert_eq!(same.dims(), tensor.dims(), "{name}");
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&same), values(&tensor), "{name}");
        }
        // A pooler of the base model's own is there too.
        let more = ours.keys().all(|name| name.contains("pooler"));
        assert!(more && (ours.is_empty() || name == "bert"), "{name}");
    }
}

#[test]
fn a_merged_model_reads_again_as_what_was_tuned() {
    for name in FAMILIES {
        let (model, lora, adapters) = tuned(name);
        let folder = Folder::new(&format!("text-merged-{name}"));
        let inputs = inputs(&format!("{name}/expected.safetensors"));
        model.save_merged(&folder.0, Some(lora), &adapters).unwrap();
        let want = logits_of(&model, lora, &adapters, &inputs);
        assert_close(&merged_logits(&folder.0, &inputs), &want, name);
    }
}

/// What a GGUF file says is written as Hugging Face's files say it.
#[test]
fn a_gguf_file_is_merged_as_a_hugging_face_folder() {
    for name in ["qwen2", "qwen3", "gemma3"] {
        let model = PretrainedText::open(&fixture(&format!("{name}.gguf"))).unwrap();
        let (spec, lora) = (model.spec(), Lora::new(2, 2.0).unwrap());
        let head = Head::new(3, spec.width, 1).without_bias();
        let mut adapters = Adapters::new(&spec, lora, head, 1);
        for value in adapters.blocks.iter_mut().flatten() {
            *value += 0.1;
        }
        let folder = Folder::new(&format!("text-gguf-{name}"));
        let inputs = inputs(&format!("{name}.gguf.safetensors"));
        model.save_merged(&folder.0, Some(lora), &adapters).unwrap();
        let want = logits_of(&model, lora, &adapters, &inputs);
        assert_close(&merged_logits(&folder.0, &inputs), &want, name);
        let merged = PretrainedText::open(&folder.0).unwrap();
        let tokenizers = [merged.tokenizer, model.tokenizer].map(Option::unwrap);
        for text in ["It's 2024; x  12\n\n3", "<|im_start|>user\nHi<|im_end|>"] {
            let [again, own] = tokenizers.each_ref().map(|t| t.encode(text, true).unwrap());
            assert_eq!(again, own, "{name}");
        }
        let [again, own] = tokenizers.each_ref().map(Tokenizer::special);
        assert_eq!(again, own, "{name}");
    }
}

#[test]
fn what_transformers_has_no_class_for_is_not_merged() {
    let folder = Folder::new("text-merged-refused");
    let refusal = |model: &PretrainedText| {
        let spec = model.spec();
        let lora = Lora::new(1, 1.0).unwrap().with_targets(Targets::ALL_LINEAR);
        let head = Head::new(2, spec.width, 1);
        let head = if spec.head_bias {
            head
        } else {
            head.without_bias()
        };
        let adapters = Adapters::new(&spec, lora, head, 1);
        let saved = model.save_merged(&folder.0, Some(lora), &adapters);
        (
            model.check_merged().unwrap_err(),
            saved.unwrap_err().to_string(),
        )
    };
    for (name, part) in [
        ("bert", "have pooling first, got mean; give pooling first"),
        ("qwen2", "have pooling last, got mean; give pooling last"),
        ("llama.gguf", "rope_freqs.weight"),
    ] {
        let mut model = PretrainedText::open(&fixture(name)).unwrap();
        if !part.starts_with("rope") {
            model.pooling = Pooling::Mean;
        }
        let (before, error) = refusal(&model);
        assert!(
            before.contains(part) && error.contains(part),
            "{name}: {error}"
        );
        assert!(!folder.0.join("config.json").exists());
    }
}

/// A head of a file fits its pooler, and none is read without it.
#[test]
fn heads_behind_a_pooler_are_read_with_it() {
    let folder = Folder::new("text-head-pooler");
    let (model, lora, adapters) = tuned("bert");
    model.save_merged(&folder.0, Some(lora), &adapters).unwrap();
    let path = folder.0.join("model.safetensors");
    let mut held = tensors(&path);
    held.remove("bert.pooler.dense.weight");
    candle_core::safetensors::save(&held, &path).unwrap();
    let error = PretrainedText::open(&folder.0).unwrap_err().to_string();
    assert!(
        error.contains("missing tensor bert.pooler.dense.weight"),
        "{error}"
    );
    held.remove("bert.pooler.dense.bias");
    candle_core::safetensors::save(&held, &path).unwrap();
    assert!(PretrainedText::open(&folder.0).unwrap().head.is_none());
}
