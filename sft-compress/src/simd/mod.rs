//! Vector instructions, found at run time: the only unsafe code of the crate.
//!
//! Each kernel does the same at every [`Level`], bit for bit.

#![allow(unsafe_code)]

/// Vectors of AVX2.
#[cfg(target_arch = "x86_64")]
mod avx2;
/// Vectors of AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx512;
/// Choosing and packing elements by their magnitude.
mod collect;
/// Kernels by hand, for any vector.
#[cfg(target_arch = "x86_64")]
mod kernels;
/// What the processor can do.
mod level;
/// Those of the transform codec.
mod linear;
/// Plain loops, compiled for each level.
mod loops;
/// The kernels without vector instructions, and what all kernels share.
mod scalar;
/// The symbols of the entropy coder.
mod symbols;
/// What an instruction set does with sixteen numbers.
#[cfg(target_arch = "x86_64")]
mod vector;

pub(crate) use collect::{Candidates, collect, keep_at_least};
pub(crate) use level::Level;
pub(crate) use linear::{
    MAX_INDEX, Matrix, add, combine, indices, limit, nonzero, pack, product, rotate, survey,
};
pub(crate) use loops::{
    Bulk, GROUP, Quantizer, RowCodes, bulk, count_kinds, count_nonzero, dead_zone, extend_bf16,
    extend_f16, fill_codes, max_magnitude, quantize, span, to_symbols, unbiased,
};
pub(crate) use scalar::{CODES, Contexts, LANES};
pub(crate) use symbols::{decode_symbols, encode_symbols, expand};
