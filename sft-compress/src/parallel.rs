//! Work on independent parts, on all threads with the feature `rayon`.

/// Elements of a part that is worth a thread.
pub(crate) const PART: usize = 1 << 18;

/// Calls `work` with the number of each part and the part.
#[cfg(feature = "rayon")]
pub(crate) fn for_each<P: Send>(parts: &mut [P], work: impl Fn(usize, &mut P) + Sync) {
    use rayon::prelude::*;
    let parts = parts.par_iter_mut().enumerate();
    parts.for_each(|(number, part)| work(number, part));
}

/// Calls `work` with the number of each part and the part.
#[cfg(not(feature = "rayon"))]
pub(crate) fn for_each<P>(parts: &mut [P], work: impl Fn(usize, &mut P)) {
    for (number, part) in parts.iter_mut().enumerate() {
        work(number, part);
    }
}

/// Threads that [`for_each`] may use.
pub(crate) fn threads() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    1
}
