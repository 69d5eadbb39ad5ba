//! Conversations of which what the assistant says is to be told.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use super::language::{LanguageInput, Render, cut, made};
use super::read::{lines, read_utf8};
use super::sequences::{Sequence, Sequences, Told};
use crate::{Error, Result};

/// The samples of a file, a record each.
pub(super) fn chats(path: &Path, input: &LanguageInput<'_>) -> Result<Sequences> {
    if path
        .extension()
        .is_none_or(|ending| !ending.eq_ignore_ascii_case("jsonl"))
    {
        return Err(Error::file(path, "must end in .jsonl"));
    }
    let text = read_utf8(path)?;
    let mut told = Told {
        cut: (0, input.most),
        left_out: 0,
    };
    let mut samples = Vec::new();
    for (line, content) in lines(&text) {
        let sample = chat(content, input, &mut told);
        samples.push(sample.map_err(|e| Error::file(path, format!("line {line}: {e}")))?);
    }
    made(path, samples, told)
}

/// The sample of a record.
fn chat(record: &str, input: &LanguageInput<'_>, told: &mut Told) -> Result<Sequence, String> {
    let record: Value = serde_json::from_str(record).map_err(|e| e.to_string())?;
    let written = match (
        &record["messages"],
        &record["prompt"],
        &record["completion"],
    ) {
        (Value::Array(messages), _, _) => match input.render {
            Some(render) => conversation(messages, render)?,
            None => return Err("messages need a chat template, and the tokenizer has none".into()),
        },
        (_, Value::String(prompt), Value::String(completion)) => match input.render {
            Some(render) => {
                let message = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
                let messages = [message("user", prompt), message("assistant", completion)];
                conversation(&messages, render)?
            }
            None => Written {
                text: format!("{prompt}{completion}"),
                told: std::iter::once(prompt.len()..prompt.len() + completion.len()).collect(),
                plain: true,
            },
        },
        _ => return Err("must have messages, a list, or prompt and completion, texts".into()),
    };
    sample(&written, input, told)
}

/// A conversation as one text.
struct Written {
    text: String,
    /// The bytes that are told.
    told: Vec<Range<usize>>,
    /// Whether it is a plain text, which has an end that is told too.
    plain: bool,
}

/// Renders a conversation, and the beginnings of it, to find what the assistant says.
///
/// The whitespace that a template writes behind a turn's end is not told.
fn conversation(messages: &[Value], render: &Render<'_>) -> Result<Written, String> {
    for (message, number) in messages.iter().zip(1..) {
        if !(message["role"].is_string() && message["content"].is_string()) {
            return Err(format!(
                "message {number} must have role and content, texts"
            ));
        }
    }
    let text = render(messages, false).map_err(|e| e.to_string())?;
    let mut told = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        if message["role"] != "assistant" {
            continue;
        }
        if i == 0 {
            return Err("the assistant must not have the first turn".into());
        }
        let before = render(&messages[..i], true).map_err(|e| e.to_string())?;
        let after = render(&messages[..=i], false).map_err(|e| e.to_string())?;
        let (after, number) = (after.trim_end(), i + 1);
        if !(after.starts_with(&before) && text.starts_with(after)) {
            return Err(format!(
                "the chat template writes message {number} otherwise when others follow, so that \
                 what the assistant says cannot be told apart"
            ));
        }
        told.push(before.len()..after.len());
    }
    if told.is_empty() {
        return Err("has no turn of the assistant".into());
    }
    Ok(Written {
        text,
        told,
        plain: false,
    })
}

