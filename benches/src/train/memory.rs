//! Memory of the device's half over cut layers, beside the cost model's prediction.

use std::path::Path;
use std::process::{Command, Stdio};

use sft_opt::cost::{Memory, device_memory};
use sft_opt::{Placement, Training};

use super::device::Counted;
use super::peer::{Peer, ourselves};
use super::{CHECKPOINTING, Plan, mb, met};
use crate::Outcome;
use crate::shapes::Shape;
use crate::stats::line;

/// Bytes of a block at ViT-B, without and with checkpointing.
const BARS: [f64; 2] = [50e6, 8e6];

/// A device's half at one cut layer.
struct Row {
    shape: Shape,
    counted: Counted,
    predicted: Memory,
}

impl Row {
    fn measure(plan: &Plan, shape: &Shape, checkpointing: bool) -> Outcome<Self> {
        let mut training = Training::default();
        training.batch = shape.batch;
        let model = shape.config.transformer(shape.classes, shape.rank);
        let split = Placement::Split { cut: shape.cut };
        Ok(Self {
            shape: shape.clone(),
            counted: counted(&plan.instrumented, shape, checkpointing)?,
            predicted: device_memory(&model, &training, split)?,
        })
    }

    /// What steps add over what is held, measured and predicted, at this cut layer.
    fn added(&self) -> [(f64, f64); 2] {
        let held = self.predicted.input_bytes + self.predicted.model_bytes;
        let predicted = self.predicted.total_bytes() - held;
        [self.counted.added, predicted].map(|bytes| (self.shape.cut as f64, bytes))
    }

    fn print(&self) {
        let [(_, added), (_, predicted)] = self.added();
        let total = self.predicted.total_bytes();
        let measured = self.counted.held + added;
        let cells = [
            self.counted.held,
            added,
            measured,
            total - predicted,
            predicted,
            total,
        ];
        let (name, cut) = (&self.shape.name, self.shape.cut);
        let ratio = measured / total;
        println!(
            "| {name} | {cut} | {} | {ratio:.2} |",
            cells.map(mb).join(" | ")
        );
    }
}

fn counted(program: &Path, shape: &Shape, checkpointing: bool) -> Outcome<Counted> {
    let json = serde_json::to_string(shape)?;
    let output = Command::new(program)
        .args([json, checkpointing.to_string()])
        .env("RAYON_NUM_THREADS", "1")
        .stderr(Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn rows(plan: &Plan, shape: &Shape, cuts: &[usize], checkpointing: bool) -> Outcome<Vec<Row>> {
    cuts.iter()
        .map(|&cut| Row::measure(plan, &shape.cut_at(cut), checkpointing))
        .collect()
}

/// Memory of the device's half over cut layers, and what checkpointing costs.
pub(super) fn compare(plan: &Plan) -> Outcome<()> {
    let mut all = Vec::new();
    for (shape, cuts) in &plan.devices {
        eprintln!("device half, {}", shape.name);
        all.push(rows(plan, shape, cuts, false)?);
    }
    if let (Some(plain), Some((shape, cuts))) = (all.last(), plan.devices.last()) {
        blocks(plan, shape, cuts, plain)?;
    }
    print_predictions(&all);
    Ok(())
}

/// Memory of a block and time of the half, without and with checkpointing.
fn blocks(plan: &Plan, shape: &Shape, cuts: &[usize], plain: &[Row]) -> Outcome<()> {
    println!("\n## Device half: memory per block\n");
    println!("{}, one thread. The slope of", shape.title());
    println!("what steps add over cut layers {cuts:?}, by an allocator that counts; the gradient");
    println!("and the momentum of a block's adapter are part of it, with or without");
    println!("checkpointing. Time is that of the device's forward, backward and update.\n");
    println!(
        "| checkpointing | MB per block | of it adapter MB | bar | met | wall ms | least | greatest | CPU ms |"
    );
    println!("|---|---:|---:|---:|---|---:|---:|---:|---:|");
    let sides = time(plan, shape)?;
    let parameters = shape.lora()?.block_parameters(&shape.config.spec());
    for (on, side) in sides {
        let [bytes, _] = if on {
            slope_and_start(&rows(plan, shape, cuts, on)?, 0)
        } else {
            slope_and_start(plain, 0)
        };
        let bar = BARS[usize::from(on)];
        println!(
            "| {} | {} | {} | {:.0} | {} | {} |",
            met(on),
            mb(bytes),
            mb(8.0 * parameters as f64),
            bar / 1e6,
            met(bytes <= bar),
            side.turns.cells()
        );
    }
    Ok(())
}

/// Steps of the device's half alone, the settings of checkpointing taking turns.
fn time(plan: &Plan, shape: &Shape) -> Outcome<Vec<(bool, Peer)>> {
    let json = serde_json::to_string(shape)?;
    let start = |&on: &bool| {
        let command = ourselves(&["device", &json, &on.to_string()], 1)?;
        Ok((on, Peer::start("device half", command)?))
    };
    let mut sides: Vec<_> = CHECKPOINTING.iter().map(start).collect::<Outcome<_>>()?;
    for _ in 0..plan.repeats {
        for (_, side) in &mut sides {
            side.turn(1)?;
        }
    }
    Ok(sides)
}

/// What steps add for a block and for none, measured (0) or predicted (1).
fn slope_and_start(rows: &[Row], which: usize) -> [f64; 2] {
    let points: Vec<_> = rows.iter().map(|row| row.added()[which]).collect();
    line(&points)
}

fn print_predictions(all: &[Vec<Row>]) {
    println!("\n## Device half: memory beside the cost model\n");
    println!("What a process allocates that has the device's part alone, beside (26') of");
    println!(
        "`sft_opt::cost::device_memory`. *Held* is weights, adapters and images, *added* what steps"
    );
    println!("need beyond: activations, gradients and optimizer state; MB.\n");
    println!("| model | cut | held | added | total | predicted held | added | total | ratio |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    all.iter().flatten().for_each(Row::print);
    println!("\nWhat is held is as predicted, with the positions, which (26') leaves out as the");
    println!("paper's Table III does. What a block adds is less: the paper's 72 bytes an element");
    println!("of the activation `[B, S, D]` and 4 a probability of attention are those of a");
    println!("framework that keeps every intermediate result; the block engine keeps what its");
    println!(
        "backward pass cannot cheaply compute again, and no probabilities. What steps need at"
    );
    println!(
        "any cut is more: a block's weight with the adapters added, the working memory of one"
    );
    println!("piece of the batch and the gradients on both sides of a block, of which (26') knows");
    println!("only the activation at the cut. Gradients of");
    println!("adapters are measured, but predicted only where `Training::count_gradients` is set.");
    all.iter().map(Vec::as_slice).for_each(explain);
}

/// The two differences in numbers: a block, and what any cut needs.
fn explain(rows: &[Row]) {
    let Some(Row { shape, .. }) = rows.first() else {
        return;
    };
    let stream = (shape.batch * shape.config.tokens() * shape.config.hidden_size) as f64;
    let [[block, start], [predicted, other]] = [0, 1].map(|which| slope_and_start(rows, which));
    println!(
        "\n**{}.** A block adds {} MB, {:.1} bytes an element; predicted {} MB, {:.1} bytes. Any \
         cut needs {} MB more; predicted {}. Measured and predicted cross at {:.1} blocks.",
        shape.name,
        mb(block),
        block / stream,
        mb(predicted),
        predicted / stream,
        mb(start),
        mb(other),
        (start - other) / (predicted - block)
    );
}
