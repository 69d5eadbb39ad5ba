//! Buffers that are kept from one piece of work to the next.

use std::cell::RefCell;

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

thread_local! {
    static POOL: RefCell<Vec<Buffer>> = RefCell::default();
}

/// A buffer of `len` elements, whatever they hold: the smallest of this thread's pool that has room
/// for them, else a new one.
pub(super) fn take(len: usize) -> Buffer {
    let mut buffer = POOL.with_borrow_mut(|pool| {
        let rooms = pool.iter().enumerate();
        let fitting = rooms.filter(|(_, buffer)| buffer.capacity() >= len);
        let best = fitting.min_by_key(|(_, buffer)| buffer.capacity());
        let best = best.map(|(place, _)| place);
        best.map_or_else(Buffer::new, |place| pool.swap_remove(place))
    });
    sized(&mut buffer, len);
    buffer
}

/// Puts a buffer into this thread's pool.
pub(super) fn give_back(buffer: Buffer) {
    if buffer.capacity() > 0 {
        POOL.with_borrow_mut(|pool| pool.push(buffer));
    }
}
