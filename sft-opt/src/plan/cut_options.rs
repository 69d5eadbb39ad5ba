//! The joint problem of a system: every cut layer with what it asks.

use super::problem::{CutOption, JointProblem};
use crate::cost::{Payload, Round, RoundClock, feature_bits};
use crate::error::Result;
use crate::system::{Device, Link, Placement, ServerModel, System};

impl System {
    /// The joint problem (27) of this system over all cut layers `1..L`: for
    /// [`optimize`](crate::optimize) and [`configure`](crate::plan::configure).
    ///
    /// `first`: the round in which the model is broadcast; later only adapters are. `O(N·L)`.
    ///
    /// # Errors
    /// A model of one block, which cannot be cut; links that are not one per device, finite and
    /// positive.
    pub fn joint_problem(&self, links: &[Link], first: bool) -> Result<JointProblem> {
        let mut placements = self.everywhere(Placement::Split { cut: 1 });
        let c_beta = self.raw_demand(&placements, links, first)?;
        let option = |cut| {
            placements.fill(Placement::Split { cut });
            self.cut_option(cut, &placements, links, first)
        };
        let devices = self.devices();
        let problem = JointProblem {
            cuts: (1..self.model().blocks)
                .map(option)
                .collect::<Result<_>>()?,
            c_beta,
            memory_max_bytes: devices.iter().map(|d| d.memory_bytes as f64).collect(),
            total_hz: self.total_hz(),
            cap_hz: self.caps_hz(),
            server_model: self.server().model,
            server_flop_per_s: self.server().flop_per_s(),
        };
        problem.validate()?;
        Ok(problem)
    }

    fn cut_option(
        &self,
        cut: usize,
        placements: &[Placement],
        links: &[Link],
        first: bool,
    ) -> Result<CutOption> {
        let payloads = self.payloads(placements, 1.0, first)?;
        let round = Round {
            placements,
            links,
            payloads: &payloads,
        };
        let clock = RoundClock::new(self, &round)?;
        let shared = self.server().model == ServerModel::OptimalShare;
        let start = |n: usize| {
            let phases = if shared {
                clock.local(n)
            } else {
                clock.fixed(n)?
            };
            Ok(phases.fixed_s())
        };
        let features = self.feature_demand(links);
        let fixed = |((link, payload), features): ((&Link, &Payload), &f64)| {
            payload.adapter_bits / link.uplink_bps_hz + features
        };
        let all = 0..links.len();
        Ok(CutOption {
            cut,
            memory_bytes: self.memory(Placement::Split { cut })?.total_bytes(),
            a_s: all.clone().map(start).collect::<Result<_>>()?,
            c_fixed: (links.iter().zip(&payloads).zip(&features))
                .map(fixed)
                .collect(),
            server_flop: all
                .filter(|_| shared)
                .map(|n| clock.server_flop(n))
                .collect(),
        })
    }

    /// `e_n`: raw activations and gradients over spectral efficiency, the same at every cut.
    fn raw_demand(
        &self,
        placements: &[Placement],
        links: &[Link],
        first: bool,
    ) -> Result<Vec<f64>> {
        let payloads = self.payloads(placements, 1.0, first)?;
        let features = self.feature_demand(links);
        let raw = |((link, payload), features): ((&Link, &Payload), &f64)| {
            let (up, down) = (payload.uplink_bits, payload.downlink_bits);
            up / link.uplink_bps_hz + down / link.downlink_bps_hz - features
        };
        let each = links.iter().zip(&payloads).zip(&features);
        Ok(each.map(raw).collect())
    }

    /// Features and their gradients over spectral efficiency, which no setting of the activations'
    /// compression changes.
    fn feature_demand(&self, links: &[Link]) -> Vec<f64> {
        let (model, training) = (self.model(), self.training());
        let batch_bits = feature_bits(model, training, Placement::Split { cut: 1 });
        let demand = |(link, device): (&Link, &Device)| {
            let bits = training.batches_per_round(device.samples) * batch_bits;
            bits / link.uplink_bps_hz + bits / link.downlink_bps_hz
        };
        links.iter().zip(self.devices()).map(demand).collect()
    }
}
