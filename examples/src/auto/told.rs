//! The choice in words.

use std::fmt;

use sft_opt::plan::Configuration;
use sft_opt::{Constraint, Solution};

use super::{Candidate, Choice, Chosen, PAPER_BITS, PAPER_KEEP};

impl Choice {
    /// What keeps the bits from being fewer.
    fn bound(&self) -> String {
        if self.best.value.setting.accuracy() - self.accuracy_min < 1e-6 {
            return format!(
                "bound by accuracy, at least {:.1} %",
                100.0 * self.accuracy_min
            );
        }
        format!("bound by the surface, measured from {}", self.covered)
    }

    /// Cuts that do not fit into a device.
    fn ruled_out(&self) -> String {
        let memory =
            |c: &&Candidate| matches!(c.best.status.constraint(), Some(Constraint::Memory));
        let cuts: Vec<String> = (self.candidates.iter())
            .filter(memory)
            .map(|c| c.cut.to_string())
            .collect();
        if cuts.is_empty() {
            return "bound by delay, every cut fits into the devices".into();
        }
        format!(
            "bound by delay and memory, which rules out {}",
            cuts.join(", ")
        )
    }
}

fn line(best: &Solution<Configuration<Chosen>>) -> String {
    let Configuration { cut, setting, .. } = &best.value;
    format!("cut {cut}, {setting}: {:.4} s a round", best.tau_s)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = &self.best.value.setting;
        writeln!(f, "auto: {}", line(&self.best))?;
        writeln!(
            f,
            "  activations: {:.1} % of their bits, accuracy {:.1} % by the surface; {}",
            100.0 * setting.beta(),
            100.0 * setting.accuracy(),
            self.bound()
        )?;
        writeln!(f, "  cut: {}", self.ruled_out())?;
        match self.runner_up() {
            Some(next) => {
                let more = 100.0 * (next.tau_s / self.best.tau_s - 1.0);
                writeln!(f, "  runner-up: {}, {more:.1} % more", line(&next))?;
            }
            None => writeln!(f, "  runner-up: none")?,
        }
        if let Some(paper) = self.paper {
            let accuracy = paper.accuracy.map_or_else(String::new, |accuracy| {
                format!(", accuracy {:.1} % by the surface", 100.0 * accuracy)
            });
            writeln!(
                f,
                "  the paper's fixed setting: cut {}, keep {PAPER_KEEP}, {} levels both ways: \
                 {:.4} s a round{accuracy}",
                paper.cut,
                1 << PAPER_BITS,
                paper.tau_s
            )?;
        }
        let later = match &self.first_only {
            None => {
                "times what a round after the first takes of them in the runs behind the surface"
                    .into()
            }
            Some(reason) => format!("not lowered for samples that come again: {reason}"),
        };
        write!(
            f,
            "  (rates measured on first messages of {} training images at every cut,\n  {later}; links at \
             their mean)",
            self.samples
        )
    }
}
