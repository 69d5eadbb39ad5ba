//! Values of the flags that take one of a few.

use clap::ValueEnum;
use serde::Serialize;

/// Values of `--schedule`.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleFlag {
    /// Not at all.
    Constant,
    /// By --lr-decay from round to round, as in the paper.
    Exponential,
    /// Along half a cosine to 0 at the end of the last round.
    Cosine,
}

/// Values of `--backend`.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The block engine for processors.
    Cpu,
    /// candle's operations on the first NVIDIA GPU.
    Cuda,
    /// candle's operations on the first Apple GPU.
    Metal,
}

/// Values of `--peft-names`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NamesFlag {
    /// vit.layers.0.attention.q_proj
    Transformers5,
    /// vit.encoder.layer.0.attention.attention.query
    Transformers4,
}

/// Values of `--optimizer`.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerFlag {
    /// Stochastic gradient descent with --momentum.
    Sgd,
    /// AdamW with beta 0.9 and 0.999.
    Adamw,
}

/// Values of `--fading`.
#[derive(Clone, Copy, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FadingFlag {
    /// Every link keeps its mean.
    None,
    /// Rayleigh block fading, a new draw in every round.
    Rayleigh,
}
