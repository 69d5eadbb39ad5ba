//! Devices that are elsewhere.

use std::sync::atomic::AtomicBool;

use crate::Result;
use crate::split::{Serve, Traffic};

/// One device's part of a round, as the server asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The device, from 0.
    pub device: usize,
    /// The round, from 1.
    pub round: usize,
    /// The last round whose end both sides' codecs remember, 0 for none: a device that got further
    /// in vain goes back to it.
    pub since: usize,
}

/// Devices that are not in this process: they hold their half of the model, their samples and the memory
/// of their codecs, and messages reach them over a network.
///
/// What one of them does wrong is its own fault: it is left out of the round, and the others go on.
pub trait Fleet: Sync {
    /// Waits until a round can begin, and tells which of the devices that were drawn for it are there.
    ///
    /// # Errors
    /// A run that was stopped, or a wait that was too long.
    fn gather(&self, round: usize, drawn: &[usize], stop: &AtomicBool) -> Result<Vec<usize>>;

    /// Carries messages between a device and its side of the server until that [is
    /// done](Serve::is_done); what crossed.
    ///
    /// # Errors
    /// A device that was late or lost, or did what it should not: it is told, and let go.
    fn take_part(&self, call: Call, side: &mut (dyn Serve + Send)) -> Result<Traffic>;

    /// Does what the server has to do before and after a device's part of a round, when it is its turn; by
    /// default at once.
    ///
    /// # Errors
    /// No turn can be had.
    fn work(&self, work: &mut (dyn FnMut() + Send)) -> Result<()> {
        work();
        Ok(())
    }

    /// How many devices must end a round for it to count, or all that were drawn for it where these are
    /// fewer.
    fn quorum(&self) -> usize;
}
