//! A batch through a block, piece by piece on several threads.

use std::cell::RefCell;

use rayon::prelude::*;

use super::block::{AdaptedBlock, Saved, Scratch};
use super::piece::{Piece, Tokens};
use crate::kernels::add;

/// Rows that pass through a block at once, about: few enough that what lies between two products stays
/// in the cache, many enough that a product is not about packing the weight.
///
/// The size of a piece never depends on the number of threads, so neither does any sum.
const PIECE_ROWS: usize = 400;

/// Rows from which on there are two pieces at least, so that a second thread has something to do: a step
/// of `MiniLM` with 311 to 396 rows was measured to take 0.57 of the time on two threads, 1.01 on one.
const SPLIT_ROWS: usize = 320;

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

/// The block's output `[W, D]` for the rows `x` `[T, D]` of samples, and what backward needs where it is
/// to be kept: in the memory that `keep` returns, one call for each piece.
pub(super) fn forward(
    block: &AdaptedBlock<'_>,
    samples: &[Tokens],
    x: &[f32],
    keep: Option<&(impl Fn() -> Saved + Sync)>,
) -> (Vec<f32>, Option<Vec<Saved>>) {
    let (width, pieces) = (block.width(), pieces(block, samples, x));
    let wanted = |piece: &Piece<'_>| piece.wanted() * width;
    let mut y = vec![0.0; pieces.iter().map(wanted).sum()];
    let outputs = split(&mut y, pieces.iter().map(wanted));
    let saved = pieces.par_iter().zip(outputs).map(|(piece, y)| {
        KEPT.with_borrow_mut(|kept| {
            let mut new = keep.map(|new| new());
            let saved = new.as_mut().unwrap_or(&mut kept.saved);
            block.forward(*piece, saved, Some(y), &mut kept.scratch);
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
    samples: &[Tokens],
    x: &[f32],
    activations: Activations<'_, &mut [Saved]>,
    dy: &[f32],
    input_gradient: bool,
) -> (Vec<f32>, Option<Vec<f32>>) {
    let pieces = pieces(block, samples, x);
    let mut dx = input_gradient.then(|| vec![0.0; x.len()]);
    let dxs: Vec<_> = match &mut dx {
        Some(dx) => {
            let parts = split(dx, pieces.iter().map(|piece| piece.x.len()));
            parts.into_iter().map(Some).collect()
        }
        None => pieces.iter().map(|_| None).collect(),
    };
    let sources: Vec<_> = match activations {
        Activations::Saved(saved) => saved.iter_mut().map(Activations::Saved).collect(),
        Activations::Again(block) => pieces.iter().map(|_| Activations::Again(block)).collect(),
    };
    let mut rest = dy;
    let dys = pieces
        .iter()
        .map(|piece| take(&mut rest, piece.wanted() * block.width()));
    let dys: Vec<_> = dys.collect();
    let parts = pieces.par_iter().zip(sources).zip(dys).zip(dxs);
    let parts = parts.map(|(((&piece, source), dy), dx)| {
        let mut grad = vec![0.0; block.parameters()];
        KEPT.with_borrow_mut(|Kept { scratch, saved }| {
            let saved = match source {
                Activations::Saved(saved) => saved,
                Activations::Again(block) => {
                    block.forward(piece, saved, None, scratch);
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

/// The samples piece by piece, whole ones: as many pieces as there are [`PIECE_ROWS`] in all rows, two
/// from [`SPLIT_ROWS`] on, of about the same size, so that two threads have as much to do.
fn pieces<'a>(block: &AdaptedBlock<'_>, samples: &'a [Tokens], x: &'a [f32]) -> Vec<Piece<'a>> {
    let all: usize = samples.iter().map(|tokens| tokens.all).sum();
    let least = if all < SPLIT_ROWS { 1 } else { 2 };
    let count = all.div_ceil(PIECE_ROWS).max(least);
    let mut row = 0;
    let pieces = samples.chunk_by(|tokens, next| {
        // A sample belongs to the piece that its middle is in.
        let piece_of = |row: usize, tokens: &Tokens| (2 * row + tokens.all) * count / (2 * all);
        let piece = piece_of(row, tokens);
        row += tokens.all;
        piece_of(row, next) == piece
    });
    let (width, mut rest, mut first) = (block.width(), x, 0);
    let piece = |samples: &'a [Tokens]| {
        let rows: usize = samples.iter().map(|tokens| tokens.all).sum();
        let x = take(&mut rest, rows * width);
        first += rows;
        Piece {
            x,
            first: first - rows,
            samples,
        }
    };
    pieces.map(piece).collect()
}

/// The next `len` elements of `rest`.
fn take<'a>(rest: &mut &'a [f32], len: usize) -> &'a [f32] {
    let (part, others) = rest.split_at(len);
    *rest = others;
    part
}

/// Parts of these lengths, one after the other.
fn split(mut rest: &mut [f32], lens: impl Iterator<Item = usize>) -> Vec<&mut [f32]> {
    let next = |len| {
        let (part, others) = std::mem::take(&mut rest).split_at_mut(len);
        rest = others;
        part
    };
    lens.map(next).collect()
}
