//! Texts as token ids, of which the next tokens are to be told.

use std::fmt::Write;

use candle_core::{Device, Tensor};

use crate::data::{Batch, Data, Inputs, Labels, Prompt, SampleId};
use crate::{Digest, Error, Result};

/// A text as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// All of them, at least two.
    pub ids: Vec<u32>,
    /// Which of them count, where a token before tells them; the first where there is no prompt.
    pub counts: Vec<bool>,
    /// The number of the file that it is from, from 0.
    pub source: u32,
}

/// What a person should hear of what was made of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Samples that were cut, and the most tokens of a sample.
    pub cut: (usize, usize),
    /// Texts that were left out: too short to tell a token of.
    pub left_out: usize,
}

/// Texts as token ids, of which the next tokens are to be told: the inputs of a sample are its tokens but
/// the last.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// The inputs of all samples, one after the other.
    ids: Vec<u32>,
    /// The token after each of them, [`Labels::IGNORED`] where it does not count.
    targets: Vec<u32>,
    /// Where each sample ends.
    ends: Vec<usize>,
    /// Whether the first token counts too: a text without a prompt.
    whole: Vec<bool>,
    sources: Vec<u32>,
    told: Told,
}

impl Sequences {
    /// Samples as they come.
    ///
    /// # Errors
    /// No samples, or one without a token that counts behind its first.
    pub fn new(samples: impl IntoIterator<Item = Sequence>, told: Told) -> Result<Self> {
        let mut all = Self {
            ids: Vec::new(),
            targets: Vec::new(),
            ends: Vec::new(),
            whole: Vec::new(),
            sources: Vec::new(),
            told,
        };
        for sample in samples {
            all.push(&sample)?;
        }
        Error::require(!all.is_empty(), "samples", 0, "at least 1")?;
        Ok(all)
    }

    fn push(&mut self, sample: &Sequence) -> Result<()> {
        let Sequence {
            ids,
            counts,
            source,
        } = sample;
        if ids.len() != counts.len() || !counts.iter().skip(1).any(|&counts| counts) {
            let number = self.sources.len();
            let reason = format!("must have a token that counts, sample {number} has none");
            return Err(Error::argument("samples", reason));
        }
        let next = ids.iter().zip(counts).skip(1);
        let target = next.map(|(&id, &counts)| if counts { id } else { Labels::IGNORED });
        self.targets.extend(target);
        self.ids.extend(&ids[..ids.len() - 1]);
        self.ends.push(self.ids.len());
        self.whole.push(counts[0]);
        self.sources.push(*source);
        Ok(())
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }

    /// The inputs of a sample.
    pub fn ids(&self, index: usize) -> &[u32] {
        &self.ids[self.range(index)]
    }

    /// The token after each of them, [`Labels::IGNORED`] where it does not count.
    pub fn targets(&self, index: usize) -> &[u32] {
        &self.targets[self.range(index)]
    }
}

impl Data for Sequences {
    fn len(&self) -> usize {
        self.sources.len()
    }

    fn classes(&self) -> usize {
        0
    }

    fn label(&self, _: usize) -> u32 {
        0
    }

    fn groups(&self) -> usize {
        self.sources
            .iter()
            .max()
            .map_or(0, |&last| last as usize + 1)
    }

    fn group(&self, index: usize) -> u32 {
        self.sources[index]
    }

    fn tokens(&self, index: usize) -> Option<usize> {
        Some(self.range(index).len())
    }

    fn told(&self) -> Option<String> {
        let samples = self.len();
        let files = match self.groups() {
            1 => "one file".into(),
            files => format!("{files} files"),
        };
        let mean = self.ids.len() as f64 / samples as f64;
        let counted = self.targets.iter().filter(|&&id| id != Labels::IGNORED);
        let share = 100.0 * counted.count() as f64 / self.targets.len() as f64;
        // A text has room for all.
        let mut text = format!("{samples} samples of {files}, {mean:.1} tokens each");
        let _ = write!(text, ", of which {share:.0} % are to be told");
        let (cut, most) = self.told.cut;
        if cut > 0 {
            let _ = write!(text, ", {cut} of them cut to {most}");
        }
        if self.told.left_out > 0 {
            let _ = write!(text, "; {} shorter texts left out", self.told.left_out);
        }
        Some(text)
    }

