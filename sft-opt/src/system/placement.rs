//! Which part of the model a device and which the server computes.

use serde::{Deserialize, Serialize};

use super::transformer::Transformer;
use crate::error::{Result, check};

/// Who computes what in training with many devices and one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The model is split: blocks `1..=cut` on the device, the rest and the head on the server.
    Split {
        /// Cut layer `l`, from 1 to `L - 1`.
        cut: usize,
    },
    /// Federated learning: every device trains all parameters.
    FlFull,
    /// Federated learning: every device holds the whole model and trains adapters and head.
    FlLora,
}

impl Placement {
    /// Checks the placement of device `n`.
    pub(crate) fn validate_of(self, n: usize, model: &Transformer) -> Result<()> {
        self.validate(model).map_err(|error| error.at(n))
    }

    pub(crate) fn validate(self, model: &Transformer) -> Result<()> {
        let Self::Split { cut } = self else {
            return Ok(());
        };
        check(
            1 <= cut && cut < model.blocks,
            "cut",
            cut as f64,
            "from 1 to the number of blocks less 1",
        )
    }
}

/// Neighbouring devices with the same placement: what depends on the
/// placement alone is computed once for each run.
pub(crate) fn runs(
    placements: &[Placement],
) -> impl Iterator<Item = (Placement, std::ops::Range<usize>)> {
    let mut start = 0;
    placements.chunk_by(|a, b| a == b).map(move |run| {
        let devices = start..start + run.len();
        start = devices.end;
        (run[0], devices)
    })
}
