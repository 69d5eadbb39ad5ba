//! Runs whose labels stay on the devices, with head and loss.
// Settings are written where they are used.
#![allow(clippy::large_types_passed_by_value)]

mod common;

use common::{Bench, Folder, settings};
use serde_json::Map;
use sft_compress::Codec;
use sft_core::adapter::{Adapters, ModuleNames, load_peft, save_peft};
use sft_core::model::Model;
use sft_core::run::{
    Job, Run, RunConfig, Scheme, Settings, Wireless, finetune, load_checkpoint, save_checkpoint,
};
use sft_core::split::{CutCodec, LabelSide};
use sft_opt::cost::feature_bits;

const SPLIT: [Scheme; 3] = [Scheme::Sft, Scheme::SftRaw, Scheme::Sl];

fn on(labels: LabelSide, settings: Settings) -> Settings {
    Settings { labels, ..settings }
}

/// Nothing is lost on the way, and both sides learn at one rate.
fn exact(scheme: Scheme) -> Settings {
    let settings = settings(scheme);
    Settings {
        activation: CutCodec::raw(),
        gradient: CutCodec::raw(),
        features: Codec::raw(),
        adapter_codec: Codec::raw(),
        lr_server: settings.lr,
        ..settings
    }
}

fn run(settings: Settings) -> Run {
    Bench::new(settings, 3).run().unwrap()
}

fn assert_close(a: &Adapters, b: &Adapters) {
    let vectors = |of: &Adapters| {
        let head = [&of.head.weight, &of.head.bias, &of.head.adapter].map(Clone::clone);
        let outer = [vec![of.embedding.clone()], head.to_vec()].concat();
        [of.blocks.clone(), outer].concat()
    };
    for (a, b) in vectors(a).iter().zip(vectors(b)) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-6, "{a} and {b}");
        }
    }
}

#[test]
fn where_the_labels_are_changes_no_result_of_what_nothing_is_lost_of() {
    let lora = settings(Scheme::Sft).lora;
    let adapted = lora.with_targets(common::targets("q_proj,fc2,classifier"));
    let loras = [
        lora,
        lora.with_dropout(0.2).unwrap(),
        adapted.with_dropout(0.2).unwrap(),
        lora.with_frozen_blocks(2),
        adapted.with_frozen_blocks(3),
    ];
    for scheme in SPLIT {
        for lora in loras {
            let settings = Settings {
                lora,
                ..exact(scheme)
            };
            let [server, device] =
                [LabelSide::Server, LabelSide::Device].map(|labels| run(on(labels, settings)));
            assert_close(&server.adapters, &device.adapters);
            assert_ne!(server.adapters.head, run_start(settings).head);
            for (server, device) in server.rounds.iter().zip(&device.rounds) {
                assert!((server.loss - device.loss).abs() < 1e-6, "{scheme:?}");
                assert_eq!(server.accuracy.to_bits(), device.accuracy.to_bits());
            }
        }
    }
}

fn run_start(settings: Settings) -> Adapters {
    Bench::new(settings, 3).job().start().unwrap().adapters
}

#[test]
fn schemes_without_a_cut_have_the_labels_on_the_device_anyway() {
    for scheme in [Scheme::FlLora, Scheme::FlFull] {
        let [server, device] =
            [LabelSide::Server, LabelSide::Device].map(|labels| run(on(labels, settings(scheme))));
        assert_eq!(server.adapters, device.adapters);
        let bytes = |run: &Run| run.rounds[0].bytes_up + run.rounds[0].adapter_bytes_up;
        assert_eq!(bytes(&server), bytes(&device));
    }
}

/// Raw frames: features down and their gradient up, no labels, and the head with the adapters.
#[test]
fn the_extra_hop_is_in_the_bytes_up_and_down() {
    for frozen in [0, 2] {
        let settings = exact(Scheme::SftRaw);
        let settings = Settings {
            lora: settings.lora.with_frozen_blocks(frozen),
            ..settings
        };
        let [server, device] =
            [LabelSide::Server, LabelSide::Device].map(|labels| run(on(labels, settings)));
        let (server, device) = (&server.rounds[0], &device.rounds[0]);
        // 30 samples twice, of width 12, in mini-batches of 4 or less: every raw frame has a header.
        let (samples, numbers) = (60, 60 * 12 * 4);
        let near = |got: u64, want: u64| (want..want + 2000).contains(&got);
        assert!(near(
            device.bytes_up + 4 * samples,
            server.bytes_up + numbers
        ));
        assert!(near(device.bytes_down, server.bytes_down + numbers));
        // The head of 3 classes, from each of 2 devices.
        let head = 2 * 4 * (12 * 3 + 3);
        let more = device.adapter_bytes_up - server.adapter_bytes_up;
        assert!((head..head + 50).contains(&more), "{more}");
        assert_eq!(frozen > 0, server.adapter_bytes_up == 0);
        assert!(device.delay_s > server.delay_s);
    }
}

