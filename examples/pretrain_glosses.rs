//! Pre-trains the small language model of `llm_finetune` on glosses of `WordNet`.
//!
//! The glosses of the fine-tuning task are not in the text that `data/make_glosses.py` writes for
//! it; the loss it prints is on lines that it was not trained on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use candle_core::{Device, Result as CandleResult, Tensor, Var};
use candle_nn::loss::cross_entropy;
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use clap::Parser;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde_json::{Value, json};
use sft_core::data::Inputs;
use sft_core::model::{Backend, Pooling, TextConfig, TextModel, TextWeights};
use sft_core::{Error, write_whole};
use sft_examples::console::{ended, say};
use sft_examples::flags::message;
use sft_examples::pretrain::{check, save, schedule};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// Tokens of the vocabulary, unless the text has too few pieces.
const VOCABULARY: usize = 2048;
/// The most tokens of a sample.
const MOST_TOKENS: usize = 64;
/// What a text begins and ends with.
const END_OF_TEXT: &str = "<|endoftext|>";
const END_OF_TEXT_ID: u32 = 0;
/// One line in this many is not trained on.
const HELD_OUT_EVERY: usize = 100;
/// Batches that are sorted by length together, so that texts of a length meet.
const SORTED_BATCHES: usize = 64;
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Pre-trains a small language model with its tokenizer, kept in half precision, on lines of text.
#[derive(Parser)]
#[command(version, args_override_self = true)]
struct Flags {
    /// File with a text a line, such as the glosses that data/README.md tells how to get.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Passes over the text.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Texts of a mini-batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Peak learning rate of AdamW; it warms up and falls as a cosine.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Weight decay of AdamW.
    #[arg(long, default_value_t = 0.05)]
    weight_decay: f64,
    /// Seed of the initial weights and of the order of the texts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder that gets model.safetensors, config.json and tokenizer.json.
    #[arg(long, default_value = "runs/pretrain_glosses")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    // Products of this size lose more to being handed around than they gain from a second thread.
    gemm::set_threading_threshold(usize::MAX);
    ended(run(&flags).map_err(|error| message(&error)))
}

fn run(flags: &Flags) -> Result<(), Error> {
    let counts = [("epochs", flags.epochs), ("batch", flags.batch)];
    check(&counts, flags.lr, flags.weight_decay)?;
    let text = std::fs::read_to_string(&flags.text).map_err(|e| Error::file(&flags.text, e))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    if lines.len() < HELD_OUT_EVERY {
        let reason = format!(
            "must have at least {HELD_OUT_EVERY} lines, has {}",
            lines.len()
        );
        return Err(Error::file(&flags.text, reason));
    }
    std::fs::create_dir_all(&flags.out).map_err(|e| Error::file(&flags.out, e))?;
    let refused = |e| Error::file("the tokenizer", e);
    let tokenizer = tokenizer(&lines).map_err(refused)?;
    let json = config(tokenizer.get_vocab_size(true));
    let language = Language::new(&json, flags.seed)?;
    let samples = lines.iter().map(|line| sample(&tokenizer, line));
    let samples: Vec<_> = samples.collect::<Result<_, _>>().map_err(refused)?;
    let held_out: Vec<_> = samples.iter().step_by(HELD_OUT_EVERY).collect();
    let parts = samples.chunks(HELD_OUT_EVERY);
    let train: Vec<_> = parts.flat_map(|part| &part[1..]).collect();
    fit(&language, &train, flags)?;
    let loss = loss(&language, &held_out, flags.batch)?;
    say(format_args!(
        "loss per token of {} held-out lines: {loss:.3}, perplexity {:.1}",
        held_out.len(),
        loss.exp()
    ))?;
    write_tokenizer(&flags.out, &tokenizer).map_err(refused)?;
    save(&flags.out, &json, &language.vars)
}

/// Byte-level pair encoding learnt from the lines.
fn tokenizer(lines: &[&str]) -> tokenizers::Result<Tokenizer> {
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    let trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(VOCABULARY)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .initial_alphabet(alphabet)
        .build();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer.train(&mut TrainerWrapper::from(trainer), lines.iter())?;
    let begin = TemplateProcessing::builder()
        .try_single(format!("{END_OF_TEXT} $A"))?
        .special_tokens(vec![(END_OF_TEXT, END_OF_TEXT_ID)])
        .build()?;
    tokenizer.with_post_processor(Some(begin));
    Ok(tokenizer)
}

fn write_tokenizer(out: &Path, tokenizer: &Tokenizer) -> tokenizers::Result<()> {
    let text = tokenizer.to_string(false)?;
    Ok(write_whole(&out.join("tokenizer.json"), text.as_bytes())?)
}

/// The model as its `config.json` has it.
fn config(vocabulary: usize) -> Value {
    json!({
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": 80,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 160,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": MOST_TOKENS,
        "tie_word_embeddings": true,
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": END_OF_TEXT_ID,
    })
}

/// The token ids of a line, with the mark at both ends.
fn sample(tokenizer: &Tokenizer, line: &str) -> tokenizers::Result<Vec<u32>> {
    let mut ids = tokenizer.encode_fast(line, true)?.get_ids().to_vec();
    ids.truncate(MOST_TOKENS);
    ids.push(END_OF_TEXT_ID);
    Ok(ids)
}

/// The model and its weights, in the order of the computation.
struct Language {
    model: TextModel,
    vars: Vec<(String, Var)>,
}

