//! The kernels without vector instructions, and what all kernels share.

use std::mem::MaybeUninit;
use std::ops::Range;

/// Elements between two looks at the capacity.
pub(super) const BLOCK: usize = 1024;

/// Elements that a kernel may write behind the last.
pub(super) const ROOM: usize = 16;

/// Where the elements of a block are put.
pub(super) type Out<'a> = (
    &'a mut [MaybeUninit<u32>; BLOCK + ROOM],
    &'a mut [MaybeUninit<f32>; BLOCK + ROOM],
);

/// Free of branches, as elements are wanted at random; `len` are there already.
pub(super) fn collect_scalar(
    block: &[f32],
    start: u32,
    bits: Range<u32>,
    mut len: usize,
    (positions, values): Out<'_>,
) -> usize {
    let width = bits.end - bits.start;
    for (&x, position) in block.iter().zip(start..) {
        positions[len].write(position);
        values[len].write(x);
        len += usize::from((x.to_bits() & 0x7fff_ffff).wrapping_sub(bits.start) < width);
    }
    len
}

/// From index `next` on, with `len` kept already.
pub(super) fn keep_scalar(
    positions: &mut [u32],
    values: &mut [f32],
    least: u32,
    last_equal: u32,
    (next, mut len): (usize, usize),
) -> usize {
    for k in next..positions.len() {
        let (position, x) = (positions[k], values[k]);
        (positions[len], values[len]) = (position, x);
        let least = least + u32::from(position > last_equal);
        len += usize::from(x.to_bits() & 0x7fff_ffff >= least);
    }
    len
}

/// Lanes the kernels work with.
pub(crate) const LANES: usize = 32;
/// Tokens that stand for one magnitude each.
pub(crate) const DIRECT_TOKENS: usize = 16;
/// More than the encoder's codes.
pub(crate) const CODES: usize = 1 << 14;

/// What decoding needs of the model: rows of `width` channels, a multiple of
/// [`LANES`].
#[derive(Clone, Copy)]
pub(crate) struct Contexts<'a> {
    pub(crate) width: usize,
    /// For each row of the chunk the table of channel class 0 and a zero neighbour.
    pub(crate) rows: &'a [u32],
    /// For each channel the distance of its table from that of class 0.
    pub(crate) channels: &'a [u8],
    pub(crate) neighbours: bool,
}

/// As [`super::decode_symbols`].
pub(super) fn decode_scalar(
    (plane, mut done): (&mut [i8], usize),
    contexts: Contexts<'_>,
    slots: &[u32],
    states: &mut [u32; LANES],
    mut words: &[u8],
) -> (usize, usize) {
    let (width, all, last) = (contexts.width, words.len(), slots.len() - 1);
    while done + LANES <= plane.len() && words.len() >= 2 * LANES {
        let (r, c) = (done / width, done % width);
        let (before, this) = plane.split_at_mut(done);
        let above = (r > 0 && contexts.neighbours).then(|| &before[done - width..][..LANES]);
        let channels = &contexts.channels[c..][..LANES];
        for lane in 0..LANES {
            let above = above.map_or(0, |above| above[lane]);
            let kind = u32::from(above > 0) + 2 * u32::from(above < 0);
            let table = contexts.rows[r] + u32::from(channels[lane]) + kind;
            let state = states[lane];
            let slot = slots[((table << 12 | state & 0xfff) as usize).min(last)];
            this[lane] = ((slot >> 24) as u8).cast_signed();
            let next = ((slot >> 12 & 0xfff) + 1)
                .wrapping_mul(state >> 12)
                .wrapping_add(slot & 0xfff);
            // Free of branches, as whether a word is due comes at random.
            let short = next < 1 << 16;
            let word = u32::from(u16::from_le_bytes([words[0], words[1]]));
            states[lane] = if short { next << 16 | word } else { next };
            words = &words[2 * usize::from(short)..];
        }
        done += LANES;
    }
    (done, all - words.len())
}
