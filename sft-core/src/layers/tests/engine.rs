//! The engine's blocks against candle's, output and gradients.

use candle_core::{Device, Tensor, Var};

use super::blocks::{WIDTH, adapters, families, norm, random, rms_norm, values, vit};
use crate::layers::{Backend, Block, BlockWeights, Mask, Norm, NormWeights, Wanted};

const NAMES: [&str; 3] = ["output", "input gradient", "adapter gradient"];

/// A batch of random samples through a block.
struct Batch {
    x: Tensor,
    lengths: Option<Vec<u32>>,
    wanted: Wanted,
}

impl Batch {
    fn new(samples: usize, tokens: usize, lengths: Option<&[u32]>) -> Self {
        Self {
            x: random(&[samples, tokens, WIDTH], 1.0, 300),
            lengths: lengths.map(<[u32]>::to_vec),
            wanted: Wanted::All,
        }
    }

    /// Output and the gradients of hidden state and adapter, of the wanted tokens.
    fn run(&self, weights: &BlockWeights, backend: &Backend, dropout: f64) -> [Vec<f32>; 3] {
        let (lora, adapter) = adapters(weights);
        let lora = lora.with_dropout(dropout).unwrap().training(8);
        let block = Block::new(weights, backend).unwrap();
        let (x, lengths) = (Var::from_tensor(&self.x).unwrap(), self.lengths.as_deref());
        let y = block.forward(&x, lengths, Some((&adapter, lora)), self.wanted);
        let y = self.wanted_rows(y.unwrap());
        let direction = random(y.dims(), 1.0, 301);
        let grads = (&y * direction).unwrap().sum_all().unwrap();
        let grads = grads.backward().unwrap();
        let [dx, dadapter] = [&x, &adapter].map(|var| values(grads.get(var).unwrap()));
        [values(&y), dx, dadapter]
    }

    /// Of an output with all tokens those that are wanted, then zeros.
    fn wanted_rows(&self, y: Tensor) -> Tensor {
        let (samples, all, _) = y.dims3().unwrap();
        let (most, is_last) = match self.wanted {
            Wanted::First(most) => (most, false),
            Wanted::Last(most) => (most, true),
            Wanted::All => return y,
        };
        if all == most {
            return y;
        }
        let lengths = self.lengths.clone().unwrap_or(vec![all as u32; samples]);
        let rows = lengths.iter().enumerate().map(|(i, &length)| {
            let wanted = most.min(length as usize);
            let from = if is_last { length as usize - wanted } else { 0 };
            let rows = y.get(i).unwrap().narrow(0, from, wanted).unwrap();
            rows.pad_with_zeros(0, 0, most - wanted).unwrap()
        });
        Tensor::stack(&rows.collect::<Vec<_>>(), 0).unwrap()
    }

    fn assert_agreement(&self, name: &str, weights: &BlockWeights, dropout: f64) {
        let got = self.run(weights, &Backend::default(), dropout);
        let want = self.run(weights, &Backend::Candle(Device::Cpu), dropout);
        for (part, (got, want)) in NAMES.iter().zip(got.iter().zip(&want)) {
            assert_close(&format!("{name}, {part}"), got, want);
        }
    }
}

fn assert_close(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    let top = want.iter().fold(0.0f32, |top, v| top.max(v.abs()));
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() < 1e-4 * top, "{name}: {got} {want}");
    }
}

/// Every family, even and ragged, with the masks of dropout and without.
#[test]
fn families_agree_with_plain_candle() {
    for (name, weights) in families() {
        for lengths in [None, Some([7, 1, 4].as_slice()), Some(&[1, 7, 2])] {
            for dropout in [0.0, 0.3] {
                let batch = Batch::new(3, 7, lengths);
                batch.assert_agreement(&format!("{name}, {lengths:?}"), &weights, dropout);
            }
        }
    }
}

/// Keys and values of fewer heads than queries, heads that do not add up to the width.
#[test]
fn grouped_heads_agree_with_plain_candle() {
    for (heads, kv_heads) in [(4, 4), (4, 2), (6, 3), (4, 1)] {
        let name = format!("{kv_heads} of {heads}");
        Batch::new(3, 7, None).assert_agreement(&name, &vit(heads, kv_heads, 3), 0.0);
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
            ..vit(4, 4, 3)
        };
        let name = format!("attention {attention}, MLP {mlp}");
        Batch::new(3, 7, None).assert_agreement(&name, &weights, 0.0);
    }
}

