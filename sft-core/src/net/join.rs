//! A device as a process of its own.

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::files::{Cache, HalfFile, Incoming, WEIGHTS, missing};
use super::job::DeviceJob;
use super::memory::CodecMemory;
use super::say::{refuse, send};
use super::{Identity, Link, LinkLimits, connect};
use crate::data::Data;
use crate::freed;
use crate::kernels::one_thread_per_product;
use crate::model::{Backend, Model, Pretrained};
use crate::parallel::with_threads;
use crate::run::{RunConfig, open_model};
use crate::split::message::{Begin, Message};
use crate::split::{Connection, DevicePart, DeviceSide, LocalData, Traffic, unexpected};
use crate::{Error, Result};

/// How a device finds its server, and what it has of its own.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// The server, `host:port`.
    pub server: String,
    /// The folder with this device's certificate, its key and the authority; without it the server
    /// must be on this machine.
    pub certs: Option<PathBuf>,
    /// The data set that the device's share is taken from, as a [`RunConfig`] names it.
    pub data: Option<String>,
    /// The whole model, where the device has it: its half is then not sent.
    pub model: Option<PathBuf>,
    /// The folder that keeps halves of models for the next time.
    pub cache: PathBuf,
    /// Threads for the device's half of a step.
    pub threads: usize,
    /// How long the device looks for a server that it does not find.
    pub patience: Duration,
}

/// Opens a device's training data for a model.
pub type OpenData<'a> =
    dyn Fn(&RunConfig, &dyn Pretrained) -> Result<Box<dyn Data + Send>> + Sync + 'a;

/// What there is to tell while a device takes part, as a line of text for people.
#[derive(Debug)]
pub enum DeviceNews<'a> {
    /// It has its half of the model and its share of the data.
    Ready(&'a DeviceJob),
    /// It showed activations for a round's basis, and this crossed.
    Calibrated(u32, Traffic),
    /// A round is over, and this crossed in it.
    Round(u32, Traffic),
    /// The link broke, for this reason; it is tried again after a while.
    Lost(&'a Error, Duration),
}

impl Display for DeviceNews<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        match self {
            Self::Ready(job) => {
                let (device, samples, blocks) = (job.device, job.samples.len(), job.cut);
                let sent = mb(job.files.iter().map(|file| file.bytes).sum());
                let modelled = job.device_memory_bytes / 1e6;
                write!(
                    f,
                    "device {device} with {samples} samples and {blocks} blocks ({sent:.2} MB); \
                     memory by the model {modelled:.1} MB"
                )
            }
            Self::Calibrated(round, traffic) => {
                let up = mb(traffic.up);
                write!(
                    f,
                    "round {round}: {up:.3} MB of activations shown for its basis"
                )
            }
            Self::Round(round, traffic) => {
                let (up, down) = (mb(traffic.up), mb(traffic.down));
                let adapters = mb(traffic.adapter_up + traffic.adapter_down);
                write!(
                    f,
                    "round {round}: {up:.3} MB up, {down:.3} MB down across the cut; adapters \
                     {adapters:.3} MB"
                )
            }
            Self::Lost(reason, again) => {
                write!(f, "{reason}; again in {:.1} s", again.as_secs_f64())
            }
        }
    }
}

