//! Buffers that a thread keeps from one piece of work to the next.

use std::cell::RefCell;

use super::Saved;
use super::linear::LinearScratch;

/// Grows to the largest size asked for.
pub(super) type Buffer = Vec<f32>;

/// The first `len` elements, whatever they hold.
pub(super) fn slice(buffer: &mut Buffer, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The buffer with exactly `len` elements, whatever they hold.
pub(super) fn sized(buffer: &mut Buffer, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// What one piece's forward and backward pass need beside what is saved.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) normed: Buffer,
    pub(super) residual: Buffer,
    pub(super) context: Buffer,
    pub(super) hidden: Buffer,
    pub(super) dnormed: Buffer,
    pub(super) dmiddle: Buffer,
    pub(super) dcontext: Buffer,
    pub(super) dqkv: Buffer,
    pub(super) probabilities: Buffer,
    pub(super) dscores: Buffer,
    pub(super) linear: LinearScratch,
    /// Of a forward pass that nothing is kept of.
    pub(super) saved: Saved,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static COPIES: RefCell<Vec<[Buffer; 4]>> = RefCell::default();
}

/// This thread's buffers for copies of the weights of a block's linears, until they come back by
/// [`keep_copies`].
pub(super) fn take_copies() -> [Buffer; 4] {
    COPIES.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Keeps the buffers for the thread's next block.
pub(super) fn keep_copies(buffers: [Buffer; 4]) {
    COPIES.with_borrow_mut(|copies| copies.push(buffers));
}

/// Calls `body` with this thread's buffers.
pub(super) fn with_scratch<R>(body: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(body)
}
