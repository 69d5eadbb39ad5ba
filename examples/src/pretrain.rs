//! What the programs that pre-train have in common.

use std::path::Path;

use candle_core::{DType, Result as CandleResult, Var};
use serde_json::Value;
use sft_core::{Error, Result, write_whole};

use crate::console::say;

/// The largest count that is believed.
const MAX_COUNT: usize = 1_000_000;

/// Checks what a program is told of its training: each count by its argument, and what AdamW takes.
///
/// # Errors
/// The first that is out of range.
pub fn check(counts: &[(&'static str, usize)], lr: f64, weight_decay: f64) -> Result<()> {
    for &(argument, count) in counts {
        if count == 0 {
            return Err(Error::argument(argument, "must be at least 1, got 0"));
        }
        if count > MAX_COUNT {
            let reason = format!("must be at most {MAX_COUNT}, got {count}");
            return Err(Error::argument(argument, reason));
        }
    }
    if !(lr > 0.0 && lr.is_finite()) {
        return Err(Error::argument("lr", format!("must be positive, got {lr}")));
    }
    if !(weight_decay >= 0.0 && weight_decay.is_finite()) {
        let reason = format!("must be at least 0, got {weight_decay}");
        return Err(Error::argument("weight_decay", reason));
    }
    Ok(())
}

/// Linear warm-up over the first twentieth, then a cosine to zero.
pub fn schedule(progress: f64) -> f64 {
    (progress * 20.0).min(0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
}

/// Writes the weights in half precision, `model.safetensors`, and `config.json` beside them.
///
/// # Errors
/// A folder that cannot be written.
pub fn save(out: &Path, config: &Value, vars: &[(String, Var)]) -> Result<()> {
    let path = out.join("model.safetensors");
    let half = |(name, var): &(String, Var)| Ok((name.clone(), var.to_dtype(DType::F16)?));
    let tensors: Vec<_> = vars.iter().map(half).collect::<CandleResult<_>>()?;
    let bytes = safetensors::serialize(tensors, None).map_err(|e| Error::file(&path, e))?;
    write_whole(&path, &bytes)?;
    write_whole(&out.join("config.json"), format!("{config:#}\n").as_bytes())?;
    say(format_args!(
        "wrote {} and config.json beside it",
        path.display()
    ))?;
    Ok(())
}
