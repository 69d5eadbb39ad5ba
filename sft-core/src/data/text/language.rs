//! Data sets of which the next tokens are to be told: plain text and conversations.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::chat::chats;
use super::plain::{line_samples, packed_samples, plain};
use super::sequences::{Sequence, Sequences, Told};
use crate::data::Examples;
use crate::{Error, Result};

/// Token ids, each with the bytes of the text that it stands for; the flag asks for those that the model
/// wants before and after a text.
pub type EncodePlaces<'a> = dyn Fn(&str, bool) -> Result<Vec<(u32, Range<usize>)>> + 'a;

/// The text of messages; the flag asks for what an answer begins with.
pub type Render<'a> = dyn Fn(&[Value], bool) -> Result<String> + 'a;

/// How a language model wants texts.
pub struct LanguageInput<'a> {
    /// Token ids of a text.
    pub encode: &'a EncodePlaces<'a>,
    /// What a text ends with, where the model has such a token.
    pub end: Option<u32>,
    /// The text of a conversation, where the tokenizer has a template.
    pub render: Option<&'a Render<'a>>,
    /// The most tokens of a sample.
    pub most: usize,
}

/// What samples are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanguageData {
    /// Plain text, a line a sample.
    Lines,
    /// Plain text, each file as it is cut into samples of the most tokens.
    Packed,
    /// Conversations.
    Chat,
}

/// Training and test samples of two files, or of folders with files that end in `.txt`.
///
/// Behind every line, or packed every file, comes the end of a text. Of conversations the tokens of the assistant
/// count, and the end of its turn; where the tokenizer has no template, a record must be a prompt and a completion,
/// and the text is the one behind the other. A sample of more tokens than the most is cut behind them.
///
/// # Errors
/// A file that cannot be read or holds no samples, or a record that is not what it should be; the message
/// names file and line.
pub fn language(
    kind: LanguageData,
    [train, test]: [&Path; 2],
    input: &LanguageInput<'_>,
) -> Result<Examples> {
    let read = |path: &Path| -> Result<Sequences> {
        match kind {
            LanguageData::Lines => plain(path, input, line_samples),
            LanguageData::Packed => plain(path, input, packed_samples),
            LanguageData::Chat => chats(path, input),
        }
    };
    Ok((Box::new(read(train)?), Box::new(read(test)?)))
}

/// The samples of a file.
pub(super) fn made(path: &Path, samples: Vec<Sequence>, told: Told) -> Result<Sequences> {
    if samples.is_empty() {
        return Err(Error::file(path, "holds no samples"));
    }
    Sequences::new(samples, told).map_err(|e| Error::file(path, e))
}

/// The first ids, so many that the most are inputs.
pub(super) fn cut(mut ids: Vec<u32>, most: usize, told: &mut Told) -> Vec<u32> {
    told.cut.0 += usize::from(ids.len() > most + 1);
    ids.truncate(most + 1);
    ids
}

/// A tokenizer for the tests of the kinds of data.
#[cfg(test)]
pub(super) mod tests {
    use std::ops::Range;

    use crate::Result;

    /// A byte an id; a text begins with 1.
    #[allow(clippy::unnecessary_wraps)]
    pub(in crate::data::text) fn bytes(
        text: &str,
        special: bool,
    ) -> Result<Vec<(u32, Range<usize>)>> {
        let start = special.then_some((1, 0..0));
        let bytes = text.bytes().enumerate();
        let bytes = bytes.map(|(i, byte)| (u32::from(byte), i..i + 1));
        Ok(start.into_iter().chain(bytes).collect())
    }
}
