//! Mean signal-to-noise ratio from distance: log-distance path loss.

use serde::{Deserialize, Serialize};

use crate::error::{Result, check, check_rate};

/// Log-distance path loss `L(d) = L₀ + 10γ·log₁₀(d/d₀)` and the noise it is measured against.
///
/// The default is the urban macro cell `128.1 + 37.6·log₁₀(d/km)` dB with thermal noise of
/// -174 dBm/Hz.
///
/// ```
/// let loss = sft_opt::system::PathLoss::default();
/// // 23 dBm at 200 m over 5 MHz.
/// let snr_db = loss.snr_db(23.0, 200.0, 5e6)?;
/// assert!((snr_db - 28.19).abs() < 0.01);
/// # Ok::<(), sft_opt::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PathLoss {
    /// Loss `L₀` at the reference distance in dB, finite. Default 128.1.
    pub reference_db: f64,
    /// Reference distance `d₀` in metres, positive. Default 1000.
    pub reference_m: f64,
    /// Exponent `γ`, positive. Default 3.76.
    pub exponent: f64,
    /// Noise density in dBm/Hz, finite. Default -174.
    pub noise_dbm_per_hz: f64,
}

impl Default for PathLoss {
    fn default() -> Self {
        Self {
            reference_db: 128.1,
            reference_m: 1000.0,
            exponent: 3.76,
            noise_dbm_per_hz: -174.0,
        }
    }
}

impl PathLoss {
    /// Loss at a distance in dB.
    ///
    /// # Errors
    /// A distance that is not finite and positive, a field outside its range.
    pub fn loss_db(&self, distance_m: f64) -> Result<f64> {
        check_rate("distance_m", distance_m)?;
        check_rate("reference_m", self.reference_m)?;
        check_rate("exponent", self.exponent)?;
        let reference = self.reference_db;
        check(reference.is_finite(), "reference_db", reference, "finite")?;
        Ok(reference + 10.0 * self.exponent * (distance_m / self.reference_m).log10())
    }

    /// Mean signal-to-noise ratio in dB of a transmitter of `power_dbm` over a band of
    /// `band_hz`: what [`Device::snr_uplink_db`](crate::Device::snr_uplink_db) takes.
    ///
    /// # Errors
    /// As [`PathLoss::loss_db`]; a power that is not finite, a band that is not positive.
    pub fn snr_db(&self, power_dbm: f64, distance_m: f64, band_hz: f64) -> Result<f64> {
        check(power_dbm.is_finite(), "power_dbm", power_dbm, "finite")?;
        check_rate("band_hz", band_hz)?;
        let density = self.noise_dbm_per_hz;
        check(density.is_finite(), "noise_dbm_per_hz", density, "finite")?;
        let noise_dbm = density + 10.0 * band_hz.log10();
        Ok(power_dbm - self.loss_db(distance_m)? - noise_dbm)
    }
}
