//! Runs that stop and go on equal runs that never stopped.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Bench, Folder, settings};
use serde_json::{Map, Value, json};
use sft_core::Error;
use sft_core::run::{
    CodecState, Job, RoundRecord, Run, Scheme, Settings, finetune, load_checkpoint, save_checkpoint,
};
use sft_core::split::{CutCodec, Held};

fn configuration(lr: f64) -> Map<String, Value> {
    let Value::Object(map) = json!({ "lr": lr, "rank": 3 }) else {
        unreachable!()
    };
    map
}

fn without_wall(run: &Run) -> Run {
    let still = |round: &RoundRecord| RoundRecord {
        wall_s: 0.0,
        ..round.clone()
    };
    Run {
        adapters: run.adapters.clone(),
        codecs: run.codecs.clone(),
        bases: run.bases.clone(),
        rounds: run.rounds.iter().map(still).collect(),
    }
}

fn rounds(scheme: Scheme, rounds: usize) -> Settings {
    Settings {
        rounds,
        participation: 0.7,
        ..settings(scheme)
    }
}

#[test]
fn four_rounds_are_two_and_two_more_from_a_file() {
    let folder = Folder::new("checkpoint");
    let targets = [
        "q_proj,k_proj,v_proj,o_proj,fc1,fc2",
        "q_proj,fc2,projection,classifier",
    ];
    let codecs = [common::plan().activation, CutCodec::Transform(Some(1.0))];
    for ((targets, codec), scheme) in targets
        .iter()
        .zip(codecs)
        .flat_map(|t| Scheme::ALL.map(|scheme| (t, scheme)))
    {
        let rounds = |count| Settings {
            activation: codec,
            gradient: codec,
            sample_memory_bytes: 1 << 20,
            lora: sft_core::adapter::Lora::new(3, 6.0)
                .unwrap()
                .with_targets(common::targets(targets)),
            ..rounds(scheme, count)
        };
        let straight = Bench::new(rounds(4), 3);
        let whole = straight.run().unwrap();
        let half = Bench::new(rounds(2), 3);
        let path = folder.0.join(scheme.name());
        let first = half.run().unwrap();
        save_checkpoint(&path, &configuration(0.1), &half.partition, &first).unwrap();
        let read = load_checkpoint(&path, &configuration(0.1), &straight.partition).unwrap();
        assert_eq!(read, first, "{scheme:?}: a file keeps every bit");
        let rest = finetune(&straight.job(), read, &mut |_| Ok(())).unwrap();
        assert_eq!(without_wall(&rest), without_wall(&whole), "{scheme:?}");
    }
}

/// Error feedback is the one thing beside adapters that outlives a round.
#[test]
fn what_codecs_remember_goes_on_from_a_file() {
    let folder = Folder::new("checkpoint-codecs");
    let rounds = |count| Settings {
        error_feedback: true,
        // Batches of one shape, or each begins anew.
        batch: 1,
        lr: 1e-3,
        lr_server: 1e-3,
        ..rounds(Scheme::Sft, count)
    };
    let straight = Bench::new(rounds(4), 3);
    let whole = straight.run().unwrap();
    let half = Bench::new(rounds(2), 3);
    let path = folder.0.join("checkpoint.safetensors");
    let first = half.run().unwrap();
    assert!(!first.codecs.is_empty());
    save_checkpoint(&path, &configuration(0.1), &half.partition, &first).unwrap();
    let read = load_checkpoint(&path, &configuration(0.1), &straight.partition).unwrap();
    assert_eq!(read, first, "a file keeps every bit");
    let rest = finetune(&straight.job(), read.clone(), &mut |_| Ok(())).unwrap();
    assert_eq!(without_wall(&rest), without_wall(&whole));
    let mut forgetful = read;
    forgetful.codecs.clear();
    let rest = finetune(&straight.job(), forgetful, &mut |_| Ok(())).unwrap();
    assert!(rest.adapters != whole.adapters, "the memory is used");
}

/// Whoever lost the adapters that a device holds, it gets the whole, and the run goes on.
#[test]
fn a_lost_adapter_comes_whole_whichever_side_lost_it() {
    let straight = Bench::new(rounds(Scheme::Sft, 4), 3);
    let whole = straight.run().unwrap();
    let first = Bench::new(rounds(Scheme::Sft, 2), 3).run().unwrap();
    let rest = |lose: fn(&mut CodecState)| {
        let mut run = first.clone();
        run.codecs.values_mut().for_each(lose);
        finetune(&straight.job(), run, &mut |_| Ok(())).unwrap()
    };
    let kept = rest(|_| ());
    assert_eq!(without_wall(&kept), without_wall(&whole));
    // What updates dropped is the device's alone.
    let device = rest(|state| {
        state.device.held = Held::default();
        state.device.streams[2] = vec![0];
    });
    let server = rest(|state| {
        state.server.held = Held::default();
        state.device.streams[2] = vec![0];
    });
    assert_eq!(device.adapters, server.adapters);
    let down = |run: &Run| run.rounds[2].adapter_bytes_down;
    assert_eq!(down(&device), down(&server));
    assert!(down(&device) > 2 * down(&whole), "the whole was sent");
    assert!(device.adapters != whole.adapters);
    let damaged = |lose: fn(&mut CodecState)| {
        let mut run = first.clone();
        run.codecs.values_mut().for_each(lose);
        finetune(&straight.job(), run, &mut |_| Ok(())).is_err()
    };
    assert!(damaged(|state| state.device.streams[2] = vec![7; 20]));
    assert!(damaged(|state| state.server.streams[1] = vec![7; 20]));
}

