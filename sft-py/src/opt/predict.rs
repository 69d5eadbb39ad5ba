use numpy::{PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sft_opt::cost::{Allocation, Forecast, Payload, Phases, PredictedRound};
use sft_opt::system::Fading;
use sft_opt::{Placement, System};

use super::json::{read, write};
use crate::array::{frozen, unsigned, vector};
use crate::config::parse;
use crate::error::{bad_argument, detached};

/// Who computes what in a scheme, but for its cut.
#[derive(Clone, Copy)]
enum Who {
    Split,
    Federated(Placement),
}

const SCHEMES: &[(&str, Who)] = &[
    ("sft", Who::Split),
    ("sft-raw", Who::Split),
    ("sl", Who::Split),
    ("fl-lora", Who::Federated(Placement::FlLora)),
    ("fl-full", Who::Federated(Placement::FlFull)),
];

/// A field by its name.
type Field<T> = (&'static str, fn(&T) -> f64);

const PHASES: [Field<Phases>; 7] = [
    ("broadcast_s", |p| p.broadcast_s),
    ("device_forward_s", |p| p.device_forward_s),
    ("uplink_s", |p| p.uplink_s),
    ("server_s", |p| p.server_s),
    ("downlink_s", |p| p.downlink_s),
    ("device_backward_s", |p| p.device_backward_s),
    ("adapter_upload_s", |p| p.adapter_upload_s),
];
const PAYLOADS: [Field<Payload>; 4] = [
    ("broadcast_bits", |p| p.broadcast_bits),
    ("uplink_bits", |p| p.uplink_bits),
    ("downlink_bits", |p| p.downlink_bits),
    ("adapter_bits", |p| p.adapter_bits),
];

/// `sft.predict`: memory as JSON, everything else as arrays of rounds by devices.
#[pyfunction]
#[pyo3(signature = (system, scheme, *, cut, beta, rounds, bandwidth, fading_seed))]
#[expect(clippy::too_many_arguments, reason = "those of `sft.predict`")]
pub(crate) fn _predict<'py>(
    py: Python<'py>,
    system: &str,
    scheme: &str,
    cut: Option<&Bound<'py, PyAny>>,
    beta: f64,
    rounds: &Bound<'py, PyAny>,
    bandwidth: &Bound<'py, PyAny>,
    fading_seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let system: System = read("system", system)?;
    let forecast = Forecast {
        placement: match parse("scheme", scheme, SCHEMES)? {
            Who::Split => Placement::Split {
                cut: cut_layer(scheme, cut)?,
            },
            Who::Federated(placement) => placement,
        },
        sequential: scheme == "sl",
        beta,
        rounds: unsigned(rounds, "rounds", "1..=10**7 over the number of devices")?,
        fading: fading_seed.map(fading).transpose()?,
        allocation: allocation(bandwidth)?,
    };
    let prediction = detached(py, || system.predict(&forecast))?;
    let rounds = &prediction.rounds;
    let answer = PyDict::new(py);
    answer.set_item("memory", write(&prediction.memory)?)?;
    let round_s = rounds.iter().map(|round| round.delay.total_s).collect();
    answer.set_item("round_s", frozen(py, round_s))?;
    answer.set_item("b_hz", by_round(py, rounds, |round| round.b_hz.clone())?)?;
    let shared = rounds.iter().all(|round| round.server_flop_per_s.is_some());
    let shares = |round: &PredictedRound| round.server_flop_per_s.clone().unwrap_or_default();
    let shares = shared.then(|| by_round(py, rounds, shares)).transpose()?;
    answer.set_item("server_flop_per_s", shares)?;
    let (phases, payloads) = (PyDict::new(py), PyDict::new(py));
    for (name, of) in PHASES {
        let row = |round: &PredictedRound| round.delay.devices.iter().map(of).collect();
        phases.set_item(name, by_round(py, rounds, row)?)?;
    }
    let total = |round: &PredictedRound| round.delay.devices.iter().map(Phases::total_s).collect();
    phases.set_item("total_s", by_round(py, rounds, total)?)?;
    for (name, of) in PAYLOADS {
        let row = |round: &PredictedRound| round.payloads.iter().map(of).collect();
        payloads.set_item(name, by_round(py, rounds, row)?)?;
    }
    answer.set_item("phases", phases)?;
    answer.set_item("payloads", payloads)?;
    Ok(answer)
}

fn cut_layer(scheme: &str, cut: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let missing = || bad_argument(format!("cut must be given for '{scheme}' without a plan"));
    unsigned(cut.ok_or_else(missing)?, "cut", "1..blocks")
}

/// Rayleigh draws by a seed.
pub(super) fn fading(seed: &Bound<'_, PyAny>) -> PyResult<Fading> {
    unsigned(seed, "fading_seed", "0..2**64").map(Fading::new)
}

fn allocation(bandwidth: &Bound<'_, PyAny>) -> PyResult<Allocation> {
    let named = [("optimal", Allocation::Optimal), ("even", Allocation::Even)];
    let Ok(name) = bandwidth.extract::<String>() else {
        let given = vector(bandwidth, "bandwidth")?;
        return Ok(Allocation::Given(given.as_slice()?.to_vec()));
    };
    let found = named.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, allocation)| allocation).ok_or_else(|| {
        bad_argument(format!(
            "bandwidth must be 'optimal', 'even' or numbers in Hz, got '{name}'"
        ))
    })
}

/// An array of rounds by devices.
fn by_round<'py>(
    py: Python<'py>,
    rounds: &[PredictedRound],
    row: impl Fn(&PredictedRound) -> Vec<f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let rows: Vec<_> = rounds.iter().map(row).collect();
    let array = PyArray2::from_vec2(py, &rows)?;
    array.readwrite().make_nonwriteable();
    Ok(array)
}

/// A system with all defaults filled in and every value checked.
#[pyfunction]
pub(crate) fn _system(system: &str) -> PyResult<String> {
    write(&read::<System>("system", system)?)
}
