//! The receiving side: messages to tensors, and what is remembered of them.

use std::collections::{BTreeSet, HashMap};

use super::basis::Basis;
use super::decisions::Decisions;
use super::indices::{Before, Sample, read_sample};
use super::samples::{Row, add_means, of_indices};
use crate::common::crc32;
use crate::frame::{Opened, open};

/// The indices `[S, K]` that a sample had, and what its rows were.
struct Reference {
    indices: Vec<Vec<i32>>,
    rows: Vec<Row>,
}

pub(super) struct Receiver {
    basis: Basis,
    references: HashMap<u64, Reference>,
    rows_before: Vec<Vec<i32>>,
    rows_checksum: u32,
    /// Every kind of decision that was made.
    pub(super) made: BTreeSet<&'static str>,
}

impl Receiver {
    pub(super) fn new(basis: &[u8]) -> Self {
        Self {
            basis: Basis::new(basis),
            references: HashMap::new(),
            rows_before: Vec::new(),
            rows_checksum: 0,
            made: BTreeSet::new(),
        }
    }

    /// The shape and the elements of a message, by the lengths and the numbers of its samples.
    pub(super) fn decode(
        &mut self,
        message: &[u8],
        lengths: &[usize],
        numbers: &[u64],
    ) -> (Vec<usize>, Vec<f32>) {
        let Opened {
            method,
            flags,
            dtype,
            shape,
            rest: mut fields,
        } = open(message);
        assert_eq!((method, flags), (3, 0));
        let [outer @ .., tokens, width] = &shape[..] else {
            panic!("shape {shape:?}");
        };
        assert_eq!(*width, self.basis.width);
        let lengths = match lengths {
            [] => vec![*tokens; outer.iter().product()],
            _ => lengths.to_vec(),
        };
        assert_eq!(fields.number(4), u64::from(self.basis.name));
        let kept = fields.varint();
        let sigma = if self.basis.is_relative {
            fields.f32()
        } else {
            1.0
        };
        let mut builds = vec![false; lengths.len()];
        if fields.number(1) == 1 {
            let bits = fields.bytes(lengths.len().div_ceil(8));
            for (n, builds) in builds.iter_mut().enumerate() {
                *builds = bits[n / 8] >> (n % 8) & 1 == 1;
            }
            let checksum = self.references_checksum(&builds, numbers);
            assert_eq!(fields.number(4), checksum.into());
        }
        if self.basis.rows_before > 0 {
            assert_eq!(fields.number(4), u64::from(self.rows_checksum));
        }
        let mut decisions = Decisions::new(std::mem::take(&mut fields.0));
        let rows_at_first = self.rows_before.len();
        let (mut counted, mut samples) = (0, Vec::new());
        for (n, &length) in lengths.iter().enumerate() {
            let number = numbers.get(n).filter(|_| builds[n]);
            let sample = self.sample(&mut decisions, length, number, &mut counted);
            self.rows_before.extend(sample.coded.iter().map(|row| {
                let within = row.iter().map(|q| *q.clamp(&-(1 << 15), &(1 << 15)));
                within.collect()
            }));
            samples.push(sample);
        }
        self.made.extend(decisions.finish());
        assert_eq!(counted, kept);
        self.add_to_checksum(rows_at_first);
        let data = samples.iter().flat_map(|sample| {
            let mut x = of_indices(&self.basis, &sample.coded, &sample.rows, sigma);
            add_means(&self.basis, &mut x, &sample.rows);
            x.concat()
        });
        let most = [f32::MAX, 65504.0, f32::from_bits(0x7f7f_0000)][dtype as usize];
        let data = data.map(|x| x.clamp(-most, most)).collect();
        if !self.basis.is_relative {
            for (&number, Sample { rows, coded }) in numbers.iter().zip(samples) {
                let indices = coded;
                self.references.insert(number, Reference { indices, rows });
            }
        }
        (shape, data)
    }

    /// A sample with its indices; counts those that were not expected.
    fn sample(
        &self,
        decisions: &mut Decisions,
        length: usize,
        number: Option<&u64>,
        counted: &mut u64,
    ) -> Sample {
        let reference = number.map(|number| &self.references[number]);
        let before = match reference {
            Some(reference) => Before::Reference(&reference.indices),
            None => Before::Rows(self.rows_before.len().min(self.basis.rows_before)),
        };
        let channels = &self.basis.coded_channels;
        let mut sample = read_sample(decisions, &self.basis, channels, length, before);
        if let Some(reference) = reference {
            assert_eq!(reference.rows.len(), length);
            for (row, before) in sample.rows.iter_mut().zip(&reference.rows) {
                row.is_sink = before.is_sink;
            }
        }
        let each = sample.coded.iter_mut().zip(&sample.rows).enumerate();
        for (n, (row, Row { named, .. })) in each {
            *counted += row.iter().filter(|q| **q != 0).count() as u64;
            let expected = match (reference, named) {
                (Some(reference), _) => reference.indices[n].clone(),
                (None, Some((between, quarters))) => {
                    let named = &self.rows_before[self.rows_before.len() - 1 - between];
                    named.iter().map(|q| quarters_of(*q, *quarters)).collect()
                }
                (None, None) => continue,
            };
            for (q, expected) in row.iter_mut().zip(expected) {
                *q += expected;
                assert!(q.abs() < 1 << 24);
            }
        }
        sample
    }

    /// The checksum of the references of those samples that build on one.
    fn references_checksum(&self, builds: &[bool], numbers: &[u64]) -> u32 {
        let mut checksums = Vec::new();
        for (number, _) in numbers.iter().zip(builds).filter(|(_, builds)| **builds) {
            let indices = self.references[number].indices.concat();
            let bytes: Vec<u8> = indices.iter().flat_map(|q| q.to_le_bytes()).collect();
            checksums.extend(crc32(&bytes).to_le_bytes());
        }
        crc32(&checksums)
    }

    /// Adds the rows from one on to the checksum of all.
    fn add_to_checksum(&mut self, first: usize) {
        let mut bytes = self.rows_checksum.to_le_bytes().to_vec();
        for q in self.rows_before[first..].iter().flatten() {
            bytes.extend((*q as f32).to_le_bytes());
        }
        self.rows_checksum = crc32(&bytes);
    }
}

/// So many quarters, halves away from zero.
fn quarters_of(q: i32, quarters: i32) -> i32 {
    let magnitude = (f64::from(q.abs() * quarters) / 4.0 + 0.5).floor() as i32;
    magnitude * q.signum()
}
