//! What every cut layer asks of every device, and the best cuts where one resource is shared.

use super::problem::{CutOption, JointProblem};
use crate::bandwidth::{Problem, allocate_bandwidth_into};
use crate::error::Result;

/// `a` and `c` of every device and cut, and the band.
#[derive(Clone)]
pub(super) struct CutTable {
    /// One row per device, one entry per cut: `a`, `c`, and whether the cut fits.
    pub(super) rows: Vec<Vec<(f64, f64, bool)>>,
    pub(super) total_hz: f64,
    pub(super) cap_hz: Option<Vec<f64>>,
}

/// Cuts, as positions in the list of options, and what they achieve.
pub(super) struct Allocated {
    pub(super) chosen: Vec<usize>,
    pub(super) tau_s: f64,
    pub(super) b_hz: Vec<f64>,
}

impl CutTable {
    pub(super) fn new(problem: &JointProblem, beta: f64) -> Self {
        let row = |n: usize| {
            let entry = |option: &CutOption| {
                (
                    option.a_s[n],
                    option.c_fixed[n] + beta * problem.c_beta[n],
                    option.memory_bytes < problem.memory_max_bytes[n],
                )
            };
            problem.cuts.iter().map(entry).collect()
        };
        Self {
            rows: (0..problem.devices()).map(row).collect(),
            total_hz: problem.total_hz,
            cap_hz: problem.cap_hz.clone(),
        }
    }

    /// The best cuts and the iterations taken; `None` if no delay is finite. Every device must
    /// fit a cut.
    pub(super) fn solve(&self) -> Result<Option<(Allocated, u32)>> {
        let Some(start) = self.least_demands() else {
            return Ok(None);
        };
        let mut best = self.allocate(start)?;
        if best.tau_s.is_infinite() {
            return Ok(None);
        }
        let mut iterations = 1;
        while let Some(chosen) = self.least_needs(best.tau_s) {
            if chosen == best.chosen {
                break;
            }
            let next = self.allocate(chosen)?;
            iterations += 1;
            if next.tau_s >= best.tau_s {
                break;
            }
            best = next;
        }
        Ok(Some((best, iterations)))
    }

    /// The cut with the least demand for every device; `None` if one fits no cut.
    pub(super) fn least_demands(&self) -> Option<Vec<usize>> {
        self.choose(|_, _, c| Some(c))
    }

    /// The cut with the least need at `τ` for every device; `None` if one can only meet `τ`
    /// itself, as a device without demand that is the last to finish.
    fn least_needs(&self, tau_s: f64) -> Option<Vec<usize>> {
        self.choose(|n, a, c| {
            let need = c / (tau_s - a);
            let cap = self.cap_hz.as_ref().map_or(f64::INFINITY, |cap| cap[n]);
            // Rounding must not rule out the cut that meets its cap exactly.
            (a < tau_s && need <= cap * (1.0 + 4.0 * f64::EPSILON)).then_some(need)
        })
    }

    fn choose(&self, measure: impl Fn(usize, f64, f64) -> Option<f64>) -> Option<Vec<usize>> {
        let of_row = |(n, row): (usize, &Vec<(f64, f64, bool)>)| {
            let mut best: Option<(usize, f64)> = None;
            for (option, &(a, c, fits)) in row.iter().enumerate() {
                let Some(value) = fits.then(|| measure(n, a, c)).flatten() else {
                    continue;
                };
                if best.is_none_or(|(_, least)| value < least) {
                    best = Some((option, value));
                }
            }
            best.map(|(option, _)| option)
        };
        self.rows.iter().enumerate().map(of_row).collect()
    }

    fn allocate(&self, chosen: Vec<usize>) -> Result<Allocated> {
        let entries = || self.rows.iter().zip(&chosen).map(|(row, &k)| row[k]);
        let a_s: Vec<f64> = entries().map(|(a, _, _)| a).collect();
        let c: Vec<f64> = entries().map(|(_, c, _)| c).collect();
        let mut b_hz = vec![0.0; a_s.len()];
        let single = Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &c,
            total_hz: self.total_hz,
            cap_hz: self.cap_hz.as_deref(),
        };
        let tau_s = allocate_bandwidth_into(&single, &mut b_hz)?.tau_s;
        Ok(Allocated {
            chosen,
            tau_s,
            b_hz,
        })
    }
}
