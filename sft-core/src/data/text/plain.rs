//! Plain text of which the next tokens are to be told.

use std::path::{Path, PathBuf};

use super::language::{LanguageInput, cut, made};
use super::read::{lines, read_utf8};
use super::sequences::{Sequence, Sequences, Told};
use crate::{Error, Result};

/// The samples of a file's text, and what to tell of them.
pub(super) type Samples = fn(&str, &LanguageInput<'_>, &mut Told) -> Result<Vec<Vec<u32>>, String>;

/// The samples of a file or of a folder's files, each a source.
pub(super) fn plain(path: &Path, input: &LanguageInput<'_>, samples: Samples) -> Result<Sequences> {
    let mut told = Told {
        cut: (0, input.most),
        left_out: 0,
    };
    let mut all = Vec::new();
    for (file, source) in files(path)?.iter().zip(0..) {
        let text = read_utf8(file)?;
        let found = samples(&text, input, &mut told).map_err(|e| Error::file(file, e))?;
        all.extend(found.into_iter().map(|ids| Sequence {
            counts: vec![true; ids.len()],
            ids,
            source,
        }));
    }
    made(path, all, told)
}

/// The file, or those of a folder that end in `.txt`, by their names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::file(path, e))?;
    let entries = entries.map(|entry| Ok(entry.map_err(|e| Error::file(path, e))?.path()));
    let mut files = entries.collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "txt"));
    files.sort();
    if files.is_empty() {
        return Err(Error::file(path, "holds no file that ends in .txt"));
    }
    Ok(files)
}

/// A sample a line.
pub(super) fn line_samples(
    text: &str,
    input: &LanguageInput<'_>,
    told: &mut Told,
) -> Result<Vec<Vec<u32>>, String> {
    let mut samples = Vec::new();
    for (line, content) in lines(text) {
        let ids = whole_text(content, input).map_err(|e| format!("line {line}: {e}"))?;
        if ids.len() < 2 {
            told.left_out += 1;
            continue;
        }
        samples.push(cut(ids, input.most, told));
    }
    Ok(samples)
}

/// The whole text, cut into samples.
pub(super) fn packed_samples(
    text: &str,
    input: &LanguageInput<'_>,
    _: &mut Told,
) -> Result<Vec<Vec<u32>>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let ids = whole_text(text, input).map_err(|e| e.to_string())?;
    // The last token of a sample is the first of the next, so that each but the first is told once.
    let starts = (0..ids.len().saturating_sub(1)).step_by(input.most);
    Ok(starts
        .map(|start| ids[start..ids.len().min(start + input.most + 1)].to_vec())
        .collect())
}

/// The ids of a text and its end.
fn whole_text(text: &str, input: &LanguageInput<'_>) -> Result<Vec<u32>> {
    let ids = (input.encode)(text, true)?.into_iter();
    let mut ids: Vec<_> = ids.map(|(id, _)| id).collect();
    ids.extend(input.end.filter(|end| ids.last() != Some(end)));
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::super::language::tests::bytes;
    use super::*;

    fn input(most: usize) -> LanguageInput<'static> {
        LanguageInput {
            encode: &bytes,
            end: Some(2),
            render: None,
            most,
        }
    }

    #[test]
    fn lines_end_and_files_are_cut_so_that_each_token_is_told_once() {
        let mut told = Told::default();
        let samples = line_samples("ab\n\nabcd\n", &input(4), &mut told).unwrap();
        let ids = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
        assert_eq!(samples, [ids("\u{1}ab\u{2}"), ids("\u{1}abcd")]);
        assert_eq!(told.cut.0, 1);
        let packed = packed_samples("ab\ncde", &input(3), &mut told).unwrap();
        assert_eq!(packed, [ids("\u{1}ab\n"), ids("\ncde"), ids("e\u{2}")]);
        assert!(
            packed_samples(" \n", &input(3), &mut told)
                .unwrap()
                .is_empty()
        );
        let bare = LanguageInput {
            end: None,
            ..input(4)
        };
        let no_start = |text: &str, _: bool| bytes(text, false);
        let bare = LanguageInput {
            encode: &no_start,
            ..bare
        };
        assert!(line_samples("a\n", &bare, &mut told).unwrap().is_empty());
        assert_eq!(told.left_out, 1);
    }
}