impl Language {
    fn new(json: &Value, seed: u64) -> Result<Self, Error> {
        let refused = |reason| Error::file("config.json", reason);
        let config = TextConfig::from_json(&json.to_string()).map_err(refused)?;
        let vars = initial(&config, seed)?;
        let tensors: HashMap<_, _> = vars
            .iter()
            .map(|(name, var)| (name.clone(), var.as_tensor().clone()))
            .collect();
        let weights = TextWeights::new(&config, &tensors).map_err(refused)?;
        let backend = Backend::Candle(Device::Cpu);
        let model = TextModel::new(&config, &weights, Pooling::Last, backend)?;
        Ok(Self { model, vars })
    }

    /// The mean loss of each sample's next tokens, and how many these are.
    fn loss(&self, samples: &[&[u32]]) -> CandleResult<(Tensor, usize)> {
        let longest = samples.iter().map(|ids| ids.len() - 1).max().unwrap_or(0);
        let mut inputs = vec![0; samples.len() * longest];
        for (row, ids) in inputs.chunks_exact_mut(longest).zip(samples) {
            row[..ids.len() - 1].copy_from_slice(&ids[..ids.len() - 1]);
        }
        let inputs = Inputs::Tokens {
            ids: Tensor::from_vec(inputs, (samples.len(), longest), &Device::Cpu)?,
            lengths: samples.iter().map(|ids| ids.len() as u32 - 1).collect(),
        };
        let next: Vec<u32> = samples.iter().flat_map(|ids| &ids[1..]).copied().collect();
        let count = next.len();
        let embedding = self.vars.iter().find(|(name, _)| name == EMBEDDING);
        let (_, embedding) = embedding.expect("the embedding is a parameter");
        let features = self.model.token_features(&inputs)?;
        let logits = features.matmul(&embedding.t()?)?;
        Ok((
            cross_entropy(&logits, &Tensor::new(next, &Device::Cpu)?)?,
            count,
        ))
    }
}

/// Gains 1; matrices from N(0, 1 / inputs), those that add to the residual stream from less, by the
/// root of how many do; the embedding, which is also the head, from N(0, 0.05^2).
fn initial(config: &TextConfig, seed: u64) -> CandleResult<Vec<(String, Var)>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let branches = 2.0 * config.depth as f32;
    let mut var = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product();
        let inputs = shape[shape.len() - 1] as f32;
        let deviation = match name.as_str() {
            EMBEDDING => 0.05,
            n if n.contains("o_proj") || n.contains("down_proj") => {
                (inputs * branches).sqrt().recip()
            }
            _ => inputs.sqrt().recip(),
        };
        let normal = Normal::new(0.0f32, deviation).expect("a valid deviation");
        let values: Vec<f32> = if shape.len() == 1 {
            vec![1.0; count]
        } else {
            (0..count).map(|_| normal.sample(&mut rng)).collect()
        };
        Ok((name, Var::from_vec(values, shape, &Device::Cpu)?))
    };
    config.parameters().into_iter().map(&mut var).collect()
}

fn fit(language: &Language, train: &[&Vec<u32>], flags: &Flags) -> Result<(), Error> {
    let params = ParamsAdamW {
        beta2: 0.95,
        weight_decay: flags.weight_decay,
        ..ParamsAdamW::default()
    };
    let vars = &language.vars;
    let mut adamw = AdamW::new(vars.iter().map(|(_, var)| var.clone()).collect(), params)?;
    let mut rng = ChaCha8Rng::seed_from_u64(flags.seed);
    let steps = flags.epochs * train.len().div_ceil(flags.batch);
    let bar = indicatif::ProgressBar::new(steps as u64);
    let style =
        indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} left, loss {msg}");
    bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
    for _ in 0..flags.epochs {
        for batch in batches(train, flags.batch, &mut rng) {
            adamw.set_learning_rate(flags.lr * schedule(bar.position() as f64 / steps as f64));
            let (loss, _) = language.loss(&batch)?;
            let grads = loss.backward()?;
            if let Some((name, _)) = vars.iter().find(|(_, var)| grads.get(var).is_none()) {
                return Err(Error::argument("gradient", format!("did not reach {name}")));
            }
            adamw.step(&grads)?;
            bar.set_message(format!("{:.3}", loss.to_scalar::<f32>()?));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Every text once, in mini-batches of about one length, in random order.
fn batches<'a>(train: &[&'a Vec<u32>], size: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<&'a [u32]>> {
    let mut order: Vec<&[u32]> = train.iter().map(|ids| ids.as_slice()).collect();
    order.shuffle(rng);
    for part in order.chunks_mut(size.saturating_mul(SORTED_BATCHES)) {
        part.sort_by_key(|ids| ids.len());
    }
    let mut batches: Vec<_> = order.chunks(size).map(<[_]>::to_vec).collect();
    batches.shuffle(rng);
    batches
}

/// The mean loss of a token.
fn loss(language: &Language, samples: &[&Vec<u32>], batch: usize) -> Result<f64, Error> {
    let samples: Vec<&[u32]> = samples.iter().map(|ids| ids.as_slice()).collect();
    let (mut sum, mut tokens) = (0.0, 0);
    for batch in samples.chunks(batch) {
        let (loss, count) = language.loss(batch)?;
        sum += f64::from(loss.to_scalar::<f32>()?) * count as f64;
        tokens += count;
    }
    Ok(sum / tokens as f64)
}
