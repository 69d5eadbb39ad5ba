//! Pre-trains the small vision transformer of `vit_finetune` on rotated digits.
//!
//! The upright digits of the fine-tuning task are not in its training data, and
//! neither is any test image; the accuracy it prints is on the rotated test images.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use candle_core::{Device, Result as CandleResult, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use sft_core::Error;
use sft_core::data::{Data, ImageInput, Images};
use sft_core::model::{Backend, Vit, VitConfig, VitWeights};
use sft_core::task::{correct, cross_entropy};
use sft_examples::console::{ended, say};
use sft_examples::digits;
use sft_examples::flags::message;
use sft_examples::pretrain::{check, save, schedule};

/// Pre-trains a small vision transformer, kept in half precision, on digits rotated by 90, 180 and 270 degrees.
#[derive(Parser)]
#[command(version, args_override_self = true)]
struct Flags {
    /// Passes over the rotated training images.
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// Images of a mini-batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Peak learning rate of AdamW; it warms up and falls as a cosine.
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    /// Weight decay of AdamW.
    #[arg(long, default_value_t = 0.05)]
    weight_decay: f64,
    /// Seed of the initial weights and of the order of the images.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder that gets model.safetensors and config.json.
    #[arg(long, default_value = "runs/pretrain_digits")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    // Products of this size lose more to being handed around than they gain from a second thread.
    gemm::set_threading_threshold(usize::MAX);
    ended(run(&flags).map_err(|error| message(&error)))
}

fn run(flags: &Flags) -> Result<(), Error> {
    check(
        &[("epochs", flags.epochs), ("batch", flags.batch)],
        flags.lr,
        flags.weight_decay,
    )?;
    std::fs::create_dir_all(&flags.out).map_err(|e| Error::file(&flags.out, e))?;
    let input = ImageInput {
        side: 8,
        mean: vec![0.5],
        std: vec![0.5],
        fit: None,
    };
    let (train, test) = digits::load(None, &input)?;
    let (train, test) = (
        digits::rotated(&train, &input)?,
        digits::rotated(&test, &input)?,
    );
    let config = config();
    let vars = initial(&config, flags.seed)?;
    let model = model(&config, &vars)?;
    fit(&model, &vars, &train, flags)?;
    say(format_args!(
        "accuracy on the rotated test images: {:.2} %",
        100.0 * accuracy(&model, &test)?
    ))?;
    let mut json = serde_json::to_value(config).map_err(|e| Error::file(&flags.out, e))?;
    json["model_type"] = "vit".into();
    save(&flags.out, &json, &vars)
}

fn config() -> VitConfig {
    VitConfig {
        hidden_size: 64,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        intermediate_size: 256,
        image_size: 8,
        patch_size: 2,
        num_channels: 1,
        ..VitConfig::default()
    }
}

/// The transformer and its head of rotated classes.
struct Classifier {
    vit: Vit,
    weight: Var,
    bias: Var,
}

impl Classifier {
    fn logits(&self, images: &Tensor) -> CandleResult<Tensor> {
        self.vit
            .features(images)?
            .matmul(&self.weight.t()?)?
            .broadcast_add(&self.bias)
    }
}

/// Weights from N(0, 0.02^2), gains 1 and biases 0, in the checkpoint's order.
fn initial(config: &VitConfig, seed: u64) -> CandleResult<Vec<(String, Var)>> {
    let mut shapes = config.parameters();
    shapes.push((
        "classifier.weight".into(),
        vec![digits::ROTATED, config.hidden_size],
    ));
    shapes.push(("classifier.bias".into(), vec![digits::ROTATED]));
    let normal = Normal::new(0.0f32, 0.02).expect("a valid deviation");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut var = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let values: Vec<f32> = match name.as_str() {
            n if n.ends_with("bias") => vec![0.0; count],
            n if n.contains("norm") => vec![1.0; count],
            _ => (0..count).map(|_| normal.sample(&mut rng)).collect(),
        };
        Ok((name, Var::from_vec(values, shape, &Device::Cpu)?))
    };
    shapes.into_iter().map(&mut var).collect()
}

fn model(config: &VitConfig, vars: &[(String, Var)]) -> Result<Classifier, Error> {
    let tensors: HashMap<_, _> = vars
        .iter()
        .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
        .collect();
    let weights =
        VitWeights::new(config, &tensors).map_err(|reason| Error::argument("weights", reason))?;
    let [.., (_, weight), (_, bias)] = vars else {
        unreachable!("the head comes last")
    };
    let vit = Vit::new(config, &weights, Backend::Candle(Device::Cpu))?;
    Ok(Classifier {
        vit,
        weight: weight.clone(),
        bias: bias.clone(),
    })
}

fn fit(
    model: &Classifier,
    vars: &[(String, Var)],
    train: &Images,
    flags: &Flags,
) -> Result<(), Error> {
    let params = ParamsAdamW {
        weight_decay: flags.weight_decay,
        ..ParamsAdamW::default()
    };
    let mut adamw = AdamW::new(vars.iter().map(|(_, var)| var.clone()).collect(), params)?;
    let mut order: Vec<usize> = (0..train.len()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(flags.seed);
    let steps = flags.epochs * train.len().div_ceil(flags.batch);
    let bar = indicatif::ProgressBar::new(steps as u64);
    for _ in 0..flags.epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(flags.batch) {
            adamw.set_learning_rate(flags.lr * schedule(bar.position() as f64 / steps as f64));
            let batch = train.batch(batch)?;
            let logits = model.logits(batch.inputs.pixels()?)?;
            let grads = cross_entropy(&logits, &batch.labels)?.backward()?;
            if let Some((name, _)) = vars.iter().find(|(_, var)| grads.get(var).is_none()) {
                return Err(Error::argument("gradient", format!("did not reach {name}")));
            }
            adamw.step(&grads)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn accuracy(model: &Classifier, data: &Images) -> Result<f64, Error> {
    let indices: Vec<usize> = (0..data.len()).collect();
    let mut right = 0;
    for batch in indices.chunks(64) {
        let batch = data.batch(batch)?;
        right += correct(&model.logits(batch.inputs.pixels()?)?, &batch.labels)?;
    }
    Ok(right as f64 / data.len() as f64)
}
