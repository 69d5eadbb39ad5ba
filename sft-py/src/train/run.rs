use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use sft_core::Result;
use sft_core::net::{Board, Pacing, RoundPolicy, StatusPage, serve};
use sft_core::run::{
    Inputs, Progress, RoundRecord, RunConfig, RunFile, Scheme, SchemeRun, Session, image_input,
    open_model,
};

use super::config;
use super::data::{Labelled, Pair};
use super::watch::watched;
use crate::array::unsigned;
use crate::error::{bad_argument, detached};
use crate::net::{Listener, same_process, seconds};

/// The settings that decide the result as JSON, the digests of the inputs as JSON, the rounds as JSON,
/// a device's memory in bytes, what the model says as JSON, and what ended the run early.
type Answer = (String, String, Vec<String>, f64, String, Option<Py<PyAny>>);

/// The arguments that decide the result, the digests of the inputs, and the runs.
type Trained = ([Map<String, Value>; 2], Vec<SchemeRun>);

/// `sft.finetune`, of one scheme. `arrays` are training and test images where `data` names no
/// folder, and `full` their byte of full intensity. `watch` is called about every 50 ms with the
/// mini-batches done, their number, and the rounds that were finished since.
#[pyfunction]
pub(crate) fn _finetune<'py>(
    py: Python<'py>,
    config: &Bound<'py, PyDict>,
    arrays: Option<(Labelled<'py>, Labelled<'py>)>,
    full: u8,
    watch: &Bound<'py, PyAny>,
) -> PyResult<Answer> {
    let config = config::extract(config)?;
    run(py, &config, (arrays, full), watch, |inputs, told, stop| {
        let session = Session::new(&config, inputs)?.without_scheme_names();
        let runs = session.run(told, stop)?;
        Ok((decided(&session)?, runs))
    })
}

/// `sft.serve`: the same with devices that come to `listener`.
#[pyfunction]
pub(crate) fn _serve<'py>(
    py: Python<'py>,
    config: &Bound<'py, PyDict>,
    arrays: Option<(Labelled<'py>, Labelled<'py>)>,
    full: u8,
    watch: &Bound<'py, PyAny>,
    listener: &Listener,
    own: ServerSettings,
) -> PyResult<Answer> {
    same_process()?;
    let config = config::extract(config)?;
    let listener = listener.open()?;
    let policy = own.policy(config.devices)?;
    let board = Arc::new(Board::new(&config));
    let bind = |address: String| StatusPage::bind(&address, board.clone());
    let _page = detached(py, || own.status.map(bind).transpose())?;
    run(py, &config, (arrays, full), watch, |inputs, told, stop| {
        let runs = serve(&config, inputs, &listener, policy, &board, told, stop)?;
        Ok((decided(&Session::new(&config, inputs)?)?, runs))
    })
}

/// What decides the result of a session.
fn decided(session: &Session<'_>) -> Result<[Map<String, Value>; 2]> {
    Ok([session.config().deciding(), session.contents()?.clone()])
}

/// What `sft.serve` takes beside the settings of a run.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[allow(clippy::struct_excessive_bools, reason = "one for each argument")]
pub(crate) struct ServerSettings {
    #[pyo3(from_py_with = quorum_argument)]
    quorum: Option<usize>,
    wait_s: Option<f64>,
    keep_partial: bool,
    shape: bool,
    control: bool,
    even: bool,
    status: Option<String>,
}

impl ServerSettings {
    fn policy(&self, devices: usize) -> PyResult<RoundPolicy> {
        let pacing = match (self.control, self.shape) {
            (true, true) => {
                return Err(bad_argument(
                    "control must be False where shape is True".into(),
                ));
            }
            (true, false) => Pacing::Measured,
            (false, true) => Pacing::Modelled,
            (false, false) if self.even => {
                let reason = "even must be False where neither shape nor control is True";
                return Err(bad_argument(reason.into()));
            }
            (false, false) => Pacing::Off,
        };
        let wait = self.wait_s.map(|s| seconds("wait_s", s)).transpose()?;
        Ok(RoundPolicy {
            wait,
            keep_partial: self.keep_partial,
            pacing,
            even: self.even,
            ..RoundPolicy::new(self.quorum.unwrap_or(devices.div_ceil(2)))
        })
    }
}