#[test]
fn no_byte_of_a_checkpoint_may_change() {
    let folder = Folder::new("checkpoint-bytes");
    let bench = Bench::new(settings(Scheme::Sft), 2);
    let run = bench.run().unwrap();
    let path = folder.0.join("checkpoint.safetensors");
    save_checkpoint(&path, &configuration(0.1), &bench.partition, &run).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let load = || load_checkpoint(&path, &configuration(0.1), &bench.partition);
    assert!(load().is_ok());
    for at in (0..bytes.len()).step_by(101) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        std::fs::write(&path, changed).unwrap();
        // A space within the JSON of the header may become another.
        if let Ok(read) = load() {
            assert!(read == run, "byte {at}");
        }
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = Folder::new("checkpoint-other");
    let bench = Bench::new(settings(Scheme::Sft), 2);
    let run = bench.run().unwrap();
    let path = folder.0.join("checkpoint.safetensors");
    save_checkpoint(&path, &configuration(0.1), &bench.partition, &run).unwrap();
    let refused = |configuration: &Map<String, Value>, partition: &[Vec<usize>]| {
        let error = load_checkpoint(&path, configuration, partition).unwrap_err();
        error.to_string()
    };
    let message = refused(&configuration(0.2), &bench.partition);
    assert!(
        message.ends_with("another configuration: its lr is 0.1, this run's is 0.2"),
        "{message}"
    );
    let mut more = configuration(0.1);
    more.insert("batch".into(), 4.into());
    let message = refused(&more, &bench.partition);
    assert!(
        message.ends_with("its batch is none, this run's is 4"),
        "{message}"
    );
    let mut other = bench.partition.clone();
    other[0].swap(0, 1);
    let message = refused(&configuration(0.1), &other);
    assert!(message.contains("partition differs"), "{message}");

    let other = Bench::new(
        Settings {
            lora: sft_core::adapter::Lora::new(2, 6.0).unwrap(),
            ..settings(Scheme::Sft)
        },
        2,
    );
    let error = finetune(&other.job(), run.clone(), &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().starts_with("adapters must be"), "{error}");
    let mut fewer = run;
    fewer.adapters.head = sft_core::adapter::Head::new(2, 12, 1);
    let error = finetune(&bench.job(), fewer, &mut |_| Ok(())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "adapters must have a head of 3 classes, got 2"
    );
}

#[test]
fn every_truncation_is_an_error_that_names_the_file() {
    let folder = Folder::new("checkpoint-cut");
    let bench = Bench::new(settings(Scheme::Sft), 2);
    let path = folder.0.join("checkpoint.safetensors");
    let none = Map::new();
    save_checkpoint(&path, &none, &bench.partition, &bench.run().unwrap()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in (0..bytes.len()).step_by(bytes.len() / 97) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = load_checkpoint(&path, &none, &bench.partition).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("checkpoint.safetensors: not a complete checkpoint"),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_stop_keeps_the_rounds_that_are_finished() {
    for scheme in Scheme::ALL {
        let bench = Bench::new(rounds(scheme, 3), 2);
        let whole = bench.run().unwrap();
        let (stop, batches) = (AtomicBool::new(false), AtomicUsize::new(0));
        let per_run = bench.job().batches_after(0);
        let second = per_run - bench.job().batches_after(1) + 2;
        // Somewhere in the second round.
        let on_batch = || {
            let done = batches.fetch_add(1, Ordering::Relaxed) + 1;
            stop.store(done >= second, Ordering::Relaxed);
        };
        let job = Job {
            on_batch: &on_batch,
            stop: &stop,
            ..bench.job()
        };
        let run = finetune(&job, job.start().unwrap(), &mut |_| Ok(())).unwrap();
        assert_eq!(run.rounds.len(), 1, "{scheme:?}");
        assert!(!job.is_finished(&run));
        let rest = finetune(&bench.job(), run, &mut |_| Ok(())).unwrap();
        assert_eq!(without_wall(&rest), without_wall(&whole), "{scheme:?}");
    }
}

#[test]
fn what_the_callback_returns_ends_the_run() {
    let bench = Bench::new(settings(Scheme::Sft), 2);
    let job = bench.job();
    let full = |_: &Run| Err(Error::file("checkpoint", "no space left on device"));
    let error = finetune(&job, job.start().unwrap(), &mut { full }).unwrap_err();
    assert_eq!(error.to_string(), "checkpoint: no space left on device");
}
