//! The rates that links are held to.
//!
//! Of the modelled channel, or of what is measured. There the first two rounds, and now and then another, go
//! as fast as the network is: they tell the most that each link carries alone and all links together. Then
//! P2 is solved for what each device moved in its last round and for the time in which it moved nothing, and
//! links are held to its shares if it promises less time than they take when they are free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sft_opt::{Problem, allocate_bandwidth};

use super::counts::Heard;
use super::meter::Meter;
use super::status::Promise;
use crate::Result;
use crate::run::{DeviceRound, Settings, Wireless};
use crate::split::Traffic;

/// Rounds in which links are free at first: the first has more to do than those that follow.
const FREE: usize = 2;
/// Rounds with shares until links are free again for one.
const HELD: usize = 7;
/// The part of a rate that a link may fall behind before it counts as what the link can.
const FELL: f64 = 0.9;
/// What messages may take of the measured rate of all links; the rest is what the network adds to them.
const OF_MESSAGES: f64 = 0.99;
/// The part of what lies idle while devices compute that is shared out as well: for all of it their messages
/// would never have to meet.
const OF_IDLE: f64 = 0.5;

/// Which rates links are held to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// None: as fast as the network is.
    #[default]
    Off,
    /// Those of the modelled channel.
    Modelled,
    /// Shares of the rate that is measured of all links together.
    Measured,
}

/// What the rates of links follow from.
pub(super) struct Channel<'a> {
    pub(super) wireless: &'a Wireless,
    pub(super) settings: &'a Settings,
    /// The cut layer of each device.
    pub(super) cuts: Vec<usize>,
}

/// What a device's part of a round was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) traffic: Traffic,
    /// What came, and in what time.
    pub(super) heard: Heard,
    /// What was sent to it, bytes.
    pub(super) sent: u64,
    /// How long it took altogether.
    pub(super) time: Duration,
}

/// Sets rates round by round.
pub(super) struct Control<'a> {
    channel: Channel<'a>,
    pacing: Pacing,
    even: bool,
    meter: Arc<Meter>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    devices: Vec<Device>,
    /// Of all links together, the highest of the free rounds since the last with shares.
    total_bit_s: f64,
    /// Rounds in which links were free, and those with shares since.
    free: usize,
    held: usize,
}

#[derive(Clone, Debug, Default)]
struct Device {
    /// What it moved in its last round.
    traffic: Traffic,
    /// The same in bits, both ways, with all that is around it.
    bits: f64,
    /// How long it moved nothing.
    idle_s: f64,
    /// How long its part took when its link was free last.
    free_s: f64,
    /// The most that its link carries.
    cap_bit_s: Option<f64>,
    /// The rates of its link in this round, uplink and downlink; none where it is free.
    rates_bit_s: Option<[f64; 2]>,
}

impl<'a> Control<'a> {
    pub(super) fn new(channel: Channel<'a>, pacing: Pacing, even: bool, meter: Arc<Meter>) -> Self {
        let known = Known {
            devices: vec![Device::default(); channel.cuts.len()],
            ..Known::default()
        };
        Self {
            channel,
            pacing,
            even,
            meter,
            known: Mutex::new(known),
        }
    }

    /// Sets the rates of a round's devices; what P2 promises of it, where they follow from what was measured.
    ///
    /// # Errors
    /// A channel outside the ranges of the cost model.
    pub(super) fn begin(&self, round: usize, here: &[usize]) -> Result<Option<Promise>> {
        let mut known = self.lock();
        let (rates, promise) = match self.pacing {
            Pacing::Off => (Vec::new(), None),
            Pacing::Modelled => (self.modelled(&known, round, here)?, None),
            Pacing::Measured => match known.measured(here, self.even, self.meter.take())? {
                Some((shares, promise)) => {
                    let both = shares.into_iter().map(|share| [share; 2]);
                    (both.collect(), Some(promise))
                }
                None => (Vec::new(), None),
            },
        };
        for device in &mut known.devices {
            device.rates_bit_s = None;
        }
        for (&device, rates) in here.iter().zip(rates) {
            known.devices[device].rates_bit_s = Some(rates);
        }
        Ok(promise)
    }

    /// The rates of a device's link in this round, uplink and downlink, bit/s; none where it is free.
    pub(super) fn rates(&self, device: usize) -> Option<[f64; 2]> {
        self.lock().devices[device].rates_bit_s
    }

    /// A device ended its part of a round.
    pub(super) fn end(&self, device: usize, done: Done) {
        self.lock().devices[device].note(done);
    }

