//! The paper's tables and figures as the cost model predicts them, beside the printed numbers:
//! `cargo run --release --example paper_tables -- [DIR]`.
//!
//! Table III and Fig. 6 (memory), Fig. 8 (volumes), Fig. 9 (bandwidth allocation) and Fig. 10
//! (delay). Fig. 10 is explained by two families of assumptions, both shown: A, 30 MHz, payloads
//! in bits, a sequential server of 3 GHz; B, 5 MHz, bytes taken for bits, a server of 40 GHz.
//! Tables go to standard output, curves as SVG into DIR (default `runs/paper_tables`).

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use plotters::prelude::*;
use sft_examples::console::{ended, say};
use sft_opt::bandwidth::{allocate_even, allocate_random};
use sft_opt::cost::{Memory, Payload, activation_bits, device_memory};
use sft_opt::system::{Fading, FlHead, Link, random_clocks_hz};
use sft_opt::{
    Device, Placement, Round, Server, System, Training, Transformer, allocate_bandwidth,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;
const DEVICES: usize = 8;
/// Draws of the devices' clocks, and of fading, that a mean is over.
const DRAWS: u64 = 100;
const CUT: Placement = Placement::Split { cut: 5 };
/// The share of bits that the paper's compression leaves.
const BETA: f64 = 0.0678;

/// The paper's tables and figures as the cost model predicts them, beside the printed numbers.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Folder that gets the curves as SVG.
    #[arg(default_value = "runs/paper_tables")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let Flags { dir } = Flags::parse();
    ended(run(&dir).map_err(|error| format!("{}: {error}", dir.display())))
}

fn run(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    table_three()?;
    figure_six(dir)?;
    figure_eight()?;
    figure_nine(dir)?;
    figure_ten()?;
    say(format_args!("\nCurves: {}", dir.display()))?;
    Ok(())
}

/// A row of a table: predicted beside printed.
fn row(what: &str, predicted: f64, printed: Option<f64>) -> sft_core::Result<()> {
    match printed {
        Some(printed) => {
            let error = 100.0 * (predicted / printed - 1.0);
            say(format_args!(
                "| {what} | {predicted:.2} | {printed:.2} | {error:+.1} % |"
            ))
        }
        None => say(format_args!("| {what} | {predicted:.2} | | |")),
    }
}

fn header(title: &str, unit: &str) -> sft_core::Result<()> {
    say(format_args!(
        "\n{title}\n\n| {unit} | predicted | paper | difference |\n|---|---:|---:|---:|"
    ))
}

fn memory(placement: Placement) -> Result<Memory> {
    let mut training = Training::default();
    training.fl_head = FlHead::Adapters;
    Ok(device_memory(
        &Transformer::vit_base(200),
        &training,
        placement,
    )?)
}

fn table_three() -> Result<()> {
    header("Table III: memory of a device", "MiB")?;
    let schemes = [
        (
            "FL",
            Placement::FlFull,
            [36.75, 9171.0, 327.88, 329.76, 9865.5],
        ),
        (
            "FL-LoRA",
            Placement::FlLora,
            [36.75, 9514.0, 337.03, 9.09, 9896.7],
        ),
        ("SFT", CUT, [36.75, 3941.0, 141.19, 3.75, 4122.9]),
    ];
    for (name, placement, printed) in schemes {
        let memory = memory(placement)?;
        let predicted = [
            ("input", memory.input_bytes),
            ("activations", memory.activation_bytes),
            ("model and adapters", memory.model_bytes),
            ("optimizer", memory.optimizer_bytes),
            ("total", memory.total_bytes()),
        ];
        for ((part, bytes), printed) in predicted.into_iter().zip(printed) {
            row(&format!("{name}, {part}"), bytes / MIB, Some(printed))?;
        }
    }
    let saved =
        100.0 * (1.0 - memory(CUT)?.total_bytes() / memory(Placement::FlLora)?.total_bytes());
    row("saved against FL-LoRA, %", saved, Some(58.2))?;
    Ok(())
}

fn figure_six(dir: &Path) -> Result<()> {
    header("Fig. 6: memory of a device by cut layer", "MiB")?;
    let mut points = Vec::new();
    for cut in 1..12 {
        let mib = memory(Placement::Split { cut })?.total_bytes() / MIB;
        row(&format!("cut {cut}"), mib, None)?;
        points.push((f64::from(cut as u32), mib));
    }
    let curves = [("SFT", points)];
    draw(
        &dir.join("fig6_memory.svg"),
        "cut layer",
        "device memory, MiB",
        &curves,
    )
}

