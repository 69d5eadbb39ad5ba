//! Which layers have adapters: against plain candle, convolutions and finite differences.

mod common;

use candle_core::{Device, Tensor, Var};
use common::{Bench, InMemory, config, random, run, settings, vit, weights};
use sft_compress::Codec;
use sft_core::adapter::{Adapters, Head, Lora};
use sft_core::data::Inputs;
use sft_core::model::{Backend, Hidden, Model, Vit};
use sft_core::optim::Optimizer;
use sft_core::run::{Job, Scheme, Settings, logits};
use sft_core::split::{Step, WholeModel};

const EVERY: &str = "q_proj,k_proj,v_proj,o_proj,fc1,fc2,projection,classifier";

fn lora(targets: &str) -> Lora {
    let lora = Lora::new(3, 6.0).unwrap();
    lora.with_targets(common::targets(targets))
}

fn with_targets(scheme: Scheme, targets: &str) -> Settings {
    Settings {
        lora: lora(targets),
        ..settings(scheme)
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Equal up to a fraction of the largest value.
fn assert_close(got: &[f32], want: &[f32], tolerance: f32, name: &str) {
    assert_eq!(got.len(), want.len(), "{name}");
    let top = want.iter().fold(0.0f32, |top, v| top.max(v.abs()));
    assert!(top > 0.0, "{name} is zero");
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got - want).abs() <= tolerance * top,
            "{name}: {got} {want}"
        );
    }
}

/// Output and adapter gradient of block 0.
fn block(model: &dyn Model, lora: Lora, hidden: &Tensor, adapter: &Tensor) -> [Vec<f32>; 3] {
    let hidden = Var::from_tensor(hidden).unwrap();
    let adapter = Var::from_tensor(adapter).unwrap();
    let output = model
        .block(0, &Hidden::even(hidden.as_tensor().clone()), &adapter, lora)
        .unwrap()
        .state;
    let grads = output.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    [
        values(&output),
        values(grads.get(&hidden).unwrap()),
        values(grads.get(&adapter).unwrap()),
    ]
}

#[test]
fn targets_and_dropout_agree_with_plain_candle() {
    let config = config();
    let weights = weights(&config, 7);
    let engine = Vit::new(&config, &weights, Backend::default()).unwrap();
    let plain = Vit::new(&config, &weights, Backend::Candle(Device::Cpu)).unwrap();
    let hidden = random(&[3, config.tokens(), config.hidden_size], 1.0, 1);
    for (targets, dropout) in [
        ("q_proj,v_proj", 0.0),
        ("fc2", 0.0),
        ("q_proj,k_proj,v_proj,o_proj,fc1,fc2", 0.3),
        ("o_proj,fc1", 0.5),
    ] {
        let lora = Lora::new(4, 6.0).unwrap();
        let lora = lora.with_targets(common::targets(targets));
        let lora = lora.with_dropout(dropout).unwrap().training(11);
        let adapter = random(&[lora.block_parameters(engine.spec())], 0.3, 2);
        let got = block(&engine, lora, &hidden, &adapter);
        let want = block(&plain, lora, &hidden, &adapter);
        for (got, want) in got.iter().zip(&want) {
            let top = want.iter().fold(0.0f32, |top, v| top.max(v.abs()));
            for (got, want) in got.iter().zip(want) {
                assert!(
                    (got - want).abs() < 1e-4 * top,
                    "{targets} {dropout}: {got} {want}"
                );
            }
        }
        let other = block(&engine, lora.training(12), &hidden, &adapter);
        assert_eq!(
            got[0] != other[0],
            dropout > 0.0,
            "the seed draws the masks"
        );
    }
}

#[test]
fn evaluation_drops_nothing() {
    let engine = common::vit(&config());
    let lora = Lora::new(2, 2.0).unwrap();
    let hidden = random(&[2, config().tokens(), config().hidden_size], 1.0, 1);
    let adapter = random(&[lora.block_parameters(engine.spec())], 0.3, 2);
    let dropping = lora.with_dropout(0.4).unwrap();
    let output = |lora| block(&engine, lora, &hidden, &adapter);
    assert_eq!(output(dropping), output(lora));
    assert_ne!(output(dropping.training(1)), output(lora));
}

/// The embedding, and the gradient of an adapter under `sum(output * direction)`.
fn embed(
    model: &dyn Model,
    lora: Lora,
    input: &Tensor,
    adapter: &Tensor,
    direction: &Tensor,
) -> [Vec<f32>; 2] {
    let adapter = Var::from_tensor(adapter).unwrap();
    let output = model
        .embed(&Inputs::Pixels(input.clone()), Some((&adapter, lora)))
        .unwrap()
        .state;
    let loss = (&output * direction).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    [values(&output), values(grads.get(&adapter).unwrap())]
}

