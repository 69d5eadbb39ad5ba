//! How queries and keys are rotated, position by position.

use std::f64::consts::TAU;

use super::settings::Settings;
use crate::layers::Rotary;

/// The rotation of heads of `width` features by angles `theta^(-2i / width)` a position, scaled as
/// a table of settings says.
pub(super) fn rotary(
    theta: f64,
    scaling: Option<Settings<'_>>,
    width: usize,
) -> Result<Rotary, String> {
    if !width.is_multiple_of(2) {
        return Err(format!(
            "the features of a rotated head must be even, got {width}"
        ));
    }
    let angles = (0..width / 2).map(|i| theta.powf(-2.0 * i as f64 / width as f64));
    let scale = scaling.map_or(Ok(Scaling::None), Scaling::read)?;
    Ok(Rotary {
        inverse_frequencies: angles.map(|angle| scale.apply(angle) as f32).collect(),
        factor: 1.0,
    })
}

/// What a longer context than that of the pre-training does to the angles.
enum Scaling {
    None,
    Linear {
        factor: f64,
    },
    /// `LLaMA` 3.1's: slow rotations are slowed down, fast ones are not.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        tokens: f64,
    },
}

impl Scaling {
    fn read(table: Settings<'_>) -> Result<Self, String> {
        let name = if table.get("rope_type").is_some() {
            "rope_type"
        } else {
            "type"
        };
        let wrong = |reason| format!("rope scaling: {reason}");
        let number = |name| table.number(name, None).map_err(wrong);
        table.must_be_one("partial_rotary_factor").map_err(wrong)?;
        match table.text(name, "default").map_err(wrong)? {
            "default" => Ok(Self::None),
            "linear" => Ok(Self::Linear {
                factor: number("factor")?,
            }),
            "llama3" => Self::llama3(
                number("factor")?,
                [number("low_freq_factor")?, number("high_freq_factor")?],
                number("original_max_position_embeddings")?,
            )
            .map_err(wrong),
            _ => Err(wrong(table.wrong(name, "default, linear or llama3"))),
        }
    }

    fn llama3(factor: f64, [low, high]: [f64; 2], tokens: f64) -> Result<Self, String> {
        if low >= high {
            return Err(format!("high_freq_factor must be above {low}, got {high}"));
        }
        Ok(Self::Llama3 {
            factor,
            low,
            high,
            tokens,
        })
    }

    fn apply(&self, angle: f64) -> f64 {
        match *self {
            Self::None => angle,
            Self::Linear { factor } => angle / factor,
            Self::Llama3 {
                factor,
                low,
                high,
                tokens,
            } => {
                let turns = tokens * angle / TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * angle / factor + kept * angle
            }
        }
    }
}
