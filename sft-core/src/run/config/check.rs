//! Checks of what no other part looks at.

use super::{DeviceAdaptersKind, RunConfig};
use crate::run::Scheme;
use crate::split::LabelSide;
use crate::{Error, Result};

impl RunConfig {
    /// Nothing that is for classes is passed over in silence where next tokens are told.
    pub(in crate::run) fn refuse_settings_of_classes(&self) -> Result<()> {
        let given = [
            ("class_words", self.class_words.is_some()),
            ("pooling", self.pooling.is_some()),
            ("prompt", self.prompt.is_some()),
            ("target_accuracy", self.target_accuracy.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                let reason = "must be left out where next tokens are told: it is for classes";
                Err(Error::argument(name, reason))
            }
            None => Ok(()),
        }
    }

    /// Checks what no other part looks at.
    pub(in crate::run) fn check(&self) -> Result<()> {
        let twice = |(i, scheme): (usize, &Scheme)| self.scheme[..i].contains(scheme);
        if self.scheme.is_empty() || self.scheme.iter().enumerate().any(twice) {
            let names: Vec<_> = self.scheme.iter().map(|scheme| scheme.name()).collect();
            let reason = format!("must name some schemes, each once, got {names:?}");
            return Err(Error::argument("scheme", reason));
        }
        self.check_split()?;
        match self.checkpoint_every {
            Some(0) => Err(Error::argument(
                "checkpoint_every",
                "must be at least 1, got 0",
            )),
            Some(_) if self.folder().is_none() => Err(Error::argument(
                "out",
                "must be given with checkpoint_every, got none",
            )),
            _ => Ok(()),
        }
    }

    /// Checks that what is for schemes that split the model has one.
    fn check_split(&self) -> Result<()> {
        if self.scheme.iter().any(|scheme| scheme.is_split()) {
            return Ok(());
        }
        let without = [
            (
                "device_adapters",
                self.device_adapters == DeviceAdaptersKind::None,
                ["lora", "none"],
            ),
            (
                "labels",
                self.labels == LabelSide::Device,
                ["server", "device"],
            ),
            (
                "evaluate_through_cut",
                self.evaluate_through_cut,
                ["off", "true"],
            ),
        ];
        match without.into_iter().find(|(_, given, _)| *given) {
            Some((name, _, [accepted, got])) => {
                let reason =
                    format!("must be {accepted} where no scheme splits the model, got {got}");
                Err(Error::argument(name, reason))
            }
            None => Ok(()),
        }
    }
}
