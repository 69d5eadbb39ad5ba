//! The bandwidth problem P2 and its checks.

use crate::error::{Error, NOT_NEGATIVE, Result, check_entries, check_len, check_size};
use crate::numeric::compensated::{quotient, two_sum};
use crate::numeric::vectorized::sums;

/// The min–max bandwidth problem P2 of the paper, (29): over `b ≥ 0`,
///
/// ```text
/// minimise max_n a_n + c_n/b_n   subject to   Σ b_n ≤ W,  b_n ≤ cap_n
/// ```
///
/// with `c/b = 0` where `c = 0`.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// Delay that bandwidth does not change, `a_n`, in seconds; finite and at least 0.
    pub a_s: &'a [f64],
    /// Bits over spectral efficiency `c_n`, one per device, finite and at least 0; a device
    /// without demand has 0.
    pub c_bits_per_bps_hz: &'a [f64],
    /// The band `W` in Hz; finite and at least 0.
    pub total_hz: f64,
    /// Most bandwidth of each device in Hz, at least 0, `f64::INFINITY` for a device without a
    /// cap; `None` if nobody has one.
    pub cap_hz: Option<&'a [f64]>,
}

impl Problem<'_> {
    pub(crate) fn validate(&self) -> Result<()> {
        let n = self.a_s.len();
        if n == 0 {
            return Err(Error::NoDevices);
        }
        check_len("c_bits_per_bps_hz", self.c_bits_per_bps_hz.len(), n)?;
        check_entries("a_s", self.a_s, f64::MAX, NOT_NEGATIVE)?;
        check_entries(
            "c_bits_per_bps_hz",
            self.c_bits_per_bps_hz,
            f64::MAX,
            NOT_NEGATIVE,
        )?;
        check_size("total_hz", self.total_hz)?;
        let Some(caps) = self.cap_hz else {
            return Ok(());
        };
        check_len("cap_hz", caps.len(), n)?;
        check_entries("cap_hz", caps, f64::INFINITY, "at least 0")
    }

    /// Cap of device `n`, infinite without one.
    pub(crate) fn cap(&self, n: usize) -> f64 {
        self.cap_hz.map_or(f64::INFINITY, |caps| caps[n])
    }

    /// Whether a device with demand cannot get any bandwidth.
    pub(crate) fn is_infeasible(&self) -> bool {
        let dead = |c: f64, cap: f64| c > 0.0 && cap == 0.0;
        // Without an early exit the loop compiles to vector compares.
        let capped = |caps: &[f64]| {
            let pairs = self.c_bits_per_bps_hz.iter().zip(caps);
            pairs.fold(false, |any, (&c, &cap)| any | dead(c, cap))
        };
        self.total_hz == 0.0 || self.cap_hz.is_some_and(capped)
    }

    /// Whether caps leave room to hand out the whole band.
    pub(crate) fn band_fits_caps(&self) -> bool {
        // Caps that share out the band exactly may round to slightly less.
        const SLACK: f64 = 1e-12;
        self.cap_hz.is_none_or(|caps| {
            let [sum] = sums(caps, caps, |cap, _| [cap]);
            sum >= self.total_hz * (1.0 - SLACK)
        })
    }

    /// `a_n + c_n/b − a_max` of one device, correct to rounding also where the parts cancel.
    pub(crate) fn finish(&self, n: usize, b_hz: f64, a_max: f64) -> f64 {
        let (start, start_err) = two_sum(self.a_s[n], -a_max);
        let c = self.c_bits_per_bps_hz[n];
        if c == 0.0 {
            return start;
        }
        if b_hz == 0.0 {
            return f64::INFINITY;
        }
        let (time, time_err) = quotient(c, b_hz, 0.0);
        let (finish, finish_err) = two_sum(time, start);
        finish + (finish_err + time_err + start_err)
    }
}