    /// Those of the modelled channel, at the shares that P2 gives each device for what it moved in its last
    /// round, or at equal ones.
    fn modelled(&self, known: &Known, round: usize, here: &[usize]) -> Result<Vec<[f64; 2]>> {
        let Channel {
            wireless,
            settings,
            cuts,
        } = &self.channel;
        let part = |&device: &usize| DeviceRound {
            device,
            cut: cuts[device],
            first: false,
            traffic: if self.even {
                Traffic::default()
            } else {
                known.devices[device].traffic
            },
        };
        wireless.rates_bit_s(settings, round, &here.iter().map(part).collect::<Vec<_>>())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Shares of what was measured; none where it is to be measured or shares promise nothing.
    fn measured(
        &mut self,
        here: &[usize],
        even: bool,
        together: Option<f64>,
    ) -> Result<Option<Shares>> {
        let devices: Vec<_> = here.iter().map(|&device| &self.devices[device]).collect();
        if self.held == 0 && self.free > 0 {
            // All together carry at least what one does alone. A message that waited to be read seems fast:
            // that is no measure where there is a better one.
            let fastest = || largest(devices.iter().filter_map(|device| device.cap_bit_s));
            let total_bit_s = OF_MESSAGES * together.unwrap_or_else(fastest);
            self.total_bit_s = self.total_bit_s.max(total_bit_s);
        }
        let is_known = devices.iter().all(|device| device.bits > 0.0) && self.total_bit_s > 0.0;
        if is_known && self.free >= FREE && self.held < HELD {
            let (rates, promise) = shares(&devices, self.total_bit_s, even)?;
            let free_s = largest(devices.iter().map(|device| device.free_s));
            if even || promise.round_s < free_s {
                self.held += 1;
                return Ok(Some((rates, promise)));
            }
        }
        if self.held > 0 {
            self.total_bit_s = 0.0;
        }
        (self.free, self.held) = (self.free + 1, 0);
        Ok(None)
    }
}

/// The rates of some devices' links, bit/s, and what P2 promises of them.
type Shares = (Vec<f64>, Promise);

/// The shares of a rate that P2 gives to devices, or equal ones.
fn shares(devices: &[&Device], total_bit_s: f64, even: bool) -> Result<Shares> {
    let of = |value: fn(&Device) -> f64| devices.iter().map(|device| value(device)).collect();
    let idle: Vec<_> = of(|device| device.idle_s);
    let bits: Vec<_> = of(|device| device.bits);
    let caps: Vec<_> = of(|device| device.cap_bit_s.unwrap_or(f64::INFINITY));
    let problem = |total_hz| Problem {
        a_s: &idle,
        c_bits_per_bps_hz: &bits,
        total_hz,
        cap_hz: Some(&caps),
    };
    let rates = if even {
        vec![total_bit_s / devices.len() as f64; devices.len()]
    } else {
        let first = allocate_bandwidth(&problem(total_bit_s))?;
        let lies_idle = |(share, idle_s): (&f64, &f64)| share * idle_s / first.tau_s;
        let unused: f64 = first.value.b_hz.iter().zip(&idle).map(lies_idle).sum();
        let more = OF_IDLE * unused / (first.value.used_hz - unused);
        let found = allocate_bandwidth(&problem(total_bit_s * (1.0 + more)))?;
        spread(found.value.b_hz, &caps, total_bit_s)
    };
    let moving = rates.iter().zip(&caps).map(|(rate, cap)| rate.min(*cap));
    let times = (idle.iter().zip(&bits))
        .zip(moving)
        .map(|((idle_s, bits), bit_s)| idle_s + bits / bit_s);
    let promise = Promise {
        round_s: largest(times),
        idle_s: largest(idle.iter().copied()),
    };
    Ok((rates, promise))
}

fn largest(of: impl Iterator<Item = f64>) -> f64 {
    of.fold(0.0, f64::max)
}

/// Gives what shares leave of a rate to those below their caps, as they have.
fn spread(mut shares: Vec<f64>, caps: &[f64], total_bit_s: f64) -> Vec<f64> {
    let left = total_bit_s - shares.iter().sum::<f64>();
    let below = |(share, cap): &(&mut f64, &f64)| **share < **cap;
    let room: f64 = (shares.iter_mut().zip(caps))
        .filter(below)
        .map(|(share, _)| *share)
        .sum();
    if left > 0.0 && room > 0.0 {
        for (share, cap) in shares.iter_mut().zip(caps).filter(below) {
            *share = (*share * (1.0 + left / room)).min(*cap);
        }
    }
    shares
}

impl Device {
    fn note(&mut self, done: Done) {
        let [up, down] = [done.heard.bytes, done.sent].map(|bytes| 8.0 * bytes as f64);
        let heard_s = done.heard.time.as_secs_f64();
        self.traffic = done.traffic;
        self.bits = up + down;
        // A paced piece leaves when a link of that rate would have carried it: the first is not seen coming.
        let moving_s = if let Some([rate, _]) = self.rates_bit_s {
            if up < FELL * rate * heard_s {
                let fell = up / heard_s;
                self.cap_bit_s = Some(self.cap_bit_s.map_or(fell, |cap| cap.min(fell)));
            }
            heard_s.max(up / rate) + down / rate
        } else {
            self.free_s = done.time.as_secs_f64();
            self.cap_bit_s = done.heard.fastest_bit_s;
            if up > 0.0 {
                heard_s * self.bits / up
            } else {
                0.0
            }
        };
        self.idle_s = (done.time.as_secs_f64() - moving_s).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that moved so many bits up at a rate, which computed for a second, in a round of free links.
    fn device(bits: u64, bit_s: f64) -> Device {
        let mut device = Device::default();
        note(&mut device, bits, bit_s);
        device
    }

    fn note(device: &mut Device, bits: u64, bit_s: f64) {
        let moving = Duration::from_secs_f64(bits as f64 / bit_s);
        device.note(Done {
            traffic: Traffic::default(),
            heard: Heard {
                bytes: bits / 8,
                time: moving,
                fastest_bit_s: Some(2.0 * bit_s),
            },
            sent: 0,
            time: moving + Duration::from_secs(1),
        });
    }

    fn known(devices: Vec<Device>) -> Known {
        Known {
            devices,
            ..Known::default()
        }
    }

    fn rates(known: &mut Known) -> Option<Vec<f64>> {
        let here: Vec<_> = (0..known.devices.len()).collect();
        let found = known.measured(&here, false, Some(10e6)).unwrap();
        let rates = found.map(|(rates, _)| rates);
        for (place, device) in known.devices.iter_mut().enumerate() {
            device.rates_bit_s = rates.as_ref().map(|rates| [rates[place]; 2]);
        }
        rates
    }

    #[test]
    fn two_rounds_measure_and_another_after_seven_with_shares() {
        let mut known = known(vec![device(40_000_000, 4e6), device(10_000_000, 4e6)]);
        let held: Vec<_> = (0..12).map(|_| rates(&mut known).is_some()).collect();
        let mut wanted = vec![true; 12];
        for free in [0, 1, 9] {
            wanted[free] = false;
        }
        assert_eq!(held, wanted);
    }

    /// With a second of computing each, what moves is used for all but a second of the round.
    #[test]
    fn shares_are_those_that_end_together_and_use_what_lies_idle() {
        let devices = [device(40_000_000, 9e6), device(10_000_000, 9e6)];
        let devices: Vec<_> = devices.iter().collect();
        let (rates, promise) = shares(&devices, 10e6, false).unwrap();
        let Promise { round_s, idle_s } = promise;
        // P2 has 5 s of moving, of a round of 6 s: 11 Mbit/s are shared out, and it is 4.55 s.
        assert!((idle_s - 1.0).abs() < 1e-9 && (round_s - (1.0 + 50.0 / 11.0)).abs() < 1e-9);
        assert!((rates[0] - 8.8e6).abs() < 1.0, "{rates:?}");
        assert!((rates[1] - 2.2e6).abs() < 1.0, "{rates:?}");
        let (even, promise) = shares(&devices, 10e6, true).unwrap();
        assert_eq!((even, promise.round_s), (vec![5e6; 2], 9.0));
    }

    #[test]
    fn what_a_cap_leaves_goes_to_the_others() {
        let shares = spread(vec![8.0, 1.0, 3.0], &[8.0, 2.0, 100.0], 20.0);
        assert_eq!(shares, [8.0, 2.0, 9.0]);
    }

    #[test]
    fn links_stay_free_where_shares_promise_nothing() {
        // They have all that there is, at the same time.
        let mut known = known(vec![device(20_000_000, 5e6), device(20_000_000, 5e6)]);
        for device in &mut known.devices {
            (device.idle_s, device.free_s) = (0.0, 4.0);
        }
        assert!((0..9).all(|_| rates(&mut known).is_none()));
    }

    #[test]
    fn a_link_that_falls_behind_its_share_has_that_for_a_cap() {
        let mut device = device(40_000_000, 9e6);
        device.rates_bit_s = Some([8e6; 2]);
        note(&mut device, 40_000_000, 7.9e6);
        assert_eq!(device.cap_bit_s, Some(18e6));
        note(&mut device, 40_000_000, 4e6);
        assert!((device.cap_bit_s.unwrap() - 4e6).abs() < 1.0);
        device.rates_bit_s = None;
        note(&mut device, 40_000_000, 9.5e6);
        assert_eq!(device.cap_bit_s, Some(19e6));
    }
}
