//! Split LoRA fine-tuning of a language model over many devices, scheme beside scheme: a GGUF file
//! or a Hugging Face folder on texts with a class each, on plain text or on conversations, or the
//! embedded model on glosses.

use std::process::ExitCode;

use clap::Command;
use sft_core::Result;
use sft_core::run::RunConfig;
use sft_examples::{glosses, program};

/// Where the results go, if nothing is said.
const OUT: &str = "runs/llm_finetune";

fn main() -> ExitCode {
    program::run(|| {
        let config = config()?;
        let inputs = glosses::open(&config)?;
        program::tell_data(&inputs);
        program::finetune(&config, &inputs)
    })
}

/// What the command line asks for; ends the program where it cannot be read.
fn config() -> Result<RunConfig> {
    let about = "Split LoRA fine-tuning of a language model over simulated mobile devices";
    let embedded = glosses::defaults();
    let more = format!(
        "A pre-trained model is split at the cut layer between the devices and an edge server and \
         fine-tuned by Algorithm 1, with the codec on both directions of the cut and no padding \
         across it; the other schemes of the paper run beside it. Without --model and --data it is \
         the embedded model on WordNet's glosses, with --cut {}, --lr {} and --pooling mean unless \
         something else is said. In brackets: the paper's symbol.",
        embedded.cut, embedded.lr
    );
    let command = RunConfig::flags(Command::new("llm_finetune"))
        .mut_arg("model", |arg| {
            arg.help(
                "Pre-trained language model, a GGUF file or a Hugging Face folder; without it, the \
                 embedded one of the glosses",
            )
        })
        .mut_arg("data", |arg| {
            arg.help(
                "Data set: glosses; or, each with --test, classify:FILE (.tsv with lines LABEL, tab, \
                 TEXT; .csv or .jsonl with label and text), text:FILE or text:DIR (plain text, .txt) \
                 or chat:FILE (.jsonl with messages, or with prompt and completion) [default without \
                 --model: glosses]",
            )
        })
        .mut_arg("out", |arg| {
            arg.help(format!(
                "Folder that gets the results and holds no other run [default: that of --resume, \
                 else {OUT}]"
            ))
        })
        .about(about)
        .version(env!("CARGO_PKG_VERSION"));
    let matches = command
        .long_about(format!("{about}\n\n{more}"))
        .get_matches();
    let mut config = RunConfig::from_flags(&matches)?;
    if glosses::are_all(&config) {
        config = RunConfig::from_flags_over(&matches, &embedded)?;
    }
    if config.folder().is_none() {
        config.out = Some(OUT.into());
    }
    Ok(config)
}
