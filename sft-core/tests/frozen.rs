//! Runs whose devices train nothing.
// Settings are written where they are used.
#![allow(clippy::large_types_passed_by_value)]

mod common;

use common::{Bench, Folder, settings};
use serde_json::Map;
use sft_core::adapter::Targets;
use sft_core::run::{
    Channel, Job, Run, RunConfig, Scheme, Settings, finetune, load_checkpoint, save_checkpoint,
};
use sft_core::split::CutCodec;
use sft_opt::system::DeviceAdapters;

const SPLIT: [Scheme; 3] = [Scheme::Sft, Scheme::SftRaw, Scheme::Sl];

/// The same with so many blocks without adapters.
fn frozen(settings: Settings, blocks: usize) -> Settings {
    let lora = settings.lora.with_frozen_blocks(blocks);
    Settings { lora, ..settings }
}

/// Every sample once a round, by a basis and with a memory.
fn by_transform() -> Settings {
    Settings {
        activation: CutCodec::Transform(Some(0.1)),
        gradient: CutCodec::Transform(Some(0.3)),
        sample_memory_bytes: 1 << 20,
        local_epochs: 1,
        rounds: 4,
        ..settings(Scheme::Sft)
    }
}

fn bytes_up(run: &Run) -> Vec<u64> {
    run.rounds.iter().map(|round| round.bytes_up).collect()
}

/// Adapters that a rate of next to nothing leaves at their start, where they add nothing, as a
/// gradient of zero would.
#[test]
fn a_frozen_half_is_one_whose_gradients_are_zero() {
    for scheme in SPLIT {
        for targets in ["all-linear", "q_proj,fc2,classifier"] {
            let lora = settings(scheme).lora.with_targets(common::targets(targets));
            let still = Settings {
                lr: 1e-300,
                lora: lora.with_dropout(0.1).unwrap(),
                ..settings(scheme)
            };
            let half = Bench::new(frozen(still, 2), 2).run().unwrap();
            let want = Bench::new(still, 2).run().unwrap();
            assert_eq!(
                half.adapters.blocks[2..],
                want.adapters.blocks[2..],
                "{scheme:?}"
            );
            assert_eq!(half.adapters.head, want.adapters.head, "{scheme:?}");
            assert!(half.adapters.blocks[..2].iter().all(Vec::is_empty));
            for (half, want) in half.rounds.iter().zip(&want.rounds) {
                assert_eq!(half.bytes_up, want.bytes_up);
                assert_eq!((half.loss, half.accuracy), (want.loss, want.accuracy));
                let crossed = [
                    half.bytes_down,
                    half.adapter_bytes_up,
                    half.adapter_bytes_down,
                ];
                assert_eq!(crossed, [0, 0, 0]);
                assert!(half.delay_s < want.delay_s);
            }
        }
    }
}

#[test]
fn activations_have_a_basis_and_a_memory_and_gradients_have_none() {
    let run = Bench::new(frozen(by_transform(), 2), 2).run().unwrap();
    let bases = &run.bases[&2];
    assert!(bases.up.is_some() && bases.down.is_none());
    // The basis comes down, once, and nothing else.
    let down: Vec<u64> = run.rounds.iter().map(|round| round.bytes_down).collect();
    assert_eq!(down, [2 * bases.to_bytes().len() as u64, 0, 0, 0]);
    let up = bytes_up(&run);
    assert!(2 * up[1] < up[0] && 2 * up[3] < up[0], "{up:?}");
    for state in run.codecs.values() {
        assert!(!state.device.streams[0].is_empty());
        assert_eq!(state.device.streams[0], state.server.streams[0]);
        assert!(state.device.held.is_empty() && state.server.held.is_empty());
        let none = [&state.device.streams[1..2], &state.server.streams[1..]].concat();
        assert!(none.iter().all(Vec::is_empty));
    }
}

#[test]
fn a_run_goes_on_from_a_file_and_after_a_lost_memory() {
    let folder = Folder::new("frozen-checkpoint");
    for scheme in SPLIT {
        let of = |rounds| {
            let settings = Settings {
                scheme,
                rounds,
                ..by_transform()
            };
            Bench::new(frozen(settings, 2), 2)
        };
        let (straight, half) = (of(4), of(2));
        let whole = straight.run().unwrap();
        let path = folder.0.join(scheme.name());
        let first = half.run().unwrap();
        save_checkpoint(&path, &Map::new(), &half.partition, &first).unwrap();
        let read = load_checkpoint(&path, &Map::new(), &half.partition).unwrap();
        assert_eq!(read, first, "{scheme:?}");
        let rest = finetune(&straight.job(), read, &mut |_| Ok(())).unwrap();
        assert!(rest.adapters == whole.adapters && rest.codecs == whole.codecs);
        assert_eq!(bytes_up(&rest), bytes_up(&whole), "{scheme:?}");
        if scheme != Scheme::Sft {
            continue;
        }
        let mut lost = first;
        lost.codecs
            .values_mut()
            .for_each(|state| state.server.streams[0].clear());
        let lost = finetune(&straight.job(), lost, &mut |_| Ok(())).unwrap();
        let (again, kept) = (bytes_up(&lost), bytes_up(&whole));
        assert!(
            again[2] > kept[2] && again[3] < 2 * kept[3],
            "{again:?} {kept:?}"
        );
        assert!(
            lost.codecs
                .values()
                .all(|state| state.device.streams[0] == state.server.streams[0])
        );
    }
}

