//! Arithmetic that knows nothing of devices.

/// Sums, differences and quotients with their rounding errors.
pub(crate) mod compensated;
/// Cubics on an interval.
pub(crate) mod polynomial;
/// Random streams that depend on their coordinates only.
pub(crate) mod random;
/// Loops that become vector instructions.
pub(crate) mod vectorized;