/// Takes part in a run as one of its devices until the run is over: gets its half of the model, then
/// a plan for every round that it is drawn for. A link that breaks is made anew.
///
/// # Errors
/// A server that refuses this device or is not found for too long, data or files that are not what
/// they should be, values that are not finite, or a run that was stopped.
pub fn join(
    options: &JoinOptions,
    open_data: &OpenData<'_>,
    tell: &(dyn Fn(DeviceNews<'_>) + Sync),
    stop: &AtomicBool,
) -> Result<()> {
    one_thread_per_product();
    let identity = options.certs.as_deref().map(Identity::open).transpose()?;
    let mut device = Member {
        options,
        open_data,
        tell,
        stop,
        memory: CodecMemory::new(),
        has: None,
    };
    let mut wait = Wait::new(options.patience);
    loop {
        let lost = match connect(&options.server, identity.as_ref(), &LinkLimits::default()) {
            Ok(link) => match device.serve(&link, &mut wait) {
                Ok(()) => return Ok(()),
                Err(error @ Error::Link { .. }) => error,
                Err(error) => {
                    refuse(&link, &error);
                    return Err(error);
                }
            },
            Err(error @ Error::Link { .. }) => error,
            Err(error) => return Err(error),
        };
        let Some(again) = wait.next() else {
            return Err(lost);
        };
        tell(DeviceNews::Lost(&lost, again));
        sleep(again, stop)?;
    }
}

/// Waits that grow from one failure to the next, for so long in all.
struct Wait {
    patience: Duration,
    lost: Option<Instant>,
    next: Duration,
}

impl Wait {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    fn new(patience: Duration) -> Self {
        Self {
            patience,
            lost: None,
            next: Self::FIRST,
        }
    }

    /// The server was there.
    fn found(&mut self) {
        *self = Self::new(self.patience);
    }

    /// How long to wait now; none once it was too long.
    fn next(&mut self) -> Option<Duration> {
        let lost = *self.lost.get_or_insert_with(Instant::now);
        let next = self.next;
        self.next = (2 * next).min(Self::LONGEST);
        (lost.elapsed() + next <= self.patience).then_some(next)
    }
}

/// Sleeps unless it is to stop.
fn sleep(time: Duration, stop: &AtomicBool) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        check(stop)?;
        std::thread::sleep(Duration::from_millis(20).min(time));
    }
    check(stop)
}

fn check(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Stopped);
    }
    Ok(())
}

/// A job with the half of the model and the data that it names.
type Equipped = (DeviceJob, Box<dyn Model>, Box<dyn Data + Send>);

/// A device over its links and rounds.
struct Member<'a> {
    options: &'a JoinOptions,
    open_data: &'a OpenData<'a>,
    tell: &'a (dyn Fn(DeviceNews<'_>) + Sync),
    stop: &'a AtomicBool,
    memory: CodecMemory,
    /// What it was told, and has by now.
    has: Option<Equipped>,
}

