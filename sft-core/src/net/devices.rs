//! The devices of a run, as the server sees them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Link;
use super::control::{Control, Done, Pacing};
use super::say::{leave, refuse, send};
use super::status::{Board, DeviceState, DeviceStatus};
use super::turns::Turns;
use crate::freed;
use crate::run::{Call, Fleet, Settings};
use crate::split::message::{Begin, Message};
use crate::split::{Serve, Traffic, unexpected};
use crate::{Error, Result};

/// How often a wait looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// What a device that is late has to say what it did so far.
const GRACE: Duration = Duration::from_secs(10);

/// When rounds begin, and when they count.
#[derive(Clone, Copy, Debug)]
pub struct RoundPolicy {
    /// Devices that must end a round for it to count, or all that are drawn for it where these are fewer.
    pub quorum: usize,
    /// How long the first round waits for all of its devices before it begins with a quorum; for ever
    /// where there is none.
    pub wait: Option<Duration>,
    /// Whether a device that is late may end its round where it is, to be averaged by the samples that it
    /// has seen; else nothing of it is.
    pub keep_partial: bool,
    /// Which rates links are held to.
    pub pacing: Pacing,
    /// Whether each link has the same share of the band then, and not the one that P2 gives it for what its
    /// device moved in its last round.
    pub even: bool,
}

impl RoundPolicy {
    /// Rounds that count with so many devices; the first waits for all of its own, who is late is
    /// left out, and links are as fast as the network.
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            wait: None,
            keep_partial: false,
            pacing: Pacing::Off,
            even: false,
        }
    }
}

/// The links to the devices that are there.
pub(super) struct Devices<'a> {
    links: Mutex<Vec<Option<Arc<Link>>>>,
    changed: Condvar,
    policy: RoundPolicy,
    /// What a device has for its part of a round.
    deadline: Option<Duration>,
    turns: Turns,
    board: &'a Board,
    control: Control<'a>,
    /// Whether a round was begun.
    begun: AtomicBool,
}

impl<'a> Devices<'a> {
    /// No device is there yet.
    pub(super) fn new(
        settings: &Settings,
        control: Control<'a>,
        count: usize,
        policy: RoundPolicy,
        board: &'a Board,
    ) -> Result<Self> {
        Ok(Self {
            links: Mutex::new((0..count).map(|_| None).collect()),
            changed: Condvar::new(),
            policy,
            deadline: (settings.deadline_s).and_then(|s| Duration::try_from_secs_f64(s).ok()),
            turns: Turns::new(settings.threads.min(count), settings.threads)?,
            board,
            control,
            begun: AtomicBool::new(false),
        })
    }

    /// A device has all that it needs; a link that it had before is closed.
    pub(super) fn add(&self, device: usize, link: Arc<Link>) {
        let before = self.lock()[device].replace(link);
        if let Some(before) = before {
            before.close("the device is back");
        }
        self.board.device(device, DeviceStatus::arrive);
        self.changed.notify_all();
    }

    /// The first number that no device has and that is not `taken`, for a device without a name.
    pub(super) fn free(&self, taken: &[usize]) -> Option<usize> {
        let links = self.lock();
        (0..links.len()).find(|device| links[*device].is_none() && !taken.contains(device))
    }

    /// Tells all devices that the run is over.
    pub(super) fn dismiss(&self, reason: &str) {
        let links: Vec<_> = self.lock().iter_mut().filter_map(Option::take).collect();
        for link in &links {
            leave(link, reason);
        }
    }

    /// Whether a device is there; one that was lost, or speaks out of turn, is let go.
    fn is_here(&self, device: usize) -> bool {
        let Some(link) = self.link(device) else {
            return false;
        };
        let said = link.receive_until(Instant::now());
        let error = match said {
            Ok(None) => return true,
            Ok(Some(bytes)) => match Message::decode(&bytes) {
                Ok(message) => unexpected(&message, "nothing before a round"),
                Err(error) => error,
            },
            Err(error) => error,
        };
        self.let_go(device, &link, &error);
        false
    }

    /// Ends the link of a device that did what it should not, and tells it why.
    fn let_go(&self, device: usize, link: &Arc<Link>, error: &Error) {
        refuse(link, error);
        let mut links = self.lock();
        if links[device]
            .as_ref()
            .is_some_and(|held| Arc::ptr_eq(held, link))
        {
            links[device] = None;
        }
        drop(links);
        self.board.lost(device, error);
    }

