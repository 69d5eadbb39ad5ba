//! Work on independent parts, on all threads with the feature `rayon`.

/// Calls `work` with the number of each part, the part, and its slice of
/// `data`, of which each but the last has `len` elements.
#[cfg(feature = "rayon")]
pub(crate) fn for_each_part<P: Send, T: Send>(
    parts: &mut [P],
    data: &mut [T],
    len: usize,
    work: impl Fn(usize, &mut P, &mut [T]) + Sync,
) {
    use rayon::prelude::*;
    let parts = parts.par_iter_mut().zip(data.par_chunks_mut(len));
    parts
        .enumerate()
        .for_each(|(number, (part, data))| work(number, part, data));
}

/// Calls `work` with the number of each part, the part, and its slice of
/// `data`, of which each but the last has `len` elements.
#[cfg(not(feature = "rayon"))]
pub(crate) fn for_each_part<P, T>(
    parts: &mut [P],
    data: &mut [T],
    len: usize,
    work: impl Fn(usize, &mut P, &mut [T]),
) {
    let parts = parts.iter_mut().zip(data.chunks_mut(len));
    for (number, (part, data)) in parts.enumerate() {
        work(number, part, data);
    }
}
