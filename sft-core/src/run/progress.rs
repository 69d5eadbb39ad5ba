//! What is told while a run goes on.

use super::{RoundRecord, Scheme};

/// What is told while a run goes on; `()` hears nothing.
pub trait Progress: Sync {
    /// A scheme starts, with so many mini-batches before it.
    fn scheme(&self, scheme: Scheme, batches: usize);

    /// A mini-batch is done; called from any thread.
    fn batch(&self);

    /// A round is done.
    fn round(&self, record: &RoundRecord);
}

impl Progress for () {
    fn scheme(&self, _: Scheme, _: usize) {}

    fn batch(&self) {}

    fn round(&self, _: &RoundRecord) {}
}
