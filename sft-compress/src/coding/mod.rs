//! Numbers to bits and bytes, and back.

/// Binary decisions by adaptive probabilities.
pub(crate) mod adaptive;
/// Bit-level reader and writer, least significant bit first.
pub(crate) mod bits;
/// Byte-level reader and writer: fixed-width numbers and varints.
pub(crate) mod bytes;
/// Golomb codes of non-negative integers.
pub(crate) mod golomb;
