//! What a tuned language model says.

use candle_core::D;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapters, Lora, check_adapters};
use crate::data::Data;
use crate::model::{Model, Reader, TextInput};
use crate::split::forward::task_head;
use crate::task::TaskHead;
use crate::{Error, Result};

/// How a tuned model goes on from a beginning of a test sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    /// The beginning.
    pub prompt: String,
    /// What the model says.
    pub said: String,
    /// How the sample goes on.
    pub expected: String,
}

/// What the adapted model says after each of some prompts of token ids: each time the likeliest next token,
/// at most `most` of them, up to `end` where that is given or where the model takes no more.
///
/// Keys and values of the tokens before are kept; the weights are copied once with the adapters added.
///
/// # Errors
/// Adapters that do not fit the model, one that is no language model, or a prompt that is empty, has ids
/// beyond the vocabulary or as many tokens as the model takes.
pub fn generate(
    model: &dyn Model,
    lora: Lora,
    adapters: &Adapters,
    prompts: &[Vec<u32>],
    most: usize,
    end: Option<u32>,
) -> Result<Vec<Vec<u32>>> {
    check_adapters(model.spec(), lora, adapters)?;
    let head = task_head(model, &adapters.head)?;
    let takes = model.spec().tokens;
    for length in prompts.iter().map(Vec::len) {
        let accepted = format!("of 1 to {} tokens", takes - 1);
        Error::require((1..takes).contains(&length), "prompts", length, &accepted)?;
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let room = longest.saturating_add(most).min(takes);
    let mut reader = model.reader(&adapters.blocks, lora, room)?;
    let say = |prompt: &Vec<u32>| {
        reader.forget();
        say(
            reader.as_mut(),
            &head,
            lora,
            prompt,
            most.min(takes - prompt.len()),
            end,
        )
    };
    prompts.iter().map(say).collect()
}

fn say(
    reader: &mut dyn Reader,
    head: &TaskHead,
    lora: Lora,
    prompt: &[u32],
    most: usize,
    end: Option<u32>,
) -> Result<Vec<u32>> {
    let (mut said, mut next) = (Vec::new(), prompt.to_vec());
    while said.len() < most {
        let features = reader.read(&next)?.unsqueeze(0)?;
        let logits = head.logits(&features, &[], lora)?;
        let token = logits.argmax(D::Minus1)?.to_vec1::<u32>()?[0];
        if end == Some(token) {
            break;
        }
        said.push(token);
        next = vec![token];
    }
    Ok(said)
}

/// How the adapted model goes on from the first `count` test samples.
pub(super) fn go_on(
    (model, lora, adapters): (&dyn Model, Lora, &Adapters),
    test: &dyn Data,
    input: TextInput<'_>,
    count: usize,
    most: usize,
) -> Result<Vec<Generated>> {
    let takes = |ids: &[u32]| ids.len() < model.spec().tokens;
    let prompts = (0..test.len()).filter_map(|index| test.prompt(index));
    let prompts = prompts.filter(|prompt| takes(&prompt.ids)).take(count);
    let (ids, completions): (Vec<_>, Vec<_>) = prompts
        .map(|prompt| (prompt.ids, prompt.completion))
        .unzip();
    let tokenizer = input.tokenizer;
    let said = generate(model, lora, adapters, &ids, most, tokenizer.special().eos)?;
    let texts = ids.iter().zip(&said).zip(&completions);
    let texts = texts.map(|((prompt, said), completion)| {
        Ok(Generated {
            prompt: tokenizer.decode(prompt)?,
            said: tokenizer.decode(said)?,
            expected: tokenizer.decode(completion)?,
        })
    });
    texts.collect()
}