#[test]
fn threads_change_nothing() {
    let of = |threads| {
        let coded = Settings {
            activation: CutCodec::Transform(Some(0.3)),
            gradient: CutCodec::Transform(Some(1.5)),
            sample_memory_bytes: 1 << 20,
            error_feedback: true,
            threads,
            ..settings(Scheme::Sft)
        };
        run(on(LabelSide::Device, coded))
    };
    let (one, four) = (of(1), of(4));
    assert!(one.adapters == four.adapters && one.codecs == four.codecs);
    let loss = |run: &Run| {
        run.rounds
            .iter()
            .map(|r| r.loss.to_bits())
            .collect::<Vec<_>>()
    };
    assert_eq!(loss(&one), loss(&four));
    assert!(one.adapters.head != run_start(settings(Scheme::Sft)).head);
}

#[test]
fn devices_with_cuts_of_their_own_share_one_head() {
    let cuts = [1, 3, 2];
    let of = |labels| {
        // Squares leave three remainders: three devices.
        let bench = Bench::new(on(labels, exact(Scheme::SftRaw)), 5);
        let job = Job {
            device_cuts: Some(&cuts),
            ..bench.job()
        };
        common::run(&job).unwrap().adapters
    };
    assert_close(&of(LabelSide::Server), &of(LabelSide::Device));
}

/// Streams that remember, those of features among them.
#[test]
fn a_run_goes_on_from_a_file_and_leaves_what_peft_reads() {
    let folder = Folder::new("ushape-checkpoint");
    for scheme in SPLIT {
        let of = |rounds| {
            let settings = Settings {
                rounds,
                error_feedback: true,
                ..settings(scheme)
            };
            Bench::new(on(LabelSide::Device, settings), 3)
        };
        let (straight, half) = (of(4), of(2));
        let whole = straight.run().unwrap();
        let path = folder.0.join(scheme.name());
        let first = half.run().unwrap();
        if scheme == Scheme::Sft {
            for state in first.codecs.values() {
                assert!(!state.device.streams[4].is_empty() && !state.server.streams[2].is_empty());
            }
        }
        save_checkpoint(&path, &Map::new(), &half.partition, &first).unwrap();
        let read = load_checkpoint(&path, &Map::new(), &half.partition).unwrap();
        assert_eq!(read, first, "{scheme:?}");
        let rest = finetune(&straight.job(), read, &mut |_| Ok(())).unwrap();
        assert!(rest.adapters == whole.adapters && rest.codecs == whole.codecs);

        let (spec, lora) = (straight.vit.spec(), straight.settings.lora);
        let peft = folder.0.join(format!("peft-{}", scheme.name()));
        save_peft(
            &peft,
            spec,
            lora,
            &whole.adapters,
            None,
            ModuleNames::default(),
        )
        .unwrap();
        let (_, again) = load_peft(&peft, spec, Some(&straight.head)).unwrap();
        assert_eq!(again.head, whole.adapters.head);
    }
}

#[test]
fn the_cost_model_knows() {
    let [server, device] = [LabelSide::Server, LabelSide::Device]
        .map(|labels| Bench::new(on(labels, settings(Scheme::SftRaw)), 3));
    let memory = |bench: &Bench| {
        let memory = bench.wireless.device_memory_bytes(&bench.settings, 2);
        memory.unwrap()
    };
    assert!(memory(&device) > memory(&server));
    // What the model says of the hop is what is counted, but for headers.
    let system = device.wireless.system();
    let [want, got] = [&server, &device].map(|bench| {
        let system = bench.wireless.system();
        let placements = system.everywhere(sft_opt::Placement::Split { cut: 2 });
        let payloads = system.payloads(&placements, 1.0, false).unwrap();
        payloads
            .iter()
            .map(|payload| payload.downlink_bits / 8.0)
            .sum::<f64>()
    });
    let batch = feature_bits(
        system.model(),
        system.training(),
        sft_opt::Placement::Split { cut: 2 },
    );
    assert!(batch > 32.0 * 4.0 * 12.0 && batch < 32.1 * 4.0 * 12.0);
    let counted = [&server, &device].map(|bench| bench.run().unwrap().rounds[0].bytes_down as f64);
    // The model takes every mini-batch for a full one: 20 of 4 for 60 samples.
    let predicted = (got - want) * 60.0 / (4.0 * batches(system));
    let difference = counted[1] - counted[0];
    assert!(
        (predicted / difference - 1.0).abs() < 0.25,
        "{predicted} {difference}"
    );
}

fn batches(system: &sft_opt::System) -> f64 {
    let of = |device: &sft_opt::Device| system.training().batches_per_round(device.samples);
    system.devices().iter().map(of).sum()
}

#[test]
fn a_configuration_says_where_the_labels_are() {
    let spec = common::config().spec();
    let of = |text: &str| RunConfig::from_toml(text).unwrap();
    let settings = of("rank = 3\nlabels = 'device'")
        .settings(Scheme::Sft, &spec)
        .unwrap();
    assert_eq!(settings.labels, LabelSide::Device);
    assert_eq!(settings.features, Codec::default_features());
    let model = common::config().transformer(3, 3);
    let wireless = Wireless::new(model, sft_core::run::Channel::default(), &[8], &settings);
    let wireless = wireless.unwrap();
    let bits = wireless.system().training().bits_per_feature.unwrap();
    assert!((3.0..6.0).contains(&bits), "{bits}");
}
