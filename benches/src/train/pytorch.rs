//! The split step beside PyTorch: time, memory and share of the peak.

use std::path::Path;
use std::process::{Command, Stdio};

use super::peer::{Peer, ourselves, program};
use super::{Plan, met};
use crate::Outcome;
use crate::flops::step_flop;
use crate::shapes::Shape;
use crate::stats::range;

/// Our share of the time and of the memory of the best in PyTorch's eager mode.
const TIME_BAR: f64 = 0.9;
const MEMORY_BAR: f64 = 0.4;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/train_peers.py");
/// PyTorch's sides: name, what the script calls it, and whether it is eager.
const PYTORCH: [(&str, &str, bool); 3] = [
    ("transformers + PEFT", "transformers", true),
    ("hand-written module", "lean", true),
    ("hand-written module, torch.compile", "compiled", false),
];

/// What the Python sides run on.
pub(super) fn versions(python: &Path) -> Outcome<String> {
    let output = Command::new(python)
        .args([SCRIPT, "versions"])
        .stderr(Stdio::inherit())
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The sides of one shape on one number of threads.
struct Sides<'a> {
    shape: &'a Shape,
    threads: usize,
    ours: Peer,
    product: Peer,
    product_flop: f64,
    pytorch: Vec<(Peer, bool)>,
}

/// Time and memory of every shape on every number of threads.
pub(super) fn compare(plan: &Plan) -> Outcome<()> {
    println!("\n## A split LoRA step\n");
    println!("Device forward, server forward, loss, backward and update, device backward and");
    println!("update, float32, adapters on six linears and a head, SGD with momentum, no codec.");
    println!("The sides take turns in processes of their own and must find the same losses.");
    println!("*Peak* is the process's resident set; *before* is that just before the first step,");
    println!("with interpreter, libraries and weights; *added* is the steps' peak above it.\n");
    let mut ratios = Vec::new();
    let mut shares = Vec::new();
    for (shape, steps) in &plan.steps {
        println!("### {}\n", shape.title());
        println!(
            "| threads | side | wall ms | least | greatest | CPU ms | peak MB | before MB | added MB |"
        );
        println!("|---:|---|---:|---:|---:|---:|---:|---:|---:|");
        for &threads in &plan.threads {
            eprintln!("{}, {threads} threads", shape.name);
            let mut sides = Sides::start(plan, shape, threads)?;
            sides.measure(plan.repeats, *steps)?;
            sides.print();
            ratios.extend(sides.ratios());
            shares.push(sides.share());
        }
        println!();
    }
    print_ratios(&ratios);
    print_shares(plan, &shares);
    Ok(())
}

impl<'a> Sides<'a> {
    fn start(plan: &Plan, shape: &'a Shape, threads: usize) -> Outcome<Self> {
        let json = serde_json::to_string(shape)?;
        let ours = Peer::start("sft-core", ourselves(&["step", &json], threads)?)?;
        let side = plan.product.to_string();
        let product = Peer::start("gemm", ourselves(&["product", &side], threads)?)?;
        let mut pytorch = Vec::new();
        for (name, variant, eager) in PYTORCH {
            let Some(python) = &plan.python else { break };
            let command = program(python, &[SCRIPT, variant, &json], threads);
            let peer = match Peer::start(name, command) {
                Ok(peer) => peer,
                // A compiler is not everywhere; the eager sides must run.
                Err(reason) if !eager => {
                    eprintln!("{name} left out: {reason}");
                    continue;
                }
                Err(reason) => return Err(reason),
            };
            pytorch.push((peer, eager));
        }
        Ok(Self {
            shape,
            threads,
            ours,
            product,
            product_flop: 2.0 * (plan.product as f64).powi(3),
            pytorch,
        })
    }

    /// The first cells of a table's row.
    fn setting(&self) -> String {
        format!("{} | {}", self.shape.name, self.threads)
    }

