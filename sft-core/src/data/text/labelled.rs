//! Data sets of labelled texts.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::Texts;
use super::read::{Labelled, labelled};
use crate::data::Examples;
use crate::{Error, Result};

/// What stands for the text in a prompt.
pub const PLACE: &str = "{text}";

/// The token ids of a text, and whether there were more.
pub type Encode<'a> = dyn Fn(&str) -> Result<(Vec<u32>, bool)> + 'a;

/// How a model of texts wants them.
pub struct Wanted<'a> {
    /// The token ids of a text, at most `most`, and whether there were more.
    pub encode: &'a Encode<'a>,
    /// What a text is put into, in place of [`PLACE`].
    pub prompt: Option<&'a str>,
    /// The most tokens of a sample, to tell.
    pub most: usize,
}

/// Training and test samples of two files, `.tsv`, `.csv` or `.jsonl`. The classes are the labels of
/// the training file: in their order as numbers where all are numbers, else in that of their names.
///
/// # Errors
/// A file that does not hold texts with labels, only one class, or a test sample of another class;
/// the message names file and line.
pub fn classification(train: &Path, test: &Path, wanted: &Wanted<'_>) -> Result<Examples> {
    let [train_samples, test_samples] = [labelled(train)?, labelled(test)?];
    let classes = class_names(&train_samples);
    if classes.len() < 2 {
        let reason = format!("must have at least two classes, got only {}", classes[0]);
        return Err(Error::file(train, reason));
    }
    let make = |path: &Path, samples: Vec<Labelled>| {
        let texts = texts(samples, &classes, wanted);
        texts.map_err(|reason| Error::file(path, reason))
    };
    Ok((
        Box::new(make(train, train_samples)?),
        Box::new(make(test, test_samples)?),
    ))
}

fn class_names(samples: &[Labelled]) -> Vec<String> {
    let names: BTreeSet<_> = samples.iter().map(|sample| &sample.label).collect();
    let mut names: Vec<_> = names.into_iter().cloned().collect();
    let number = |name: &String| name.parse::<i64>();
    if names.iter().all(|name| number(name).is_ok()) {
        names.sort_by_key(|name| number(name).unwrap_or_default());
    }
    names
}

fn texts(samples: Vec<Labelled>, classes: &[String], wanted: &Wanted<'_>) -> Result<Texts, String> {
    let numbers: HashMap<_, _> = classes.iter().zip(0..).collect();
    let mut cut = 0;
    let mut sample = |Labelled { label, text, line }| {
        let number = numbers.get(&label);
        let number = number.ok_or_else(|| {
            format!("line {line} has the class {label}, which no training sample has")
        })?;
        let text = match wanted.prompt {
            Some(prompt) => prompt.replace(PLACE, &text),
            None => text,
        };
        let (ids, was_cut) = (wanted.encode)(&text).map_err(|e| format!("line {line}: {e}"))?;
        if ids.is_empty() {
            return Err(format!("line {line} gives no tokens"));
        }
        cut += usize::from(was_cut);
        Ok((ids, *number))
    };
    let samples = samples.into_iter().map(&mut sample);
    let samples = samples.collect::<Result<Vec<_>, String>>()?;
    let texts = Texts::new(samples, classes.to_vec()).map_err(|e| e.to_string())?;
    Ok(texts.with_cut(cut, wanted.most))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(label: &str) -> Labelled {
        Labelled {
            label: label.into(),
            text: "a".into(),
            line: 1,
        }
    }

    #[test]
    fn numbers_are_ordered_as_numbers_and_names_as_names() {
        let names = |labels: &[&str]| {
            class_names(&labels.iter().map(|label| sample(label)).collect::<Vec<_>>())
        };
        assert_eq!(names(&["10", "9", "-1", "9"]), ["-1", "9", "10"]);
        assert_eq!(names(&["10", "9", "b", "a"]), ["10", "9", "a", "b"]);
    }
}