impl Member<'_> {
    /// Serves over one link until the run is over.
    fn serve(&mut self, link: &Link, wait: &mut Wait) -> Result<()> {
        let number = self.has.as_ref().map(|(job, ..)| job.device);
        send(link, &Message::Join(number))?;
        match self.receive(link)? {
            Message::Job(json) => self.prepare(DeviceJob::from_json(&json)?, link)?,
            Message::Leave(_) => return Ok(()),
            other => return Err(unexpected(&other, "a job")),
        }
        send(link, &Message::Ready)?;
        wait.found();
        loop {
            match self.receive(link)? {
                Message::Begin(begin) => self.round(begin, link)?,
                Message::Leave(_) => return Ok(()),
                other => return Err(unexpected(&other, "a round")),
            }
        }
    }

    /// Opens what the job names, and gets what is missing.
    fn prepare(&mut self, job: DeviceJob, link: &Link) -> Result<()> {
        if self.has.as_ref().is_some_and(|(had, ..)| *had == job) {
            return Ok(());
        }
        job.files.iter().try_for_each(HalfFile::check)?;
        let folder = Cache::new(&self.options.cache).folder(&job.files)?;
        self.own_half(&job, &folder)?;
        self.fetch(&job, &folder, link)?;
        let config = job.config(self.options.data.as_deref(), &folder)?;
        let mut pretrained = open_model(&config)?;
        if let Some(input) = &job.image_input {
            pretrained.take_image_input(input);
        }
        let data = (self.open_data)(&config, pretrained.as_ref())?;
        check_data(&job, data.as_ref())?;
        let checkpointing = config.gradient_checkpointing;
        let model = pretrained.model(Backend::Engine { checkpointing })?;
        drop(pretrained);
        freed::give_back();
        (self.tell)(DeviceNews::Ready(&job));
        self.has = Some((job, model, data));
        Ok(())
    }

    /// Takes the weights of the half out of the whole model, where that is here and it is the same.
    fn own_half(&self, job: &DeviceJob, folder: &Path) -> Result<()> {
        let weights = job.files.iter().find(|file| file.name == WEIGHTS);
        let (Some(path), Some(weights)) = (&self.options.model, weights) else {
            return Ok(());
        };
        if missing(folder, std::slice::from_ref(weights)).is_empty() {
            return Ok(());
        }
        let config = RunConfig {
            model: Some(path.clone()),
            ..RunConfig::default()
        };
        let own = folder.join(".own");
        open_model(&config)?.save_half(&own, job.cut)?;
        let same = missing(&own, std::slice::from_ref(weights)).is_empty();
        let moved = std::fs::rename(own.join(WEIGHTS), folder.join(WEIGHTS));
        let _ = std::fs::remove_dir_all(&own);
        if !same {
            let reason = "must be the model of the run: its first blocks are others";
            return Err(Error::argument("model", reason));
        }
        moved.map_err(|e| Error::file(folder, e))
    }

    /// Gets the files that are not there.
    fn fetch(&self, job: &DeviceJob, folder: &Path, link: &Link) -> Result<()> {
        let wanted = missing(folder, &job.files);
        let names = wanted.iter().map(|file| file.name.clone()).collect();
        send(link, &Message::Want(names))?;
        for file in wanted {
            let mut incoming = Incoming::new(folder, file)?;
            loop {
                match self.receive(link)? {
                    Message::FilePart(part) if part.name == file.name => {
                        if incoming.take(part.offset, &part.bytes)? {
                            break;
                        }
                    }
                    other => return Err(unexpected(&other, "the next part of a file")),
                }
            }
            incoming.finish()?;
        }
        Ok(())
    }

    /// Takes part in a round.
    fn round(&mut self, begin: Begin, link: &Link) -> Result<()> {
        let Some((job, model, data)) = &self.has else {
            return Err(Error::protocol("began a round before it sent a job"));
        };
        self.memory.begin(begin.since)?;
        link.set_rate((begin.uplink_bit_s > 0).then_some(begin.uplink_bit_s as f64));
        let mut side = DeviceSide {
            number: job.device,
            model: model.as_ref(),
            head: job.head.as_ref(),
            local: LocalData {
                data: data.as_ref(),
                samples: &job.samples,
                on_batch: &|| (),
                stop: self.stop,
            },
            codecs: self.memory.codecs.take(),
        };
        let mut connection = Connection::new(link);
        let done = with_threads(self.options.threads, || side.round(&mut connection));
        self.memory.codecs = side.codecs;
        let (done, traffic) = (done?, connection.traffic());
        self.memory.end(begin.round);
        (self.tell)(match done {
            DevicePart::Calibrated => DeviceNews::Calibrated(begin.round, traffic),
            DevicePart::Trained(_) => DeviceNews::Round(begin.round, traffic),
        });
        Ok(())
    }

    /// The next message, unless it is to stop.
    fn receive(&self, link: &Link) -> Result<Message> {
        loop {
            check(self.stop)?;
            let until = Instant::now() + Duration::from_millis(200);
            if let Some(bytes) = link.receive_until(until)? {
                return Message::decode(&bytes);
            }
        }
    }
}

/// Checks the device's data against what the run is about.
fn check_data(job: &DeviceJob, data: &dyn Data) -> Result<()> {
    let (classes, samples) = (data.classes(), data.len());
    if classes != job.classes {
        let wanted = job.classes;
        let reason = format!("must have the {wanted} classes of the run, got {classes}");
        return Err(Error::argument("data", reason));
    }
    match job.samples.iter().max() {
        Some(&last) if last < samples => Ok(()),
        last => {
            let last = last.map_or(0, |last| last + 1);
            let reason = format!("must have the {last} samples of the run, got {samples}");
            Err(Error::argument("data", reason))
        }
    }
}
