//! What every solver answers: a value, what it achieves, how good that is, how the solver ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The answer of a solver.
///
/// That nothing is feasible is an answer as well, see [`Status::Infeasible`]. Where there is then
/// no value to give, `T` is an option, see [`Solution::feasible`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Solution<T> {
    /// The variables of the problem.
    pub value: T,
    /// Delay of the slowest device with them in seconds; infinite if nothing is feasible.
    pub tau_s: f64,
    /// No feasible value is faster than this, in seconds: `tau_s` itself if [`Status::Optimal`], 0
    /// where the method proves nothing.
    pub bound_s: f64,
    /// How the solver ended.
    pub status: Status,
    /// Steps taken; each solver says of what.
    pub iterations: u32,
}

/// How a solver ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// No feasible value is faster: exact, or within the tolerance that was asked for.
    Optimal,
    /// The method is at its end with a feasible value that need not be the fastest.
    Feasible,
    /// The steps allowed are spent; the value is the best that was met.
    IterationLimit,
    /// No step could be made any more; the value is the best that was met.
    Stalled,
    /// Not optimised: the value was given and only evaluated.
    Given,
    /// No value satisfies this constraint together with the ones before it.
    Infeasible(Constraint),
}

/// The constraint that leaves no feasible point; the first one in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Constraint {
    /// No setting of the compression is accurate enough (27b).
    Accuracy,
    /// No cut layer fits into the memory of the devices (27c).
    Memory,
    /// A device with something to send cannot have any bandwidth, or any compute of the server.
    Bandwidth,
}

impl Status {
    /// The constraint that cannot be met, if there is one.
    pub fn constraint(self) -> Option<Constraint> {
        match self {
            Self::Infeasible(constraint) => Some(constraint),
            _ => None,
        }
    }

    /// The status' name in data: `optimal`, `feasible`, `iteration_limit`, `stalled`, `given`,
    /// `infeasible`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optimal => "optimal",
            Self::Feasible => "feasible",
            Self::IterationLimit => "iteration_limit",
            Self::Stalled => "stalled",
            Self::Given => "given",
            Self::Infeasible(_) => "infeasible",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<T> Solution<T> {
    /// A value that no other can beat.
    pub(crate) fn optimal(value: T, tau_s: f64, iterations: u32) -> Self {
        Self {
            value,
            tau_s,
            bound_s: tau_s,
            status: Status::Optimal,
            iterations,
        }
    }

    /// The same solution with another value.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Solution<U> {
        Solution {
            value: change(self.value),
            tau_s: self.tau_s,
            bound_s: self.bound_s,
            status: self.status,
            iterations: self.iterations,
        }
    }
}

impl<T> Solution<Option<T>> {
    /// The solution with its value, unless nothing is feasible.
    pub fn feasible(mut self) -> Option<Solution<T>> {
        let value = self.value.take()?;
        Some(self.map(|_| value))
    }

    /// No value satisfies `constraint`.
    pub(crate) fn infeasible(constraint: Constraint) -> Self {
        Self {
            value: None,
            tau_s: f64::INFINITY,
            bound_s: f64::INFINITY,
            status: Status::Infeasible(constraint),
            iterations: 0,
        }
    }
}
