//! Frozen layers on the CPU, forward and backward by hand over `f32` slices.
//!
//! Automatic differentiation would compute gradients for the frozen weights and keep every
//! intermediate; this engine computes those of the input and the adapter only, and keeps what
//! backward cannot cheaply recompute. From the bottom up: a weight ([`frozen`]), linears with
//! adapters ([`linear`], [`lora`]), the parts of a block ([`norm`], [`scale`], [`attention`] over [`turn`],
//! [`heads`] and [`tile`], [`mlp`] over [`activation`], [`branch`]), their composition ([`block`]), its pieces over threads ([`pieces`]), and the whole as one
//! operation of candle's ([`op`]).

mod activation;
mod attention;
mod block;
mod branch;
mod buffer;
mod frozen;
mod heads;
mod linear;
mod lora;
mod mlp;
mod norm;
mod op;
mod piece;
mod pieces;
mod ragged;
mod scale;
mod tile;
mod turn;

pub(crate) use norm::FrozenNorm;
pub(crate) use op::{BlockReader, FrozenBlock, with_slices};
pub(crate) use piece::Wanted;
