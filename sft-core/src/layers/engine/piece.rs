//! What passes through a block at once.

/// The rows of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokens {
    pub(super) all: usize,
    /// The first ones, whose hidden state after the block is wanted.
    pub(super) wanted: usize,
}

/// Some samples of a batch.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    /// Their rows.
    pub(super) x: &'a [f32],
    /// The number of their first row in the batch.
    pub(super) first: usize,
}
