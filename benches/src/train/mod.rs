//! Training beside PyTorch: time, memory, share of the peak, many devices.
//!
//! The program starts itself once for each side, so that a peak of memory is one side's own.

/// The device's half alone.
mod device;
/// Many devices with one server.
mod fleet;
/// Memory of the device's half beside the cost model.
mod memory;
/// A side of the comparison in a process of its own.
mod peer;
/// The split step beside PyTorch.
mod pytorch;
/// The split step, our side.
mod step;
/// The split step of text models.
mod text;

use std::path::{Path, PathBuf};

pub use step::Halves;

use crate::Outcome;
use crate::machine::{compiler, processor, versions};
use crate::shapes::Shape;
use text::TextShape;

/// Settings of block checkpointing that are measured.
const CHECKPOINTING: &[bool] = &[false, true];

/// The model of texts that tests take.
const SMALL_TEXT_MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../sft-core/tests/fixtures/text/llama"
);

/// What is measured, and how often.
struct Plan {
    /// The shapes of the whole step, with the steps that one turn takes.
    steps: Vec<(Shape, usize)>,
    threads: Vec<usize>,
    /// Turns of every side.
    repeats: usize,
    /// Side of the square matrices whose product gives the peak.
    product: usize,
    /// The shapes and cut layers of the device's half; the last shape also with checkpointing.
    devices: Vec<(Shape, Vec<usize>)>,
    /// Text models whose files are at hand.
    texts: Vec<TextShape>,
    fleet: Shape,
    /// Few devices and many.
    fleet_sizes: [usize; 2],
    /// The Python that has PyTorch, Transformers and PEFT.
    python: Option<PathBuf>,
    /// The program that runs [`instrumented`].
    instrumented: PathBuf,
}

impl Plan {
    /// The committed comparison.
    fn full(instrumented: PathBuf, python: PathBuf, repeats: usize) -> Self {
        let twelve = vec![2, 4, 6, 8, 10];
        Self {
            steps: vec![(Shape::tiny(), 3), (Shape::vit_base(), 1)],
            threads: vec![1, 2],
            repeats,
            product: 2048,
            devices: vec![
                (Shape::digits(), vec![1, 2, 3, 4, 5]),
                (Shape::tiny(), twelve.clone()),
                (Shape::vit_base(), twelve),
            ],
            texts: texts(),
            fleet: Shape::vit_tiny(),
            fleet_sizes: [8, 64],
            python: Some(python),
            instrumented,
        }
    }

    /// Every part once, in seconds and without Python.
    fn test(instrumented: PathBuf) -> Self {
        let digits = Shape::digits();
        Self {
            steps: vec![(digits.clone(), 1)],
            threads: vec![1],
            repeats: 1,
            product: 64,
            devices: vec![(digits.clone(), vec![2, 3])],
            texts: vec![TextShape::small(Path::new(SMALL_TEXT_MODEL))],
            fleet: digits,
            fleet_sizes: [1, 2],
            python: None,
            instrumented,
        }
    }
}

/// The program: measures and prints Markdown, or is one of the sides.
///
/// As a test, without cargo's `--bench`, and without a Python in `SFT_PEERS_PYTHON` it runs every
/// part once on a small model.
///
/// # Errors
/// A side that fails, or computes another loss than ours.
pub fn main(instrumented: &str) -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["step", shape] => step::serve(&serde_json::from_str(shape)?),
        ["text", shape] => text::serve(&serde_json::from_str(shape)?),
        ["product", side] => step::serve_product(side.parse()?),
        ["device", shape, checkpointing] => {
            device::serve(&serde_json::from_str(shape)?, checkpointing.parse()?)
        }
        ["fleet", shape, devices] => fleet::run(&serde_json::from_str(shape)?, devices.parse()?),
        _ if !cfg!(target_os = "linux") => {
            println!("train_peers reads memory from Linux's /proc: nothing measured");
            Ok(())
        }
        _ => compare(
            &plan(instrumented.into(), &args)?,
            args.contains(&"--texts"),
        ),
    }
}

/// The text models that the environment names.
fn texts() -> Vec<TextShape> {
    let shape = |variable: &str, shape: fn(&Path) -> TextShape| {
        let path = std::env::var_os(variable)?;
        Some(shape(Path::new(&path)))
    };
    let shapes = [
        shape("SFT_SMOLLM2", TextShape::smollm2),
        shape("SFT_SMOLLM2", TextShape::smollm2_language),
        shape("SFT_MINILM", TextShape::minilm),
    ];
    shapes.into_iter().flatten().collect()
}

fn plan(instrumented: PathBuf, args: &[&str]) -> Outcome<Plan> {
    match std::env::var_os("SFT_PEERS_PYTHON") {
        Some(python) if args.contains(&"--bench") => {
            let repeats = args.iter().skip_while(|&&arg| arg != "--repeats").nth(1);
            let repeats = repeats.map_or(Ok(7), |repeats| repeats.parse())?;
            Ok(Plan::full(instrumented, python.into(), repeats))
        }
        _ => Ok(Plan::test(instrumented)),
    }
}

/// The program behind a counting allocator: prints what a device's half takes.
///
/// # Errors
/// Arguments other than a shape and whether blocks are checkpointed.
pub fn instrumented() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [shape, checkpointing] => {
            device::count(&serde_json::from_str(shape)?, checkpointing.parse()?)
        }
        _ => Err("expected a shape as JSON, then true or false".into()),
    }
}

/// Everything, or text models alone.
fn compare(plan: &Plan, texts: bool) -> Outcome<()> {
    println!("# Training beside PyTorch\n");
    let crates = ["sft-core", "candle-core", "gemm"];
    println!(
        "`make train-peers REPEATS={0}`: {0} turns of every side, medians.",
        plan.repeats
    );
    println!("{}.", processor());
    println!("{}, {}.", compiler(), versions(&crates));
    if let Some(python) = &plan.python {
        println!("{}.", pytorch::versions(python)?);
    }
    if texts {
        return text::compare(plan);
    }
    pytorch::compare(plan)?;
    text::compare(plan)?;
    memory::compare(plan)?;
    fleet::compare(plan)
}

/// Bytes as MB of a million.
fn mb(bytes: f64) -> String {
    format!("{:.1}", bytes / 1e6)
}

/// Whether a bar is met, for a table.
fn met(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}
