//! Runs of text models.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use sft_core::Result;
use sft_core::adapter::Adapters;
use sft_core::model::Model;
use sft_core::run::{Inputs, RunConfig, SchemeRun, Session};
use sft_core::split::message::{Hello, Message};
use sft_core::split::{Bases, RoundPlan, Serve, ServerCodecs, ServerSide};

/// What a configuration does, without the times that it takes.
pub fn run(config: &RunConfig) -> Result<Vec<SchemeRun>> {
    let inputs = Inputs::open(config)?;
    let mut runs = Session::new(config, &inputs)?.run(&(), &AtomicBool::new(false))?;
    for round in runs.iter_mut().flat_map(|run| &mut run.rounds) {
        round.wall_s = 0.0;
    }
    Ok(runs)
}

/// The same on any number of threads, and where a checkpoint goes on.
pub fn assert_threads_and_stops_change_nothing(config: &RunConfig, out: &Path) {
    let with = |threads: usize, change: &dyn Fn(&mut RunConfig)| {
        let mut config = RunConfig {
            activation: "transform:0.3".parse().unwrap(),
            gradient: "transform:1.5".parse().unwrap(),
            threads: Some(threads),
            ..config.clone()
        };
        change(&mut config);
        run(&config).unwrap()
    };
    let whole = with(1, &|_| ());
    assert_eq!(with(3, &|_| ()), whole);
    with(2, &|config| {
        (config.out, config.rounds) = (Some(out.into()), 1);
        config.checkpoint_every = Some(1);
    });
    let rest = with(2, &|config| config.resume = Some(out.into()));
    assert_eq!(rest[0].rounds, whole[0].rounds);
}

/// The server's side of a model of texts for a device of 8 samples that said hello.
pub fn welcomed<'m>(plan: &RoundPlan, model: &'m dyn Model, start: &'m Adapters) -> ServerSide<'m> {
    let codecs = ServerCodecs::new(plan, Bases::default()).unwrap();
    let mut server = ServerSide::new(0, plan.clone(), 0.1, model, start, codecs).unwrap();
    let hello = Hello {
        device: 0,
        samples: 8,
        model: model.spec().fingerprint(),
        bases: 0,
        held: None,
    };
    server.handle(Message::Hello(hello)).unwrap();
    server
}
