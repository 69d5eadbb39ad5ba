//! The combinations of choices that have a name.

use crate::config::Range;
use crate::config::{Code, Config, Energy, Quantize, Rounding, Spacing, Sparsify};

/// A named combination, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Named {
    Raw,
    DeadZone(f64),
    Error(f64),
    Unbiased(f64),
    Activation(f64, u32),
    Gradient(f64, u32),
    Paper(f64, u32),
    Levels(u32),
    F16,
    Exact,
}

impl Named {
    /// Its choices, before they are checked.
    pub(crate) fn config(self) -> Config {
        let all = Config::default();
        let top_k = |keep, count, spacing, range| {
            let levels = levels(count, spacing, range);
            all.with_sparsify(Sparsify::TopK(keep))
                .with_quantize(levels)
        };
        match self {
            Self::Raw => all.with_quantize(Quantize::None).with_code(Code::None),
            Self::DeadZone(step) => all.with_quantize(Quantize::DeadZone { step }),
            Self::Unbiased(step) => all.with_quantize(Quantize::Unbiased { step }),
            Self::Error(relative_mse) => all.with_quantize(Quantize::Error {
                relative_mse,
                of: Energy::Bulk,
            }),
            Self::Activation(keep, count) => top_k(keep, count, Spacing::Log, Range::Tensor),
            Self::Gradient(keep, count) => top_k(keep, count, Spacing::Linear, Range::Row),
            Self::Paper(keep, count) => {
                top_k(keep, count, Spacing::Linear, Range::Tensor).with_code(Code::Golomb)
            }
            Self::Levels(count) => all.with_quantize(levels(count, Spacing::Log, Range::Tensor)),
            Self::F16 => all.with_quantize(Quantize::F16),
            Self::Exact => all.with_quantize(Quantize::None),
        }
    }

    /// The one that is nearest to a configuration.
    pub(crate) fn of(config: &Config) -> Self {
        match (config.sparsify, config.quantize) {
            _ if config.code == Code::None => Self::Raw,
            (_, Quantize::None) => Self::Exact,
            (_, Quantize::F16) => Self::F16,
            (_, Quantize::DeadZone { step }) => Self::DeadZone(step),
            (_, Quantize::Unbiased { step }) => Self::Unbiased(step),
            (_, Quantize::Error { relative_mse, .. }) => Self::Error(relative_mse),
            (Sparsify::TopK(keep), Quantize::Levels { count, spacing, .. }) => {
                match (config.code, spacing) {
                    (Code::Golomb, _) => Self::Paper(keep, count),
                    (_, Spacing::Log) => Self::Activation(keep, count),
                    (_, Spacing::Linear) => Self::Gradient(keep, count),
                }
            }
            (_, Quantize::Levels { count, .. }) => Self::Levels(count),
        }
    }

    /// Whether it says by itself which elements are kept.
    pub(crate) fn sparsifies(self) -> bool {
        matches!(
            self,
            Self::Raw | Self::Activation(..) | Self::Gradient(..) | Self::Paper(..)
        )
    }
}

fn levels(count: u32, spacing: Spacing, range: Range) -> Quantize {
    Quantize::Levels {
        count,
        spacing,
        rounding: Rounding::Stochastic,
        range,
    }
}
