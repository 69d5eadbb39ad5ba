//! Runs of text models.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use sft_core::Result;
use sft_core::run::{Inputs, RunConfig, SchemeRun, Session};

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
