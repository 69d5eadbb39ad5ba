//! What the benchmarks beside this folder share, and the one of training beside PyTorch.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark")]

/// Floating-point operations of a split step, product by product.
pub mod flops;
/// The processor, the versions and what a process takes.
pub mod machine;
/// The models that are measured.
pub mod shapes;
/// Medians, ranges and lines.
pub mod stats;
/// Training beside PyTorch, in a process for each side.
pub mod train;

/// What a benchmark returns.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
