//! Many simulated devices with one server, in a process of their own.

use std::sync::atomic::AtomicBool;

use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};
use sft_core::data::{ImageInput, Images, Partition};
use sft_core::optim::Optimizer;
use sft_core::run::{Channel, Job, Scheme, Settings, Wireless, finetune};

use super::peer::ourselves;
use super::step::MOMENTUM;
use super::{Plan, mb, met};
use crate::Outcome;
use crate::machine::Resident;
use crate::shapes::Shape;
use crate::stats::{median, range};

/// Samples of a device, in mini-batches.
const BATCHES: usize = 2;
/// How far time and memory may be above what the bar says.
const SLACK: f64 = 0.1;

/// What a short run took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Run {
    peak_bytes: u64,
    cpu_s_per_sample: f64,
}

/// Fine-tunes for one round on this many devices and prints what it took.
pub(super) fn run(shape: &Shape, devices: usize) -> Outcome<()> {
    let per_device = BATCHES * shape.batch;
    let settings = Settings {
        rounds: 1,
        batch: shape.batch,
        lora: shape.lora()?,
        optimizer: Optimizer::sgd(MOMENTUM),
        lr: 1e-3,
        lr_server: 1e-3,
        ..Settings::new(Scheme::Sft, shape.cut)?
    };
    let (train, test) = (images(shape, devices * per_device)?, images(shape, 1)?);
    let partition = Partition::Iid.split(&train, devices, settings.seed)?;
    let model = shape.config.transformer(shape.classes, shape.rank);
    let samples = vec![per_device; devices];
    let job = Job {
        model: &shape.model()?,
        base: None,
        head: &shape.adapters().head,
        train: &train,
        partition: &partition,
        device_cuts: None,
        device_ranks: None,
        test: &test,
        settings,
        wireless: &Wireless::new(model, Channel::default(), &samples, &settings)?,
        fleet: None,
        on_batch: &|| (),
        stop: &AtomicBool::new(false),
    };
    let start = job.start()?;
    Resident::forget_peak()?;
    let cpu = ProcessTime::now();
    finetune(&job, start, &mut |_| Ok(()))?;
    let run = Run {
        cpu_s_per_sample: cpu.elapsed().as_secs_f64() / (devices * per_device) as f64,
        peak_bytes: Resident::read()?.peak_bytes,
    };
    println!("{}", serde_json::to_string(&run)?);
    Ok(())
}

/// Grey images; what is on them does not matter for time and memory.
fn images(shape: &Shape, count: usize) -> Outcome<Images> {
    let (side, channels) = (32, shape.config.num_channels);
    let input = ImageInput {
        side: shape.config.image_size,
        mean: vec![0.5; channels],
        std: vec![0.5; channels],
        fit: None,
    };
    let pixels = (0..count * channels * side * side).map(|i| (i % 251) as u8);
    let labels = (0..count).map(|i| (i % shape.classes) as u32);
    let (pixels, labels) = (pixels.collect(), labels.collect());
    Ok(Images::new(
        pixels,
        labels,
        shape.classes,
        side,
        255,
        input,
    )?)
}

/// Adapters and head of one device with the optimizer's momentum, bytes.
fn state_bytes(shape: &Shape) -> Outcome<f64> {
    let block = shape.lora()?.block_parameters(&shape.config.spec());
    let head = shape.classes * (shape.config.hidden_size + 1);
    let parameters = shape.config.num_hidden_layers * block + head;
    Ok(8.0 * parameters as f64)
}

/// The most that `many` devices may take where `few` take `peak` bytes.
fn memory_bar(peak: f64, few: usize, many: usize, state_bytes: f64) -> f64 {
    (1.0 + SLACK) * (peak + (many - few) as f64 * state_bytes)
}

/// Memory and time of many devices beside few.
pub(super) fn compare(plan: &Plan) -> Outcome<()> {
    let (shape, [few, many]) = (&plan.fleet, plan.fleet_sizes);
    let json = serde_json::to_string(shape)?;
    let mut runs = [few, many].map(|devices| (devices, Vec::new()));
    for _ in 0..plan.repeats.min(3) {
        for (devices, runs) in &mut runs {
            eprintln!("{devices} devices");
            let output = ourselves(&["fleet", &json, &devices.to_string()], 1)?
                .stderr(std::process::Stdio::inherit())
                .output()?;
            runs.push(serde_json::from_slice::<Run>(&output.stdout)?);
        }
    }
    let state = state_bytes(shape)?;
    let samples = BATCHES * shape.batch;
    println!("\n## {many} devices, one server\n");
    println!("{}: one round of SFT on", shape.title());
    println!(
        "{samples} samples a device, one thread, a process for each row. A device's adapters,"
    );
    println!("head and momentum are {} MB.\n", mb(state));
    println!("| devices | peak MB | least | greatest | CPU ms per sample | least | greatest |");
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    let medians = runs.map(|(devices, runs)| print(devices, &runs));
    let bar = memory_bar(medians[0][0], few, many, state);
    let slower = medians[1][1] / medians[0][1];
    println!(
        "\nMemory bar {} MB: peak of {few}, {} further states and {:.0} %; met: {}. \
         Time per sample {slower:.3} of that with {few} devices; bar {:.1}; met: {}.",
        mb(bar),
        many - few,
        100.0 * SLACK,
        met(medians[1][0] <= bar),
        1.0 + SLACK,
        met(slower <= 1.0 + SLACK)
    );
    Ok(())
}

/// Prints a row and returns the medians of memory and time.
fn print(devices: usize, runs: &[Run]) -> [f64; 2] {
    let peaks: Vec<f64> = runs.iter().map(|run| run.peak_bytes as f64).collect();
    let times: Vec<f64> = runs.iter().map(|run| run.cpu_s_per_sample).collect();
    let cells = |values: &[f64], unit: f64| {
        let [least, greatest] = range(values);
        let cells = [median(values), least, greatest];
        cells
            .map(|value| format!("{:.1}", value / unit))
            .join(" | ")
    };
    println!(
        "| {devices} | {} | {} |",
        cells(&peaks, 1e6),
        cells(&times, 1e-3)
    );
    [median(&peaks), median(&times)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_known_parameters_of_a_vit_tiny_and_their_momentum() {
        let bytes = state_bytes(&Shape::vit_tiny()).unwrap();
        assert!((bytes - 8.0 * 682_852.0).abs() < 0.5, "{bytes}");
    }

    #[test]
    fn the_bar_is_the_peak_with_the_further_states_and_a_tenth() {
        assert!((memory_bar(100.0, 8, 64, 2.0) - 1.1 * 212.0).abs() < 1e-9);
        assert!((memory_bar(100.0, 8, 8, 2.0) - 110.0).abs() < 1e-9);
    }
}
