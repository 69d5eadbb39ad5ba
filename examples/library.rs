//! `sft_core` as a library: load, split, train, evaluate and save, in forty lines.
//!
//! The model and the images are the embedded ones of `vit_finetune`; yours come from
//! `PretrainedVit::open` and `cifar100`, `tiny_imagenet` or `image_folder`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sft_core::adapter::{Head, Lora, ModuleNames, save_peft};
use sft_core::data::Partition;
use sft_core::model::{Backend, Model, Pretrained, Vit};
use sft_core::run::{Channel, Job, Scheme, Settings, Wireless, evaluate, finetune};
use sft_examples::console::say;
use sft_examples::{digits, input};

fn main() -> sft_core::Result<()> {
    let pretrained = input::embedded_model(None)?;
    let vit = Vit::new(&pretrained.config, &pretrained.weights, Backend::default())?;
    let (train, test) = digits::load(None, &pretrained.input)?;

    let settings = Settings {
        rounds: 2,
        lora: Lora::new(8, 16.0)?.with_dropout(0.05)?,
        ..Settings::new(Scheme::Sft, 2)?
    };
    let partition = Partition::Dirichlet(0.5).split(&train, 4, settings.seed)?;
    let samples: Vec<usize> = partition.iter().map(Vec::len).collect();
    let model = pretrained.config.transformer(10, settings.lora.rank());
    let (batches, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let job = Job {
        model: &vit,
        base: None,
        head: &Head::new(10, pretrained.config.hidden_size, settings.seed),
        train: &train,
        partition: &partition,
        device_cuts: None,
        device_ranks: None,
        test: &test,
        settings,
        wireless: &Wireless::new(model, Channel::default(), &samples, &settings)?,
        fleet: None,
        on_batch: &|| {
            batches.fetch_add(1, Ordering::Relaxed);
        },
        stop: &stop, // set it from any thread: finished rounds are kept
    };
    let outcome = finetune(&job, job.start()?, &mut |run| {
        say(format_args!("{:?}", run.rounds.last())) // save_checkpoint has its place here
    })?;
    let score = evaluate(&vit, settings.lora, &outcome.adapters, &test, 2)?;
    let batches = batches.into_inner();
    say(format_args!(
        "{:.3} after {batches} mini-batches",
        score.accuracy()
    ))?;
    let out = std::env::temp_dir().join("sft-library");
    save_peft(
        &out,
        vit.spec(),
        settings.lora,
        &outcome.adapters,
        None,
        ModuleNames::default(),
    )?;
    pretrained.save_merged(&out, Some(settings.lora), &outcome.adapters)
}
