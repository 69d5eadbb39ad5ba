//! How large the elements of a tensor are, by which the step of a dead zone is chosen.

use super::noise::mix;

/// The end of the dead zone, in steps.
pub(crate) const DEAD_BELOW: f64 = 0.625;

/// Bins of an octave of magnitudes are two to this power.
const OCTAVE_BITS: u32 = 3;
const SHIFT: u32 = 23 - OCTAVE_BITS;
/// One for each of the upper bits of a finite magnitude.
const BINS: usize = 255 << OCTAVE_BITS;
/// Bins that are looked at together.
const GROUP: usize = 16;
/// Elements that are looked at together.
const BLOCK: usize = 16;
/// Elements of a larger tensor that are looked at.
const SAMPLE: usize = 1 << 13;
/// An element of more medians may be an outlier.
const MEDIANS: f32 = 20.0;
/// Of so many elements one is an outlier at most.
const PER_OUTLIER: usize = 64;
/// The fraction of the energy of what was looked at that is changed at most.
const MOST_OF_SAMPLE: f64 = 0.85;
/// Indices whose interval is wider than a bin: for them the bin's middle decides.
const FINE: f64 = 6.0;

/// A histogram of magnitudes, of a sample if the tensor is large. Numbers that are not finite are
/// left out.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    counts: Vec<u32>,
    /// Elements that were looked at.
    seen: usize,
    /// The bins that are not empty, without that of zero.
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug)]
struct Bin {
    count: f64,
    /// The magnitude above all of the bin.
    end: f32,
    middle: f64,
    /// The mean of squares of what is evenly spread over the bin.
    square: f64,
}

impl Profile {
    /// Looks at a tensor.
    pub(crate) fn fill(&mut self, data: &[f32]) {
        self.counts.clear();
        self.counts.resize(BINS + (1 << OCTAVE_BITS), 0);
        self.seen = 0;
        if data.len() <= SAMPLE {
            self.count(data);
        } else {
            // One block at random of every part, so that no period of the elements is met.
            let (parts, mut start) = (SAMPLE / BLOCK, 0);
            for part in 1..=parts {
                let end = part * data.len() / parts;
                let free = (end - start).saturating_sub(BLOCK) as u64 + 1;
                let at = start + (mix(part as u64) % free) as usize;
                self.count(&data[at..at + BLOCK]);
                start = end;
            }
        }
        self.bins.clear();
        for (first, counts) in (0..).step_by(GROUP).zip(self.counts[..BINS].chunks(GROUP)) {
            // Most of them are empty.
            if counts.iter().fold(0, |any, count| any | count) == 0 {
                continue;
            }
            let filled = (first..)
                .zip(counts)
                .filter(|&(number, count)| number > 0 && *count > 0);
            self.bins
                .extend(filled.map(|(number, &count)| Bin::new(number, count)));
        }
    }

    fn count(&mut self, data: &[f32]) {
        self.seen += data.len();
        for x in data {
            self.counts[((x.to_bits() & 0x7fff_ffff) >> SHIFT) as usize] += 1;
        }
    }

    /// The largest magnitude of the *bulk*: what is above it is an outlier. That is 20 times the
    /// median magnitude of the elements other than zero, and more where more than one element of 64
    /// would be above.
    pub(crate) fn bulk(&self) -> f32 {
        let nonzero: f64 = self.bins.iter().map(|bin| bin.count).sum();
        let mut below = 0.0;
        let median = self.bins.iter().find(|bin| {
            below += bin.count;
            2.0 * below >= nonzero
        });
        let Some(median) = median else {
            return f32::MAX;
        };
        let mut above = 0.0;
        let most = (self.seen / PER_OUTLIER) as f64;
        let last = self.bins.iter().rev().find(|bin| {
            above += bin.count;
            above > most
        });
        let least = last.map_or(f32::MAX, |bin| bin.end);
        (MEDIANS * median.end).max(least).min(f32::MAX)
    }

    /// The step at which what the dead zone changes of the magnitudes up to `limit` has the energy
    /// `wanted` for each element that was looked at, to a few per cent; none if nothing was found but
    /// zeros.
    pub(crate) fn step(&self, wanted: f64, limit: f32) -> Option<f32> {
        let bins = self.bins.iter().take_while(|bin| bin.end <= limit).count();
        let bins = &self.bins[..bins.max(1).min(self.bins.len())];
        let last = bins.last()?;
        let count: f64 = bins.iter().map(|bin| bin.count).sum();
        // A sample may have met too little of what is large to tell it from what may be dropped.
        let energy: f64 = bins.iter().map(|bin| bin.count * bin.square).sum();
        let wanted = (wanted * self.seen as f64).min(MOST_OF_SAMPLE * energy);
        // Beyond the last interval everything is dropped.
        let (mut low, mut high) = (0.0, f64::from(last.end) / DEAD_BELOW);
        // As if everything were kept, whose error is a twelfth of the square of the step.
        let mut step = (12.0 * wanted / count).sqrt().min(0.9 * high);
        for _ in 0..8 {
            let found = changed(bins, step);
            let near = found / wanted;
            if (0.98..=1.02).contains(&near) {
                break;
            }
            if found > wanted {
                high = step;
            } else {
                low = step;
            }
            // The error grows with the square of the step, or more slowly.
            let next = step / near.sqrt().clamp(0.25, 4.0);
            step = if next > low && next < high {
                next
            } else {
                0.5 * (low + high)
            };
        }
        Some(step as f32)
    }
}

impl Bin {
    fn new(number: u32, count: u32) -> Self {
        let [start, end] = [number, number + 1].map(|n| f32::from_bits(n << SHIFT));
        let end = end.min(f32::MAX);
        let (width, middle) = (
            f64::from(end) - f64::from(start),
            0.5 * (f64::from(start) + f64::from(end)),
        );
        Self {
            count: count.into(),
            end,
            middle,
            square: middle * middle + width * width / 12.0,
        }
    }
}

/// The energy of what a dead zone of this step changes: of an index the variance in its interval,
/// as each is decoded to its mean.
fn changed(bins: &[Bin], step: f64) -> f64 {
    let (per_step, mut sum) = (1.0 / step, 0.0);
    let (mut token, mut inside) = (0.0, [0.0; 3]);
    for bin in bins {
        let steps = bin.middle * per_step;
        if steps < DEAD_BELOW {
            sum += bin.count * bin.square;
        } else if steps < FINE {
            let own = (steps - 0.125).round();
            if own > token {
                sum += variance(inside);
                (token, inside) = (own, [0.0; 3]);
            }
            let [count, first, second] = &mut inside;
            *count += bin.count;
            *first += bin.count * bin.middle;
            *second += bin.count * bin.square;
        } else {
            sum += bin.count * step * step / 12.0;
        }
    }
    sum + variance(inside)
}

/// The sum of squared differences to the mean.
fn variance([count, first, second]: [f64; 3]) -> f64 {
    if count > 0.0 {
        (second - first * first / count).max(0.0)
    } else {
        0.0
    }
}
