//! The block engine against the same block in plain candle operations.

mod common;

use candle_core::{Device, Tensor, Var};
use common::{random, weights};
use sft_core::adapter::Lora;
use sft_core::data::Inputs;
use sft_core::model::{Backend, Hidden, Model, Vit, VitConfig};

struct Case {
    config: VitConfig,
    batch: usize,
    rank: usize,
}

fn cases() -> Vec<Case> {
    let case = |width, heads, mlp, image, batch, rank, qkv_bias| Case {
        config: VitConfig {
            hidden_size: width,
            num_hidden_layers: 2,
            num_attention_heads: heads,
            intermediate_size: mlp,
            image_size: image,
            patch_size: 1,
            num_channels: 1,
            qkv_bias,
            ..VitConfig::default()
        },
        batch,
        rank,
    };
    vec![
        case(4, 1, 4, 1, 1, 1, true),
        case(12, 3, 20, 3, 2, 5, true),
        case(16, 16, 7, 2, 3, 2, false),
        case(64, 4, 256, 4, 16, 8, true),
        case(96, 2, 100, 7, 1, 16, true),
        // 37 samples of 26 tokens are more than one piece, and the last piece is shorter.
        case(8, 2, 12, 5, 37, 3, true),
    ]
}

/// The output of a block, of the last possibly the class token alone.
fn block(model: &dyn Model, index: usize, hidden: &Tensor, adapter: &Tensor, lora: Lora) -> Hidden {
    let hidden = even(hidden);
    let output = if index + 1 == model.spec().depth {
        model.last_block(&hidden, adapter, lora)
    } else {
        model.block(index, &hidden, adapter, lora)
    };
    output.unwrap()
}

/// Output and gradients of `sum(output * direction)`, of as many tokens as `direction` has.
fn run(
    model: &dyn Model,
    index: usize,
    hidden: &Tensor,
    adapter: &Tensor,
    direction: &Tensor,
    lora: Lora,
) -> [Tensor; 3] {
    let (hidden, adapter) = (
        Var::from_tensor(hidden).unwrap(),
        Var::from_tensor(adapter).unwrap(),
    );
    let output = block(model, index, &hidden, &adapter, lora)
        .state
        .narrow(1, 0, direction.dim(1).unwrap())
        .unwrap();
    let grads = (&output * direction)
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    let grad = |var: &Var| grads.get(var).expect("a gradient").clone();
    [output.detach(), grad(&hidden), grad(&adapter)]
}

/// Samples of one length.
fn even(hidden: &Tensor) -> Hidden {
    Hidden::even(hidden.clone())
}

/// Largest difference relative to the largest value.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (a, b) = (values(a), values(b));
    let top = b.iter().fold(0.0f32, |top, v| top.max(v.abs()));
    a.iter()
        .zip(&b)
        .fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()))
        / top
}

#[test]
fn engine_equals_candle_in_output_and_gradients() {
    for (
        i,
        Case {
            config,
            batch,
            rank,
        },
    ) in cases().into_iter().enumerate()
    {
        let lora = Lora::new(rank, 2.0 * rank as f64).unwrap();
        let weights = weights(&config, 40 * i as u64);
        let engine = Vit::new(&config, &weights, Backend::default()).unwrap();
        let plain = Vit::new(&config, &weights, Backend::Candle(Device::Cpu)).unwrap();
        let shape = [batch, config.tokens(), config.hidden_size];
        let hidden = random(&shape, 1.0, 1);
        let adapter = random(&[lora.block_parameters(engine.spec())], 0.2, 2);
        // Of the last block only the class token is wanted.
        for (index, tokens) in [(0, config.tokens()), (1, 1)] {
            let direction = random(&[batch, tokens, config.hidden_size], 1.0, 3);
            let got = run(&engine, index, &hidden, &adapter, &direction, lora);
            let want = run(&plain, index, &hidden, &adapter, &direction, lora);
            for (name, tolerance, got, want) in [
                ("output", 1e-5, &got[0], &want[0]),
                ("input gradient", 1e-4, &got[1], &want[1]),
                ("adapter gradient", 1e-4, &got[2], &want[2]),
            ] {
                let error = difference(got, want);
                assert!(
                    error < tolerance,
                    "case {i}, block {index}, {name}: {error:e}"
                );
            }
        }
    }
}

