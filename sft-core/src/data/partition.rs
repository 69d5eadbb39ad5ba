//! How the training examples are spread over the devices.

use std::str::FromStr;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};
use serde::{Deserialize, Serialize};

use super::Data;
use crate::{Error, Result, seed};

/// The most classes that are believed of any number of samples: no data set in use has more.
const MAX_CLASSES: usize = 1 << 15;

/// A rule that gives every device its examples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Partition {
    /// Shuffled and dealt out evenly.
    Iid,
    /// Each class, of texts without classes each file, spread by proportions from a symmetric Dirichlet distribution
    /// with this concentration; every device gets at least one example.
    Dirichlet(f64),
    /// Sorted by class, or file, and cut into even shards, of which every device gets this many at random
    /// (McMahan et al. 2017).
    Shards(usize),
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "iid" {
            return Ok(Self::Iid);
        }
        if let Some(shards) = text.strip_prefix("shards:") {
            return match shards.parse() {
                Ok(shards) if shards > 0 => Ok(Self::Shards(shards)),
                _ => Err("expected shards:NUMBER with a number of at least 1".into()),
            };
        }
        let concentration = text
            .strip_prefix("dirichlet:")
            .and_then(|rest| rest.parse().ok());
        match concentration {
            Some(alpha) if alpha > 0.0 && f64::is_finite(alpha) => Ok(Self::Dirichlet(alpha)),
            _ => Err(
                "expected iid, shards:NUMBER, or dirichlet:CONCENTRATION with a positive number"
                    .into(),
            ),
        }
    }
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::Dirichlet(alpha) => write!(f, "dirichlet:{alpha}"),
            Self::Shards(shards) => write!(f, "shards:{shards}"),
        }
    }
}

impl TryFrom<String> for Partition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Partition> for String {
    fn from(partition: Partition) -> Self {
        partition.to_string()
    }
}

impl Partition {
    /// The indices of each device's examples.
    ///
    /// # Errors
    /// No device, more devices or shards than examples, a concentration that is not positive, another
    /// rule than the first for samples without classes that are of one file, or classes beyond 32,768 that
    /// outnumber the examples: a label that is no class.
    pub fn split(self, data: &dyn Data, devices: usize, seed: u64) -> Result<Vec<Vec<usize>>> {
        if devices == 0 {
            return Err(Error::argument("devices", "must be at least 1, got 0"));
        }
        if devices > data.len() {
            let samples = data.len();
            let reason = format!("must be at most the {samples} training samples, got {devices}");
            return Err(Error::argument("devices", reason));
        }
        let most = MAX_CLASSES.max(data.len());
        if data.classes() > most {
            let reason = format!(
                "must be below {most} for {} training samples, got {}",
                data.len(),
                data.classes() - 1
            );
            return Err(Error::argument("labels", reason));
        }
        if self != Self::Iid && data.classes() == 0 && data.groups() < 2 {
            let reason = format!("must be iid for texts of one file without classes, got {self}");
            return Err(Error::argument("partition", reason));
        }
        let mut rng = seed::rng(seed, &[seed::PARTITION]);
        match self {
            Self::Iid => Ok(iid(data.len(), devices, &mut rng)),
            Self::Dirichlet(alpha) => {
                let gamma = Gamma::new(alpha, 1.0).map_err(|_| {
                    Error::argument("partition", format!("needs a positive number, got {alpha}"))
                })?;
                Ok(dirichlet(data, devices, gamma, &mut rng))
            }
            Self::Shards(each) => {
                let samples = data.len();
                match devices.checked_mul(each) {
                    Some(count @ 1..) if count <= samples => {
                        Ok(shards(data, devices, each, &mut rng))
                    }
                    _ => Err(Error::argument(
                        "partition",
                        format!(
                            "needs 1 to {samples} shards in all, got {each} on {devices} devices"
                        ),
                    )),
                }
            }
        }
    }
}

fn iid(len: usize, devices: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(rng);
    (0..devices)
        .map(|n| order[n * len / devices..(n + 1) * len / devices].to_vec())
        .collect()
}

fn shards(data: &dyn Data, devices: usize, each: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut sorted: Vec<usize> = (0..data.len()).collect();
    sorted.sort_by_key(|&i| data.group(i));
    let count = devices * each;
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(rng);
    let shard = |&n: &usize| &sorted[n * data.len() / count..(n + 1) * data.len() / count];
    order
        .chunks(each)
        .map(|own| own.iter().flat_map(shard).copied().collect())
        .collect()
}

fn dirichlet(
    data: &dyn Data,
    devices: usize,
    gamma: Gamma<f64>,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<usize>> {
    let mut parts = vec![Vec::new(); devices];
    for class in 0..data.groups() {
        let mut members: Vec<usize> = (0..data.len())
            .filter(|&i| data.group(i) as usize == class)
            .collect();
        members.shuffle(rng);
        let shares: Vec<f64> = (0..devices).map(|_| gamma.sample(rng)).collect();
        let total: f64 = shares.iter().sum();
        let (mut start, mut sum) = (0, 0.0);
        for (part, share) in parts.iter_mut().zip(&shares) {
            sum += share;
            let end = (sum / total * members.len() as f64).round() as usize;
            let end = end.clamp(start, members.len());
            part.extend_from_slice(&members[start..end]);
            start = end;
        }
        // Rounding, or shares that all underflowed, may leave some over.
        parts[class % devices].extend_from_slice(&members[start..]);
    }
    while let Some(empty) = parts.iter().position(Vec::is_empty) {
        let largest = (0..devices)
            .max_by_key(|&n| (parts[n].len(), devices - n))
            .unwrap_or(0);
        let moved = parts[largest].pop();
        parts[empty].extend(moved);
    }
    parts
}
