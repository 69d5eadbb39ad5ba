use numpy::{PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use sft_opt::bandwidth::TwoPools;

use super::bandwidth::regime;
use crate::array::vector;
use crate::error::detached;

/// The caps of a pool, if anybody has one.
type Cap<'py> = Option<Bound<'py, PyAny>>;

/// An allocation of two pools and what it achieves; immutable.
///
/// Attributes
/// ----------
/// shares : numpy.ndarray of float64, [2, devices]
///     Every device's share of either pool, in the pool's unit; read-only.
/// tau_s : float
///     Delay of the slowest device in seconds; infinite if nothing is feasible.
/// tau_minus_amax_s : float
///     `tau_s` less the largest `a_s` among devices with demand, in seconds.
/// regime : str
///     'bandwidth' (more of a pool would shorten the delay), 'cap_or_floor' (a
///     device at its caps or without demand fixes it), 'no_demand' or
///     'infeasible'.
/// iterations : int
///     Bisection steps taken.
///
/// Examples
/// --------
/// >>> import sft
/// >>> solution = sft.allocate_two_pools([0.0, 0.0], ([4e6, 4e6], [6e12, 6e12]), (2e6, 3e12))
/// >>> solution.regime, round(solution.tau_s, 6)
/// ('bandwidth', 8.0)
/// >>> solution.shares.sum(axis=1).round(-3)
/// array([2.e+06, 3.e+12])
#[pyclass(frozen, get_all, module = "sft")]
pub(crate) struct TwoPoolSolution {
    shares: Py<PyArray2<f64>>,
    tau_s: f64,
    tau_minus_amax_s: f64,
    regime: &'static str,
    iterations: u32,
}

#[pymethods]
impl TwoPoolSolution {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "TwoPoolSolution(regime='{}', tau_s={:?}, tau_minus_amax_s={:?}, iterations={}, \
             shares={})",
            self.regime,
            self.tau_s,
            self.tau_minus_amax_s,
            self.iterations,
            self.shares.bind(py).repr()?,
        ))
    }
}

/// Shares of two resources that minimise the delay of the slowest device, exactly.
///
/// Minimises the largest ``a + u / x + d / y`` over all devices, where ``x`` and
/// ``y`` are the device's shares of the first and the second pool: uplink and
/// downlink bands in Hz, or a band in Hz and a server in FLOP/s.
///
/// Parameters
/// ----------
/// a_s : array_like of float, [devices]
///     Delay of each device that neither pool changes, in seconds.
/// demands : pair of array_like of float, [devices] each
///     Demands ``u`` and ``d``: bits over spectral efficiency for a band, FLOP for
///     a server.
/// totals : pair of float
///     The two pools.
/// caps : pair of (array_like of float or None), optional
///     Most that each device can use of either pool, `inf` for one without a cap.
///
/// Returns
/// -------
/// TwoPoolSolution
///     Where no allocation is feasible, its `regime` is 'infeasible'.
///
/// Raises
/// ------
/// ValueError
///     If a number is negative or not finite, or a list does not have one entry for
///     each device.
/// TypeError
///     If an argument does not consist of numbers.
///
/// Examples
/// --------
/// >>> import sft
/// >>> solution = sft.allocate_two_pools([0.0], ([4e6], [6e12]), (2e6, 3e12))
/// >>> round(solution.tau_s, 9), solution.shares.shape
/// (4.0, (2, 1))
#[pyfunction]
#[pyo3(signature = (a_s, demands, totals, caps=None))]
pub(crate) fn allocate_two_pools(
    py: Python<'_>,
    a_s: &Bound<'_, PyAny>,
    demands: (Bound<'_, PyAny>, Bound<'_, PyAny>),
    totals: (f64, f64),
    caps: Option<(Cap<'_>, Cap<'_>)>,
) -> PyResult<TwoPoolSolution> {
    let a_s = vector(a_s, "a_s")?;
    let first = vector(&demands.0, "demands[0]")?;
    let second = vector(&demands.1, "demands[1]")?;
    let cap = |cap: Cap<'_>, name| {
        cap.map(|cap| vector(&cap, name)?.to_vec().map_err(PyErr::from))
            .transpose()
    };
    let (x, y) = caps.unwrap_or_default();
    let caps = [cap(x, "caps[0]")?, cap(y, "caps[1]")?];
    let problem = TwoPools {
        a_s: a_s.as_slice()?,
        demands: [first.as_slice()?, second.as_slice()?],
        totals: totals.into(),
        caps: [caps[0].as_deref(), caps[1].as_deref()],
    };
    let solution = detached(py, || sft_opt::bandwidth::allocate_two_pools(&problem))?;
    let shares = PyArray2::from_vec2(py, &solution.value.shares)?;
    shares.readwrite().make_nonwriteable();
    Ok(TwoPoolSolution {
        shares: shares.unbind(),
        tau_s: solution.tau_s,
        tau_minus_amax_s: solution.value.tau_minus_amax_s,
        regime: regime(solution.status, solution.value.regime),
        iterations: solution.iterations,
    })
}
