//! What a device's codecs remember, round by round.

use crate::Result;
use crate::split::{DeviceCodecs, Remembered};

/// The codecs of a device over the rounds, with a way back: a round may turn out not to count.
pub(super) struct CodecMemory {
    pub(super) codecs: Option<DeviceCodecs>,
    /// The round whose end they are at; none in the middle of one.
    at: Option<u32>,
    /// What they remembered before the last round that was begun, and the round that this was the end of.
    before: (u32, Option<Remembered<5>>),
}

impl CodecMemory {
    /// Of a device before its first round.
    pub(super) fn new() -> Self {
        Self {
            codecs: None,
            at: Some(0),
            before: (0, None),
        }
    }

    /// Begins a round from the end of round `since`, as the server remembers it; codecs that
    /// cannot go back there are forgotten.
    ///
    /// # Errors
    /// A memory that cannot be saved.
    pub(super) fn begin(&mut self, since: u32) -> Result<()> {
        if self.at != Some(since) {
            self.go_back(since)?;
        }
        let saved = self.codecs.as_ref().map(DeviceCodecs::save);
        self.before = (since, saved.transpose()?);
        self.at = None;
        Ok(())
    }

    /// The round is over.
    pub(super) fn end(&mut self, round: u32) {
        self.at = Some(round);
    }

    fn go_back(&mut self, since: u32) -> Result<()> {
        match (&mut self.codecs, &self.before) {
            (Some(codecs), (round, Some(saved))) if *round == since => codecs.restore(saved),
            _ => {
                self.codecs = None;
                Ok(())
            }
        }
    }
}
