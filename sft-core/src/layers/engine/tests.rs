//! Other blocks than the models', put together from the same parts, against candle's operations.

use candle_core::{Device, Tensor, Var};

use super::attention::{Attention, AttentionScratch};
use super::linear::Pass;
use super::lora::Pairs;
use super::mlp::{Mlp, MlpScratch};
use super::norm::Norm;
use super::piece::{Piece, Tokens};
use crate::adapter::{Lora, normal};
use crate::kernels::add;
use crate::layers::parts::{
    AttentionWeights, BlockWeights, LinearWeights, MlpWeights, NormWeights,
};
use crate::layers::{Backend, Block};
use crate::seed;

const WIDTH: usize = 10;
const TOKENS: usize = 7;
const SAMPLES: usize = 3;

fn random(shape: &[usize], deviation: f64, number: u64) -> Tensor {
    let mut rng = seed::rng(number, &[]);
    let count: usize = shape.iter().product();
    let values: Vec<_> = (0..count)
        .map(|_| (deviation * normal(&mut rng)) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// `heads` heads of width 3 for queries and `kv_heads` for keys and values, whose sum is not the
/// model's width; the value has no bias.
fn weights(heads: usize, kv_heads: usize) -> BlockWeights {
    let linear = |inputs: usize, outputs: usize, number: u64| LinearWeights {
        weight: random(&[outputs, inputs], 0.4, number),
        bias: (number != 3).then(|| random(&[outputs], 0.3, 100 + number)),
    };
    let norm = |number: u64| NormWeights {
        gain: (random(&[WIDTH], 0.3, number) + 1.0).unwrap(),
        bias: random(&[WIDTH], 0.3, 1 + number),
        eps: 1e-6,
    };
    BlockWeights {
        attention_norm: norm(50),
        attention: AttentionWeights {
            heads,
            query: linear(WIDTH, 3 * heads, 1),
            key: linear(WIDTH, 3 * kv_heads, 2),
            value: linear(WIDTH, 3 * kv_heads, 3),
            output: linear(3 * heads, WIDTH, 4),
        },
        attention_scale: None,
        mlp_norm: norm(60),
        mlp: MlpWeights {
            up: linear(WIDTH, 17, 5),
            down: linear(17, WIDTH, 6),
        },
        mlp_scale: None,
    }
}

/// Rank 2 on every linear, and adapters with nothing zero in them.
fn adapters(weights: &BlockWeights) -> (Lora, Var) {
    let sizes = weights.linears();
    let sizes = sizes.map(|linear| linear.inputs().unwrap() + linear.outputs().unwrap());
    let vector = random(&[2 * sizes.sum::<usize>()], 0.3, 200);
    (
        Lora::new(2, 3.0).unwrap(),
        Var::from_tensor(&vector).unwrap(),
    )
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    let top = want.iter().fold(0.0f32, |top, v| top.max(v.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-4 * top, "{name}: {got} {want}");
    }
}

/// The output and the gradients of `x` and the adapter for the output's gradient `direction`.
fn run(y: &Tensor, direction: &Tensor, vars: [&Var; 2]) -> [Vec<f32>; 3] {
    let grads = (y * direction).unwrap().sum_all().unwrap();
    let grads = grads.backward().unwrap();
    let [dx, dadapter] = vars.map(|var| values(grads.get(var).unwrap()));
    [values(y), dx, dadapter]
}

const NAMES: [&str; 3] = ["output", "input gradient", "adapter gradient"];

/// The engine's block and candle's on the same random input.
fn assert_agreement(name: &str, weights: &BlockWeights) {
    let (lora, adapter) = adapters(weights);
    for dropout in [0.0, 0.3] {
        let lora = lora.with_dropout(dropout).unwrap().training(8);
        let x = Var::from_tensor(&random(&[SAMPLES, TOKENS, WIDTH], 1.0, 300)).unwrap();
        let direction = random(&[SAMPLES, TOKENS, WIDTH], 1.0, 301);
        let of = |backend: Backend| {
            let block = Block::new(weights, &backend).unwrap();
            let y = block.forward(&x, Some((&adapter, lora)), None).unwrap();
            run(&y, &direction, [&x, &adapter])
        };
        let (got, want) = (of(Backend::default()), of(Backend::Candle(Device::Cpu)));
        for (part, (got, want)) in NAMES.iter().zip(got.iter().zip(&want)) {
            assert_close(&format!("{name}, {part}"), got, want);
        }
    }
}

/// Keys and values of fewer heads than queries, heads that do not add up to the width.
#[test]
fn grouped_heads_agree_with_plain_candle() {
    for (heads, kv_heads) in [(4, 4), (4, 2), (6, 3), (4, 1)] {
        assert_agreement(&format!("{kv_heads} of {heads}"), &weights(heads, kv_heads));
    }
}

/// Either branch scaled, or both.
#[test]
fn scaled_branches_agree_with_plain_candle() {
    for (attention, mlp) in [(true, true), (true, false), (false, true)] {
        let scale = |on: bool, number| on.then(|| random(&[WIDTH], 0.7, number));
        let weights = BlockWeights {
            attention_scale: scale(attention, 70),
            mlp_scale: scale(mlp, 71),
            ..weights(4, 4)
        };
        assert_agreement(&format!("attention {attention}, MLP {mlp}"), &weights);
    }
}

/// Keys and values must serve whole groups of queries' heads.
#[test]
fn heads_that_do_not_divide_are_refused() {
    let error = Block::new(&weights(4, 3), &Backend::default()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("heads of keys and values must divide 4, got 3"),
        "{error}"
    );
}

/// `h = norm(x + attention(x))`, `y = norm(h + mlp(h))`: BERT's order, from the same parts.
#[test]
fn a_post_norm_block_needs_no_other_parts() {
    let weights = weights(4, 2);
    let (lora, adapter) = adapters(&weights);
    let x = Var::from_tensor(&random(&[SAMPLES, TOKENS, WIDTH], 1.0, 300)).unwrap();
    let direction = random(&[SAMPLES, TOKENS, WIDTH], 1.0, 301);

    let plain = {
        let mut pairs = weights.pairs(Some((&adapter, lora))).unwrap().into_iter();
        let mut linear =
            |linear: &LinearWeights, x: &Tensor| linear.forward(x, pairs.next().unwrap()).unwrap();
        let AttentionWeights {
            query,
            key,
            value,
            output,
            ..
        } = &weights.attention;
        let [q, k, v] = [query, key, value].map(|layer| linear(layer, &x));
        let context = weights.attention.attend(&q, &k, &v).unwrap();
        let h = (x.as_tensor() + linear(output, &context)).unwrap();
        let h = weights.attention_norm.forward(&h).unwrap();
        let hidden = linear(&weights.mlp.up, &h).gelu_erf().unwrap();
        let y = (&h + linear(&weights.mlp.down, &hidden)).unwrap();
        run(
            &weights.mlp_norm.forward(&y).unwrap(),
            &direction,
            [&x, &adapter],
        )
    };

    let attention = Attention::new(&weights.attention).unwrap();
    let mlp = Mlp::new(&weights.mlp).unwrap();
    let [norm1, norm2] =
        [&weights.attention_norm, &weights.mlp_norm].map(|norm| Norm::new(norm).unwrap());
    let (x, adapter, dy) = (values(&x), values(&adapter), values(&direction));
    let tokens = Tokens {
        all: TOKENS,
        wanted: TOKENS,
    };
    let zeros = || vec![0.0; x.len()];
    let piece = |x| Piece { x, first: 0 };
    let (mut for_attention, mut for_mlp) = (AttentionScratch::default(), MlpScratch::default());
    let (mut qkv, mut hidden) = (Vec::new(), Vec::new());
    let [mut sum1, mut h, mut sum2, mut y] = [(); 4].map(|()| zeros());

    let mut pairs = Pairs::new(Some(lora), &adapter);
    let forward = attention.adapted(tokens, &mut pairs, Pass::Forward);
    forward.forward(piece(&x), Some(&x), &mut qkv, &mut sum1, &mut for_attention);
    norm1.forward(&sum1, &mut h);
    let forward = mlp.adapted(&mut pairs, Pass::Forward);
    forward.hidden(piece(&h), &mut hidden);
    forward.output(&hidden, 0, Some(&h), &mut sum2, &mut for_mlp);
    norm2.forward(&sum2, &mut y);

    let [mut dsum2, mut dh, mut dsum1, mut dx] = [(); 4].map(|()| zeros());
    let mut grad = vec![0.0; adapter.len()];
    let mut pairs = Pairs::new(Some(lora), &adapter);
    let attention = attention.adapted(tokens, &mut pairs, Pass::Backward);
    let mlp = mlp.adapted(&mut pairs, Pass::Backward);
    let (dattention, dmlp) = grad.split_at_mut(attention.parameters());
    norm2.backward(&sum2, &dy, &mut dsum2);
    mlp.backward(piece(&h), &mut hidden, &dsum2, dmlp, &mut dh, &mut for_mlp);
    add(&mut dh, &dsum2);
    norm1.backward(&sum1, &dh, &mut dsum1);
    let dinput = Some(dx.as_mut_slice());
    attention.backward(
        piece(&x),
        &qkv,
        &dsum1,
        dattention,
        dinput,
        &mut for_attention,
    );
    add(&mut dx, &dsum1);

    let got = [y, dx, grad];
    for (name, (got, want)) in NAMES.iter().zip(got.iter().zip(&plain)) {
        assert_close(name, got, want);
    }
}
