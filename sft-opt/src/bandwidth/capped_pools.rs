//! Two pools with caps: bisection on the delay, and at every delay one multiplier.
//!
//! At a delay `τ` device `n` has `s_n = τ − a_n` seconds. With shares `x_n` of the first pool it
//! needs `y_n = r_n/(s_n − p_n/x_n)` of the second, convex and falling in `x_n`. Least `Σy` under
//! `Σx ≤ 1` and `x_n` between `p_n/(s_n − r_n/ycap_n)` and `xcap_n` is at
//! `x_n = (p_n + κ√(p_n r_n))/s_n`, clamped to these bounds, where `κ` uses up the first pool:
//! one root of a piecewise linear function. `τ` can be met iff that `Σy ≤ 1`.

/// One device: demands and caps as parts of the pools, `δ = a_max − a`.
#[derive(Clone, Copy)]
pub(crate) struct Device {
    pub(crate) delta: f64,
    pub(crate) demand: [f64; 2],
    pub(crate) cap: [f64; 2],
}

/// Far above what is needed: the search for `κ` ends at the root of a piece or at neighbouring
/// doubles.
const MAX_STEPS: u32 = 200;
/// Caps that meet their device's time exactly may miss it by rounding.
const ROUNDING: f64 = 8.0 * f64::EPSILON;

impl Device {
    /// Time less `δ` that the device takes with both pools at its caps.
    pub(crate) fn alone(&self) -> f64 {
        let part = |k: usize| match self.demand[k] {
            0.0 => 0.0,
            demand => demand / self.cap[k],
        };
        part(0) + part(1) - self.delta
    }

    /// The part of the second pool that goes with `x` of the first.
    fn second(&self, u: f64, x: f64) -> f64 {
        let [p, r] = self.demand;
        if r == 0.0 {
            return 0.0;
        }
        let rest = if p > 0.0 { p / x } else { 0.0 };
        (r / (u + self.delta - rest)).min(self.cap[1])
    }

    /// What the device may and would take of the first pool at `u`; `None` if its caps do not
    /// let it finish.
    fn range(&self, u: f64) -> Option<Range> {
        let ([p, r], s) = (self.demand, u + self.delta);
        let rest = s - if r > 0.0 { r / self.cap[1] } else { 0.0 };
        let slack = ROUNDING * s;
        if p == 0.0 {
            return (rest >= -slack).then_some(Range::default());
        }
        let low = if rest > 0.0 { p / rest } else { f64::INFINITY };
        let high = self.cap[0];
        let fits = low <= high || p / high - rest <= slack;
        fits.then_some(Range {
            low: low.min(high),
            high,
            base: p / s,
            slope: p.sqrt() * r.sqrt() / s,
        })
    }
}

/// `x(κ)`: `base + κ·slope` between `low` and `high`.
#[derive(Clone, Copy, Default)]
struct Range {
    low: f64,
    high: f64,
    base: f64,
    slope: f64,
}

impl Range {
    fn at(&self, kappa: f64) -> f64 {
        (self.base + kappa * self.slope).clamp(self.low, self.high)
    }

    fn moves(&self, kappa: f64) -> bool {
        let x = self.base + kappa * self.slope;
        self.low < x && x < self.high
    }
}

/// Parts of both pools that let every device finish at `u`; `None` if there are none.
pub(crate) fn shares_at(devices: &[Device], u: f64) -> Option<Vec<[f64; 2]>> {
    let ranges: Vec<Range> =
        (devices.iter().map(|device| device.range(u))).collect::<Option<_>>()?;
    if ranges.iter().map(|range| range.low).sum::<f64>() > 1.0 {
        return None;
    }
    let kappa = using_up(&ranges);
    let shares: Vec<[f64; 2]> = (devices.iter().zip(&ranges))
        .map(|(device, range)| {
            let x = range.at(kappa);
            [x, device.second(u, x)]
        })
        .collect();
    (shares.iter().map(|share| share[1]).sum::<f64>() <= 1.0).then_some(shares)
}

/// Largest `κ` with `Σx(κ) ≤ 1`, or one that puts everybody at their caps.
fn using_up(ranges: &[Range]) -> f64 {
    let sum = |kappa: f64| ranges.iter().map(|range| range.at(kappa)).sum::<f64>();
    let (mut low, mut high) = (0.0, 1.0);
    while sum(high) <= 1.0 {
        let free = |range: &Range| range.slope > 0.0 && range.at(high) < range.high;
        if !ranges.iter().any(free) {
            return high;
        }
        (low, high) = (high, 4.0 * high);
    }
    let mut kappa = f64::midpoint(low, high);
    for _ in 0..MAX_STEPS {
        let excess = sum(kappa) - 1.0;
        *(if excess > 0.0 { &mut high } else { &mut low }) = kappa;
        let moving = ranges.iter().filter(|range| range.moves(kappa));
        let slope: f64 = moving.map(|range| range.slope).sum();
        // Newton's step ends at the root of the piece; outside the bracket, the bracket halves.
        let next = kappa - excess / slope;
        let next = if low < next && next < high {
            next
        } else {
            f64::midpoint(low, high)
        };
        if excess == 0.0
            || next <= low
            || next >= high
            || (next - kappa).abs() <= f64::EPSILON * kappa
        {
            break;
        }
        kappa = next;
    }
    kappa
}
