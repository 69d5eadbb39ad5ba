//! Texts as token ids, with a class each or to tell the next of.

/// Conversations of which the next tokens are to be told.
mod chat;
/// Lines of files that hold texts and classes.
mod labelled;
/// Files of which the next tokens are to be told.
mod language;
/// Plain text of which the next tokens are to be told.
mod plain;
/// Files with one sample a line or record.
mod read;
/// Texts of which the next tokens are to be told.
mod sequences;

pub use labelled::{Encode, PLACE, Wanted, classification};
pub use language::{EncodePlaces, LanguageData, LanguageInput, Render, language};

pub use sequences::{Sequence, Sequences, Told};

use self::sequences::padded;
use super::{Batch, Data, Labels, SampleId};
use crate::{Digest, Error, Result};

/// How many classes are told by name.
const NAMED: usize = 10;

/// Texts as token ids, with a class each.
#[derive(Clone, Debug)]
pub struct Texts {
    /// The ids of all samples, one after the other.
    ids: Vec<u32>,
    /// Where each sample ends.
    ends: Vec<usize>,
    labels: Vec<u32>,
    classes: Vec<String>,
    /// How many samples were cut, and to how many tokens.
    cut: (usize, usize),
}

impl Texts {
    /// Samples with the numbers of their classes.
    ///
    /// # Errors
    /// No samples, a sample without tokens, or a class that has no name.
    pub fn new(
        samples: impl IntoIterator<Item = (Vec<u32>, u32)>,
        classes: Vec<String>,
    ) -> Result<Self> {
        let mut texts = Self {
            ids: Vec::new(),
            ends: Vec::new(),
            labels: Vec::new(),
            classes,
            cut: (0, 0),
        };
        for (ids, label) in samples {
            texts.push(&ids, label)?;
        }
        Error::require(!texts.is_empty(), "samples", 0, "at least 1")?;
        Ok(texts)
    }

    /// The same, of which so many were cut to the most tokens: it is told.
    #[must_use]
    pub fn with_cut(self, count: usize, most: usize) -> Self {
        let cut = (count, most);
        Self { cut, ..self }
    }

    fn push(&mut self, ids: &[u32], label: u32) -> Result<()> {
        let (number, classes) = (self.labels.len(), self.classes.len());
        if ids.is_empty() {
            let reason = format!("must have tokens, sample {number} has none");
            return Err(Error::argument("samples", reason));
        }
        if label as usize >= classes {
            let reason = format!("must be in 0..{classes}, got {label} for sample {number}");
            return Err(Error::argument("label", reason));
        }
        self.ids.extend(ids);
        self.ends.push(self.ids.len());
        self.labels.push(label);
        Ok(())
    }

    /// The token ids of a sample.
    pub fn ids(&self, index: usize) -> &[u32] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.ids[start..self.ends[index]]
    }

    /// The names of the classes.
    pub fn class_names(&self) -> &[String] {
        &self.classes
    }
}

impl Data for Texts {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> usize {
        self.classes.len()
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    fn tokens(&self, index: usize) -> Option<usize> {
        Some(self.ids(index).len())
    }

    fn told(&self) -> Option<String> {
        let (samples, classes) = (self.len(), self.classes.len());
        let mean = self.ids.len() as f64 / samples as f64;
        let names = self.classes.iter().take(NAMED).map(String::as_str);
        let mut names: Vec<_> = names.collect();
        names.extend((classes > NAMED).then_some("..."));
        let names = names.join(", ");
        let text = format!("{samples} texts of {classes} classes ({names}), {mean:.1} tokens each");
        let (cut, most) = self.cut;
        if cut > 0 {
            return Some(format!("{text}, {cut} of them cut to {most}"));
        }
        Some(text)
    }

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        Ok(Batch {
            inputs: padded(indices.iter().map(|&i| self.ids(i)))?,
            labels: Labels::Classes(indices.iter().map(|&i| self.label(i)).collect()),
            samples: indices.iter().map(|&i| i as SampleId).collect(),
        })
    }

    fn digest(&self, digest: &mut Digest) -> Result<()> {
        digest.number(self.classes.len() as u64);
        for (index, &label) in self.labels.iter().enumerate() {
            digest.number(u64::from(label));
            digest.number(self.ids(index).len() as u64);
            for &id in self.ids(index) {
                digest.number(u64::from(id));
            }
        }
        Ok(())
    }
}
