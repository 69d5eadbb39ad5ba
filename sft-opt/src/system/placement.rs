//! Which part of the model a device and which the server computes.

use serde::{Deserialize, Serialize};

use super::transformer::Transformer;
use crate::error::{Result, check, check_len};

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

/// The different placements of a round, and which of them every device has: what depends on the
/// placement alone is computed once for each.
pub(crate) struct Kinds {
    pub(crate) placements: Vec<Placement>,
    /// One entry per device, a position in `placements`.
    pub(crate) of_device: Vec<usize>,
}

impl Kinds {
    /// Checks that there is one legal placement for each of `devices`.
    pub(crate) fn new(
        placements: &[Placement],
        model: &Transformer,
        devices: usize,
    ) -> Result<Self> {
        check_len("placements", placements.len(), devices)?;
        let mut kinds: Vec<Placement> = Vec::new();
        let mut of_device = Vec::with_capacity(devices);
        for (n, placement) in placements.iter().enumerate() {
            let known = kinds.iter().rposition(|kind| kind == placement);
            if known.is_none() {
                placement.validate(model).map_err(|error| error.at(n))?;
                kinds.push(*placement);
            }
            of_device.push(known.unwrap_or(kinds.len() - 1));
        }
        Ok(Self {
            placements: kinds,
            of_device,
        })
    }

    /// What `of` says of every kind.
    pub(crate) fn map<T>(&self, of: impl FnMut(Placement) -> T) -> Vec<T> {
        self.placements.iter().copied().map(of).collect()
    }
}
