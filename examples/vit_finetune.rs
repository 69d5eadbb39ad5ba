//! Split LoRA fine-tuning of a vision transformer over many devices, scheme beside scheme.

use std::process::ExitCode;

use sft_core::Result;
use sft_core::run::{Inputs, RunConfig, Scheme, Session};
use sft_examples::console::say;
use sft_examples::flags::{Auto, Flags};
use sft_examples::{auto, input, program};

fn main() -> ExitCode {
    program::run(|| {
        let Flags { mut config, auto } = Flags::parse()?;
        let inputs = input::open(&config)?;
        program::tell_data(&inputs);
        if auto.auto {
            choose(&mut config, &auto, &inputs)?;
        }
        program::finetune(&config, &inputs)
    })
}

/// Sets cut and the activation's codec by the cost model, and prints why.
fn choose(config: &mut RunConfig, auto: &Auto, inputs: &Inputs) -> Result<()> {
    config.cut = 1;
    let session = Session::new(config, inputs)?;
    let setup = session.setup(Scheme::Sft)?;
    let task = auto::Task {
        model: inputs.model.as_ref(),
        head: &setup.head,
        train: inputs.train.as_ref(),
        wireless: &setup.wireless,
    };
    let choice = auto::choose(auto, session.config(), task)?;
    say(format_args!("{choice}\n"))?;
    (config.cut, config.activation) = (choice.best.value.cut, choice.activation);
    Ok(())
}
