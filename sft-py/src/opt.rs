use numpy::{IntoPyArray, PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use sft_opt::Problem;

use crate::array::{seed, vector};
use crate::error::detached;

/// An allocation of bandwidth and what it achieves; immutable.
///
/// Attributes
/// ----------
/// b_hz : numpy.ndarray of float64
///     Bandwidth of every device in Hz; read-only. From `allocate_bandwidth`
///     the smallest optimal allocation.
/// tau_s : float
///     Delay of the slowest device in seconds; infinite if nothing is feasible.
/// tau_minus_amax_s : float
///     `tau_s` less the largest `a_s` among devices with demand, in seconds, to
///     full precision also where `tau_s` rounds it away.
/// used_hz : float
///     Sum of `b_hz`; at most the band.
/// shadow_price_s_per_hz : float
///     How much the delay falls per Hz of additional band; 0 unless `regime` is
///     'bandwidth'.
/// regime : str
///     What fixes the delay: 'bandwidth' (the whole band is used), 'cap_or_floor'
///     (a device at its cap or without demand), 'no_demand', 'infeasible' (a
///     device with demand cannot have bandwidth), or 'given' for a baseline.
/// equality_feasible : bool
///     Whether the whole band can be handed out without changing the delay.
/// iterations : int
///     Newton steps taken.
#[pyclass(frozen, get_all, module = "sft")]
pub(crate) struct Solution {
    b_hz: Py<PyArray1<f64>>,
    tau_s: f64,
    tau_minus_amax_s: f64,
    used_hz: f64,
    shadow_price_s_per_hz: f64,
    regime: &'static str,
    equality_feasible: bool,
    iterations: u32,
}

impl Solution {
    fn new(py: Python<'_>, solution: sft_opt::Solution) -> Self {
        let b_hz = solution.b_hz.into_pyarray(py);
        b_hz.readwrite().make_nonwriteable();
        Self {
            b_hz: b_hz.unbind(),
            tau_s: solution.tau_s,
            tau_minus_amax_s: solution.tau_minus_amax_s,
            used_hz: solution.used_hz,
            shadow_price_s_per_hz: solution.shadow_price_s_per_hz,
            regime: solution.regime.as_str(),
            equality_feasible: solution.equality_feasible,
            iterations: solution.iterations,
        }
    }
}

#[pymethods]
impl Solution {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Solution(regime='{}', tau_s={:?}, tau_minus_amax_s={:?}, used_hz={:?}, \
             shadow_price_s_per_hz={:?}, equality_feasible={}, iterations={}, b_hz={})",
            self.regime,
            self.tau_s,
            self.tau_minus_amax_s,
            self.used_hz,
            self.shadow_price_s_per_hz,
            if self.equality_feasible {
                "True"
            } else {
                "False"
            },
            self.iterations,
            self.b_hz.bind(py).repr()?,
        ))
    }
}

/// Bandwidths that minimise the delay of the slowest device, exactly.
///
/// Solves problem P2 of the paper: minimise the largest ``a + c / b`` over all
/// devices, where the bandwidths ``b`` sum to at most the band and none exceeds
/// its cap. Takes time in proportion to the number of devices.
///
/// Parameters
/// ----------
/// a_s : array_like of float
///     Delay of each device that bandwidth does not change, in seconds.
/// c_bits_per_bps_hz : array_like of float
///     Bits over spectral efficiency of each device; 0 for one without demand.
/// total_hz : float
///     The band that the devices share, in Hz.
/// cap_hz : array_like of float, optional
///     Most bandwidth of each device in Hz, `inf` for one without a cap.
///
/// Returns
/// -------
/// Solution
///     Where no allocation is feasible, its `regime` is 'infeasible'.
///
/// Raises
/// ------
/// ValueError
///     If an argument is negative, not finite, or does not have one entry for
///     each device.
/// TypeError
///     If an argument does not consist of numbers.
///
/// Examples
/// --------
/// >>> import sft
/// >>> solution = sft.allocate_bandwidth([10.0, 0.0], [2e6, 24e6], 3e6)
/// >>> solution.regime, round(solution.tau_s, 9)
/// ('bandwidth', 12.0)
/// >>> solution.b_hz.round()
/// array([1000000., 2000000.])
#[pyfunction]
#[pyo3(signature = (a_s, c_bits_per_bps_hz, total_hz, cap_hz=None))]
pub(crate) fn allocate_bandwidth(
    py: Python<'_>,
    a_s: &Bound<'_, PyAny>,
    c_bits_per_bps_hz: &Bound<'_, PyAny>,
    total_hz: f64,
    cap_hz: Option<&Bound<'_, PyAny>>,
) -> PyResult<Solution> {
    solve(
        py,
        a_s,
        c_bits_per_bps_hz,
        total_hz,
        cap_hz,
        sft_opt::allocate_bandwidth,
    )
}

