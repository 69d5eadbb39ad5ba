use numpy::PyArray1;
use pyo3::prelude::*;
use sft_opt::bandwidth::{Bandwidths, Regime};
use sft_opt::{Problem, Status};

use crate::array::{frozen, seed, vector};
use crate::config::parse;
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
///
/// Examples
/// --------
/// >>> import sft
/// >>> solution = sft.allocate_bandwidth([10.0, 0.0], [2e6, 24e6], 4e6, cap_hz=[1e6, 2e6])
/// >>> solution.regime, solution.tau_s, solution.used_hz, solution.shadow_price_s_per_hz
/// ('cap_or_floor', 12.0, 3000000.0, 0.0)
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
    fn new(py: Python<'_>, solution: sft_opt::Solution<Bandwidths>) -> Self {
        let value = solution.value;
        Self {
            b_hz: frozen(py, value.b_hz).unbind(),
            tau_s: solution.tau_s,
            tau_minus_amax_s: value.tau_minus_amax_s,
            used_hz: value.used_hz,
            shadow_price_s_per_hz: value.shadow_price_s_per_hz,
            regime: regime(solution.status, value.regime),
            equality_feasible: value.equality_feasible,
            iterations: solution.iterations,
        }
    }
}

/// What fixes the delay, or how the solver ended where nothing is optimal.
pub(super) fn regime(status: Status, regime: Option<Regime>) -> &'static str {
    regime.map_or(status.as_str(), Regime::as_str)
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
/// a_s : array_like of float, [devices]
///     Delay of each device that bandwidth does not change, in seconds.
/// c_bits_per_bps_hz : array_like of float, [devices]
///     Bits over spectral efficiency of each device; 0 for one without demand.
/// total_hz : float
///     The band that the devices share, in Hz.
/// cap_hz : array_like of float, [devices], optional
///     Most bandwidth of each device in Hz, `inf` for one without a cap.
/// rule : {'optimal', 'even', 'proportional', 'random'}, default 'optimal'
///     The exact solution, or a baseline to compare it with: the same bandwidth
///     for every device, in proportion to `c_bits_per_bps_hz`, or uniform among
///     all that sum to the band. What a capped device cannot take is shared among
///     the others by the same rule.
/// seed : int, default 0
///     Decides the draws of 'random', 0 to 2**64 - 1.
///
/// Returns
/// -------
/// Solution
///     Where no allocation is feasible, its `regime` is 'infeasible'; that of a
///     baseline is 'given'.
///
/// Raises
/// ------
/// ValueError
///     If an argument is negative, not finite, or does not have one entry for
///     each device, or if the rule is not known.
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
/// >>> sft.allocate_bandwidth([10.0, 0.0], [2e6, 24e6], 3e6, rule="even").tau_s
/// 16.0
#[pyfunction]
#[pyo3(signature = (a_s, c_bits_per_bps_hz, total_hz, cap_hz=None, *, rule="optimal", seed=0))]
pub(crate) fn allocate_bandwidth(
    py: Python<'_>,
    a_s: &Bound<'_, PyAny>,
    c_bits_per_bps_hz: &Bound<'_, PyAny>,
    total_hz: f64,
    cap_hz: Option<&Bound<'_, PyAny>>,
    rule: &str,
    #[pyo3(from_py_with = seed)] seed: u64,
) -> PyResult<Solution> {
    let rule = parse("rule", rule, RULES)?;
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
    let solution = detached(py, || rule(&problem, seed))?;
    Ok(Solution::new(py, solution))
}

/// A way to share a band, given a seed.
type Rule = fn(&Problem<'_>, u64) -> sft_opt::Result<sft_opt::Solution<Bandwidths>>;

const RULES: &[(&str, Rule)] = &[
    ("optimal", |problem, _| sft_opt::allocate_bandwidth(problem)),
    ("even", |problem, _| {
        sft_opt::bandwidth::allocate_even(problem)
    }),
    ("proportional", |problem, _| {
        sft_opt::bandwidth::allocate_proportional(problem)
    }),
    ("random", sft_opt::bandwidth::allocate_random),
];
