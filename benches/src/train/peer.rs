//! A side of the comparison in a process of its own, which takes steps when it is asked to.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};

use super::mb;
use crate::Outcome;
use crate::machine::Resident;
use crate::stats::{median, range};

/// Steps before the first that counts.
const WARM_UP: usize = 2;
/// How far the losses of two sides may be apart, of their size.
const LOSS_TOLERANCE: f32 = 1e-4;

/// A side's answer, and after several the sum of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) wall_s: Vec<f64>,
    pub(super) cpu_s: Vec<f64>,
    pub(super) losses: Vec<f32>,
    pub(super) memory: Memory,
}

/// The resident set of a side, bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Just before the first step.
    pub(super) before: u64,
    /// The most from then on.
    pub(super) steps: u64,
    /// The most of the whole process, its start included.
    pub(super) process: u64,
}

impl Memory {
    /// What the steps add to what was there before them.
    pub(super) fn added(self) -> u64 {
        self.steps.saturating_sub(self.before)
    }
}

impl Turn {
    pub(super) fn wall_s(&self) -> f64 {
        median(&self.wall_s)
    }

    /// Median, least and greatest wall time and median CPU time, in milliseconds, as cells.
    pub(super) fn cells(&self) -> String {
        let [least, greatest] = range(&self.wall_s);
        let times = [self.wall_s(), least, greatest, median(&self.cpu_s)];
        times
            .map(|time_s| format!("{:.1}", 1e3 * time_s))
            .join(" | ")
    }
}

/// Answers with as many steps as each line of standard input asks for; a step returns its loss.
pub(super) fn answer(mut step: impl FnMut() -> Outcome<f32>) -> Outcome<()> {
    let start = Resident::read()?;
    Resident::forget_peak()?;
    for line in std::io::stdin().lines() {
        let steps: usize = line?.trim().parse()?;
        let mut turn = Turn::default();
        for _ in 0..steps {
            let (wall, cpu) = (Instant::now(), ProcessTime::now());
            turn.losses.push(step()?);
            turn.wall_s.push(wall.elapsed().as_secs_f64());
            turn.cpu_s.push(cpu.elapsed().as_secs_f64());
        }
        let steps = Resident::read()?.peak_bytes;
        turn.memory = Memory {
            before: start.now_bytes,
            steps,
            process: steps.max(start.peak_bytes),
        };
        println!("{}", serde_json::to_string(&turn)?);
    }
    Ok(())
}

/// This program as a side of its own, on this many threads.
pub(super) fn ourselves(args: &[&str], threads: usize) -> Outcome<Command> {
    Ok(program(&std::env::current_exe()?, args, threads))
}

/// A program whose libraries are told how many threads to use.
pub(super) fn program(path: &Path, args: &[&str], threads: usize) -> Command {
    let mut command = Command::new(path);
    command.args(args);
    for variable in ["RAYON", "CANDLE", "OMP", "MKL"] {
        command.env(format!("{variable}_NUM_THREADS"), threads.to_string());
    }
    command
}

/// A running side.
pub(super) struct Peer {
    pub(super) name: &'static str,
    process: Child,
    requests: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    /// All turns so far; their times are without the first steps.
    pub(super) turns: Turn,
}

impl Peer {
    /// Starts a side and lets it warm up.
    pub(super) fn start(name: &'static str, mut command: Command) -> Outcome<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (requests, answers) = (process.stdin.take(), process.stdout.take());
        let mut peer = Self {
            name,
            process,
            requests,
            answers: BufReader::new(answers.ok_or("no pipe")?).lines(),
            turns: Turn::default(),
        };
        peer.turns.losses = peer.ask(WARM_UP)?.losses;
        Ok(peer)
    }

    fn ask(&mut self, steps: usize) -> Outcome<Turn> {
        let requests = self.requests.as_mut().ok_or("no pipe")?;
        writeln!(requests, "{steps}")?;
        let answer = self.answers.next();
        let answer = answer.ok_or_else(|| format!("{} ended without an answer", self.name))?;
        Ok(serde_json::from_str(&answer?)?)
    }

    /// Lets the side take steps that count.
    pub(super) fn turn(&mut self, steps: usize) -> Outcome<()> {
        let turn = self.ask(steps)?;
        self.turns.wall_s.extend(turn.wall_s);
        self.turns.cpu_s.extend(turn.cpu_s);
        self.turns.losses.extend(turn.losses);
        self.turns.memory = turn.memory;
        Ok(())
    }

    /// Times and memory as a row of a table.
    pub(super) fn row(&self, threads: usize) -> String {
        let memory = self.turns.memory;
        let memory = [memory.process, memory.before, memory.added()];
        let memory = memory.map(|bytes| mb(bytes as f64)).join(" | ");
        let (name, times) = (self.name, self.turns.cells());
        format!("| {threads} | {name} | {times} | {memory} |")
    }

    /// Fails where the other side, which took as many steps, computed something else.
    pub(super) fn agrees_with(&self, other: &Self) -> Outcome<()> {
        let (ours, theirs) = (&self.turns.losses, &other.turns.losses);
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= LOSS_TOLERANCE * a.abs();
        if ours.len() == theirs.len() && ours.iter().zip(theirs).all(close) {
            return Ok(());
        }
        let names = [self.name, other.name].join(" and ");
        Err(format!("losses of {names} differ: {ours:?} and {theirs:?}").into())
    }
}

impl Drop for Peer {
    /// A side ends with its input.
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.process.wait();
    }
}
