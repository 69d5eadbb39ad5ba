use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sft_core::adapter::{Head, ModuleNames, load_peft, save_peft};
use sft_core::data::{Augment, Data, DataLayout, Examples};
use sft_core::model::{Backend, Pretrained, Vit, save_merged};
use sft_core::run::{
    Job, Outcome, RoundRecord, Scheme, Settings, Wireless, finetune, load_checkpoint,
    save_checkpoint,
};
use sft_core::{Error, Result};

use super::data::{Arrays, Source};
use super::options::Options;
use crate::error::{bad_argument, detached};

/// How often signals are looked for and progress is told.
const POLL: Duration = Duration::from_millis(50);

/// Rounds as JSON, a device's memory in bytes, and what ended the run early.
type Answer = (Vec<String>, f64, Option<Py<PyAny>>);

/// `sft.finetune`. `watch` is called about every 50 ms with the mini-batches done, their number,
/// and the rounds that were finished since.
#[pyfunction]
pub(crate) fn _finetune<'py>(
    py: Python<'py>,
    model: PathBuf,
    train: Source<'py>,
    test: Option<Source<'py>>,
    options: &Bound<'py, PyDict>,
    watch: &Bound<'py, PyAny>,
) -> PyResult<Answer> {
    let options = Options::extract_from(options)?;
    let arrays = Given::extract(train, test)?;
    let bench = detached(py, || Bench::new(&model, arrays, options))?;
    let (batches, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let count = || {
        batches.fetch_add(1, Ordering::Relaxed);
    };
    let job = bench.job(&count, &stop);
    let start = detached(py, || {
        job.validate()?;
        bench.start(&job)
    })?;
    let all = job.batches_after(start.rounds.len());
    let (sender, mut receiver) = channel();
    let mut failure = None;
    let outcome = std::thread::scope(|scope| {
        let trainer = scope.spawn(|| bench.train(&job, start, sender));
        let tell = |records: Vec<RoundRecord>| -> PyResult<()> {
            let rounds = records.iter().map(json).collect::<PyResult<Vec<_>>>()?;
            watch.call1((batches.load(Ordering::Relaxed), all, rounds))?;
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
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let outcome = detached(py, || bench.keep(outcome?))?;
    let rounds = outcome.rounds.iter().map(json).collect::<PyResult<_>>()?;
    let failure = failure.map(|error| error.into_value(py).into_any());
    let memory = detached(py, || bench.device_memory_bytes())?;
    Ok((rounds, memory, failure))
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

fn json(record: &RoundRecord) -> PyResult<String> {
    serde_json::to_string(record).map_err(|error| bad_argument(error.to_string()))
}

/// The data as Python gave it.
enum Given {
    Folder(String, String),
    Arrays(Arrays, Arrays),
}

impl Given {
    fn extract(train: Source<'_>, test: Option<Source<'_>>) -> PyResult<Self> {
        match (train, test) {
            (Source::Folder((kind, dir)), None) => Ok(Self::Folder(kind, dir)),
            (Source::Arrays((images, labels)), Some(Source::Arrays((test, test_labels)))) => {
                Ok(Self::Arrays(
                    Arrays::extract("data", &images, labels)?,
                    Arrays::extract("test", &test, test_labels)?,
                ))
            }
            _ => Err(bad_argument(
                "test must be arrays where data is, and nothing where data is a folder".into(),
            )),
        }
    }

    fn load(self, model: &Pretrained, options: &Options) -> Result<Examples> {
        let (input, augment) = (&model.input, options.augment.then(Augment::default));
        match self {
            Self::Folder(kind, dir) => {
                let unknown = |_| {
                    let accepted = "cifar100:DIR, tiny-imagenet:DIR or folder:DIR";
                    Error::argument("data", format!("must be {accepted}, got {kind}:DIR"))
                };
                let layout: DataLayout = kind.parse().map_err(unknown)?;
                layout.open(dir.as_ref(), input, augment)
            }
            Self::Arrays(train, test) => {
                let labels = train.labels().iter().chain(test.labels());
                let classes = labels.max().map_or(0, |&label| label as usize + 1);
                Ok((
                    train.data(classes, options.full, input, augment)?,
                    test.data(classes, options.full, input, None)?,
                ))
            }
        }
    }
}

/// Everything that a run refers to.
struct Bench {
    pretrained: Pretrained,
    model: Vit,
    train: Box<dyn Data + Send>,
    test: Box<dyn Data + Send>,
    partition: Vec<Vec<usize>>,
    head: Head,
    settings: Settings,
    wireless: Wireless,
    options: Options,
}

impl Bench {
    fn new(model: &Path, data: Given, options: Options) -> Result<Self> {
        // Products of this size lose more to being handed around than they gain from a second
        // thread, and every thread has a device of its own.
        gemm::set_threading_threshold(usize::MAX);
        options.checkpoint_is_due(0)?;
        let pretrained = Pretrained::open(model, options.heads).map_err(of("model"))?;
        let settings = options.settings(&pretrained.config.spec())?;
        let (train, test) = data.load(&pretrained, &options).map_err(of("data"))?;
        let partition = options.partition()?;
        let partition = partition.split(train.as_ref(), options.devices, settings.seed)?;
        let samples: Vec<usize> = partition.iter().map(Vec::len).collect();
        let (classes, rank) = (train.classes(), settings.lora.rank());
        let cost = pretrained.config.transformer(classes, rank);
        let backend = Backend::Engine {
            checkpointing: options.gradient_checkpointing,
        };
        Ok(Self {
            model: Vit::new(&pretrained.config, &pretrained.weights, backend)?,
            head: match &pretrained.head {
                Some(head) if head.classes() == classes => head.clone(),
                _ => Head::new(classes, pretrained.config.hidden_size, settings.seed),
            },
            wireless: Wireless::new(cost, options.channel()?, &samples, &settings)?,
            pretrained,
            train,
            test,
            partition,
            settings,
            options,
        })
    }

    fn job<'a>(&'a self, on_batch: &'a (dyn Fn() + Sync), stop: &'a AtomicBool) -> Job<'a> {
        Job {
            model: &self.model,
            base: Some(&self.pretrained),
            head: &self.head,
            train: self.train.as_ref(),
            partition: &self.partition,
            device_cuts: self.options.device_cuts.as_deref(),
            test: self.test.as_ref(),
            settings: self.settings,
            wireless: &self.wireless,
            on_batch,
            stop,
        }
    }

    /// The run before its first round, or where a checkpoint left it.
    fn start(&self, job: &Job<'_>) -> Result<Outcome> {
        if let Some(folder) = &self.options.resume {
            let configuration = self.options.configuration()?;
            return load_checkpoint(&self.checkpoint(folder), &configuration, &self.partition)
                .map_err(of("resume"));
        }
        let start = job.start()?;
        let Some(folder) = &self.options.adapters else {
            return Ok(start);
        };
        let spec = self.model.spec();
        let (lora, adapters) = load_peft(folder, spec, Some(&self.head)).map_err(of("adapters"))?;
        if (lora.rank(), lora.targets()) != (job.settings.lora.rank(), job.settings.lora.targets())
            || lora.alpha().to_bits() != job.settings.lora.alpha().to_bits()
        {
            let reason = format!(
                "rank, alpha and targets must be those of the adapters: {}, {}, {}",
                lora.rank(),
                lora.alpha(),
                lora.targets().modules(spec)
            );
            return Err(of("adapters")(Error::file(folder, reason)));
        }
        Ok(Outcome { adapters, ..start })
    }

    fn train(
        &self,
        job: &Job<'_>,
        start: Outcome,
        sender: std::sync::mpsc::Sender<RoundRecord>,
    ) -> Result<Outcome> {
        if let Some(out) = &self.options.out {
            std::fs::create_dir_all(out).map_err(|error| of("out")(Error::file(out, error)))?;
        }
        let outcome = finetune(job, start, &mut |run| {
            // Nobody listens any more once the run was given up.
            run.rounds.last().map(|record| sender.send(record.clone()));
            let last = self.options.checkpoint_every.is_some() && job.is_finished(run);
            if last || self.options.checkpoint_is_due(run.rounds.len())? {
                self.save(run)?;
            }
            Ok(())
        })?;
        if !job.is_finished(&outcome) && !outcome.rounds.is_empty() {
            self.save(&outcome)?;
        }
        Ok(outcome)
    }

    /// Keeps a checkpoint, where a folder is given.
    fn save(&self, run: &Outcome) -> Result<()> {
        let Some(out) = &self.options.out else {
            return Ok(());
        };
        let configuration = self.options.configuration()?;
        save_checkpoint(&self.checkpoint(out), &configuration, &self.partition, run)
            .map_err(of("out"))
    }

    /// The file of a checkpoint, named as `vit_finetune` does.
    fn checkpoint(&self, folder: &Path) -> PathBuf {
        folder.join(format!(
            "checkpoint-{}.safetensors",
            self.settings.scheme.name()
        ))
    }

    /// Writes what was tuned, where a folder is given and a round was finished.
    fn keep(&self, outcome: Outcome) -> Result<Outcome> {
        let Some(out) = self
            .options
            .out
            .as_ref()
            .filter(|_| !outcome.rounds.is_empty())
        else {
            return Ok(outcome);
        };
        let (lora, adapters) = (self.settings.lora, &outcome.adapters);
        if self.settings.scheme == Scheme::FlFull {
            save_merged(&out.join("merged"), &self.pretrained, None, adapters)
                .map_err(of("out"))?;
        } else {
            let names = ModuleNames::default();
            save_peft(
                &out.join("adapters"),
                self.model.spec(),
                lora,
                adapters,
                names,
            )
            .map_err(of("out"))?;
        }
        Ok(outcome)
    }

    /// Memory of the device that holds the most.
    fn device_memory_bytes(&self) -> Result<f64> {
        let deepest = self.options.device_cuts.iter().flatten().copied().max();
        let cut = deepest.unwrap_or(self.settings.cut);
        self.wireless.device_memory_bytes(&self.settings, cut)
    }
}

/// Names the argument that a file was given by.
fn of(argument: &str) -> impl Fn(Error) -> Error + '_ {
    move |error| match error {
        Error::File { path, reason } => Error::File {
            path: format!("{argument} {path}"),
            reason,
        },
        other => other,
    }
}
