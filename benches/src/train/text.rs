//! The split step of text models beside PyTorch: time and memory on real weights.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use sft_core::adapter::{Adapters, Head, Lora, ModelSpec};
use sft_core::data::{Inputs, Labels};
use sft_core::model::{Backend, Pretrained, PretrainedText};

use super::peer::{Peer, answer, ourselves, program};
use super::{Halves, Plan, met};
use crate::Outcome;
use crate::shapes::{ADAPTERS, HEAD, values};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/text_peers.py");
/// Classes of the new head, K.
const CLASSES: usize = 6;
/// Rank of the adapters on all linears of a block; their scale is 1.
const RANK: usize = 16;
/// Tokens of the first 32 training questions of TREC by the tokenizer of `MiniLM`.
const QUESTIONS: [usize; 32] = [
    13, 11, 15, 8, 14, 14, 13, 10, 11, 14, 16, 12, 13, 20, 12, 10, 11, 11, 12, 20, 9, 9, 11, 11,
    16, 9, 13, 13, 14, 13, 9, 9,
];

/// A text model in its files, its cut and its mini-batch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TextShape {
    name: String,
    /// A GGUF file or a Hugging Face folder.
    model: PathBuf,
    /// Blocks on the device.
    cut: usize,
    /// The token ids of each sample.
    samples: Vec<Vec<u32>>,
    /// Classes of a new head; 0 where the model's own tells the next tokens.
    classes: usize,
    rank: usize,
    /// Our shares of PyTorch's time and peak of memory that are wanted.
    bars: [Option<f64>; 2],
}

impl TextShape {
    /// A model with samples of these lengths, of ids that every vocabulary has.
    fn new(
        name: &str,
        model: &Path,
        cut: usize,
        lengths: &[usize],
        bars: [Option<f64>; 2],
    ) -> Self {
        let sample = |(i, &length): (usize, &usize)| {
            let id = |place| ((31 * i + 17 * place) % 900 + 50) as u32;
            (0..length).map(id).collect()
        };
        Self {
            name: name.into(),
            model: model.into(),
            cut,
            samples: lengths.iter().enumerate().map(sample).collect(),
            classes: CLASSES,
            rank: RANK,
            bars,
        }
    }

    /// `SmolLM2`-135M in eight samples of 64 tokens.
    pub(super) fn smollm2(model: &Path) -> Self {
        Self::new("SmolLM2-135M", model, 5, &[64; 8], [Some(0.8), Some(0.4)])
    }

    /// The same telling the next tokens of four samples of 512.
    pub(super) fn smollm2_language(model: &Path) -> Self {
        let name = "SmolLM2-135M, next tokens";
        Self {
            classes: 0,
            ..Self::new(name, model, 5, &[513; 4], [Some(0.8), Some(0.3)])
        }
    }

    /// all-`MiniLM`-L6-v2 in questions of their own lengths.
    pub(super) fn minilm(model: &Path) -> Self {
        Self::new("MiniLM-L6", model, 3, &QUESTIONS, [Some(0.6), None])
    }

    /// A model of two blocks, for tests.
    pub(super) fn small(model: &Path) -> Self {
        let shape = Self::new("small", model, 1, &[3, 5], [None; 2]);
        let samples = shape.samples.into_iter();
        let samples = samples.map(|ids| ids.iter().map(|id| id % 30).collect());
        Self {
            samples: samples.collect(),
            rank: 2,
            ..shape
        }
    }

    /// Its name with what decides time and memory.
    fn title(&self, spec: &ModelSpec) -> String {
        let (name, samples) = (&self.name, self.samples.len());
        let tokens: usize = self.read().map(<[u32]>::len).sum();
        let (width, depth, rank, cut) = (spec.width, spec.depth, self.rank, self.cut);
        format!(
            "{name} (D {width}, {depth} blocks, batch {samples} of {tokens} tokens together, rank \
             {rank}, cut {cut})"
        )
    }

    /// Adapters of all blocks, and the head, as the script has them.
    fn adapters(&self, spec: &ModelSpec) -> Adapters {
        let count = spec.block.len() as u64;
        let block = |block| {
            let mut vector = Vec::new();
            for (number, linear) in (ADAPTERS + count * block..).zip(&spec.block) {
                let deviation = 1.0 / self.rank as f64;
                vector.extend(values(number, self.rank * linear.inputs, 0.0, deviation));
                vector.resize(vector.len() + self.rank * linear.outputs, 0.0);
            }
            vector
        };
        Adapters {
            embedding: Vec::new(),
            blocks: (0..spec.depth as u64).map(block).collect(),
            head: self.head(spec),
        }
    }

