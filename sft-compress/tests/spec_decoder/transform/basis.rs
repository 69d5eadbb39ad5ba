//! A basis from its bytes.

use super::decisions::Decisions;
use super::indices::{Before, read_sample};
use super::samples::{Row, of_indices};
use crate::common;
use crate::fields::Fields;
use crate::frame::decode_by_the_book;

pub(super) struct Basis {
    pub(super) name: u32,
    pub(super) is_relative: bool,
    pub(super) has_row_steps: bool,
    pub(super) prefix: usize,
    /// Height and width.
    pub(super) grid: Option<[usize; 2]>,
    /// *D*
    pub(super) width: usize,
    /// *K*
    pub(super) channels: usize,
    /// *N*
    pub(super) rows_before: usize,
    pub(super) step: f32,
    pub(super) levels: [i8; 2],
    pub(super) group_steps: Vec<i8>,
    pub(super) group_sizes: Vec<i8>,
    pub(super) channel_sizes: Vec<i8>,
    pub(super) coded_channels: Vec<usize>,
    /// *U*, `[K, D]`
    pub(super) rotation: Option<Vec<Vec<f32>>>,
    /// By token; of a sequence that of all behind the prefix is the last.
    pub(super) means: Option<Vec<Vec<f32>>>,
}

impl Basis {
    pub(super) fn new(bytes: &[u8]) -> Self {
        let mut fields = Fields(bytes.to_vec());
        let name = Fields(fields.0.split_off(bytes.len() - 4)).number(4) as u32;
        assert_eq!(name, common::crc32(&bytes[..bytes.len() - 4]));
        assert_eq!(fields.bytes(5), b"SFTB\x01");
        let flags = fields.number(1);
        let [prefix, height, across, width, channels, rows_before] =
            [(); 6].map(|()| fields.varint() as usize);
        let grid = (height > 0).then_some([height, across]);
        let step = fields.f32();
        let _rounding = fields.number(1);
        let groups = prefix + if height > 0 { height + across - 1 } else { 1 };
        let mut numbers = |count| -> Vec<i8> {
            let bytes = fields.bytes(count).into_iter();
            bytes.map(u8::cast_signed).collect()
        };
        let levels = numbers(2);
        let (group_steps, group_sizes, channel_sizes) =
            (numbers(groups), numbers(groups), numbers(channels));
        let coded_channels = (0..groups).map(|_| fields.varint() as usize).collect();
        let mut part = || {
            let len = fields.varint() as usize;
            fields.bytes(len)
        };
        let rotation = (flags & 1 != 0).then(|| orthonormal(&rows_of(&part(), [channels, width])));
        let means = (flags & 2 != 0).then(|| (part(), part()));
        assert!(fields.0.is_empty());
        let mut basis = Self {
            name,
            is_relative: flags & 4 != 0,
            has_row_steps: flags & 8 != 0,
            prefix,
            grid,
            width,
            channels,
            rows_before,
            step,
            levels: [levels[0], levels[1]],
            group_steps,
            group_sizes,
            channel_sizes,
            coded_channels,
            rotation,
            means: None,
        };
        basis.means = means.map(|(frame, decisions)| basis.means(&frame, decisions));
        basis
    }

    fn means(&self, frame: &[u8], decisions: Vec<u8>) -> Vec<Vec<f32>> {
        let of_groups = rows_of(frame, [self.prefix + 1, self.width]);
        let Some([height, across]) = self.grid else {
            assert!(decisions.is_empty());
            return of_groups;
        };
        let tokens = self.prefix + height * across;
        let mut decisions = Decisions::new(decisions);
        // Of means all channels are coded.
        let all = vec![self.channels; self.coded_channels.len()];
        let sample = read_sample(&mut decisions, self, &all, tokens, Before::Nothing);
        decisions.finish().for_each(drop);
        let rows = vec![Row::default(); tokens];
        let mut means = of_indices(self, &sample.coded, &rows, 0.25);
        for (token, mean) in means.iter_mut().enumerate() {
            for (x, of_group) in mean.iter_mut().zip(&of_groups[token.min(self.prefix)]) {
                *x += of_group;
            }
        }
        means
    }

    /// The group of a row.
    pub(super) fn group(&self, row: usize) -> usize {
        match self.grid {
            _ if row < self.prefix => row,
            None => self.prefix,
            Some([_, across]) => {
                let (u, v) = ((row - self.prefix) / across, (row - self.prefix) % across);
                self.prefix + u + v
            }
        }
    }

    /// The parents of a row of a grid.
    pub(super) fn parents(&self, row: usize) -> Vec<usize> {
        let Some([_, across]) = self.grid.filter(|_| row >= self.prefix) else {
            return Vec::new();
        };
        let (u, v) = ((row - self.prefix) / across, (row - self.prefix) % across);
        let mut parents = Vec::new();
        if v > 0 {
            parents.push(row - 1);
        }
        if u > 0 {
            parents.push(row - across);
        }
        parents
    }

    pub(super) fn has_sinks(&self) -> bool {
        self.grid.is_none() && self.prefix > 0
    }
}

/// The rows of a frame of this shape.
fn rows_of(frame: &[u8], shape: [usize; 2]) -> Vec<Vec<f32>> {
    let (found, data) = decode_by_the_book(frame);
    assert_eq!(found, shape);
    data.chunks(shape[1]).map(<[f32]>::to_vec).collect()
}

/// Gram–Schmidt in `f64`.
fn orthonormal(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut done: Vec<Vec<f64>> = Vec::new();
    for row in rows {
        let mut row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        for earlier in done.iter().chain(&done) {
            let along = dot(&row, earlier);
            for (x, e) in row.iter_mut().zip(earlier) {
                *x -= along * e;
            }
        }
        let factor = 1.0 / dot(&row, &row).sqrt();
        done.push(row.iter().map(|x| x * factor).collect());
    }
    let rounded = |row: &Vec<f64>| row.iter().map(|&x| x as f32).collect();
    done.iter().map(rounded).collect()
}

/// Eight sums, by channel mod 8, as far as there are eights; then what is left.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let eights = a.len() / 8 * 8;
    let (mut sums, mut left) = ([0.0; 8], 0.0);
    for i in 0..eights {
        sums[i % 8] += a[i] * b[i];
    }
    for i in eights..a.len() {
        left += a[i] * b[i];
    }
    sums.iter().sum::<f64>() + left
}