/// The first or the last tokens only, of samples of which some have fewer.
#[test]
fn wanted_tokens_agree_with_plain_candle() {
    for (name, weights) in families() {
        for lengths in [None, Some([7, 1, 4].as_slice())] {
            for wanted in [
                Wanted::First(1),
                Wanted::First(3),
                Wanted::Last(1),
                Wanted::Last(3),
            ] {
                let batch = Batch {
                    wanted,
                    ..Batch::new(3, 7, lengths)
                };
                for dropout in [0.0, 0.3] {
                    let name = format!("{name}, {wanted:?}");
                    batch.assert_agreement(&name, &weights, dropout);
                }
            }
        }
    }
}

/// More tokens than a tile has, and windows that begin within and before one.
#[test]
fn tiles_agree_with_plain_candle() {
    for (name, mut weights) in families() {
        let windows = match weights.attention.mask {
            Mask::None => vec![None],
            Mask::Causal { .. } => vec![None, Some(1), Some(40), Some(100)],
        };
        for window in windows {
            if weights.attention.mask != Mask::None {
                weights.attention.mask = Mask::Causal { window };
            }
            let batch = Batch::new(5, 150, Some(&[150, 1, 64, 65, 129]));
            batch.assert_agreement(&format!("{name}, window {window:?}"), &weights, 0.0);
        }
    }
}

/// Where all tokens see all, tiles are of many scores, and the context is long.
#[test]
fn tiles_without_a_mask_agree_with_plain_candle() {
    Batch::new(1, 800, None).assert_agreement("ViT", &vit(2, 1, 3), 0.0);
}

/// More samples than a piece has, of which one alone has more rows than others together.
#[test]
fn checkpointing_and_threads_change_no_bit() {
    let lengths: Vec<_> = (0..60)
        .map(|i| if i == 7 { 450 } else { 1 + i % 13 * 3 })
        .collect();
    let batch = Batch::new(60, 450, Some(&lengths));
    for (name, weights) in families() {
        let bits = |checkpointing, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let backend = Backend::Engine { checkpointing };
            let run = || batch.run(&weights, &backend, 0.2);
            pool.build().unwrap().install(run)
        };
        let want = bits(false, 1);
        assert!(bits(false, 3) == want, "{name}: threads changed a bit");
        assert!(bits(true, 2) == want, "{name}: checkpointing changed a bit");
    }
}

/// 2,048 tokens, forward and backward; candle computes the same of the last few.
#[test]
fn a_long_context_is_computed() {
    for (name, weights) in families()
        .into_iter()
        .filter(|(name, _)| ["LLaMA", "Mistral"].contains(name))
    {
        let batch = Batch::new(1, 2048, None);
        let [got, dx, _] = batch.run(&weights, &Backend::default(), 0.0);
        assert!(dx.iter().all(|v| v.is_finite()), "{name}");
        let (lora, adapter) = adapters(&weights);
        let block = Block::new(&weights, &Backend::Candle(Device::Cpu)).unwrap();
        let adapter = Some((adapter.as_tensor(), lora));
        let want = values(&block.forward(&batch.x, None, adapter, Wanted::All).unwrap());
        assert_close(name, &got, &want);
    }
}

/// Norms outside the blocks, of either kind.
#[test]
fn norms_agree_with_plain_candle() {
    let without_bias = NormWeights {
        bias: None,
        ..norm(37, 50)
    };
    for weights in [norm(37, 50), without_bias, rms_norm(37, 50)] {
        let of = |backend: Backend| {
            let x = Var::from_tensor(&random(&[3, 5, 37], 2.0, 300)).unwrap();
            let y = Norm::new(&weights, &backend).unwrap().forward(&x).unwrap();
            let grads = (&y * random(&[3, 5, 37], 1.0, 301)).unwrap();
            let grads = grads.sum_all().unwrap().backward().unwrap();
            [values(&y), values(grads.get(&x).unwrap())]
        };
        let (got, want) = (of(Backend::default()), of(Backend::Candle(Device::Cpu)));
        for (part, (got, want)) in NAMES.iter().zip(got.iter().zip(&want)) {
            assert_close(part, got, want);
        }
    }
}
