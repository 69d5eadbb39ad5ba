//! A kind of codec as the value of a flag.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sft_compress::Codec;
use sft_core::split::CutCodec;
use sft_core::{Error, Result};

/// A kind of codec that has a kept fraction and levels.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LevelsFlag {
    /// Levels evenly in one range, Golomb and entropy codes.
    Paper,
    /// Levels logarithmically in one range, coded by context.
    Activation,
    /// Levels evenly in a range for each row (token), coded by context.
    Gradient,
}

impl LevelsFlag {
    /// The codec of this kind.
    ///
    /// # Errors
    /// A number outside its range.
    pub fn codec(self, keep: f64, levels: u32) -> sft_compress::Result<Codec> {
        match self {
            Self::Paper => Codec::paper(keep, levels),
            Self::Activation => Codec::activation(keep, levels),
            Self::Gradient => Codec::gradient(keep, levels),
        }
    }
}

/// Checks that a kind has one knob: [`step_codec`] makes codecs of it.
///
/// # Errors
/// A kind that has none, or that there is not.
pub fn check_step_kind(kind: &str) -> Result<()> {
    if ["transform", "dead-zone", "unbiased", "error"].contains(&kind) {
        return Ok(());
    }
    let levels = "paper, activation or gradient with kept fraction and bits";
    let reason = format!(
        "must be transform, dead-zone, unbiased or error with one step, or {levels}, got {kind}"
    );
    Err(Error::argument("codec", reason))
}

/// The codec `kind:STEP`: a kind with one knob, which is its step or its wanted error.
///
/// # Errors
/// As [`check_step_kind`]; a step outside its range.
pub fn step_codec(kind: &str, step: f64) -> Result<CutCodec> {
    check_step_kind(kind)?;
    let codec = format!("{kind}:{step}").parse();
    codec.map_err(|reason| Error::argument("steps", format!("does not fit {kind}: {reason}")))
}