    fn link(&self, device: usize) -> Option<Arc<Link>> {
        self.lock().get(device).cloned().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Arc<Link>>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The messages of one device's part of a round.
    fn carry(&self, call: Call, link: &Link, side: &mut (dyn Serve + Send)) -> Result<Traffic> {
        let rates = self.control.rates(call.device);
        link.set_rate(rates.map(|[_, down]| down));
        let begin = Begin {
            round: call.round as u32,
            since: call.since as u32,
            uplink_bit_s: rates.map_or(0, |[up, _]| up as u64),
        };
        send(link, &Message::Begin(begin))?;
        let mut until = self.deadline.map(|time| (Instant::now() + time, time));
        let mut keeps = self.policy.keep_partial;
        let mut traffic = Traffic::default();
        while !side.is_done() {
            let bytes = match receive(link, call.device, until) {
                Err(Error::Late { .. }) if keeps => {
                    keeps = false;
                    side.end_early();
                    until = until.map(|(until, time)| (until + GRACE, time));
                    continue;
                }
                received => received?,
            };
            let work = || answer(&bytes, side);
            let (crossed, steps, replies) = if Message::is_step(&bytes) {
                self.turns.take(work)
            } else {
                self.turns.keep(work)
            }?;
            traffic = traffic + crossed;
            for reply in replies {
                link.send(reply)?;
            }
            self.board.device(call.device, |device| {
                device.steps += steps;
                device.count(link.counts());
            });
        }
        Ok(traffic)
    }
}

impl Fleet for Devices<'_> {
    fn gather(&self, round: usize, drawn: &[usize], stop: &AtomicBool) -> Result<Vec<usize>> {
        let begun = self.begun.load(Ordering::Relaxed);
        let quorum = self.policy.quorum.min(drawn.len());
        let patience = self.policy.wait.map(|wait| Instant::now() + wait);
        loop {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let here: Vec<_> = (drawn.iter().copied())
                .filter(|&device| self.is_here(device))
                .collect();
            let impatient = begun || patience.is_some_and(|until| Instant::now() >= until);
            let wanted = if impatient { quorum } else { drawn.len() };
            if here.len() >= wanted {
                if !self.begun.swap(true, Ordering::Relaxed) {
                    // Opening the model and letting the devices in took more than stays.
                    freed::give_back();
                }
                let promise = self.control.begin(round, &here)?;
                self.board
                    .allocate(|device| self.control.rates(device), promise);
                self.board.begin(round, drawn, &here);
                return Ok(here);
            }
            let links = self.lock();
            drop(self.changed.wait_timeout(links, LOOK));
        }
    }

    fn take_part(&self, call: Call, side: &mut (dyn Serve + Send)) -> Result<Traffic> {
        let lost = || Error::Link {
            peer: format!("device-{}", call.device),
            reason: "is gone".into(),
        };
        let link = self.link(call.device).ok_or_else(lost)?;
        self.board
            .device(call.device, |device| device.state = DeviceState::Training);
        let (began, sent) = (Instant::now(), link.counts().sent_bytes);
        link.take_heard();
        let done = self.carry(call, &link, side);
        match &done {
            Ok(traffic) => {
                let done = Done {
                    traffic: *traffic,
                    heard: link.take_heard(),
                    sent: link.counts().sent_bytes - sent,
                    time: began.elapsed(),
                };
                self.control.end(call.device, done);
                self.board
                    .device(call.device, |device| device.state = DeviceState::Ready);
            }
            Err(error) => self.let_go(call.device, &link, error),
        }
        done
    }

    fn work(&self, work: &mut (dyn FnMut() + Send)) -> Result<()> {
        self.turns.keep(|| {
            work();
            Ok(())
        })
    }

    fn quorum(&self) -> usize {
        self.policy.quorum
    }
}

/// What crosses for a message and its answers, the steps that it asked for, and the answers.
fn answer(bytes: &[u8], side: &mut dyn Serve) -> Result<(Traffic, usize, Vec<Vec<u8>>)> {
    let message = Message::decode(bytes)?;
    let mut crossed = Traffic::sent(&message, bytes.len() as u64);
    let steps = usize::from(matches!(message, Message::Activation(_)));
    let mut replies = Vec::new();
    for reply in side.handle(message)? {
        let bytes = reply.encode()?;
        crossed = crossed + Traffic::received(&reply, bytes.len() as u64);
        replies.push(bytes);
    }
    Ok((crossed, steps, replies))
}

/// The next message of a device, which may be late.
fn receive(link: &Link, device: usize, until: Option<(Instant, Duration)>) -> Result<Vec<u8>> {
    let Some((until, time)) = until else {
        return link.receive();
    };
    let late = Error::Late {
        device,
        deadline_s: time.as_secs_f64(),
    };
    link.receive_until(until)?.ok_or(late)
}
