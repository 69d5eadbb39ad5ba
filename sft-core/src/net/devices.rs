//! The devices of a run, as the server sees them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Link;
use super::say::{leave, refuse, send};
use super::status::{Board, DeviceState, DeviceStatus};
use super::turns::Turns;
use crate::run::{Call, DeviceRound, Fleet, Settings, Wireless};
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
    /// Whether links are held to the rates of the modelled channel.
    pub shape: Shape,
}

impl RoundPolicy {
    /// Rounds that count with so many devices; the first waits for all of its own, who is late is
    /// left out, and links are as fast as the network.
    pub fn new(quorum: usize) -> Self {
        Self {
            quorum,
            wait: None,
            keep_partial: false,
            shape: Shape::Off,
        }
    }
}

/// Which rates links are held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// None: as fast as the network is.
    #[default]
    Off,
    /// Those of the modelled channel at equal shares of its band.
    Even,
    /// Those at the shares that P2 gives each device for what it moved in its last round: a controller in
    /// the loop.
    Control,
}

/// What the rates of links follow from.
pub(super) struct Channel<'a> {
    pub(super) wireless: &'a Wireless,
    pub(super) settings: &'a Settings,
    /// The cut layer of each device.
    pub(super) cuts: Vec<usize>,
}

/// What a device moved in its last round, and the rates of its link in this one, up and down, bit/s.
type Load = (Traffic, Option<[f64; 2]>);

/// The links to the devices that are there.
pub(super) struct Devices<'a> {
    links: Mutex<Vec<Option<Arc<Link>>>>,
    changed: Condvar,
    policy: RoundPolicy,
    /// What a device has for its part of a round.
    deadline: Option<Duration>,
    turns: Turns,
    board: &'a Board,
    channel: Channel<'a>,
    /// What each device moved in its last round, and the rates of its link in this one.
    loads: Mutex<Vec<Load>>,
    /// Whether a round was begun.
    begun: AtomicBool,
}

impl<'a> Devices<'a> {
    /// No device is there yet.
    pub(super) fn new(channel: Channel<'a>, policy: RoundPolicy, board: &'a Board) -> Result<Self> {
        let (settings, count) = (channel.settings, channel.cuts.len());
        Ok(Self {
            links: Mutex::new((0..count).map(|_| None).collect()),
            changed: Condvar::new(),
            policy,
            deadline: (settings.deadline_s).and_then(|s| Duration::try_from_secs_f64(s).ok()),
            turns: Turns::new(settings.threads.min(count), settings.threads)?,
            board,
            channel,
            loads: Mutex::new(vec![(Traffic::default(), None); count]),
            begun: AtomicBool::new(false),
        })
    }

    fn loads(&self) -> MutexGuard<'_, Vec<Load>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the rates of a round's links.
    fn shape(&self, round: usize, here: &[usize]) -> Result<()> {
        let Channel {
            wireless,
            settings,
            cuts,
        } = &self.channel;
        let mut loads = self.loads();
        let traffic = |device: usize| match self.policy.shape {
            Shape::Control => loads[device].0,
            Shape::Off | Shape::Even => Traffic::default(),
        };
        let parts = here.iter().map(|&device| DeviceRound {
            device,
            cut: cuts[device],
            first: false,
            traffic: traffic(device),
        });
        let rates = wireless.rates_bit_s(settings, round, &parts.collect::<Vec<_>>())?;
        for (&device, rates) in here.iter().zip(rates) {
            loads[device].1 = Some(rates);
        }
        Ok(())
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
        let (_, rates) = self.loads()[call.device];
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
            let (sent, steps, replies) = self.turns.take(|| {
                let message = Message::decode(&bytes)?;
                let sent = Traffic::sent(&message, bytes.len() as u64);
                let steps = usize::from(matches!(message, Message::Activation(_)));
                Ok((sent, steps, side.handle(message)?))
            })?;
            traffic = traffic + sent;
            for reply in replies {
                let bytes = reply.encode()?;
                traffic = traffic + Traffic::received(&reply, bytes.len() as u64);
                link.send(bytes)?;
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
                self.begun.store(true, Ordering::Relaxed);
                if self.policy.shape != Shape::Off {
                    self.shape(round, &here)?;
                }
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
        let done = self.carry(call, &link, side);
        match &done {
            Ok(traffic) => {
                self.loads()[call.device].0 = *traffic;
                self.board
                    .device(call.device, |device| device.state = DeviceState::Ready);
            }
            Err(error) => self.let_go(call.device, &link, error),
        }
        done
    }

    fn quorum(&self) -> usize {
        self.policy.quorum
    }
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
