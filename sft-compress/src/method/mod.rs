//! How what is kept, and what became of it, is coded: the body of a frame.

/// Method 2: symbols by context.
pub(crate) mod context;
/// Method 1: the paper's Golomb codes.
pub(crate) mod paper;
/// Method 0: elements as they are.
pub(crate) mod raw;
