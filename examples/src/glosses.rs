//! The glosses of `data/glosses` and the model beside them, as documented there: what
//! `llm_finetune` takes where nothing else is named.

use std::collections::BTreeSet;

use sft_core::data::{Examples, Texts};
use sft_core::model::{Pooling, Pretrained, PretrainedText};
use sft_core::run::{Inputs, RunConfig, open_data, open_model};
use sft_core::{Error, Result};

/// How `--data` names the glosses.
pub const GLOSSES: &str = "glosses";

const MODEL: &[u8] = include_bytes!("../data/glosses/model.safetensors");
const CONFIG: &str = include_str!("../data/glosses/config.json");
const TOKENIZER: &str = include_str!("../data/glosses/tokenizer.json");
const TRAIN: &str = include_str!("../data/glosses/train.tsv");
const TEST: &str = include_str!("../data/glosses/test.tsv");

/// Whether a run is of the embedded model.
pub fn are_all(config: &RunConfig) -> bool {
    config.model.is_none() && config.data.as_deref().is_none_or(|data| data == GLOSSES)
}

/// The configuration of a run of the embedded model where nothing else is said.
pub fn defaults() -> RunConfig {
    RunConfig {
        data: Some(GLOSSES.into()),
        pooling: Some(Pooling::Mean),
        cut: 4,
        lr: 5e-3,
        ..RunConfig::default()
    }
}

/// Model and data of a run.
///
/// # Errors
/// One of the two without the other, or a file that is not there or not what it should be.
pub fn open(config: &RunConfig) -> Result<Inputs> {
    let data = config.data.as_deref();
    let model: Box<dyn Pretrained> = match (&config.model, data) {
        (Some(_), Some(_)) => open_model(config)?,
        (Some(_), None) => {
            let reason = format!("must be given with model: classify:FILE or {GLOSSES}, got none");
            return Err(Error::argument("data", reason));
        }
        (None, Some(data)) if data != GLOSSES => {
            let reason = format!("must be given with data {data}, got none");
            return Err(Error::argument("model", reason));
        }
        (None, _) => Box::new(embedded_model(config)?),
    };
    let examples = match data {
        Some(data) if data != GLOSSES => open_data(config, model.as_ref())?,
        _ => examples(config, model.as_ref())?,
    };
    Inputs::new(config, model, examples)
}

fn embedded_model(config: &RunConfig) -> Result<PretrainedText> {
    if let Some(heads) = config.heads {
        let reason = format!("must be left out for a text model, got {heads}");
        return Err(Error::argument("heads", reason));
    }
    let model = PretrainedText::from_bytes(MODEL, CONFIG, TOKENIZER);
    let model = model.map_err(|reason| Error::file("the embedded model", reason))?;
    let pooling = config.pooling.unwrap_or(model.pooling);
    model.with_pooling(pooling)
}

/// Training and test glosses as a model wants them.
fn examples(config: &RunConfig, model: &dyn Pretrained) -> Result<Examples> {
    refuse_settings_of_files(config)?;
    let classes: BTreeSet<&str> = lines(TRAIN).map(|(class, _)| class).collect();
    let classes: Vec<&str> = classes.into_iter().collect();
    Ok((
        Box::new(texts(TRAIN, &classes, model)?),
        Box::new(texts(TEST, &classes, model)?),
    ))
}

/// The glosses come as they are.
fn refuse_settings_of_files(config: &RunConfig) -> Result<()> {
    let given = [
        ("test", config.test.is_some()),
        ("prompt", config.prompt.is_some()),
        ("max_tokens", config.max_tokens.is_some()),
        ("augment", config.augment),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            let reason = format!("must be left out for data {GLOSSES}");
            Err(Error::argument(name, reason))
        }
        None => Ok(()),
    }
}

fn texts(file: &str, classes: &[&str], model: &dyn Pretrained) -> Result<Texts> {
    let missing = || Error::argument("data", "must be images for this model");
    let input = model.text_input().ok_or_else(missing)?;
    let tokenizer = input.tokenizer.limited(input.most, input.keep_last)?;
    let mut cut = 0;
    let mut sample = |(class, gloss): (&str, &str)| {
        let (ids, was_cut) = tokenizer.encode_limited(gloss)?;
        input.check(&ids)?;
        cut += usize::from(was_cut);
        let label = classes.iter().position(|&other| other == class);
        Ok((ids, label.unwrap_or(classes.len()) as u32))
    };
    let samples: Vec<_> = lines(file).map(&mut sample).collect::<Result<_>>()?;
    let names = classes.iter().map(ToString::to_string).collect();
    Ok(Texts::new(samples, names)?.with_cut(cut, input.most))
}

/// The class and the gloss of each line.
fn lines(file: &str) -> impl Iterator<Item = (&str, &str)> {
    file.lines().filter_map(|line| line.split_once('\t'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn classes_are_of_one_size_and_no_gloss_is_in_both_files() {
        for (file, each) in [(TRAIN, 300), (TEST, 100)] {
            let mut counts = BTreeMap::new();
            for (class, _) in lines(file) {
                *counts.entry(class).or_insert(0) += 1;
            }
            assert_eq!(file.lines().count(), 10 * each);
            assert_eq!(counts.len(), 10);
            assert!(counts.values().all(|&count| count == each), "{counts:?}");
        }
        let glosses = lines(TRAIN).chain(lines(TEST)).map(|(_, gloss)| gloss);
        assert_eq!(glosses.collect::<BTreeSet<_>>().len(), 4000);
    }

    #[test]
    fn no_gloss_is_cut() {
        let config = defaults();
        let inputs = open(&config).unwrap();
        for data in [&inputs.train, &inputs.test] {
            let told = data.told().unwrap();
            assert!(told.contains("10 classes (act, animal"), "{told}");
            assert!(!told.contains("cut"), "{told}");
        }
    }
}
