use std::ops::Range;

use super::Level;
use super::level::with_vector;
use super::scalar::{BLOCK, ROOM, collect_scalar, keep_scalar};

/// Positions, ascending, and the elements there.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) positions: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Candidates {
    pub(crate) fn clear(&mut self) {
        self.positions.clear();
        self.values.clear();
    }
}

/// Appends the elements whose magnitude has bits in the range; `data` starts at
/// position `start`.
pub(crate) fn collect(
    level: Level,
    data: &[f32],
    start: u32,
    bits: Range<u32>,
    found: &mut Candidates,
) {
    for (block, start) in data.chunks(BLOCK).zip((start..).step_by(BLOCK)) {
        let len = found.positions.len();
        found.positions.reserve(BLOCK + ROOM);
        found.values.reserve(BLOCK + ROOM);
        let (Some(positions), Some(values)) = (
            found.positions.spare_capacity_mut().first_chunk_mut(),
            found.values.spare_capacity_mut().first_chunk_mut(),
        ) else {
            return;
        };
        let out = (positions, values);
        let bits = bits.clone();
        let count = with_vector!(
            level,
            super::kernels::collect(
                block: &[f32], start: u32, bits: Range<u32>, out: super::scalar::Out<'_>
            ) -> usize,
            else collect_scalar(block, start, bits, 0, out)
        );
        // SAFETY: the first `count` of both are written.
        unsafe {
            found.positions.set_len(len + count);
            found.values.set_len(len + count);
        }
    }
}

/// Drops the elements whose magnitude bits are below `least`, and those with
/// just these bits behind position `last_equal`.
pub(crate) fn keep_at_least(level: Level, from: &mut Candidates, least: u32, last_equal: u32) {
    let (positions, values) = (&mut from.positions[..], &mut from.values[..]);
    let len = with_vector!(
        level,
        super::kernels::keep_at_least(
            positions: &mut [u32], values: &mut [f32], least: u32, last_equal: u32
        ) -> usize,
        else keep_scalar(positions, values, least, last_equal, (0, 0))
    );
    from.positions.truncate(len);
    from.values.truncate(len);
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "chosen elements are the same")]
mod tests {
    use super::*;
    use crate::value::Noise;

    #[test]
    fn all_levels_choose_the_same() {
        let noise = Noise::new(4);
        let data: Vec<f32> = (0..3001)
            .map(|i| ((noise.uniform(i) - 0.5) * 100.0).round() as f32)
            .collect();
        for len in [0, 1, 7, 8, 15, 16, 17, 100, 1024, 1025, 3001] {
            for (lo, hi) in [
                (0.0_f32, 60.0_f32),
                (1e-9, 20.0),
                (20.0, 20.0),
                (49.0, f32::MAX),
            ] {
                let bits = lo.to_bits()..hi.to_bits();
                let wanted = |x: f32| bits.contains(&x.abs().to_bits());
                let slow = (7..).zip(&data[..len]).filter(|(_, x)| wanted(**x));
                let (slow_positions, slow_values): (Vec<u32>, Vec<f32>) = slow.unzip();
                for level in Level::all() {
                    let mut found = Candidates::default();
                    collect(level, &data[..len], 7, bits.clone(), &mut found);
                    assert_eq!(found.positions, slow_positions);
                    assert_eq!(found.values, slow_values);
                }
            }
        }
    }

    #[test]
    fn all_levels_keep_the_same() {
        let noise = Noise::new(5);
        let data: Vec<f32> = (0..1003)
            .map(|i| (noise.uniform(i) * 9.0).floor() as f32 - 4.0)
            .collect();
        for len in [0, 1, 8, 16, 31, 500, 1003] {
            for (least, last_equal) in [
                (0.0_f32, u32::MAX),
                (2.0, 0),
                (2.0, 1500),
                (4.0, 0),
                (4.0, u32::MAX),
            ] {
                let positions = || (0..len as u32).map(|k| 3 * k);
                let kept: Vec<u32> = positions()
                    .filter(|&p| {
                        let x = data[p as usize / 3].abs();
                        x > least || x == least && p <= last_equal
                    })
                    .collect();
                for level in Level::all() {
                    let (positions, values) = (positions().collect(), data[..len].to_vec());
                    let mut from = Candidates { positions, values };
                    keep_at_least(level, &mut from, least.to_bits(), last_equal);
                    assert_eq!(from.positions, kept);
                    assert!(
                        from.values
                            .iter()
                            .zip(&kept)
                            .all(|(x, p)| *x == data[*p as usize / 3])
                    );
                }
            }
        }
    }
}
