use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;
use sft_core::{
    Augment, Data, DataLayout, Error, Examples, Head, Job, ModuleNames, Outcome, Pretrained,
    Result, RoundRecord, Scheme, Settings, Vit, Wireless, finetune, load_peft, save_merged,
    save_peft,
};

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
    options: Options,
    watch: &Bound<'py, PyAny>,
) -> PyResult<Answer> {
    let arrays = Given::extract(train, test)?;
    let bench = detached(py, || Bench::new(&model, arrays, options))?;
    let (batches, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let count = || {
        batches.fetch_add(1, Ordering::Relaxed);
    };
    let job = bench.job(&count, &stop);
    let all = detached(py, || job.validate().map(|()| job.batches_after(0)))?;
    let (sender, mut receiver) = channel();
    let mut failure = None;
    let outcome = std::thread::scope(|scope| {
        let trainer = scope.spawn(|| bench.train(&job, sender));
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
    fn new(model: &std::path::Path, data: Given, options: Options) -> Result<Self> {
        // Products of this size lose more to being handed around than they gain from a second
        // thread, and every thread has a device of its own.
        gemm::set_threading_threshold(usize::MAX);
        let settings = options.settings()?;
        let pretrained = Pretrained::open(model, options.heads)?;
        let (train, test) = data.load(&pretrained, &options)?;
        let partition = options.partition()?;
        let partition = partition.split(train.as_ref(), options.devices, settings.seed)?;
        let samples: Vec<usize> = partition.iter().map(Vec::len).collect();
        let (classes, rank) = (train.classes(), settings.lora.rank());
        let cost = pretrained.config.transformer(classes, rank);
        Ok(Self {
            model: Vit::new(&pretrained.config, &pretrained.weights)?,
            head: match &pretrained.head {
                Some(head) if head.classes() == classes => head.clone(),
                _ => Head::new(classes, pretrained.config.hidden_size, settings.seed),
            },
            wireless: Wireless::new(cost, options.channel(), &samples, &settings)?,
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

    fn train(
        &self,
        job: &Job<'_>,
        sender: std::sync::mpsc::Sender<RoundRecord>,
    ) -> Result<Outcome> {
        let mut start = job.start()?;
        if let Some(folder) = &self.options.adapters {
            let (lora, adapters) = load_peft(folder, &self.model, Some(&self.head))?;
            if (lora.rank(), lora.targets())
                != (job.settings.lora.rank(), job.settings.lora.targets())
                || lora.alpha().to_bits() != job.settings.lora.alpha().to_bits()
            {
                let reason = format!(
                    "rank, alpha and targets must be those of the adapters: {}, {}, {}",
                    lora.rank(),
                    lora.alpha(),
                    lora.targets()
                );
                return Err(Error::file(folder, reason));
            }
            start.adapters = adapters;
        }
        finetune(job, start, &mut |run| {
            // Nobody listens any more once the run was given up.
            run.rounds.last().map(|record| sender.send(record.clone()));
            Ok(())
        })
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
            save_merged(&out.join("merged"), &self.pretrained, None, adapters)?;
        } else {
            let names = ModuleNames::default();
            save_peft(&out.join("adapters"), &self.model, lora, adapters, names)?;
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
