use pyo3::prelude::*;

use super::{Codec, levels};
use crate::config::{ENERGIES, NON_FINITES, RANGES, parse};
use crate::error::raised;

#[pymethods]
impl Codec {
    /// What activations get where no codec is given: a dead zone with an error of 2 %.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.default_activation()
    /// Codec('error:0.01')
    #[staticmethod]
    fn default_activation() -> Self {
        Self(sft_compress::Codec::default_activation())
    }

    /// What gradients get where no codec is given: a rounding without a bias, in
    /// steps of a root mean square.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.default_gradient()
    /// Codec('unbiased:1')
    #[staticmethod]
    fn default_gradient() -> Self {
        Self(sft_compress::Codec::default_gradient())
    }

    /// What differences of adapters get in `finetune` by default: a rounding without a bias, in
    /// steps of 2 root mean squares.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.default_adapter()
    /// Codec('unbiased:2')
    #[staticmethod]
    fn default_adapter() -> Self {
        Self(sft_compress::Codec::default_adapter())
    }

    /// What features and their gradients get by default, with labels on the devices.
    ///
    /// Returns
    /// -------
    /// Codec
    ///     As ``dead_zone_for_error(0.01)``.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.default_features()
    /// Codec('error:0.01')
    #[staticmethod]
    fn default_features() -> Self {
        Self(sft_compress::Codec::default_features())
    }

    /// For activations of a vision transformer where no basis is known, as in `sft.torch`.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.vit_activation()
    /// Codec('dead-zone:1.25')
    #[staticmethod]
    fn vit_activation() -> Self {
        Self(sft_compress::Codec::vit_activation())
    }

    /// For gradients of a vision transformer where no basis is known, as in `sft.torch`.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.vit_gradient()
    /// Codec('error:0.25,of=all')
    #[staticmethod]
    fn vit_gradient() -> Self {
        Self(sft_compress::Codec::vit_gradient())
    }

    /// The paper's codec: Top-K, stochastic quantization, lossless coding.
    ///
    /// Parameters
    /// ----------
    /// keep : float, default 0.2
    ///     Fraction of the elements to keep, in (0, 1]: those of largest
    ///     magnitude. The others decode to zero.
    /// levels : int, default 8
    ///     Number of quantization points, 2 to 256.
    /// range : {'tensor', 'row'}, default 'tensor'
    ///     Which kept magnitudes share a quantization range: all of the tensor,
    ///     as in the paper, or those of one row, a row being one index into all
    ///     dimensions but the last. Rows cost a few more bits and are far more
    ///     accurate where rows differ in scale, as they do in gradients.
    /// non_finite : {'refuse', 'saturate'}, default 'refuse'
    ///     Whether NaN and infinities are an error, or become zero and the
    ///     largest finite number.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.paper(keep=0.1, range="row")
    /// Codec('paper:0.1:8,range=row')
    #[staticmethod]
    #[pyo3(signature = (*, keep=0.2, levels=8, range="tensor", non_finite="refuse"))]
    fn paper(
        keep: f64,
        #[pyo3(from_py_with = levels)] levels: u32,
        range: &str,
        non_finite: &str,
    ) -> PyResult<Self> {
        with(sft_compress::Codec::paper(keep, levels), range, non_finite)
    }

    /// For activations: Top-K, stochastic log-spaced levels, coded by context.
    ///
    /// Unbiased given the kept set.
    ///
    /// Parameters
    /// ----------
    /// keep, levels, range, non_finite
    ///     As `Codec.paper` takes them.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.activation(keep=0.5, levels=4)
    /// Codec('activation:0.5:4')
    #[staticmethod]
    #[pyo3(signature = (*, keep=0.2, levels=8, range="tensor", non_finite="refuse"))]
    fn activation(
        keep: f64,
        #[pyo3(from_py_with = levels)] levels: u32,
        range: &str,
        non_finite: &str,
    ) -> PyResult<Self> {
        let codec = sft_compress::Codec::activation(keep, levels);
        with(codec, range, non_finite)
    }

    /// For gradients: Top-K, stochastic levels in a range for each row.
    ///
    /// Unbiased given the kept set; coded by context.
    ///
    /// Parameters
    /// ----------
    /// keep, levels, non_finite
    ///     As `Codec.paper` takes them.
    /// range : {'row', 'tensor'}, default 'row'
    ///     As `Codec.paper` takes it.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import sft
    /// >>> sft.Codec.gradient(keep=0.05, levels=4).range
    /// 'row'
    #[staticmethod]
    #[pyo3(signature = (*, keep=0.2, levels=8, range="row", non_finite="refuse"))]
    fn gradient(
        keep: f64,
        #[pyo3(from_py_with = levels)] levels: u32,
        range: &str,
        non_finite: &str,
    ) -> PyResult<Self> {
        let codec = sft_compress::Codec::gradient(keep, levels);
        with(codec, range, non_finite)
    }

