//! What a run leaves: the table, `run.json` and the pictures.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use sft_core::run::{RoundRecord, RunFile, Scheme, SchemeRun};
use sft_core::write_whole;
use sft_core::{Error, Result};

use crate::plot::{self, Measure};

/// The sum of a field over the rounds.
fn total(run: &SchemeRun, field: impl Fn(&RoundRecord) -> f64) -> f64 {
    run.rounds.iter().map(field).sum()
}

/// Test accuracy after the last round.
fn accuracy(run: &SchemeRun) -> f64 {
    run.rounds.last().map_or(0.0, |round| round.accuracy)
}

/// What tells how well a round's model does: of a language model the perplexity.
fn measure(run: &RunFile) -> Measure {
    let mut rounds = run.schemes.iter().flat_map(|run| &run.rounds);
    if rounds.any(|round| round.perplexity.is_some()) {
        Measure::Perplexity
    } else {
        Measure::Accuracy
    }
}

/// A round's measure for people.
pub fn shown(round: &RoundRecord) -> String {
    measured(round.perplexity, round.accuracy)
}

fn measured(perplexity: Option<f64>, accuracy: f64) -> String {
    match perplexity {
        Some(perplexity) => format!("{perplexity:.2}"),
        None => format!("{:.1} %", 100.0 * accuracy),
    }
}

/// The same of the model as it is split, where that was measured.
fn shown_through_cut(round: &RoundRecord) -> Option<String> {
    let accuracy = round.accuracy_through_cut?;
    Some(measured(round.perplexity_through_cut, accuracy))
}

/// The measure against the running total of a field.
fn curve(run: &SchemeRun, field: impl Fn(&RoundRecord) -> f64) -> plot::Curve {
    let mut total = 0.0;
    let point = |round: &RoundRecord| {
        total += field(round);
        (total, round.perplexity.unwrap_or(100.0 * round.accuracy))
    };
    plot::Curve {
        name: title(run.scheme),
        points: run.rounds.iter().map(point).collect(),
    }
}

/// The schemes side by side, and the memory of the run; with a target, rounds and delay are those
/// to reach it. `holds` tells what is in this process.
pub fn table(run: &RunFile, target: Option<f64>, holds: &str) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let mut header = vec![
        "scheme",
        match measure(run) {
            Measure::Accuracy => "test accuracy",
            Measure::Perplexity => "test perplexity",
        },
        "test loss",
        "cut MB up",
        "cut MB down",
        "adapter MB",
        "modelled delay",
        "device memory (model)",
    ];
    let through = |scheme: &SchemeRun| shown_through_cut(scheme.rounds.last()?);
    let any_through = run.schemes.iter().any(|scheme| through(scheme).is_some());
    if any_through {
        header.insert(2, "through the cut");
    }
    if target.is_some() {
        header.push("rounds to target");
    }
    table.set_header(header);
    for scheme in &run.schemes {
        let megabytes = |field: fn(&RoundRecord) -> u64| {
            format!("{:.2}", total(scheme, |round| field(round) as f64) / 1e6)
        };
        let last = scheme.rounds.last();
        let mut row = vec![
            title(scheme.scheme).to_string(),
            last.map_or_else(String::new, shown),
            last.map_or_else(String::new, |round| format!("{:.3}", round.test_loss)),
            megabytes(|round| round.bytes_up),
            megabytes(|round| round.bytes_down),
            megabytes(|round| round.adapter_bytes_up + round.adapter_bytes_down),
            seconds(total(scheme, |round| round.delay_s)),
            format!("{:.2} MB", scheme.device_memory_bytes / 1e6),
        ];
        if any_through {
            row.insert(2, through(scheme).unwrap_or_default());
        }
        if let Some(target) = target {
            let rounds = scheme.rounds.len();
            let reached = accuracy(scheme) >= target;
            row.push(if reached {
                rounds.to_string()
            } else {
                format!("not in {rounds}")
            });
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let peak = run.peak_resident_bytes.map_or_else(String::new, |bytes| {
        let peak = bytes as f64 / 1e6;
        format!("\npeak memory of this process, {holds}: {peak:.1} MB")
    });
    format!("{table}{peak}")
}

/// Writes `run.json` and the two pictures into `out`.
///
/// # Errors
/// A folder that cannot be written.
pub fn write(out: &Path, run: &RunFile) -> Result<()> {
    run.write(&out.join(RunFile::NAME))?;
    let traffic = |round: &RoundRecord| {
        let cut = round.bytes_up + round.bytes_down;
        (cut + round.adapter_bytes_up + round.adapter_bytes_down) as f64 / 1e6
    };
    let curves = |field: &dyn Fn(&RoundRecord) -> f64| -> Vec<_> {
        run.schemes
            .iter()
            .map(|scheme| curve(scheme, field))
            .collect()
    };
    let measure = measure(run);
    let name = match measure {
        Measure::Accuracy => "accuracy",
        Measure::Perplexity => "perplexity",
    };
    let pictures = [
        ("time", "modelled time, s", curves(&|round| round.delay_s)),
        ("traffic", "traffic of all devices, MB", curves(&traffic)),
    ];
    for (over, axis, curves) in pictures {
        let path = out.join(format!("{name}_over_{over}.svg"));
        let svg = plot::curves(axis, measure, &curves).map_err(|e| Error::file(&path, e))?;
        write_whole(&path, svg.as_bytes())?;
    }
    Ok(())
}

/// The scheme's name for people.
pub fn title(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Sft => "SFT",
        Scheme::SftRaw => "SFT without compression",
        Scheme::Sl => "sequential split learning (SL)",
        Scheme::FlLora => "FL with LoRA",
        Scheme::FlFull => "FL with full parameters",
    }
}

fn seconds(value: f64) -> String {
    if value < 600.0 {
        format!("{value:.3} s")
    } else {
        format!("{:.1} min", value / 60.0)
    }
}