/// The even baseline: the same bandwidth for every device.
///
/// What a capped device cannot take is shared evenly among the others.
///
/// Parameters
/// ----------
/// a_s, c_bits_per_bps_hz, total_hz, cap_hz
///     As `allocate_bandwidth` takes them.
///
/// Returns
/// -------
/// Solution
///
/// Raises
/// ------
/// ValueError, TypeError
///     As `allocate_bandwidth`.
///
/// Examples
/// --------
/// >>> import sft
/// >>> sft.allocate_even([10.0, 0.0], [2e6, 24e6], 3e6).b_hz
/// array([1500000., 1500000.])
#[pyfunction]
#[pyo3(signature = (a_s, c_bits_per_bps_hz, total_hz, cap_hz=None))]
pub(crate) fn allocate_even(
    py: Python<'_>,
    a_s: &Bound<'_, PyAny>,
    c_bits_per_bps_hz: &Bound<'_, PyAny>,
    total_hz: f64,
    cap_hz: Option<&Bound<'_, PyAny>>,
) -> PyResult<Solution> {
    solve(
        py,
        a_s,
        c_bits_per_bps_hz,
        total_hz,
        cap_hz,
        sft_opt::allocate_even,
    )
}

/// The random baseline: bandwidths uniform among all that sum to the band.
///
/// What a capped device cannot take is shared among the others in proportion to
/// their draws.
///
/// Parameters
/// ----------
/// a_s, c_bits_per_bps_hz, total_hz, cap_hz
///     As `allocate_bandwidth` takes them.
/// seed : int, default 0
///     Decides the draws, 0 to 2**64 - 1.
///
/// Returns
/// -------
/// Solution
///
/// Raises
/// ------
/// ValueError, TypeError
///     As `allocate_bandwidth`.
///
/// Examples
/// --------
/// >>> import sft
/// >>> even = sft.allocate_even([10.0, 0.0], [2e6, 24e6], 3e6)
/// >>> drawn = sft.allocate_random([10.0, 0.0], [2e6, 24e6], 3e6, seed=1)
/// >>> abs(drawn.used_hz - even.used_hz) < 1e-6
/// True
#[pyfunction]
#[pyo3(signature = (a_s, c_bits_per_bps_hz, total_hz, cap_hz=None, *, seed=0))]
pub(crate) fn allocate_random(
    py: Python<'_>,
    a_s: &Bound<'_, PyAny>,
    c_bits_per_bps_hz: &Bound<'_, PyAny>,
    total_hz: f64,
    cap_hz: Option<&Bound<'_, PyAny>>,
    #[pyo3(from_py_with = seed)] seed: u64,
) -> PyResult<Solution> {
    solve(py, a_s, c_bits_per_bps_hz, total_hz, cap_hz, |problem| {
        sft_opt::allocate_random(problem, seed)
    })
}

fn solve(
    py: Python<'_>,
    a_s: &Bound<'_, PyAny>,
    c_bits_per_bps_hz: &Bound<'_, PyAny>,
    total_hz: f64,
    cap_hz: Option<&Bound<'_, PyAny>>,
    solver: impl FnOnce(&Problem<'_>) -> sft_opt::Result<sft_opt::Solution> + Send,
) -> PyResult<Solution> {
    let a_s = vector(a_s, "a_s")?;
    let c = vector(c_bits_per_bps_hz, "c_bits_per_bps_hz")?;
    let cap_hz = cap_hz.map(|cap_hz| vector(cap_hz, "cap_hz")).transpose()?;
    let problem = Problem {
        a_s: a_s.as_slice()?,
        c_bits_per_bps_hz: c.as_slice()?,
        total_hz,
        cap_hz: cap_hz
            .as_ref()
            .map(|cap_hz| cap_hz.as_slice())
            .transpose()?,
    };
    let solution = detached(py, || solver(&problem))?;
    Ok(Solution::new(py, solution))
}