    /// The fewest bits at a mean squared error: a quantizer with a dead zone.
    ///
    /// Not random, and not unbiased.
    ///
    /// Parameters
    /// ----------
    /// step : float
    ///     Step of the quantizer relative to the root mean square of the tensor
    ///     without its outliers, 0.001 to 1000. Magnitudes below 5/8 of it become zero.
    /// non_finite : {'refuse', 'saturate'}, default 'refuse'
    ///     As `Codec.paper` takes it.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    /// >>> frames = [sft.Codec.dead_zone(step).encode(x) for step in (0.5, 1.5)]
    /// >>> len(frames[0]) > len(frames[1])
    /// True
    #[staticmethod]
    #[pyo3(signature = (step, *, non_finite="refuse"))]
    fn dead_zone(step: f64, non_finite: &str) -> PyResult<Self> {
        with(sft_compress::Codec::dead_zone(step), "tensor", non_finite)
    }

    /// The dead zone whose error is a fraction of the tensor's energy, found for each tensor.
    ///
    /// Parameters
    /// ----------
    /// relative_mse : float
    ///     Sum of squared errors relative to the sum of squares, 1e-6 to 0.75,
    ///     met within a few per cent.
    /// of : {'bulk', 'all'}, default 'bulk'
    ///     Whether the few massive elements that hide all others, as language
    ///     models have them, are left out of both sums; they cross nearly exactly.
    ///     'all' is for gradients.
    /// non_finite : {'refuse', 'saturate'}, default 'refuse'
    ///     As `Codec.paper` takes it.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)
    /// >>> 0.095 < sft.measure(sft.Codec.for_error(0.1), x).relative_mse < 0.105
    /// True
    #[staticmethod]
    #[pyo3(signature = (relative_mse, *, of="bulk", non_finite="refuse"))]
    fn for_error(relative_mse: f64, of: &str, non_finite: &str) -> PyResult<Self> {
        let of = parse("of", of, ENERGIES)?;
        let codec = sft_compress::Codec::for_error(relative_mse);
        with(
            codec.map(|codec| codec.with_energy(of)),
            "tensor",
            non_finite,
        )
    }

    /// For gradients of any model: rounded at random to multiples of a step, without a bias.
    ///
    /// Most elements become zero, but not always the same ones: what is small in each
    /// message and large in their sum is not lost, as it is in a dead zone.
    ///
    /// Parameters
    /// ----------
    /// step : float
    ///     Step of the quantizer relative to the root mean square of the tensor
    ///     without its outliers, 0.001 to 1000.
    /// non_finite : {'refuse', 'saturate'}, default 'refuse'
    ///     As `Codec.paper` takes it.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If an argument is not in its range.
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> x = np.full((64, 64), 0.01, dtype=np.float32)
    /// >>> y = sft.decode(sft.Codec.unbiased(8).encode(x, seed=3))
    /// >>> bool((y == 0).mean() > 0.8), bool(abs(y.mean() - 0.01) < 0.002)
    /// (True, True)
    #[staticmethod]
    #[pyo3(signature = (step, *, non_finite="refuse"))]
    fn unbiased(step: f64, non_finite: &str) -> PyResult<Self> {
        with(sft_compress::Codec::unbiased(step), "tensor", non_finite)
    }

    /// No compression: every element as it is, bit for bit, NaN included.
    ///
    /// Returns
    /// -------
    /// Codec
    ///
    /// Examples
    /// --------
    /// >>> import numpy as np
    /// >>> import sft
    /// >>> sft.decode(sft.Codec.raw().encode(np.float32([1.5, np.nan])))
    /// array([1.5, nan], dtype=float32)
    #[staticmethod]
    fn raw() -> Self {
        Self(sft_compress::Codec::raw())
    }
}

/// A named codec with the settings that all of them have.
fn with(
    codec: sft_compress::Result<sft_compress::Codec>,
    range: &str,
    non_finite: &str,
) -> PyResult<Codec> {
    let range = parse("range", range, RANGES)?;
    let non_finite = parse("non_finite", non_finite, NON_FINITES)?;
    let codec = raised(codec)?;
    Ok(Codec(codec.with_range(range).with_non_finite(non_finite)))
}
