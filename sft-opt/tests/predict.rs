//! Predictions of a whole training against the formulas they are put together from.

mod common;

use common::system::{CUT, devices, server};
use sft_opt::cost::{Allocation, Forecast, Phases, Prediction};
use sft_opt::system::{Fading, ServerModel};
use sft_opt::{Placement, Result, Round, System, Training, Transformer, allocate_bandwidth};

fn system(model: ServerModel) -> System {
    let devices = devices(&[0.5e9, 1e9, 1.5e9]);
    let (vit, training) = (Transformer::vit_base(100), Training::default());
    System::new(vit, training, server(model), devices, 30e6).unwrap()
}

fn forecast(placement: Placement) -> Forecast {
    Forecast {
        placement,
        sequential: false,
        beta: 0.05,
        rounds: 3,
        fading: Some(Fading::new(1)),
        allocation: Allocation::Optimal,
    }
}

fn predict(model: ServerModel, change: impl FnOnce(&mut Forecast)) -> Result<Prediction> {
    let mut forecast = forecast(CUT);
    change(&mut forecast);
    system(model).predict(&forecast)
}

#[test]
fn every_round_is_the_solution_of_its_links() {
    let (system, prediction) = (
        system(ServerModel::Sequential),
        predict(ServerModel::Sequential, |_| ()).unwrap(),
    );
    assert_eq!(prediction.memory, system.memory(CUT).unwrap());
    assert_eq!(prediction.rounds.len(), 3);
    for (number, predicted) in (1..).zip(&prediction.rounds) {
        let links = system.faded_links(Fading::new(1), number);
        let payloads = system
            .payloads(&system.everywhere(CUT), 0.05, number == 1)
            .unwrap();
        let round = Round {
            placements: &system.everywhere(CUT),
            links: &links,
            payloads: &payloads,
        };
        let demands = system.demands(&round).unwrap();
        let tau_s = allocate_bandwidth(&demands.problem()).unwrap().tau_s;
        assert!((predicted.delay.total_s / tau_s - 1.0).abs() < 1e-12);
        assert_eq!(predicted.payloads, payloads);
    }
    let sum: f64 = prediction.rounds.iter().map(|r| r.delay.total_s).sum();
    assert!((prediction.total_s() - sum).abs() < 1e-9);
}

#[test]
fn no_other_allocation_is_faster() {
    for model in [ServerModel::Sequential, ServerModel::OptimalShare] {
        let best = predict(model, |_| ()).unwrap().total_s();
        let even = predict(model, |f| f.allocation = Allocation::Even).unwrap();
        assert!(best < even.total_s());
        let b_hz = vec![10e6; 3];
        let given = predict(model, |f| f.allocation = Allocation::Given(b_hz)).unwrap();
        assert!((given.total_s() / even.total_s() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn shares_of_the_server_use_it_up() {
    for allocation in [Allocation::Optimal, Allocation::Even] {
        let shared = predict(ServerModel::OptimalShare, |f| f.allocation = allocation).unwrap();
        for round in &shared.rounds {
            let shares = round.server_flop_per_s.as_ref().unwrap();
            let whole = system(ServerModel::OptimalShare).server().flop_per_s();
            assert!((shares.iter().sum::<f64>() / whole - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn one_after_the_other_adds_up_with_the_whole_band() {
    let prediction = predict(ServerModel::OptimalShare, |f| f.sequential = true).unwrap();
    for round in &prediction.rounds {
        let sum: f64 = round.delay.devices.iter().map(Phases::total_s).sum();
        assert!((round.delay.total_s / sum - 1.0).abs() < 1e-12);
        assert_eq!(round.b_hz, vec![30e6; 3]);
    }
}

#[test]
fn bad_forecasts_are_named() {
    let message = |change: fn(&mut Forecast)| {
        let error = predict(ServerModel::OptimalShare, change).unwrap_err();
        error.to_string()
    };
    assert!(message(|f| f.rounds = 0).contains("rounds is empty"));
    for error in [
        message(|f| f.rounds = 1_000_000_000),
        message(|f| f.rounds = u64::MAX),
    ] {
        let expected = "expected at most 10,000,000 over the number of devices";
        assert!(error.ends_with(expected), "{error}");
    }
    assert!(message(|f| f.beta = 2.0).contains("beta is 2"));
    assert!(message(|f| f.placement = Placement::Split { cut: 12 }).contains("cut is 12"));
    let short = message(|f| f.allocation = Allocation::Given(vec![1.0]));
    assert!(short.contains("b_hz has 1 entries, expected 3"), "{short}");
    // No bandwidth for anybody: infinite delays, no panic.
    let silent = predict(ServerModel::OptimalShare, |f| {
        f.allocation = Allocation::Given(vec![0.0; 3]);
    });
    assert!(silent.unwrap().total_s().is_infinite());
}