    fn measure(&mut self, repeats: usize, steps: usize) -> Outcome<()> {
        for _ in 0..repeats {
            self.ours.turn(steps)?;
            self.product.turn(3)?;
            for (peer, _) in &mut self.pytorch {
                peer.turn(steps)?;
            }
        }
        let mut pytorch = self.pytorch.iter();
        pytorch.try_for_each(|(peer, _)| self.ours.agrees_with(peer))
    }

    fn print(&self) {
        let pytorch = self.pytorch.iter().map(|(peer, _)| peer);
        for peer in std::iter::once(&self.ours).chain(pytorch) {
            println!("{}", peer.row(self.threads));
        }
    }

    /// Our time and memory over those of the best eager side; over the compiled one, without bars.
    fn ratios(&self) -> Vec<Ratios> {
        let over = |what: &'static str, eager: bool| {
            let others = self.pytorch.iter().filter(|(_, kind)| *kind == eager);
            let best = |value: fn(&Peer) -> f64| {
                let least = others.clone().map(|(peer, _)| value(peer));
                value(&self.ours) / least.fold(f64::INFINITY, f64::min)
            };
            Ratios {
                setting: self.setting(),
                what,
                barred: eager,
                time: best(|peer| peer.turns.wall_s()),
                process: best(|peer| peer.turns.memory.process as f64),
                added: best(|peer| peer.turns.memory.added() as f64),
            }
        };
        let kinds = [("eager, best of both", true), ("torch.compile", false)];
        let measured = |kind: &(_, bool)| self.pytorch.iter().any(|(_, eager)| *eager == kind.1);
        let kinds = kinds.into_iter().filter(measured);
        kinds.map(|(what, eager)| over(what, eager)).collect()
    }

    fn share(&self) -> String {
        let (time_s, flop) = (self.ours.turns.wall_s(), step_flop(self.shape));
        let [fastest_s, _] = range(&self.product.turns.wall_s);
        let peak = self.product_flop / fastest_s;
        let share = flop / time_s / peak;
        let bar = if self.shape.config.hidden_size < 768 {
            0.55
        } else {
            0.75
        };
        format!(
            "| {} | {:.1} | {:.1} | {:.1} | {:.0} % | {:.0} % | {} |",
            self.setting(),
            flop / 1e9,
            flop / time_s / 1e9,
            peak / 1e9,
            100.0 * share,
            100.0 * bar,
            met(share >= bar)
        )
    }
}

/// Ours over theirs.
struct Ratios {
    setting: String,
    what: &'static str,
    barred: bool,
    time: f64,
    process: f64,
    added: f64,
}

fn print_ratios(ratios: &[Ratios]) {
    println!("### Ours over PyTorch's\n");
    println!("Of the two eager sides, the faster for time, the leaner for memory. Bars: time");
    println!("{TIME_BAR}, peak {MEMORY_BAR}.\n");
    println!("| model | threads | PyTorch | time | met | peak | met | added |");
    println!("|---|---:|---|---:|---|---:|---|---:|");
    for ratios in ratios {
        let bar = |value, bar| {
            let met = if ratios.barred { met(value <= bar) } else { "" };
            format!("{value:.2} | {met}")
        };
        println!(
            "| {} | {} | {} | {} | {:.2} |",
            ratios.setting,
            ratios.what,
            bar(ratios.time, TIME_BAR),
            bar(ratios.process, MEMORY_BAR),
            ratios.added
        );
    }
}

fn print_shares(plan: &Plan, shares: &[String]) {
    let side = plan.product;
    println!("\n### Share of the peak\n");
    println!(
        "Matrix products of a step, counted one by one, over its median time; the peak is the"
    );
    println!("fastest {side}x{side} f32 product by the same crate in the same turns.\n");
    println!("| model | threads | GFLOP | GFLOP/s | peak GFLOP/s | share | bar | met |");
    println!("|---|---:|---:|---:|---:|---:|---:|---|");
    for share in shares {
        println!("{share}");
    }
}
