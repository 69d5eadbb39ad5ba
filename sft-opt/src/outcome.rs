//! How a solver ended.

use serde::{Deserialize, Serialize};

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

/// How a run ended, with the answer if there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome<T> {
    /// Solved.
    Optimal(T),
    /// No point satisfies this constraint together with the ones before it.
    Infeasible {
        /// The constraint.
        constraint: Constraint,
    },
}

impl<T> Outcome<T> {
    /// The answer, if there is one.
    pub fn optimal(self) -> Option<T> {
        match self {
            Self::Optimal(answer) => Some(answer),
            Self::Infeasible { .. } => None,
        }
    }

    /// The constraint that cannot be met, if there is none.
    pub fn constraint(&self) -> Option<Constraint> {
        match self {
            Self::Optimal(_) => None,
            Self::Infeasible { constraint } => Some(*constraint),
        }
    }
}

pub(crate) fn infeasible<T>(constraint: Constraint) -> Outcome<T> {
    Outcome::Infeasible { constraint }
}
