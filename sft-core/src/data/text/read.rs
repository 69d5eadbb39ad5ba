//! Files that hold a text and a label in each line or record.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// A text and its label as a file has them, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labelled {
    pub(super) label: String,
    pub(super) text: String,
    /// The line that it begins in, from 1.
    pub(super) line: usize,
}

/// Reads `.tsv` (each line a label, a tab, the text), `.csv` (a header that names the columns `label` and
/// `text`) or `.jsonl` (objects with `label` and `text`). Empty lines are passed over.
///
/// # Errors
/// A file that cannot be read, of another ending, or that is not so; the message names the line.
pub(super) fn labelled(path: &Path) -> Result<Vec<Labelled>> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let read = match ending.map(str::to_lowercase).as_deref() {
        Some("tsv") => tab_separated,
        Some("csv") => comma_separated,
        Some("jsonl") => json_lines,
        _ => return Err(Error::file(path, "must end in .tsv, .csv or .jsonl")),
    };
    let text = read_utf8(path)?;
    let samples = read(&text);
    let samples = samples.map_err(|reason| Error::file(path, reason))?;
    if samples.is_empty() {
        return Err(Error::file(path, "holds no samples"));
    }
    Ok(samples)
}

/// The text of a file, without a byte order mark.
pub(super) fn read_utf8(path: &Path) -> Result<String> {
    let text = std::fs::read(path).map_err(|e| Error::file(path, e))?;
    let mut text = String::from_utf8(text).map_err(|e| {
        let lines = e.as_bytes()[..=e.utf8_error().valid_up_to()].split(|&byte| byte == b'\n');
        Error::file(path, format!("line {} is not UTF-8", lines.count()))
    })?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// The lines that are not empty, with their numbers.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = (1..).zip(text.lines());
    numbered.filter(|(_, line)| !line.trim().is_empty())
}

fn tab_separated(text: &str) -> Result<Vec<Labelled>, String> {
    let sample = |(line, content): (usize, &str)| match content.split_once('\t') {
        Some((label, text)) => sample(line, label, text),
        None => Err(format!("line {line} has no tab between label and text")),
    };
    let samples: Vec<Labelled> = lines(text).map(sample).collect::<Result<_, _>>()?;
    let is_header = |first: &&Labelled| first.label == "label" || first.text.trim() == "label";
    match samples.first().filter(is_header) {
        Some(first) => Err(format!("line {} is a header, a .tsv has none", first.line)),
        None => Ok(samples),
    }
}

fn comma_separated(text: &str) -> Result<Vec<Labelled>, String> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|column| column == name);
        found.ok_or_else(|| {
            let columns: Vec<_> = header.iter().collect();
            format!("the first line must name the columns label and text, got {columns:?}")
        })
    };
    let (label, text) = (column("label")?, column("text")?);
    let record = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(|e| e.to_string())?;
        let line = record
            .position()
            .map_or(0, |position| position.line() as usize);
        let field = |column: usize| record.get(column).unwrap_or_default();
        sample(line, field(label), field(text))
    };
    reader.records().map(record).collect()
}

fn json_lines(text: &str) -> Result<Vec<Labelled>, String> {
    let record = |(line, content): (usize, &str)| {
        let value: Value =
            serde_json::from_str(content).map_err(|e| format!("line {line}: {e}"))?;
        let label = match &value["label"] {
            Value::String(label) => label.clone(),
            Value::Number(label) => label.to_string(),
            Value::Bool(label) => label.to_string(),
            _ => {
                return Err(format!(
                    "line {line} has no label that is a text or a number"
                ));
            }
        };
        let text = value["text"].as_str();
        let text = text.ok_or_else(|| format!("line {line} has no text that is a text"))?;
        sample(line, &label, text)
    };
    lines(text).map(record).collect()
}

fn sample(line: usize, label: &str, text: &str) -> Result<Labelled, String> {
    if label.trim().is_empty() {
        return Err(format!("line {line} has an empty label"));
    }
    if text.trim().is_empty() {
        return Err(format!("line {line} has an empty text"));
    }
    Ok(Labelled {
        label: label.trim().into(),
        text: text.into(),
        line,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(read: fn(&str) -> Result<Vec<Labelled>, String>, text: &str) -> Vec<[String; 3]> {
        let all = read(text).unwrap().into_iter();
        all.map(|l| [l.label, l.text, l.line.to_string()]).collect()
    }

    #[test]
    fn three_layouts_hold_the_same_samples() {
        let want = [["1", "a \"b\", c", "2"], ["no", "d", "3"]].map(|s| s.map(String::from));
        let tsv = "\n1\ta \"b\", c\nno\td\n\n";
        assert_eq!(of(tab_separated, tsv), want);
        let csv = "id,text,label\n7,\"a \"\"b\"\", c\",1\n8,d,no\n";
        assert_eq!(of(comma_separated, csv), want);
        let jsonl =
            "\n{\"text\": \"a \\\"b\\\", c\", \"label\": 1}\n{\"label\": \"no\", \"text\": \"d\"}";
        assert_eq!(of(json_lines, jsonl), want);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        type Read = fn(&str) -> Result<Vec<Labelled>, String>;
        let cases: [(Read, &str, &str); 10] = [
            (
                tab_separated,
                "sentence\tlabel\na\t1\n",
                "line 1 is a header",
            ),
            (tab_separated, "1\ta\n2 b\n", "line 2 has no tab"),
            (tab_separated, "1\ta\n\n \tb\n", "line 3 has an empty label"),
            (tab_separated, "1\t \n", "line 1 has an empty text"),
            (comma_separated, "a,b\n1,2\n", "columns label and text"),
            (comma_separated, "label,text\n1,a\n1\n", "record 2"),
            (json_lines, "{\"label\": 1, \"text\": \"a\"}\n{", "line 2"),
            (json_lines, "{\"label\": [1], \"text\": \"a\"}", "no label"),
            (json_lines, "{\"label\": 1, \"text\": 2}", "no text"),
            (json_lines, "3", "no label"),
        ];
        for (read, text, part) in cases {
            let reason = read(text).unwrap_err();
            assert!(reason.contains(part), "{reason} for {text:?}");
        }
    }
}