    fn prompt(&self, index: usize) -> Option<Prompt> {
        let (ids, targets) = (self.ids(index), self.targets(index));
        let first = if self.whole[index] {
            targets.len() / 2
        } else {
            targets.iter().position(|&id| id != Labels::IGNORED)?
        };
        let counted = targets[first..].iter();
        let completion = counted.take_while(|&&id| id != Labels::IGNORED);
        Some(Prompt {
            ids: ids[..=first].to_vec(),
            completion: completion.copied().collect(),
        })
    }

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        let targets = indices.iter().flat_map(|&i| self.targets(i));
        Ok(Batch {
            inputs: padded(indices.iter().map(|&i| self.ids(i)))?,
            labels: Labels::Tokens(targets.copied().collect()),
            samples: indices.iter().map(|&i| i as SampleId).collect(),
        })
    }

    fn digest(&self, digest: &mut Digest) -> Result<()> {
        for index in 0..self.len() {
            digest.number(u64::from(self.sources[index]));
            digest.number(self.ids(index).len() as u64);
            for &id in self.ids(index).iter().chain(self.targets(index)) {
                digest.number(u64::from(id));
            }
        }
        Ok(())
    }
}

/// The ids of samples, the shorter ones padded.
pub(super) fn padded<'a>(samples: impl Iterator<Item = &'a [u32]>) -> Result<Inputs> {
    let samples: Vec<_> = samples.collect();
    let longest = samples.iter().map(|ids| ids.len()).max().unwrap_or(0);
    let mut ids = vec![0; samples.len() * longest];
    for (row, sample) in ids.chunks_exact_mut(longest.max(1)).zip(&samples) {
        row[..sample.len()].copy_from_slice(sample);
    }
    Ok(Inputs::Tokens {
        ids: Tensor::from_vec(ids, (samples.len(), longest), &Device::Cpu)?,
        lengths: samples.iter().map(|ids| ids.len() as u32).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(ids: &[u32], counts: &[bool], source: u32) -> Sequence {
        Sequence {
            ids: ids.to_vec(),
            counts: counts.to_vec(),
            source,
        }
    }

    #[test]
    fn inputs_are_all_but_the_last_and_targets_all_but_the_first() {
        let samples = [
            sequence(&[4, 5, 6, 7], &[true; 4], 0),
            sequence(&[1, 2, 3], &[false, false, true], 1),
            sequence(&[8, 9], &[false, true], 1),
        ];
        let data = Sequences::new(samples, Told::default()).unwrap();
        let batch = data.batch(&[1, 0]).unwrap();
        let Inputs::Tokens { ids, lengths } = batch.inputs else {
            panic!("texts are token ids")
        };
        assert_eq!(ids.to_vec2::<u32>().unwrap(), [[1, 2, 0], [4, 5, 6]]);
        assert_eq!(lengths, [2, 3]);
        let ignored = Labels::IGNORED;
        assert_eq!(batch.labels, Labels::Tokens(vec![ignored, 3, 5, 6, 7]));
        assert_eq!((batch.labels.counted(), data.groups()), (4, 2));
        let prompt = |i| data.prompt(i).map(|prompt| (prompt.ids, prompt.completion));
        assert_eq!(prompt(0), Some((vec![4, 5], vec![6, 7])));
        assert_eq!(prompt(1), Some((vec![1, 2], vec![3])));
        assert_eq!(prompt(2), Some((vec![8], vec![9])));
    }

    #[test]
    fn a_sample_of_which_nothing_counts_is_refused() {
        for (ids, counts) in [
            (&[1][..], &[true][..]),
            (&[1, 2], &[true, false]),
            (&[1, 2], &[true; 3]),
            (&[], &[]),
        ] {
            let error = Sequences::new([sequence(ids, counts, 0)], Told::default()).unwrap_err();
            assert!(error.to_string().contains("sample 0 has none"), "{error}");
        }
        assert!(Sequences::new([], Told::default()).is_err());
    }
}