#[test]
fn the_patch_embeddings_adapter_agrees_with_plain_candle() {
    let config = config();
    let weights = weights(&config, 7);
    let engine = Vit::new(&config, &weights, Backend::default()).unwrap();
    let plain = Vit::new(&config, &weights, Backend::Candle(Device::Cpu)).unwrap();
    let input = random(&[3, 2, 6, 6], 1.0, 1);
    let direction = random(&[3, config.tokens(), config.hidden_size], 1.0, 3);
    for dropout in [0.0, 0.4] {
        let lora = lora("projection")
            .with_dropout(dropout)
            .unwrap()
            .training(11);
        let adapter = random(&[lora.embedding_parameters(engine.spec())], 0.3, 2);
        let run = |model, lora| embed(model, lora, &input, &adapter, &direction);
        let (got, want) = (run(&engine, lora), run(&plain, lora));
        assert_close(&got[0], &want[0], 1e-5, "tokens");
        assert_close(&got[1], &want[1], 1e-4, "gradient");
        let other = run(&engine, lora.training(12));
        assert_eq!(got != other, dropout > 0.0, "the seed draws the masks");
    }
}

/// PEFT's layers: a convolution to r channels of the patches' size, then one of 1x1.
#[test]
fn the_patch_embeddings_adapter_is_two_convolutions() {
    let config = config();
    let (model, lora) = (vit(&config), lora("projection"));
    let (rank, width, patch) = (lora.rank(), config.hidden_size, config.patch_size);
    let input = random(&[3, 2, 6, 6], 1.0, 1);
    let direction = random(&[3, config.tokens(), width], 1.0, 3);
    let a = Var::from_tensor(&random(&[rank, 2, patch, patch], 0.3, 4)).unwrap();
    let b = Var::from_tensor(&random(&[width, rank, 1, 1], 0.3, 5)).unwrap();
    let flat = |a: &Tensor, b: &Tensor| {
        let vector = [values(a), values(b)].concat();
        let length = vector.len();
        Tensor::from_vec(vector, length, &Device::Cpu).unwrap()
    };
    let got = embed(&model, lora, &input, &flat(&a, &b), &direction);

    let low = input.conv2d(&a, 0, patch, 1, 1).unwrap();
    let change = (low.conv2d(&b, 0, 1, 1, 1).unwrap() * lora.scale()).unwrap();
    // [B, D, side, side] to one row per patch, behind the class token.
    let change = change.flatten_from(2).unwrap().transpose(1, 2).unwrap();
    let change = change.pad_with_zeros(1, 1, 0).unwrap();
    let tokens = (model.embed(&Inputs::Pixels(input), None).unwrap().state + &change).unwrap();
    let loss = (change * direction).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let gradient = flat(grads.get(&a).unwrap(), grads.get(&b).unwrap());
    assert_close(&got[0], &values(&tokens), 1e-5, "tokens");
    assert_close(&got[1], &values(&gradient), 1e-4, "gradient");
}

type Select = fn(&mut Adapters) -> &mut Vec<f32>;

/// One step of SGD at rate 1 moves every value by its gradient.
#[test]
fn every_gradient_is_the_slope_of_the_loss() {
    let (model, lora) = (vit(&config()), lora(EVERY));
    let data = InMemory::new(6, 3, 1);
    let mut start = Adapters::new(model.spec(), lora, Head::new(3, 12, 5), 9);
    // B away from zero, or A would have no gradient.
    let blur = |values: &mut Vec<f32>, seed| {
        let noise = random(&[values.len()], 0.2, seed).to_vec1::<f32>().unwrap();
        values.iter_mut().zip(noise).for_each(|(v, n)| *v += n);
    };
    blur(&mut start.embedding, 20);
    blur(&mut start.head.adapter, 21);
    start.blocks.iter_mut().for_each(|block| blur(block, 22));
    let step = Step {
        learning_rate: 1.0,
        dropout_seed: 0,
    };
    let mut whole = WholeModel::new(&model, lora, &start, Optimizer::sgd(0.0)).unwrap();
    whole
        .step(&data.whole().inputs, &data.whole().labels, step)
        .unwrap();
    let moved = whole.adapters().unwrap();
    assert_eq!(moved.head.weight, start.head.weight, "it is frozen");
    assert_eq!(moved.head.bias, start.head.bias, "it is frozen");

    let loss = |adapters: &Adapters| {
        let logits = logits(&model, lora, adapters, &data.whole().inputs).unwrap();
        let logits = logits.to_vec2::<f32>().unwrap();
        let of_sample = |(logits, &label): (&Vec<f32>, &u32)| {
            let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            sum.ln() - f64::from(logits[label as usize])
        };
        logits.iter().zip(&data.labels).map(of_sample).sum::<f64>() / 6.0
    };
    let places: [(&str, Select); 3] = [
        ("projection", |a| &mut a.embedding),
        ("block", |a| &mut a.blocks[1]),
        ("classifier", |a| &mut a.head.adapter),
    ];
    for (name, select) in places {
        let (before, after) = (
            select(&mut start.clone()).clone(),
            select(&mut moved.clone()).clone(),
        );
        let got: Vec<_> = before.iter().zip(&after).map(|(b, a)| b - a).collect();
        let slope = |i: usize| {
            let at = |by: f32| {
                let mut adapters = start.clone();
                select(&mut adapters)[i] += by;
                loss(&adapters)
            };
            ((at(2e-3) - at(-2e-3)) / 4e-3) as f32
        };
        let want: Vec<_> = (0..before.len()).map(slope).collect();
        assert_close(&got, &want, 5e-3, name);
    }
}

