//! The glosses of `data/glosses` and the model beside them, as documented there: what
//! `llm_finetune` takes where nothing else is named.

use std::collections::BTreeSet;

use sft_core::data::{Examples, Texts};
use sft_core::model::{Pooling, Pretrained, PretrainedText};
use sft_core::run::{Inputs, RunConfig, open_data, open_model, text_model};
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
            let reason = format!(
                "must be given with model: classify:FILE, text:FILE, chat:FILE or {GLOSSES}, got none"
            );
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
    let model = PretrainedText::from_bytes(MODEL, CONFIG, TOKENIZER);
    let model = model.map_err(|reason| Error::file("the embedded model", reason))?;
    text_model(config, model)
}

/// Training and test glosses as a model wants them.
fn examples(config: &RunConfig, model: &dyn Pretrained) -> Result<Examples> {
    refuse_settings_of_files(config)?;
    let classes = classes();
    Ok((
        Box::new(texts(TRAIN, &classes, model)?),
        Box::new(texts(TEST, &classes, model)?),
    ))
}

/// The classes by their names' order.
fn classes() -> Vec<&'static str> {
    let classes: BTreeSet<_> = lines(TRAIN).map(|(class, _)| class).collect();
    classes.into_iter().collect()
}

/// The glosses come as they are.
fn refuse_settings_of_files(config: &RunConfig) -> Result<()> {
    let given = [
        ("test", config.test.is_some()),
        ("prompt", config.prompt.is_some()),
        ("max_tokens", config.max_tokens.is_some()),
        ("augment", config.augment),
        ("pack", config.pack),
        ("generate", config.generate > 0),
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
        let unknown = || Error::argument("data", format!("must have no other class, got {class}"));
        let label = classes.iter().position(|&other| other == class);
        Ok((ids, label.ok_or_else(unknown)? as u32))
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
    use std::path::Path;

    use candle_core::Tensor;
    use candle_nn::loss::cross_entropy;
    use sft_core::data::Data;
    use sft_core::model::{Backend, TextModel};

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

    #[test]
    fn the_embedded_model_is_that_of_its_folder() {
        let embedded = embedded_model(&defaults()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/glosses");
        let there = PretrainedText::open(&folder).unwrap();
        assert_eq!(embedded.config, there.config);
        for (name, _) in embedded.parameters() {
            let [here, there] = [embedded.weight(&name), there.weight(&name)];
            let difference = (here.unwrap() - there.unwrap()).unwrap().abs().unwrap();
            let sum: f32 = difference.sum_all().unwrap().to_scalar().unwrap();
            assert!(sum <= 0.0, "{name}");
        }
    }

    /// A model that has learnt nothing tells the next of 2,048 tokens with a loss of 7.6 nat.
    #[test]
    fn the_embedded_model_knows_what_glosses_are_like() {
        let model = embedded_model(&defaults()).unwrap();
        let backend = Backend::default();
        let made = TextModel::new(&model.config, &model.weights, model.pooling, backend).unwrap();
        let head = model.weights.language_head(&model.config).unwrap().unwrap();
        let data = texts(TEST, &classes(), &model).unwrap();
        let batch = data.batch(&(0..64).collect::<Vec<_>>()).unwrap();
        let features = made.token_features(&batch.inputs).unwrap();
        // The next token of each but a sample's last.
        let (mut rows, mut next, mut start) = (Vec::new(), Vec::new(), 0);
        for sample in 0..64 {
            let ids = data.ids(sample);
            rows.extend(start..start + ids.len() as u32 - 1);
            next.extend_from_slice(&ids[1..]);
            start += ids.len() as u32;
        }
        let device = features.device();
        let rows = Tensor::new(rows, device).unwrap();
        let features = features.index_select(&rows, 0).unwrap();
        let logits = features.matmul(&head.t().unwrap()).unwrap();
        let loss = cross_entropy(&logits, &Tensor::new(next, device).unwrap()).unwrap();
        let loss: f32 = loss.to_scalar().unwrap();
        assert!((2.0..4.2).contains(&loss), "{loss}");
    }
}
