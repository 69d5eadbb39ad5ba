//! The paper's controller on two timescales: P1 once, P2 in every round.

use serde::Serialize;

use super::compression::Setting;
use super::compression_problem::CompressionProblem;
use super::joint::{Configuration, configure, optimize};
use crate::bandwidth::{allocate_bandwidth, allocate_two_pools};
use crate::cost::Round;
use crate::error::Result;
use crate::solution::Solution;
use crate::system::{Fading, Placement, ServerModel, System};

/// Which bandwidths the choice of cut and compression assumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Assumption {
    /// The optimal ones, jointly ([`optimize`]).
    #[default]
    Joint,
    /// The even split ([`configure`]): what the paper's P1 leaves open.
    Even,
}

/// A training run as the controller steers it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TwoTimescale<S = Setting> {
    /// The choice made before training, for links at their mean.
    pub configuration: Configuration<S>,
    /// Delay of every round in seconds, infinite where a link is dead.
    pub rounds_s: Vec<f64>,
}

impl<S> TwoTimescale<S> {
    /// Delay of the whole training (20).
    pub fn total_s(&self) -> f64 {
        self.rounds_s.iter().sum()
    }
}

/// The paper's resource management over a whole training: cut layer and compression once, from
/// the mean links (P1 or P), then bandwidths in each of `rounds` rounds from the links as they
/// are (P2, and the server's shares with [`ServerModel::OptimalShare`]).
///
/// `fading`: Rayleigh draws, or the mean links in every round. The model is broadcast in the
/// first round. The solution's delay and status are those of the choice, for a round after the
/// first at mean links. `O(N·(cuts + rounds))`.
///
/// # Errors
/// No rounds, or more than 10,000,000 over the number of devices; as [`System::joint_problem`], [`optimize`] and [`System::demands`].
pub fn two_timescale<C: CompressionProblem>(
    system: &System,
    compression: &C,
    assumption: Assumption,
    fading: Option<Fading>,
    rounds: u64,
) -> Result<Solution<Option<TwoTimescale<C::Setting>>>> {
    system.check_rounds(rounds)?;
    let problem = system.joint_problem(&system.links(), false)?;
    let chosen = match assumption {
        Assumption::Joint => optimize(&problem, compression)?,
        Assumption::Even => {
            let devices = problem.devices();
            let even = vec![problem.total_hz / devices as f64; devices];
            configure(&problem, compression, &even)?
        }
    };
    let round = |configuration: &Configuration<C::Setting>, round| {
        let (cut, beta) = (configuration.cut, C::beta(&configuration.setting));
        round_s(system, (cut, beta), fading, round)
    };
    let rounds_s = (chosen.value.iter())
        .flat_map(|configuration| (1..=rounds).map(move |n| round(configuration, n)))
        .collect::<Result<Vec<f64>>>()?;
    Ok(chosen.map(|chosen| {
        chosen.map(|configuration| TwoTimescale {
            configuration,
            rounds_s,
        })
    }))
}

/// Delay of one round with its own optimal bandwidths.
fn round_s(
    system: &System,
    (cut, beta): (usize, f64),
    fading: Option<Fading>,
    round: u64,
) -> Result<f64> {
    let placements = system.everywhere(Placement::Split { cut });
    let links = match fading {
        Some(fading) => system.faded_links(fading, round),
        None => system.links(),
    };
    let payloads = system.payloads(&placements, beta, round == 1)?;
    let round = Round {
        placements: &placements,
        links: &links,
        payloads: &payloads,
    };
    if system.server().model == ServerModel::OptimalShare {
        let pools = system.server_pools(&round)?;
        return Ok(allocate_two_pools(&pools.problem())?.tau_s);
    }
    Ok(allocate_bandwidth(&system.demands(&round)?.problem())?.tau_s)
}
