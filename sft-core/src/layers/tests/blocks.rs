//! Small random blocks put together as the families of models do.

use candle_core::{Device, Tensor, Var};

use crate::adapter::{Lora, normal};
use crate::layers::{
    Activation, AttentionWeights, BlockWeights, LinearWeights, Mask, MlpWeights, NormKind,
    NormOrder, NormWeights, Rotary,
};
use crate::seed;

pub(in crate::layers) const WIDTH: usize = 10;

pub(in crate::layers) fn random(shape: &[usize], deviation: f64, number: u64) -> Tensor {
    let mut rng = seed::rng(number, &[]);
    let count: usize = shape.iter().product();
    let values: Vec<_> = (0..count)
        .map(|_| (deviation * normal(&mut rng)) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn linear(inputs: usize, outputs: usize, number: u64) -> LinearWeights {
    LinearWeights {
        weight: random(&[outputs, inputs], 0.4, number).into(),
        bias: Some(random(&[outputs], 0.3, 100 + number)),
    }
}

pub(in crate::layers) fn norm(width: usize, number: u64) -> NormWeights {
    NormWeights {
        gain: (random(&[width], 0.3, number) + 1.0).unwrap(),
        bias: Some(random(&[width], 0.3, 1 + number)),
        eps: 1e-6,
        kind: NormKind::Layer,
    }
}

pub(in crate::layers) fn rms_norm(width: usize, number: u64) -> NormWeights {
    NormWeights {
        bias: None,
        kind: NormKind::Rms,
        ..norm(width, number)
    }
}

/// A vision transformer's block of `heads` heads for queries and `kv_heads` for keys and values of
/// some width each; the value has no bias.
pub(in crate::layers) fn vit(heads: usize, kv_heads: usize, head_width: usize) -> BlockWeights {
    let [all, kv] = [heads, kv_heads].map(|heads| heads * head_width);
    BlockWeights {
        order: NormOrder::Before,
        attention_norm: norm(WIDTH, 50),
        attention: AttentionWeights {
            heads,
            head_width,
            scale: 1.0 / (head_width as f64).sqrt(),
            rotary: None,
            query_norm: None,
            key_norm: None,
            mask: Mask::None,
            qkv: vec![
                linear(WIDTH, all, 1),
                linear(WIDTH, kv, 2),
                LinearWeights {
                    bias: None,
                    ..linear(WIDTH, kv, 3)
                },
            ],
            output: linear(all, WIDTH, 4),
        },
        attention_out_norm: None,
        attention_scale: None,
        mlp_norm: norm(WIDTH, 60),
        mlp: MlpWeights {
            gate: None,
            up: linear(WIDTH, 17, 5),
            down: linear(17, WIDTH, 6),
            activation: Activation::Gelu,
        },
        mlp_out_norm: None,
        mlp_scale: None,
    }
}

fn gpt2() -> BlockWeights {
    let mut block = vit(5, 5, 2);
    block.attention.mask = Mask::Causal { window: None };
    block.attention.qkv = vec![linear(WIDTH, 30, 1)];
    block.mlp.activation = Activation::GeluTanh;
    block
}

fn bert() -> BlockWeights {
    BlockWeights {
        order: NormOrder::After,
        ..vit(5, 5, 2)
    }
}

fn llama() -> BlockWeights {
    let mut block = vit(4, 2, 4);
    block.attention_norm = rms_norm(WIDTH, 50);
    block.mlp_norm = rms_norm(WIDTH, 60);
    block.attention.mask = Mask::Causal { window: None };
    block.attention.rotary = Some(Rotary {
        inverse_frequencies: vec![1.0, 0.1],
        factor: 1.0,
    });
    block.mlp.activation = Activation::Silu;
    block.mlp.gate = Some(linear(WIDTH, 17, 7));
    let BlockWeights { attention, mlp, .. } = &mut block;
    let gate = mlp.gate.as_mut().unwrap();
    let linears = [&mut attention.output, gate, &mut mlp.up, &mut mlp.down];
    for linear in attention.qkv.iter_mut().chain(linears) {
        linear.bias = None;
    }
    block
}

fn qwen2() -> BlockWeights {
    let mut block = llama();
    for (number, linear) in (80..).zip(&mut block.attention.qkv) {
        let outputs = linear.outputs().unwrap();
        linear.bias = Some(random(&[outputs], 0.3, number));
    }
    block
}

/// Six heads of width 4 where the model's is 10, one of keys and values.
fn qwen3() -> BlockWeights {
    let mut block = llama();
    let attention = &mut block.attention;
    attention.heads = 6;
    let sizes = [24, 4, 4].into_iter().zip(1..);
    attention.qkv = sizes
        .map(|(outputs, number)| linear(WIDTH, outputs, number))
        .collect();
    attention.output = linear(24, WIDTH, 4);
    attention.query_norm = Some(rms_norm(4, 90));
    attention.key_norm = Some(rms_norm(4, 92));
    block
}

fn mistral() -> BlockWeights {
    let mut block = llama();
    block.attention.mask = Mask::Causal { window: Some(3) };
    block
}

fn gemma() -> BlockWeights {
    let mut block = qwen3();
    block.attention.scale = 0.3;
    block.attention_out_norm = Some(rms_norm(WIDTH, 94));
    block.mlp_out_norm = Some(rms_norm(WIDTH, 96));
    block.mlp.activation = Activation::GeluTanh;
    block
}

/// No family, but what the parts allow: all of them at once, a rotary embedding of a half of each
/// head that is scaled, norms with biases.
fn everything(order: NormOrder) -> BlockWeights {
    let mut block = gemma();
    block.order = order;
    block.attention.mask = Mask::None;
    block.attention.rotary = Some(Rotary {
        inverse_frequencies: vec![0.7],
        factor: 1.2,
    });
    block.attention.query_norm = Some(norm(4, 90));
    block.attention_out_norm = Some(norm(WIDTH, 94));
    block.mlp.activation = Activation::Relu;
    block.attention_scale = Some(random(&[WIDTH], 0.7, 70));
    block.mlp_scale = Some(random(&[WIDTH], 0.7, 71));
    block
}

/// Blocks by the names of the families that are made of them.
pub(in crate::layers) fn families() -> [(&'static str, BlockWeights); 10] {
    [
        ("ViT", vit(4, 2, 3)),
        ("GPT-2", gpt2()),
        ("BERT", bert()),
        ("LLaMA", llama()),
        ("Qwen2", qwen2()),
        ("Qwen3", qwen3()),
        ("Mistral", mistral()),
        ("Gemma", gemma()),
        ("everything, norms before", everything(NormOrder::Before)),
        ("everything, norms after", everything(NormOrder::After)),
    ]
}

/// Rank 2 on every linear, and adapters with nothing zero in them.
pub(in crate::layers) fn adapters(weights: &BlockWeights) -> (Lora, Var) {
    let sizes = weights.linears();
    let sizes = sizes.map(|linear| linear.inputs().unwrap() + linear.outputs().unwrap());
    let vector = random(&[2 * sizes.sum::<usize>()], 0.3, 200);
    (
        Lora::new(2, 3.0).unwrap(),
        Var::from_tensor(&vector).unwrap(),
    )
}

pub(in crate::layers) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