/// Volumes of 20 rounds in GiB.
fn figure_eight() -> Result<()> {
    let (model, training) = (Transformer::vit_base(100), Training::default());
    let batches = training.batches_per_round(6250);
    let one = 20.0 * batches * 2.0 * activation_bits(&model, &training) / 8.0 / GIB;
    header("Fig. 8: activations and gradients of 20 rounds", "GiB")?;
    row(
        "one device, uncompressed (the paper's SL)",
        one,
        Some(144.76),
    )?;
    row("8 devices, uncompressed", 8.0 * one, None)?;
    row("8 devices, SFT", 8.0 * one * BETA, None)?;
    row("uncompressed over SFT", 1.0 / BETA, Some(14.75))?;
    say(format_args!(
        "\nSL at 6.7 and no compression at 14.75 times SFT cannot both hold at equal rounds."
    ))?;
    Ok(())
}

/// Systems whose clocks are drawn anew.
fn systems(total_hz: f64, server_hz: f64) -> Result<Vec<System>> {
    let with_clock = |clock_hz| {
        let mut device = Device::default();
        device.clock_hz = clock_hz;
        device
    };
    let mut server = Server::default();
    server.clock_hz = server_hz;
    (0..DRAWS)
        .map(|seed| {
            let clocks_hz = random_clocks_hz(DEVICES, 0.5e9..1.5e9, seed);
            let devices = clocks_hz.into_iter().map(with_clock).collect();
            let (model, training) = (Transformer::vit_base(100), Training::default());
            Ok(System::new(model, training, server, devices, total_hz)?)
        })
        .collect()
}

/// Delays of the optimal, the even and a random allocation in one round.
fn delays(system: &System, links: &[Link], payloads: &[Payload], seed: u64) -> Result<[f64; 3]> {
    let round = Round {
        placements: &system.everywhere(CUT),
        links,
        payloads,
    };
    let demands = system.demands(&round)?;
    let problem = demands.problem();
    Ok([
        allocate_bandwidth(&problem)?.tau_s,
        allocate_even(&problem)?.tau_s,
        allocate_random(&problem, seed)?.tau_s,
    ])
}

fn figure_nine(dir: &Path) -> Result<()> {
    header(
        "Fig. 9: delay saved by the optimal allocation at 5 MHz",
        "%",
    )?;
    for (name, fades) in [("without fading", false), ("Rayleigh fading", true)] {
        let mut curves = ["optimal", "even", "random"].map(|name| (name, Vec::new()));
        for mhz in [2, 3, 5, 10, 20, 30] {
            let (mut sum, mut saved) = ([0.0; 3], [0.0; 3]);
            for (seed, system) in (0..).zip(systems(f64::from(mhz) * 1e6, 3e9)?) {
                let links = if fades {
                    system.faded_links(Fading::new(seed), 1)
                } else {
                    system.links()
                };
                let payloads = system.payloads(&system.everywhere(CUT), BETA, false)?;
                let delays = delays(&system, &links, &payloads, seed)?;
                for k in 0..3 {
                    sum[k] += delays[k] / DRAWS as f64;
                    saved[k] += 100.0 * (1.0 - delays[0] / delays[k]) / DRAWS as f64;
                }
            }
            for (curve, mean) in curves.iter_mut().zip(sum) {
                curve.1.push((f64::from(mhz), mean / 60.0));
            }
            if mhz == 5 {
                row(&format!("against even, {name}"), saved[1], Some(53.1))?;
                row(&format!("against random, {name}"), saved[2], Some(53.1))?;
            }
        }
        // Random allocations are far off: the picture shows what is worth comparing.
        let file = if fades {
            "fig9_delay_fading.svg"
        } else {
            "fig9_delay.svg"
        };
        draw(
            &dir.join(file),
            "bandwidth, MHz",
            "mean delay of a round, min",
            &curves[..2],
        )?;
    }
    say(format_args!(
        "\nThe paper's 53.1 % is \"up to\", against even or random allocation."
    ))?;
    Ok(())
}