#[test]
fn checkpointing_and_threads_change_no_bit() {
    for Case {
        config,
        batch,
        rank,
    } in cases()
    {
        let lora = Lora::new(rank, 2.0 * rank as f64).unwrap();
        let weights = weights(&config, 7);
        let of = |backend| Vit::new(&config, &weights, backend).unwrap();
        let engine = of(Backend::default());
        let hidden = random(&[batch, config.tokens(), config.hidden_size], 1.0, 1);
        let adapter = random(&[lora.block_parameters(engine.spec())], 0.2, 2);
        let again = of(Backend::Engine {
            checkpointing: true,
        });
        for index in 0..2 {
            let direction = random(&[batch, 1, config.hidden_size], 1.0, 3);
            let bits = |model: &Vit, threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let pool = pool.build().unwrap();
                pool.install(|| run(model, index, &hidden, &adapter, &direction, lora))
                    .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            };
            let want = bits(&engine, 1);
            assert!(bits(&engine, 3) == want, "threads changed a bit");
            assert!(bits(&again, 2) == want, "checkpointing changed a bit");
            let untracked = block(&engine, index, &hidden, &adapter, lora)
                .state
                .narrow(1, 0, 1)
                .unwrap()
                .flatten_all()
                .unwrap();
            assert!(untracked.to_vec1::<f32>().unwrap() == want[0]);
        }
    }
}

#[test]
fn the_first_block_needs_no_input_gradient() {
    let config = common::config();
    let engine = common::vit(&config);
    let lora = Lora::new(2, 2.0).unwrap();
    let adapter =
        Var::from_tensor(&random(&[lora.block_parameters(engine.spec())], 0.2, 2)).unwrap();
    let hidden = random(&[2, config.tokens(), config.hidden_size], 1.0, 1);
    let tracked = Var::from_tensor(&hidden).unwrap();
    let grad = |hidden: &Tensor| {
        let output = engine.block(0, &even(hidden), &adapter, lora).unwrap();
        let grads = output
            .state
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .backward()
            .unwrap();
        (
            grads.get_ids().count(),
            grads.get(&adapter).unwrap().to_vec1::<f32>().unwrap(),
        )
    };
    let (without, with) = (grad(&hidden), grad(&tracked));
    assert_eq!((without.0, with.0), (1, 2), "variables with a gradient");
    assert_eq!(without.1, with.1);
}

/// Every trainable tensor has a gradient, and no frozen one.
#[test]
fn a_step_of_the_whole_model_gives_gradients_to_adapters_and_head_only() {
    let config = common::config();
    let engine = common::vit(&config);
    let lora = Lora::new(2, 2.0).unwrap();
    let input = random(&[2, 2, 6, 6], 1.0, 1);
    let lora = lora.with_targets(common::targets(
        "q_proj,k_proj,v_proj,o_proj,fc1,fc2,projection",
    ));
    let var = |shape: &[usize], seed| Var::from_tensor(&random(shape, 0.1, seed)).unwrap();
    let patch = var(&[lora.embedding_parameters(engine.spec())], 5);
    let mut hidden = engine
        .embed(&Inputs::Pixels(input), Some((&patch, lora)))
        .unwrap();
    let mut vars = vec![var(&[3, config.hidden_size], 4)];
    for block in 0..engine.spec().depth {
        let adapter = random(
            &[lora.block_parameters(engine.spec())],
            0.2,
            10 + block as u64,
        );
        vars.push(Var::from_tensor(&adapter).unwrap());
        hidden = engine
            .block(block, &hidden, &vars[block + 1], lora)
            .unwrap();
    }
    let logits = engine
        .finish(&hidden)
        .unwrap()
        .matmul(&vars[0].t().unwrap())
        .unwrap();
    let labels = Tensor::new(&[0u32, 2], &Device::Cpu).unwrap();
    let grads = candle_nn::loss::cross_entropy(&logits, &labels)
        .unwrap()
        .backward()
        .unwrap();
    vars.push(patch);
    let known: Vec<_> = vars.iter().map(|var| var.id()).collect();
    assert!(known.iter().all(|id| grads.get_id(*id).is_some()));
    assert!(
        grads.get_ids().all(|id| known.contains(id)),
        "a frozen tensor has a gradient"
    );
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let config = common::config();
    let engine = common::vit(&config);
    let lora = Lora::new(2, 2.0).unwrap();
    let right = lora.block_parameters(engine.spec());
    let zeros =
        |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let hidden = zeros(&[1, 10, 12]);
    assert!(
        engine
            .block(0, &even(&hidden), &zeros(&[right]), lora)
            .is_ok()
    );
    assert!(
        engine
            .block(0, &even(&hidden), &zeros(&[right + 1]), lora)
            .is_err()
    );
    assert!(
        engine
            .block(0, &even(&zeros(&[1, 10, 13])), &zeros(&[right]), lora)
            .is_err()
    );
    assert!(
        engine
            .block(0, &even(&zeros(&[10, 12])), &zeros(&[right]), lora)
            .is_err()
    );
}
