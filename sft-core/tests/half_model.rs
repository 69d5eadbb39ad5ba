//! Halves of models as folders: what a device of a split model needs, and no more.

mod common;

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::{Folder, base, config, random};
use sft_core::adapter::{Adapters, Head, Lora};
use sft_core::data::Inputs;
use sft_core::model::{Backend, Hidden, Model, Pretrained, PretrainedText, PretrainedVit};

/// The state after the first `blocks` blocks, with adapters that are zero.
fn below(model: &dyn Model, inputs: &Inputs, blocks: usize) -> Hidden {
    let embedded = model.embed(inputs, None).unwrap();
    (0..blocks).fold(embedded, |hidden, index| {
        block(model, index, &hidden).unwrap()
    })
}

/// One more block, with new adapters.
fn block(model: &dyn Model, index: usize, hidden: &Hidden) -> candle_core::Result<Hidden> {
    let lora = Lora::new(2, 2.0).unwrap();
    let adapters = Adapters::new(model.spec(), lora, Head::none(), 1);
    let adapter = Tensor::new(adapters.blocks[index].as_slice(), &Device::Cpu)?;
    model.block(index, hidden, &adapter, lora)
}

/// Checks what a half gives against the whole model.
fn assert_half([whole, half]: [&dyn Pretrained; 2], folder: &Path, inputs: &Inputs, blocks: usize) {
    assert_eq!(half.spec(), whole.spec());
    let [whole_model, half_model] =
        [whole, half].map(|model| model.model(Backend::default()).unwrap());
    let [want, got] = [&whole_model, &half_model].map(|model| {
        let state = below(model.as_ref(), inputs, blocks).state;
        state.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    });
    assert!(want == got);
    let hidden = below(half_model.as_ref(), inputs, blocks);
    let refused = block(half_model.as_ref(), blocks, &hidden);
    let reason = refused.unwrap_err().to_string();
    assert!(
        reason.contains(&format!("block {blocks} is not here")),
        "{reason}"
    );
    let again = Folder::new("again");
    half.save_half(&again.0, blocks).unwrap();
    let [first, second] =
        [folder, &again.0].map(|folder| std::fs::read(folder.join("model.safetensors")).unwrap());
    assert!(first == second);
    let names = half.parameters();
    assert!(names.len() < whole.parameters().len());
    assert!(names.iter().all(|(name, _)| half.weight(name).is_ok()));
}

#[test]
fn a_half_of_a_vision_transformer() {
    let scratch = Folder::new("half-vit");
    let whole = base(&config());
    whole.save_half(&scratch.0, 2).unwrap();
    let half = PretrainedVit::open(&scratch.0, None).unwrap();
    let pixels = Inputs::Pixels(random(&[2, 2, 6, 6], 1.0, 5));
    assert_half([&whole, &half], &scratch.0, &pixels, 2);
    assert_refuses_other_blocks(&scratch.0, 3, |path| {
        PretrainedVit::open(path, None).map(drop)
    });
}

#[test]
fn halves_of_text_models() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text");
    for family in ["llama", "bert", "gpt2"] {
        let scratch = Folder::new(&format!("half-{family}"));
        let whole = PretrainedText::open(&fixtures.join(family)).unwrap();
        whole.save_half(&scratch.0, 1).unwrap();
        let half = PretrainedText::open(&scratch.0).unwrap();
        let inputs = Inputs::Tokens {
            ids: Tensor::new(&[[3u32, 5, 7], [2, 4, 0]], &Device::Cpu).unwrap(),
            lengths: vec![3, 2],
        };
        assert_half([&whole, &half], &scratch.0, &inputs, 1);
        assert_refuses_other_blocks(&scratch.0, 2, |path| PretrainedText::open(path).map(drop));
    }
}

/// A folder that says another number of blocks than it has, or than the model can have.
fn assert_refuses_other_blocks(
    folder: &Path,
    more: usize,
    open: impl Fn(&Path) -> sft_core::Result<()>,
) {
    let path: PathBuf = folder.join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (blocks, said) in [
        (0, "must be in 1..="),
        (99, "must be in 1..="),
        (more, "missing tensor"),
    ] {
        json.insert("sft_blocks".into(), blocks.into());
        std::fs::write(&path, serde_json::to_string(&json).unwrap()).unwrap();
        let reason = open(folder).unwrap_err().to_string();
        assert!(reason.contains(said), "{reason}");
    }
}
