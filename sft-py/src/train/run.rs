use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::{Map, Value};
use sft_core::Result;
use sft_core::run::{
    Inputs, Progress, RoundRecord, RunConfig, RunFile, Scheme, SchemeRun, Session, image_input,
    open_model,
};

use super::config;
use super::data::{Labelled, Pair};
use crate::error::{bad_argument, detached};

/// How often signals are looked for and progress is told.
const POLL: Duration = Duration::from_millis(50);

/// The settings that decide the result as JSON, the digests of the inputs as JSON, the rounds as JSON,
/// a device's memory in bytes, what the model says as JSON, and what ended the run early.
type Answer = (String, String, Vec<String>, f64, String, Option<Py<PyAny>>);

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
    if config.scheme.len() != 1 {
        let count = config.scheme.len();
        return Err(bad_argument(format!("scheme must be one, got {count}")));
    }
    let arrays = arrays.map(|(train, test)| Pair::extract(train, test));
    let arrays = arrays.transpose()?;
    let (batches, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (sender, mut receiver) = channel();
    let stop = AtomicBool::new(false);
    let mut failure = None;
    let runs = std::thread::scope(|scope| {
        let told = Told {
            sender,
            batches: &batches,
            all: &all,
        };
        let (config, stop) = (&config, &stop);
        let trainer = scope.spawn(move || train(config, arrays, full, &told, stop));
        let tell = |records: Vec<RoundRecord>| -> PyResult<()> {
            let rounds = records.iter().map(json).collect::<PyResult<Vec<_>>>()?;
            let [batches, all] = [&batches, &all].map(|count| count.load(Ordering::Relaxed));
            if all > 0 {
                watch.call1((batches, all, rounds))?;
            }
            Ok(())
        };
        loop {
            let (records, ended) = py.detach(|| next(&mut receiver));
            if failure.is_none() {
                failure = py.check_signals().and_then(|()| tell(records)).err();
                stop.store(failure.is_some(), Ordering::Relaxed);
            }
            if ended {
                break py.detach(|| trainer.join());
            }
        }
    });
    let runs = runs.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (contents, runs) = detached(py, || runs)?;
    let failure = failure.map(|error| error.into_value(py).into_any());
    let (settings, contents) = (json(&config.deciding())?, json(&contents)?);
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

fn train(
    config: &RunConfig,
    arrays: Option<Pair>,
    full: u8,
    told: &Told<'_>,
    stop: &AtomicBool,
) -> Result<(Map<String, Value>, Vec<SchemeRun>)> {
    let inputs = match arrays {
        None => Inputs::open(config)?,
        Some(arrays) => {
            let model = open_model(config)?;
            let input = image_input(model.as_ref())?;
            let examples = arrays.examples(full, input, config.augmentation())?;
            Inputs::new(config, model, examples)?
        }
    };
    let session = Session::new(config, &inputs)?.without_scheme_names();
    let runs = session.run(told, stop)?;
    Ok((session.contents()?.clone(), runs))
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

/// The rounds finished within a moment, and whether there will be no more.
fn next(receiver: &mut Receiver<RoundRecord>) -> (Vec<RoundRecord>, bool) {
    match receiver.recv_timeout(POLL) {
        Ok(first) => (
            std::iter::once(first).chain(receiver.try_iter()).collect(),
            false,
        ),
        Err(RecvTimeoutError::Timeout) => (Vec::new(), false),
        Err(RecvTimeoutError::Disconnected) => (Vec::new(), true),
    }
}

fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| bad_argument(error.to_string()))
}
