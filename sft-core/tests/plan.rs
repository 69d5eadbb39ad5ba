//! Plans that a device or a caller is refused.

mod common;

use common::protocol::{device, plain, refused, refused_plan, server_side};
use common::{Bench, plan, settings};

use sft_core::model::Model;
use sft_core::optim::Decay;
use sft_core::run::Scheme;
use sft_core::split::message::Message;
use sft_core::split::{Connection, InMemory, RoundPlan, Work};

#[test]
fn a_device_takes_no_plan_that_does_not_fit_its_model() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let of = |change| refused_plan(&bench, change);
    assert_eq!(
        of(|p| p.work = Work::Split { cut: 4 }),
        "cut must be in 1..=3 for a model of 4 blocks, got 4"
    );
    assert!(of(|p| p.work = Work::Full).contains("plans the whole model"));
    assert_eq!(of(|p| p.batch = 0), "batch must be at least 1, got 0");
    assert_eq!(of(|p| p.rank = 0), "rank must be at least 1, got 0");
    assert!(of(|p| p.rank = 1_000_000_000).starts_with("rank must be at most"));
    assert!(of(|p| p.targets = "wq".parse().unwrap()).starts_with("targets must be"));
    assert!(of(|p| p.lr = -1.0).starts_with("lr must be positive"));
    assert!(of(|_| ()).contains("nothing to say"), "no adapters");
    let other = refused(&bench, vec![Message::Leave("full".into())]);
    assert_eq!(other, "the other side left: full");
}

#[test]
fn a_plan_freezes_the_whole_of_the_device_or_nothing() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let of = |change| refused_plan(&bench, change);
    for (refused, message) in [
        (
            of(|p| p.frozen_blocks = 1),
            "frozen_blocks must be 0, or at least 2, the cut layer, got 1",
        ),
        (
            of(|p| p.frozen_blocks = 4),
            "frozen_blocks must be below 4, the model's blocks, got 4",
        ),
        (
            of(|p| (p.work, p.frozen_blocks) = (Work::Adapters, 2)),
            "frozen_blocks must be 0 where the model is not split, got 2",
        ),
        (
            of(|p| (p.targets, p.frozen_blocks) = ("fc1,projection".parse().unwrap(), 2)),
            "targets must name no layer before the blocks where a device has no adapters",
        ),
    ] {
        assert_eq!(refused, message);
    }
}

#[test]
fn a_plan_out_of_range_is_refused_by_name() {
    let bench = Bench::new(settings(Scheme::Sft), 3);
    let of = |change| refused_plan(&bench, change);
    for (refused, message) in [
        (of(|p| p.round = 0), "round must be at least 1, got 0"),
        (
            of(|p| p.round = 1_000_001),
            "round must be at most 1000000, got 1000001",
        ),
        (
            of(|p| (p.round, p.rounds) = (4, Some(3))),
            "round must be at most the rounds, got 4",
        ),
        (
            of(|p| p.rounds = Some(1_000_001)),
            "rounds must be at most 1000000, got 1000001",
        ),
        (
            of(|p| p.batch = 1_000_001),
            "batch must be at most 1000000, got 1000001",
        ),
        (
            of(|p| p.local_epochs = 0),
            "local_epochs must be at least 1, got 0",
        ),
        (
            of(|p| p.local_epochs = 1_000_001),
            "local_epochs must be at most 1000000, got 1000001",
        ),
        (
            of(|p| p.rank = 13),
            "rank must be at most 12, the model's width, got 13",
        ),
        (of(|p| p.alpha = 0.0), "alpha must be positive, got 0"),
        (
            of(|p| p.lora_dropout = 1.0),
            "lora_dropout must be in [0, 1), got 1",
        ),
        (
            of(|p| p.schedule.warmup_rounds = 1e6),
            "warmup_rounds must be in [0, 1000000), got 1000000",
        ),
        (
            of(|p| p.optimizer.clip_norm = Some(0.0)),
            "clip_norm must be positive, got 0",
        ),
    ] {
        assert_eq!(refused, message);
    }
    // What JSON cannot say cannot come over a link, but from a caller.
    let check = |change: fn(&mut RoundPlan)| {
        let mut plan = plan();
        change(&mut plan);
        plan.check(bench.vit.spec()).unwrap_err().to_string()
    };
    for (refused, message) in [
        (check(|p| p.lr = f64::NAN), "lr must be positive, got NaN"),
        (
            check(|p| p.lr = f64::INFINITY),
            "lr must be positive, got inf",
        ),
        (
            check(|p| p.alpha = f64::INFINITY),
            "alpha must be positive, got inf",
        ),
        (
            check(|p| p.schedule.decay = Decay::Exponential(f64::NAN)),
            "lr_decay must be in (0, 1], got NaN",
        ),
    ] {
        assert_eq!(refused, message);
    }
    // Every mini-batch of a round has a number of 32 bits.
    let many = RoundPlan {
        batch: 1,
        local_epochs: 1_000_000,
        ..plan()
    };
    let (mut side, samples) = (device(&bench, None), vec![0; 5000]);
    side.local.samples = &samples;
    let server = server_side(&bench, many.clone(), plain(&many));
    let error = side.round(&mut Connection::new(InMemory::new(server)));
    assert_eq!(
        error.unwrap_err().to_string(),
        "local_epochs must leave a round of at most 4294967295 mini-batches, got 5000000000"
    );
    for seed in [0, u64::MAX] {
        let plan = RoundPlan { seed, ..plan() };
        assert!(plan.check(bench.vit.spec()).is_ok());
    }
}
