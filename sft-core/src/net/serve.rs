//! The server of a run whose devices are other processes.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::control::{Channel, Control};
use super::devices::{Devices, RoundPolicy};
use super::files::{PART_BYTES, files};
use super::job::DeviceJob;
use super::say::{leave, refuse, send};
use super::status::{Board, DeviceState};
use super::{Link, Listener};
use crate::run::{Inputs, Progress, RoundRecord, RunConfig, Scheme, SchemeRun, Session, Setup};
use crate::split::message::{FilePart, Message};
use crate::split::{LabelSide, unexpected};
use crate::{Error, Result};

/// How long a device may take to say what it wants, and to get it.
const JOINING: Duration = Duration::from_mins(10);
/// How often the listener looks whether the run is over.
const LOOK: Duration = Duration::from_millis(100);
/// What devices are told at the end.
const OVER: &str = "the run is over";
/// The names of devices' certificates, before the number.
const NAME: &str = "device-";

/// Serves a run to its devices until it is over: `device-0` to `device-(N - 1)` by their certificates, or
/// without certificates whoever comes. The run is that of [`Session::run`] with the same configuration: equal in every bit of
/// what is trained, and in its files.
///
/// A checkpoint is written after every round, or every so many as the configuration says.
///
/// # Errors
/// Settings that do not fit a network, and all that a session fails with.
pub fn serve(
    config: &RunConfig,
    inputs: &Inputs,
    listener: &Listener,
    policy: RoundPolicy,
    board: &Board,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<Vec<SchemeRun>> {
    let mut config = config.clone();
    config.checkpoint_every.get_or_insert(1);
    let session = Session::new(&config, inputs)?;
    let setup = session.setup(scheme(&config)?)?;
    let jobs = Jobs::new(inputs, &session, &setup)?;
    let count = config.devices;
    Error::require(
        (1..=count).contains(&policy.quorum),
        "quorum",
        policy.quorum,
        &format!("in 1..={count}"),
    )?;
    let channel = Channel {
        wireless: &setup.wireless,
        settings: &setup.settings,
        cuts: jobs.0.iter().map(|(job, _)| job.cut).collect(),
    };
    let control = Control::new(channel, policy.pacing, policy.even, listener.meter());
    let devices = Devices::new(&setup.settings, control, count, policy, board)?;
    let door = Door {
        jobs: &jobs,
        devices: &devices,
        board,
        joining: Mutex::default(),
        over: AtomicBool::new(false),
        stop,
    };
    std::thread::scope(|scope| {
        let door = &door;
        scope.spawn(move || {
            while !door.over.load(Ordering::Relaxed) {
                if let Ok(Some(link)) = listener.accept_until(Instant::now() + LOOK) {
                    scope.spawn(move || door.welcome(link));
                }
            }
        });
        let watched = Watched { board, progress };
        let runs = session.with_fleet(&devices).run(&watched, stop);
        door.over.store(true, Ordering::Relaxed);
        board.finish();
        if !stop.load(Ordering::Relaxed) {
            devices.dismiss(OVER);
        }
        runs
    })
}

/// The one scheme of the run, which must split the model.
fn scheme(config: &RunConfig) -> Result<Scheme> {
    let [scheme] = config.scheme[..] else {
        let count = config.scheme.len();
        let reason = format!("must be one for devices on a network, got {count}");
        return Err(Error::argument("scheme", reason));
    };
    if scheme.is_split() {
        return Ok(scheme);
    }
    let name = scheme.name();
    let reason = format!("must be sft, sft-raw or sl for devices on a network, got {name}");
    Err(Error::argument("scheme", reason))
}

/// Tells a board and another of a run.
struct Watched<'a> {
    board: &'a Board,
    progress: &'a dyn Progress,
}

impl Progress for Watched<'_> {
    fn scheme(&self, scheme: Scheme, batches: usize) {
        self.progress.scheme(scheme, batches);
    }

    fn batch(&self) {
        self.progress.batch();
    }

    fn round(&self, record: &RoundRecord) {
        self.board.record(record);
        self.progress.round(record);
    }
}

/// What each device is told when it joins, and where the files of its half are.
struct Jobs(Vec<(DeviceJob, PathBuf)>);

impl Jobs {
    fn new(inputs: &Inputs, session: &Session<'_>, setup: &Setup) -> Result<Self> {
        let config = session.config();
        let missing = || {
            Error::argument(
                "out",
                "must be given: the run is kept there, round by round",
            )
        };
        let out = config.folder().ok_or_else(missing)?;
        let pretrained = inputs.pretrained.as_ref();
        let wireless = setup.wireless.clone().with_mapped_blocks()?;
        let cuts = config.device_cuts.clone();
        let cuts = cuts.unwrap_or_else(|| vec![config.cut; config.devices]);
        let job = |(device, samples): (usize, &Vec<usize>)| {
            let cut = cuts[device];
            let folder = out.join(format!("half-{cut}"));
            if !cuts[..device].contains(&cut) {
                pretrained.save_half(&folder, cut)?;
            }
            let job = DeviceJob {
                device: device as u32,
                settings: DeviceJob::settings(config),
                cut,
                samples: samples.clone(),
                classes: inputs.train.classes(),
                image_input: pretrained.image_input().cloned(),
                head: (config.labels == LabelSide::Device).then(|| setup.head.clone()),
                files: files(&folder)?,
                device_memory_bytes: wireless.device_memory_bytes(&setup.settings, cut)?,
            };
            Ok((job, folder))
        };
        let jobs = session.partition().iter().enumerate().map(job);
        Ok(Self(jobs.collect::<Result<_>>()?))
    }
}