/// Minutes of one round, in the mean over draws.
struct Minutes {
    sft: f64,
    raw: f64,
    sl: f64,
    fl: f64,
    fl_lora: f64,
}

/// `scale`: what a payload's bits count for.
fn minutes(total_hz: f64, server_hz: f64, scale: f64) -> Result<Minutes> {
    let mut sum = [0.0; 5];
    for system in systems(total_hz, server_hz)? {
        let links = system.links();
        let counted = |mut payloads: Vec<Payload>| {
            for payload in &mut payloads {
                payload.broadcast_bits *= scale;
                payload.uplink_bits *= scale;
                payload.downlink_bits *= scale;
                payload.adapter_bits *= scale;
            }
            payloads
        };
        let parallel = |placement, beta| -> Result<f64> {
            let payloads = counted(system.payloads(&system.everywhere(placement), beta, false)?);
            let round = Round {
                placements: &system.everywhere(placement),
                links: &links,
                payloads: &payloads,
            };
            Ok(allocate_bandwidth(&system.demands(&round)?.problem())?.tau_s)
        };
        let payloads = counted(system.sequential_payloads(&system.everywhere(CUT), 1.0, false)?);
        let round = Round {
            placements: &system.everywhere(CUT),
            links: &links,
            payloads: &payloads,
        };
        let all = [
            parallel(CUT, BETA)?,
            parallel(CUT, 1.0)?,
            system.sequential_delay(&round)?.total_s,
            parallel(Placement::FlFull, 1.0)?,
            parallel(Placement::FlLora, 1.0)?,
        ];
        for (sum, seconds) in sum.iter_mut().zip(all) {
            *sum += seconds / 60.0 / DRAWS as f64;
        }
    }
    let [sft, raw, sl, fl, fl_lora] = sum;
    Ok(Minutes {
        sft,
        raw,
        sl,
        fl,
        fl_lora,
    })
}

fn figure_ten() -> Result<()> {
    let families = [
        (
            "A: 30 MHz, bits, sequential server of 3 GHz",
            30e6,
            3e9,
            1.0,
        ),
        (
            "B: 5 MHz, bytes read as bits, server of 40 GHz",
            5e6,
            40e9,
            0.125,
        ),
    ];
    for (name, total_hz, server_hz, scale) in families {
        let round = minutes(total_hz, server_hz, scale)?;
        // One number of rounds for both: the mean of what either needs.
        let rounds = f64::midpoint(178.8 / round.sft, 906.9 / round.raw);
        header(
            &format!("Fig. 10, family {name}, {rounds:.1} rounds"),
            "minutes",
        )?;
        row("SFT", rounds * round.sft, Some(178.8))?;
        row("SFT without compression", rounds * round.raw, Some(906.9))?;
        say(format_args!(
            "\nThe other schemes have rounds of their own in the paper; to match it:\n"
        ))?;
        say(format_args!(
            "| scheme | minutes a round | paper | rounds |\n|---|---:|---:|---:|"
        ))?;
        let others = [
            ("SL", round.sl, 1071.1),
            ("FL, all parameters", round.fl, 419.6),
            ("FL-LoRA", round.fl_lora, 419.6),
        ];
        for (scheme, minutes, printed) in others {
            say(format_args!(
                "| {scheme} | {minutes:.2} | {printed} | {:.1} |",
                printed / minutes
            ))?;
        }
    }
    Ok(())
}

const COLORS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(230, 159, 0)];

/// A picture of curves over linear axes.
fn draw(path: &Path, x: &str, y: &str, curves: &[(&'static str, Vec<(f64, f64)>)]) -> Result<()> {
    let points = || curves.iter().flat_map(|curve| &curve.1);
    let right = points().map(|p| p.0).fold(0.0, f64::max);
    let top = points().map(|p| p.1).fold(0.0, f64::max);
    let area = SVGBackend::new(path, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..1.04 * right, 0.0..1.08 * top)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).x_desc(x).y_desc(y);
    mesh.label_style(("sans-serif", 14)).draw()?;
    for ((name, points), color) in curves.iter().zip(COLORS) {
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3);
        let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2));
        chart.draw_series(line)?.label(*name).legend(key);
    }
    let mut legend = chart.configure_series_labels();
    legend
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.4));
    legend.label_font(("sans-serif", 14)).draw()?;
    area.present()?;
    Ok(())
}