#[test]
fn what_is_sent_is_what_is_trained() {
    let round = |scheme, targets| {
        let settings = Settings {
            adapter_codec: Codec::raw(),
            ..with_targets(scheme, targets)
        };
        Bench::new(settings, 1).run().unwrap().rounds.remove(0)
    };
    let (model, all) = (vit(&config()), lora(EVERY));
    let patch = 4 * all.embedding_parameters(model.spec()) as u64;
    let (adapter, head) = (4 * all.head_parameters(model.spec(), 3) as u64, 4 * 3 * 13);
    for scheme in [Scheme::Sft, Scheme::FlLora] {
        let whole = scheme == Scheme::FlLora;
        let (paper, every) = (
            round(scheme, "q_proj,k_proj,v_proj,o_proj,fc1,fc2"),
            round(scheme, EVERY),
        );
        // In FL the head travels too, in full or as its adapter. The length of a frame's header
        // depends on that of its values.
        let more = if whole { patch + adapter - head } else { patch };
        let got = every.adapter_bytes_up - paper.adapter_bytes_up;
        assert!(got.abs_diff(more) <= 2, "{scheme:?}: {got} for {more}");
        assert_eq!(every.adapter_bytes_up, every.adapter_bytes_down);
    }
}

/// The cost model knows adapters outside the blocks in FL, both or none: `2Dr` and `r(D + K)`.
#[test]
fn modelled_memory_counts_an_adapted_head() {
    let memory = |scheme, targets| {
        let bench = Bench::new(with_targets(scheme, targets), 1);
        let bytes = bench.wireless.device_memory_bytes(&bench.settings, 2);
        bytes.unwrap() as i64
    };
    let more =
        |scheme| memory(scheme, EVERY) - memory(scheme, "q_proj,k_proj,v_proj,o_proj,fc1,fc2");
    let (patch, adapter, head) = (2 * 12 * 3, 3 * (12 + 3), 3 * 13);
    // Adapters in the model's row; momentum of the patch embedding's in place of the head's.
    assert_eq!(
        more(Scheme::FlLora),
        4 * (patch + adapter) + 4 * (patch - head)
    );
    assert_eq!(more(Scheme::Sft), 0);
}

#[test]
fn every_choice_of_targets_trains() {
    for targets in [
        "projection",
        "classifier",
        "projection,classifier",
        "v_proj",
        "q_proj,v_proj,projection,classifier",
    ] {
        for scheme in [Scheme::SftRaw, Scheme::Sl, Scheme::FlLora] {
            let (optimizer, lr) = (Optimizer::adamw(), 1e-2);
            let settings = Settings {
                rounds: 4,
                optimizer,
                lr,
                lr_server: lr,
                ..with_targets(scheme, targets)
            };
            let rounds = Bench::new(settings, 2).run().unwrap().rounds;
            let (first, last) = (rounds[0].loss, rounds[3].loss);
            assert!(last < first, "{targets}, {scheme:?}: {first} to {last}");
        }
    }
}

#[test]
fn full_parameters_ignore_targets() {
    let run = |targets| Bench::new(with_targets(Scheme::FlFull, targets), 2).run();
    assert_eq!(
        run("q_proj").unwrap().adapters,
        run(EVERY).unwrap().adapters
    );
}

#[test]
fn adapters_of_other_targets_are_refused() {
    let of = |targets: &str| Bench::new(with_targets(Scheme::Sft, targets), 1);
    let refused = |ours: &str, theirs: &str| {
        let (ours, theirs) = (of(ours), of(theirs));
        let start = theirs.job().start().unwrap();
        let result = sft_core::run::finetune(&ours.job(), start, &mut |_| Ok(()));
        result.unwrap_err().to_string()
    };
    let patch = "adapters must have 0 values before the blocks, got 60";
    assert_eq!(refused("q_proj", "q_proj,projection"), patch);
    let head = "head must have an adapter of 45 values, got 0";
    assert_eq!(refused("q_proj,classifier", "q_proj"), head);

    let bench = of("q_proj");
    let adapted = Head {
        adapter: vec![0.0; 45],
        ..bench.head.clone()
    };
    let job = Job {
        head: &adapted,
        ..bench.job()
    };
    let error = run(&Job { ..job }).unwrap_err().to_string();
    assert_eq!(error, "head must have an adapter of 0 values, got 45");
}