/// Where devices come in.
struct Door<'a> {
    jobs: &'a Jobs,
    devices: &'a Devices<'a>,
    board: &'a Board,
    /// The numbers of those that come in just now.
    joining: Mutex<Vec<usize>>,
    /// Whether the run is over, or was stopped.
    over: AtomicBool,
    stop: &'a AtomicBool,
}

impl Door<'_> {
    /// Gives a device what it needs; one that does what it should not is told so.
    fn welcome(&self, link: Link) {
        let link = Arc::new(link);
        let until = Instant::now() + JOINING;
        let joined = self.join(&link, until);
        if self.over.load(Ordering::Relaxed) {
            // One that is stopped goes on later, and its devices wait.
            if !self.stop.load(Ordering::Relaxed) {
                self.devices.dismiss(OVER);
                leave(&link, OVER);
            }
        } else if let Err(error) = joined {
            tracing::warn!(peer = link.peer(), %error, "device refused");
            refuse(&link, &error);
        }
    }

    fn join(&self, link: &Arc<Link>, until: Instant) -> Result<()> {
        let claimed = match receive(link, until, &self.over)? {
            Message::Join(claimed) => claimed,
            other => return Err(unexpected(&other, "that it joins")),
        };
        let device = self.number(link.peer(), claimed)?;
        let joined = self.equip(link, device, until);
        self.joining().retain(|&joining| joining != device);
        joined
    }

    /// Sends what a device needs to know and does not have.
    fn equip(&self, link: &Arc<Link>, device: usize, until: Instant) -> Result<()> {
        self.board
            .device(device, |device| device.state = DeviceState::Joining);
        let (job, folder) = &self.jobs.0[device];
        send(link, &Message::Job(job.to_json()?))?;
        let names = match receive(link, until, &self.over)? {
            Message::Want(names) => names,
            // It has been here before.
            Message::Ready => {
                self.devices.add(device, link.clone());
                return Ok(());
            }
            other => return Err(unexpected(&other, "which files it wants")),
        };
        for name in names {
            let Some(file) = job.files.iter().find(|file| file.name == name) else {
                return Err(Error::protocol(format!(
                    "wants a file {name:?} that there is not"
                )));
            };
            let path = folder.join(&file.name);
            let mut open = File::open(&path).map_err(|e| Error::file(&path, e))?;
            let mut offset = 0;
            loop {
                let mut bytes = Vec::with_capacity(PART_BYTES);
                let read = open
                    .by_ref()
                    .take(PART_BYTES as u64)
                    .read_to_end(&mut bytes);
                let count = read.map_err(|e| Error::file(&path, e))? as u64;
                let name = name.clone();
                send(
                    link,
                    &Message::FilePart(FilePart {
                        name,
                        offset,
                        bytes,
                    }),
                )?;
                offset += count;
                if offset >= file.bytes {
                    break;
                }
            }
        }
        match receive(link, until, &self.over)? {
            Message::Ready => {
                self.devices.add(device, link.clone());
                Ok(())
            }
            other => Err(unexpected(&other, "that it is ready")),
        }
    }

    fn joining(&self) -> MutexGuard<'_, Vec<usize>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a device by its certificate's name, or without one what it says, or the first that is
    /// free.
    fn number(&self, peer: &str, claimed: Option<u32>) -> Result<usize> {
        let count = self.jobs.0.len();
        let claimed = claimed.map(|number| number as usize);
        let mut joining = self.joining();
        let number = if peer.is_empty() {
            let full =
                || Error::protocol(format!("is one more than the {count} devices of the run"));
            claimed
                .or_else(|| self.devices.free(&joining))
                .ok_or_else(full)?
        } else {
            let digits = peer
                .strip_prefix(NAME)
                .and_then(|number| number.parse().ok());
            digits.ok_or_else(|| {
                Error::protocol(format!(
                    "is {peer:?}, devices are device-0 to device-{}",
                    count - 1
                ))
            })?
        };
        if claimed.is_some_and(|claimed| claimed != number) {
            let claimed = claimed.unwrap_or_default();
            return Err(Error::protocol(format!(
                "says it is device {claimed}, its certificate that it is device {number}"
            )));
        }
        if number >= count {
            return Err(Error::protocol(format!(
                "is device {number}, the run has devices 0 to {}",
                count - 1
            )));
        }
        joining.push(number);
        Ok(number)
    }
}

fn receive(link: &Link, until: Instant, over: &AtomicBool) -> Result<Message> {
    loop {
        if over.load(Ordering::Relaxed) {
            return Err(Error::protocol("came when the run was over"));
        }
        if Instant::now() >= until {
            return Err(Error::protocol("took too long to join"));
        }
        if let Some(bytes) = link.receive_until(until.min(Instant::now() + LOOK))? {
            return Message::decode(&bytes);
        }
    }
}