fn sample(
    written: &Written,
    input: &LanguageInput<'_>,
    told: &mut Told,
) -> Result<Sequence, String> {
    let Written { text, plain, .. } = written;
    let places = (input.encode)(text, *plain).map_err(|e| e.to_string())?;
    let is_told = |place: &Range<usize>| {
        let overlaps = |told: &Range<usize>| place.start < told.end && place.end > told.start;
        written.told.iter().any(overlaps)
    };
    let mut counts: Vec<_> = places.iter().map(|(_, place)| is_told(place)).collect();
    let mut ids: Vec<_> = places.into_iter().map(|(id, _)| id).collect();
    if let Some(end) = input.end.filter(|_| *plain) {
        ids.extend((ids.last() != Some(&end)).then_some(end));
        counts.resize(ids.len(), true);
        counts[ids.len() - 1] = true;
    }
    // Nothing is learnt behind the last token that counts.
    let last = counts
        .iter()
        .rposition(|&counts| counts)
        .map_or(0, |i| i + 1);
    let ids = cut(ids[..last].to_vec(), input.most, told);
    counts.truncate(ids.len());
    if !counts.iter().skip(1).any(|&counts| counts) {
        let most = input.most;
        let reason = "no token of the assistant is among the first";
        return Err(format!(
            "{reason} {most}; raise max_tokens, or leave the line out"
        ));
    }
    Ok(Sequence {
        ids,
        counts,
        source: 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::language::tests::bytes;
    use super::*;

    #[allow(clippy::unnecessary_wraps)]
    fn render(messages: &[Value], asks: bool) -> Result<String> {
        let turn = |message: &Value| {
            let text = |name: &str| message[name].as_str().unwrap().to_string();
            format!("<{}>{}.\n", text("role"), text("content"))
        };
        let turns: String = messages.iter().map(turn).collect();
        Ok(turns + if asks { "<assistant>" } else { "" })
    }

    fn input<'a>(render: Option<&'a Render<'a>>, most: usize) -> LanguageInput<'a> {
        LanguageInput {
            encode: &bytes,
            end: Some(2),
            render,
            most,
        }
    }

    fn of(
        record: &Value,
        render: Option<&Render<'_>>,
        most: usize,
    ) -> Result<(String, String), String> {
        let sample = chat(
            &record.to_string(),
            &input(render, most),
            &mut Told::default(),
        )?;
        let text = |all: bool| -> String {
            let ids = sample.ids.iter().zip(&sample.counts);
            let ids = ids.filter(|(_, counts)| all || **counts);
            ids.map(|(&id, _)| char::from(id as u8)).collect()
        };
        Ok((text(true), text(false)))
    }

    fn dialogue(roles: &[&str]) -> Value {
        let message = |(role, i): (&&str, usize)| json!({"role": role, "content": i.to_string()});
        json!({"messages": roles.iter().zip(0..).map(message).collect::<Vec<_>>()})
    }

    #[test]
    fn what_the_assistant_says_counts() {
        let record = dialogue(&["system", "user", "assistant", "user", "assistant", "user"]);
        let (text, told) = of(&record, Some(&render), 200).unwrap();
        let wanted = "<system>0.\n<user>1.\n<assistant>2.\n<user>3.\n<assistant>4.";
        assert_eq!((text.as_str(), told.as_str()), (wanted, "2.4."));
        let pair = json!({"prompt": "a?", "completion": " b"});
        let (text, told) = of(&pair, Some(&render), 200).unwrap();
        assert_eq!(
            (text.as_str(), told.as_str()),
            ("<user>a?.\n<assistant> b.", " b.")
        );
        let (text, told) = of(&pair, None, 200).unwrap();
        assert_eq!(
            (text.as_str(), told.as_str()),
            ("\u{1}a? b\u{2}", " b\u{2}")
        );
        let (text, told) = of(&pair, None, 3).unwrap();
        assert_eq!((text.as_str(), told.as_str()), ("\u{1}a? ", " "));
    }

    #[test]
    fn records_that_tell_nothing_are_refused() {
        let forgets = |messages: &[Value], asks: bool| -> Result<String> {
            let last = messages.len().saturating_sub(1);
            render(&messages[last..], asks)
        };
        let good = dialogue(&["user", "assistant"]);
        let cases: [(Value, Option<&Render<'_>>, usize, &str); 8] = [
            (
                dialogue(&["user"]),
                Some(&render),
                99,
                "no turn of the assistant",
            ),
            (
                dialogue(&["assistant"]),
                Some(&render),
                99,
                "must not have the first turn",
            ),
            (good.clone(), None, 99, "messages need a chat template"),
            (
                good.clone(),
                Some(&render),
                19,
                "among the first 19; raise max_tokens",
            ),
            (good, Some(&forgets), 99, "writes message 2 otherwise"),
            (
                json!({"messages": [{"role": "user"}]}),
                Some(&render),
                99,
                "message 1 must have role",
            ),
            (json!({"prompt": "a"}), None, 99, "must have messages"),
            (
                json!({"prompt": "a", "completion": 3}),
                None,
                99,
                "must have messages",
            ),
        ];
        for (record, render, most, part) in cases {
            let error = of(&record, render, most).unwrap_err();
            assert!(error.contains(part), "{error} for {record}");
        }
    }
}
