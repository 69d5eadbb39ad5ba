//! How a run on a network stands.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::LinkCounts;
use crate::Error;
use crate::run::{RoundRecord, RunConfig};

/// What a device does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// It was not there yet.
    #[default]
    Absent,
    /// It gets its half of the model.
    Joining,
    /// It waits for a round.
    Ready,
    /// It takes part in one.
    Training,
    /// Its link broke, or it was let go.
    Lost,
}

/// How a device stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeviceStatus {
    /// Its number, from 0.
    pub device: usize,
    /// What it does.
    pub state: DeviceState,
    /// Mini-batches of this round.
    pub steps: usize,
    /// Rounds that it ended in time.
    pub rounds: usize,
    /// What it sent over its link so far, bytes.
    pub bytes_up: u64,
    /// What was sent to it so far, bytes.
    pub bytes_down: u64,
    /// The rate that its link is held to in this round, uplink, bit/s; none where it is free.
    pub allocated_bit_s: Option<f64>,
    /// The rate at which its last long message came, bit/s.
    pub uplink_bit_s: Option<f64>,
    /// When it was last heard of, seconds since 1970.
    pub last_seen_s: Option<f64>,
    /// Why it was lost.
    pub reason: Option<String>,
    /// Of the link that it has now.
    #[serde(skip)]
    link: (u64, u64),
}

impl DeviceStatus {
    /// It has a new link, and waits for a round.
    pub(super) fn arrive(&mut self) {
        self.state = DeviceState::Ready;
        self.reason = None;
        self.link = (0, 0);
    }

    /// Takes over what a link counts, from its beginning.
    pub(super) fn count(&mut self, counts: LinkCounts) {
        let (up, down) = (counts.received_bytes, counts.sent_bytes);
        self.bytes_up += up.saturating_sub(self.link.0);
        self.bytes_down += down.saturating_sub(self.link.1);
        self.link = (up, down);
        self.uplink_bit_s = counts.receiving_bit_s;
        self.last_seen_s = Some(now_s() - counts.silent.as_secs_f64());
    }
}

/// What P2 promises of a round, by what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Promise {
    /// How long the slowest device takes, seconds.
    pub round_s: f64,
    /// The longest that a device takes of that without its link, seconds.
    pub idle_s: f64,
}

/// How a run stands.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The scheme.
    pub scheme: String,
    /// Rounds at most.
    pub rounds: usize,
    /// The round that goes on, from 1; 0 before the first.
    pub round: usize,
    /// What P2 promises of this round, where links are held to shares of what was measured.
    pub promise: Option<Promise>,
    /// Whether the run is over.
    pub finished: bool,
    /// The rounds that are done.
    pub records: Vec<RoundRecord>,
    /// The devices, by number.
    pub devices: Vec<DeviceStatus>,
    /// When this was told, seconds since 1970.
    pub now_s: f64,
}

/// How a run stands, for whoever asks.
#[derive(Debug, Default)]
pub struct Board(Mutex<Status>);

impl Board {
    /// The run of a configuration before its first round.
    pub fn new(config: &RunConfig) -> Self {
        let schemes: Vec<_> = config.scheme.iter().map(|scheme| scheme.name()).collect();
        let devices = (0..config.devices).map(|device| DeviceStatus {
            device,
            ..DeviceStatus::default()
        });
        Self(Mutex::new(Status {
            scheme: schemes.join(", "),
            rounds: config.rounds,
            devices: devices.collect(),
            ..Status::default()
        }))
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        Status {
            now_s: now_s(),
            ..self.lock().clone()
        }
    }

    /// A round is done.
    pub fn record(&self, record: &RoundRecord) {
        let mut status = self.lock();
        for &device in &record.devices {
            if let Some(device) = status.devices.get_mut(device) {
                device.rounds += 1;
            }
        }
        status.records.push(record.clone());
    }

    /// The run is over.
    pub fn finish(&self) {
        self.lock().finished = true;
    }

    /// The rates of a round, uplink and downlink of each device.
    pub(super) fn allocate(
        &self,
        rates: impl Fn(usize) -> Option<[f64; 2]>,
        promise: Option<Promise>,
    ) {
        let mut status = self.lock();
        status.promise = promise;
        for device in &mut status.devices {
            device.allocated_bit_s = rates(device.device).map(|[up, _]| up);
        }
        if let Some(Promise { round_s, idle_s }) = promise {
            let devices = status.devices.iter();
            let bit_s: Vec<_> = devices
                .map(|device| device.allocated_bit_s.map(|rate| rate as u64))
                .collect();
            tracing::info!(?bit_s, round_s, idle_s, "shares allocated");
        }
    }

    /// A round begins for the devices that are here.
    pub(super) fn begin(&self, round: usize, drawn: &[usize], here: &[usize]) {
        let missing = drawn.len() - here.len();
        tracing::info!(round, here = here.len(), missing, "round begins");
        let mut status = self.lock();
        status.round = round;
        for device in &mut status.devices {
            device.steps = 0;
        }
    }

    /// A device was lost or let go.
    pub(super) fn lost(&self, device: usize, error: &Error) {
        tracing::warn!(device, %error, "device lost");
        self.device(device, |device| {
            device.state = DeviceState::Lost;
            device.reason = Some(error.to_string());
        });
    }

    /// Changes what is told of a device.
    pub(super) fn device(&self, number: usize, change: impl FnOnce(&mut DeviceStatus)) {
        if let Some(device) = self.lock().devices.get_mut(number) {
            change(device);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now_s() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_link_count_and_who_is_back_is_not_lost() {
        let counts = |bytes| LinkCounts {
            received_bytes: bytes,
            sent_bytes: 2 * bytes,
            ..LinkCounts::default()
        };
        let board = Board::new(&RunConfig::default());
        let told = |change: &dyn Fn(&mut DeviceStatus)| {
            board.device(1, change);
            let status = board.status();
            let device = &status.devices[1];
            (
                device.bytes_up,
                device.bytes_down,
                device.state,
                device.reason.clone(),
            )
        };
        let (ready, lost) = (DeviceState::Ready, DeviceState::Lost);
        assert_eq!(told(&DeviceStatus::arrive), (0, 0, ready, None));
        assert_eq!(
            told(&|device| device.count(counts(100))),
            (100, 200, ready, None)
        );
        board.lost(1, &Error::Stopped);
        assert_eq!(told(&|_| ()), (100, 200, lost, Some("stopped".into())));
        assert_eq!(told(&DeviceStatus::arrive), (100, 200, ready, None));
        assert_eq!(
            told(&|device| device.count(counts(30))),
            (130, 260, ready, None)
        );
    }
}
