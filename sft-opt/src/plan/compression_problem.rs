//! What the solvers ask of a compression problem.

use crate::error::Result;

/// A compression problem as the solvers see it: they choose cut layer and bandwidths for its best
/// setting, as the delay depends on a setting through `β` alone and grows with it.
///
/// [`Compression`](super::Compression) is that of kept fraction and bits,
/// [`StepCompression`](super::StepCompression) that of a codec with one knob.
pub trait CompressionProblem {
    /// A way to compress.
    type Setting: Clone;

    /// The setting of the fewest bits that is accurate enough, `None` if there is none.
    ///
    /// # Errors
    /// A field outside its documented range.
    fn best(&self) -> Result<Option<Self::Setting>>;

    /// Compressed bits over raw bits `β` of a setting.
    fn beta(setting: &Self::Setting) -> f64;
}