fn quorum_argument(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    if value.is_none() {
        return Ok(None);
    }
    unsigned(value, "quorum", "1..2**64").map(Some)
}

/// Opens the inputs and trains on a thread of its own, watched from Python's.
fn run<'py>(
    py: Python<'py>,
    config: &RunConfig,
    (arrays, full): (Option<(Labelled<'py>, Labelled<'py>)>, u8),
    watch: &Bound<'py, PyAny>,
    train: impl FnOnce(&Inputs, &Told<'_>, &AtomicBool) -> Result<Trained> + Send,
) -> PyResult<Answer> {
    if config.scheme.len() != 1 {
        let count = config.scheme.len();
        return Err(bad_argument(format!("scheme must be one, got {count}")));
    }
    let arrays = arrays.map(|(train, test)| Pair::extract(train, test));
    let arrays = arrays.transpose()?;
    let (batches, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = |sender, stop: &AtomicBool| {
        let told = Told {
            sender,
            batches: &batches,
            all: &all,
        };
        train(&open(config, arrays, full)?, &told, stop)
    };
    let tell = |records: Vec<RoundRecord>| -> PyResult<()> {
        let rounds = records.iter().map(json).collect::<PyResult<Vec<_>>>()?;
        let [batches, all] = [&batches, &all].map(|count| count.load(Ordering::Relaxed));
        if all > 0 {
            watch.call1((batches, all, rounds))?;
        }
        Ok(())
    };
    let (runs, failure) = watched(py, work, tell);
    let ([settings, contents], runs) = detached(py, || runs)?;
    let failure = failure.map(|error| error.into_value(py).into_any());
    let (settings, contents) = (json(&settings)?, json(&contents)?);
    let memory = runs.first().map_or(0.0, |run| run.device_memory_bytes);
    let generated: Vec<_> = runs.iter().flat_map(|run| &run.generated).collect();
    let generated = json(&generated)?;
    let rounds = runs.iter().flat_map(|run| &run.rounds).map(json);
    let rounds = rounds.collect::<PyResult<_>>()?;
    Ok((settings, contents, rounds, memory, generated, failure))
}

/// Starts the threads that candle has of its own, as many as the environment says now.
#[pyfunction]
pub(crate) fn _start_candle() {
    candle_core::utils::barrier_pool();
}

/// `Run.save`: the contents of `run.json` as JSON, checked and written whole.
#[pyfunction]
pub(crate) fn _write_run(py: Python<'_>, path: PathBuf, run: &str) -> PyResult<()> {
    let run: RunFile = serde_json::from_str(run).map_err(|e| bad_argument(e.to_string()))?;
    detached(py, || run.write(&path))
}

fn open(config: &RunConfig, arrays: Option<Pair>, full: u8) -> Result<Inputs> {
    let Some(arrays) = arrays else {
        return Inputs::open(config);
    };
    let model = open_model(config)?;
    let input = image_input(model.as_ref())?;
    let examples = arrays.examples(full, input, config.augmentation())?;
    Inputs::new(config, model, examples)
}

/// Where the trainer leaves word for Python's thread.
struct Told<'a> {
    sender: Sender<RoundRecord>,
    batches: &'a AtomicUsize,
    all: &'a AtomicUsize,
}

impl Progress for Told<'_> {
    fn scheme(&self, _: Scheme, batches: usize) {
        self.all.store(batches, Ordering::Relaxed);
    }

    fn batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    fn round(&self, record: &RoundRecord) {
        // Nobody listens any more once the run was given up.
        let _ = self.sender.send(record.clone());
    }
}

fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| bad_argument(error.to_string()))
}
