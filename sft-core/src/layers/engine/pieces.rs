//! A batch through a block, piece by piece on several threads.

use std::cell::RefCell;

use rayon::prelude::*;

use super::block::{AdaptedBlock, Saved, Scratch};
use super::piece::Piece;
use crate::kernels::add;

/// Rows that pass through a block at once: few enough that what lies between two products stays
/// in the cache, many enough that a product is not about packing the weight.
///
/// The size of a piece never depends on the number of threads, so neither does any sum.
const PIECE_ROWS: usize = 400;

/// Where the backward pass has the forward pass's results from.
pub(super) enum Activations<'a, S> {
    /// From the forward pass, piece by piece; they are used up, their memory is left.
    Saved(S),
    /// From the block as the forward pass had it, which computes them again.
    Again(&'a AdaptedBlock<'a>),
}

/// What a thread keeps from one piece of work to the next.
#[derive(Default)]
struct Kept {
    scratch: Scratch,
    /// Of a forward pass that nothing is kept of.
    saved: Saved,
}

thread_local! {
    static KEPT: RefCell<Kept> = RefCell::default();
}

/// The block's output `[W, D]` for `x` `[T, D]`, and what backward needs where it is to be kept:
/// in the memory that `keep` returns, one call for each piece.
pub(super) fn forward(
    block: &AdaptedBlock<'_>,
    x: &[f32],
    keep: Option<&(impl Fn() -> Saved + Sync)>,
) -> (Vec<f32>, Option<Vec<Saved>>) {
    let mut y = vec![0.0; block.wanted_len(x.len())];
    let outputs = y.par_chunks_mut(block.wanted_len(piece_len(block)));
    let saved = pieces(block, x).zip(outputs).map(|(piece, y)| {
        KEPT.with_borrow_mut(|kept| {
            let mut new = keep.map(|new| new());
            let saved = new.as_mut().unwrap_or(&mut kept.saved);
            block.forward(piece, saved, &mut kept.scratch);
            block.output(piece.first, saved, y, &mut kept.scratch);
            new
        })
    });
    let saved: Vec<_> = saved.collect();
    (y, saved.into_iter().collect())
}

/// The adapter's gradient, and that of `x` if `input_gradient`.
///
/// The pieces' gradients are summed in their order, so the result does not depend on the number
/// of threads.
pub(super) fn backward(
    block: &AdaptedBlock<'_>,
    x: &[f32],
    activations: Activations<'_, &mut [Saved]>,
    dy: &[f32],
    input_gradient: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let len = piece_len(block);
    let mut dx = input_gradient.then(|| vec![0.0; x.len()]);
    let dxs: Vec<_> = match &mut dx {
        Some(dx) => dx.chunks_mut(len).map(Some).collect(),
        None => x.chunks(len).map(|_| None).collect(),
    };
    let sources: Vec<_> = match activations {
        Activations::Saved(saved) => saved.iter_mut().map(Activations::Saved).collect(),
        Activations::Again(block) => x.chunks(len).map(|_| Activations::Again(block)).collect(),
    };
    let dys = dy.par_chunks(block.wanted_len(len));
    let parts = pieces(block, x).zip(sources).zip(dys).zip(dxs);
    let parts = parts.map(|(((piece, source), dy), dx)| {
        let mut grad = vec![0.0; block.parameters()];
        KEPT.with_borrow_mut(|Kept { scratch, saved }| {
            let saved = match source {
                Activations::Saved(saved) => saved,
                Activations::Again(block) => {
                    block.forward(piece, saved, scratch);
                    saved
                }
            };
            block.backward(piece, saved, dy, &mut grad, dx, scratch);
        });
        grad
    });
    let mut parts = parts.collect::<Vec<_>>().into_iter();
    let mut total = parts.next().unwrap_or_default();
    parts.for_each(|part| add(&mut total, &part));
    (total, dx)
}

/// Elements of a piece: as many whole samples as give about [`PIECE_ROWS`] rows.
fn piece_len(block: &AdaptedBlock<'_>) -> usize {
    let tokens = block.tokens.all;
    (PIECE_ROWS / tokens).max(1) * tokens * block.width()
}

/// The pieces of `x`, in order.
fn pieces<'x>(
    block: &AdaptedBlock<'_>,
    x: &'x [f32],
) -> impl IndexedParallelIterator<Item = Piece<'x>> + use<'x> {
    let (len, width) = (piece_len(block), block.width());
    x.par_chunks(len).enumerate().map(move |(i, x)| Piece {
        x,
        first: i * len / width,
    })
}