    fn head(&self, spec: &ModelSpec) -> Head {
        if self.classes == 0 {
            return Head::none();
        }
        Head {
            classes: self.classes,
            weight: values(HEAD, self.classes * spec.width, 0.0, 0.02),
            bias: vec![0.0; if spec.head_bias { self.classes } else { 0 }],
            adapter: Vec::new(),
        }
    }

    /// What the model reads of each sample: all of it, or all but the last token, which is told alone.
    fn read(&self) -> impl Iterator<Item = &[u32]> + Clone {
        let unread = usize::from(self.classes == 0);
        let samples = self.samples.iter();
        samples.map(move |ids| &ids[..ids.len() - unread])
    }

    fn labels(&self) -> Labels {
        if self.classes == 0 {
            let next = self.samples.iter().flat_map(|ids| &ids[1..]);
            return Labels::Tokens(next.copied().collect());
        }
        let classes = (0..self.samples.len()).map(|i| (i % self.classes) as u32);
        Labels::Classes(classes.collect())
    }

    /// The mini-batch.
    fn batch(&self) -> Outcome<(Inputs, Labels)> {
        let longest = self.read().map(<[u32]>::len).max().unwrap_or(0);
        let padded = self.read().flat_map(|ids| {
            let padding = std::iter::repeat_n(0, longest - ids.len());
            ids.iter().copied().chain(padding)
        });
        let ids =
            Tensor::from_iter(padded, &Device::Cpu)?.reshape((self.samples.len(), longest))?;
        let lengths = self.read().map(|ids| ids.len() as u32).collect();
        Ok((Inputs::Tokens { ids, lengths }, self.labels()))
    }
}

/// Our side.
pub(super) fn serve(shape: &TextShape) -> Outcome<()> {
    let (model, spec) = {
        let files = PretrainedText::open(&shape.model)?;
        (files.model(Backend::default())?, files.spec())
    };
    let start = shape.adapters(&spec);
    let lora = Lora::new(shape.rank, shape.rank as f64)?;
    let mut halves = Halves::of(&*model, shape.cut, lora, &start, shape.batch()?)?;
    drop(start);
    answer(|| halves.step())
}

/// Time and memory of every text model on every number of threads.
pub(super) fn compare(plan: &Plan) -> Outcome<()> {
    println!("\n## A split LoRA step of a text model\n");
    if plan.texts.is_empty() {
        println!("Nothing was measured: `SFT_SMOLLM2` and `SFT_MINILM` name no models.");
        return Ok(());
    }
    println!(
        "As above, with a new head of {CLASSES} classes or the model's own; PyTorch pads samples to the longest."
    );
    for shape in &plan.texts {
        let spec = PretrainedText::open(&shape.model)?.spec();
        println!("\n### {}\n", shape.title(&spec));
        println!(
            "| threads | side | wall ms | least | greatest | CPU ms | peak MB | before MB | added MB |"
        );
        println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|");
        for &threads in &plan.threads {
            eprintln!("{}, {threads} threads", shape.name);
            compare_on(plan, shape, threads)?;
        }
    }
    Ok(())
}

fn compare_on(plan: &Plan, shape: &TextShape, threads: usize) -> Outcome<()> {
    let json = serde_json::to_string(shape)?;
    let mut ours = Peer::start("sft-core", ourselves(&["text", &json], threads)?)?;
    let theirs = plan.python.as_ref().map(|python| {
        let command = program(python, &[SCRIPT, &json], threads);
        Peer::start("transformers + PEFT", command)
    });
    let mut theirs = theirs.transpose()?;
    for _ in 0..plan.repeats {
        ours.turn(1)?;
        theirs.as_mut().map_or(Ok(()), |peer| peer.turn(1))?;
    }
    println!("{}", ours.row(threads));
    let Some(theirs) = theirs else { return Ok(()) };
    ours.agrees_with(&theirs)?;
    println!("{}", theirs.row(threads));
    let time = ours.turns.wall_s() / theirs.turns.wall_s();
    let memory = ours.turns.memory.process as f64 / theirs.turns.memory.process as f64;
    let ratios = [time, memory].into_iter().zip(shape.bars);
    let cells = ratios.map(|(ratio, bar)| match bar {
        Some(bar) => format!("{ratio:.2} (bar {bar}, met: {})", met(ratio <= bar)),
        None => format!("{ratio:.2}"),
    });
    let cells: Vec<_> = cells.collect();
    println!(
        "| {threads} | ours over theirs | {} | | | | {} | | |",
        cells[0], cells[1]
    );
    Ok(())
}