#[test]
fn blocks_are_frozen_up_to_the_deepest_cut() {
    let bench = Bench::new(frozen(settings(Scheme::SftRaw), 3), 2);
    let cuts = [1, 3];
    let job = Job {
        device_cuts: Some(&cuts),
        ..bench.job()
    };
    let run = common::run(&job).unwrap();
    let trained: Vec<bool> = run.adapters.blocks.iter().map(|b| !b.is_empty()).collect();
    assert_eq!(trained, [false, false, false, true]);
    assert!(run.adapters != job.start().unwrap().adapters);
    // As cut behind the third block everywhere: who computes a frozen block changes nothing.
    let third = Settings {
        cut: 3,
        ..bench.settings
    };
    assert!(Bench::new(third, 2).run().unwrap().adapters == run.adapters);
    let refused = |settings, cuts| {
        let bench = Bench::new(settings, 2);
        let job = Job {
            device_cuts: cuts,
            ..bench.job()
        };
        common::run(&job).unwrap_err().to_string()
    };
    assert_eq!(
        refused(frozen(settings(Scheme::Sft), 2), Some(&cuts)),
        "frozen_blocks must be 0, or at least 3, the cut layer, got 2"
    );
    assert_eq!(
        refused(frozen(settings(Scheme::Sft), 1), None),
        "frozen_blocks must be 0, or at least 2, the cut layer, got 1"
    );
}

#[test]
fn settings_that_leave_nothing_to_freeze_are_refused() {
    let wireless = |settings: Settings| {
        let model = common::config().transformer(3, 2);
        let built = sft_core::run::Wireless::new(model, Channel::default(), &[8], &settings);
        built.map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(
        wireless(frozen(settings(Scheme::Sft), 4)),
        "frozen_blocks must be below 4, the model's blocks, got 4"
    );
    for scheme in [Scheme::FlLora, Scheme::FlFull] {
        assert_eq!(
            wireless(frozen(settings(scheme), 2)),
            "frozen_blocks must be 0 where the model is not split, got 2"
        );
    }
    let lora = settings(Scheme::Sft).lora;
    let patch: Targets = common::targets("q_proj,projection");
    let before = Settings {
        lora: lora.with_targets(patch),
        ..settings(Scheme::Sft)
    };
    assert!(wireless(frozen(before, 2)).starts_with("targets must name no layer before"));
}

#[test]
fn a_configuration_freezes_the_schemes_that_split() {
    let spec = common::config().spec();
    let blocks = |text: &str, scheme| {
        let config = RunConfig::from_toml(text).unwrap();
        config.settings(scheme, &spec).unwrap().lora.frozen_blocks()
    };
    for scheme in SPLIT {
        assert_eq!(blocks("rank = 3", scheme), 0);
        let none = "rank = 3\ndevice_adapters = 'none'\n";
        assert_eq!(blocks(none, scheme), 2);
        assert_eq!(blocks(&format!("{none}cut = 3"), scheme), 3);
        assert_eq!(blocks(&format!("{none}device_cuts = [1, 1]"), scheme), 1);
        assert_eq!(blocks(none, Scheme::FlLora), 0);
        assert_eq!(blocks(none, Scheme::FlFull), 0);
    }
}

#[test]
fn the_cost_model_knows() {
    let (lora, none) = (settings(Scheme::Sft), frozen(settings(Scheme::Sft), 2));
    let [with, without] = [lora, none].map(|settings| Bench::new(settings, 3));
    let memory = |bench: &Bench| {
        let memory = bench.wireless.device_memory_bytes(&bench.settings, 2);
        memory.unwrap()
    };
    assert!(2.0 * memory(&without) < memory(&with));
    let adapters = |bench: &Bench| bench.wireless.system().training().device_adapters;
    assert_eq!(adapters(&with), DeviceAdapters::Lora);
    assert_eq!(adapters(&without), DeviceAdapters::None);
}
