//! The wireless channel: Shannon efficiency, Rayleigh block fading, random device clocks.

use serde::{Deserialize, Serialize};

use crate::error::{Result, check_rate};
use crate::numeric::random::{Purpose, exponential, stream, uniform};

/// Direction of a transfer, seen from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Device to server.
    Uplink,
    /// Server to device.
    Downlink,
}

/// Spectral efficiencies of one device's link in one round, in bit/s/Hz, both positive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// `η^UL = log₂(1 + SNR)` of the uplink.
    pub uplink_bps_hz: f64,
    /// `η^DL = log₂(1 + SNR)` of the downlink.
    pub downlink_bps_hz: f64,
}

impl Link {
    pub(crate) fn validate(&self) -> Result<()> {
        check_rate("links.uplink_bps_hz", self.uplink_bps_hz)?;
        check_rate("links.downlink_bps_hz", self.downlink_bps_hz)
    }
}

/// Shannon's spectral efficiency `log₂(1 + gain·10^(snr_db/10))` in bit/s/Hz; (13), (15).
///
/// `gain` is the power gain of the fading channel, 1 without fading.
///
/// ```
/// assert_eq!(sft_opt::system::spectral_efficiency(0.0, 1.0), 1.0);
/// assert_eq!((sft_opt::system::spectral_efficiency(17.0, 1.0) * 1e3).round(), 5676.0);
/// ```
pub fn spectral_efficiency(snr_db: f64, gain: f64) -> f64 {
    (gain * 10f64.powf(snr_db / 10.0)).ln_1p() / std::f64::consts::LN_2
}

/// Rayleigh block fading: the power gain is an `Exp(1)` draw, constant for one device,
/// round and direction and independent between them.
///
/// ```
/// use sft_opt::system::{Direction, Fading};
///
/// let fading = Fading::new(7);
/// let gain = fading.gain(3, 20, Direction::Uplink);
/// assert_eq!(gain, Fading::new(7).gain(3, 20, Direction::Uplink));
/// assert_ne!(gain, fading.gain(3, 20, Direction::Downlink));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fading {
    seed: u64,
}

impl Fading {
    /// Fading with all draws fixed by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Power gain of a device's channel in a round: positive, mean 1.
    pub fn gain(self, device: usize, round: u64, direction: Direction) -> f64 {
        let purpose = match direction {
            Direction::Uplink => Purpose::UplinkGain,
            Direction::Downlink => Purpose::DownlinkGain,
        };
        let mut rng = stream(self.seed, purpose, device as u64);
        rng.set_word_pos(2 * u128::from(round));
        exponential(&mut rng)
    }
}

/// Clocks of `devices` devices, uniform on `range` in Hz (the paper: 0.5e9 to 1.5e9).
///
/// Clock `n` depends only on `seed` and `n`.
///
/// ```
/// let clocks = sft_opt::system::random_clocks_hz(8, 0.5e9..1.5e9, 1);
/// assert!(clocks.iter().all(|f| (0.5e9..1.5e9).contains(f)));
/// ```
pub fn random_clocks_hz(devices: usize, range: std::ops::Range<f64>, seed: u64) -> Vec<f64> {
    let width = range.end - range.start;
    (0..devices as u64)
        .map(|n| range.start + width * uniform(&mut stream(seed, Purpose::Clock, n)))
        .collect()
}
