//! Runs whose tensors cross the cut by a basis.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Bench, settings};
use sft_compress::{
    Basis, Compressor, Context, Decompressor, TensorView, Tokens, TransformDecoder,
    TransformEncoder,
};
use sft_core::data::{Augment, Batch, Data, Images};
use sft_core::run::{Job, RoundRecord, Run, Scheme, Settings, finetune};
use sft_core::split::{Bases, CutCodec};

/// Square images of two channels, where asked for mirrored at random, and not moved.
fn flipped(side: usize, flip: bool) -> Images {
    let pixels = (0..30 * 2 * side * side).map(|i| (i * 7919 % 251 * (i % 13)) as u8 / 2);
    let labels = (0..30).map(|i| i % 3).collect();
    let input = common::image_input(side, 2);
    let images = Images::new(pixels.collect(), labels, 3, side, 255, input).unwrap();
    images.with_augmentation(Some(Augment { flip, padding: 0.0 }))
}

#[test]
fn a_view_that_comes_again_costs_little_and_another_no_more_than_alone() {
    let images = flipped(16, true);
    let indices: Vec<usize> = (0..30).collect();
    let batch = |seed| images.training_batch(&indices, seed).unwrap();
    let tokens = Tokens::grid(0, 16, 16).unwrap();
    // The pixels in place of activations.
    let values = |batch: &Batch| -> Vec<f32> {
        let pixels = batch.inputs.pixels().unwrap().permute((0, 2, 3, 1));
        pixels.unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let shape = [30, 256, 2];
    let first = values(&batch(1));
    let view = TensorView::new(&first, &shape).unwrap();
    let basis = Arc::new(Basis::of_activations(view, &[], tokens, 0.1, None).unwrap());
    let both = || {
        (
            TransformEncoder::new(basis.clone()).with_memory(1 << 20),
            TransformDecoder::new(basis.clone()).with_memory(1 << 20),
        )
    };
    // One sample at a time; its bytes.
    let send = |(encoder, decoder): &mut (TransformEncoder, TransformDecoder), seed| {
        let batch = batch(seed);
        let values = values(&batch);
        let each = values.chunks(512).zip(&batch.samples);
        each.map(|(values, &number)| {
            let (shape, number) = ([1, 256, 2], [number]);
            let context = Context::new(&shape, 0).with_samples(&number);
            let (mut message, mut decoded) = (Vec::new(), sft_compress::Tensor::default());
            let view = TensorView::new(values, &shape).unwrap();
            encoder
                .compress(view, &context, &mut message, None)
                .unwrap();
            decoder
                .decompress(&message, &context, &mut decoded)
                .unwrap();
            message.len()
        })
        .collect::<Vec<_>>()
    };
    let mut warm = both();
    let before = send(&mut warm, 1);
    let after = send(&mut warm, 2);
    let (one, two) = (batch(1).samples, batch(2).samples);
    let (mut same, mut other) = (0, 0);
    for i in 0..30 {
        if one[i] == two[i] {
            assert!(2 * after[i] < before[i], "{i}: {} {}", after[i], before[i]);
            same += 1;
        } else {
            other += 1;
        }
    }
    assert!(same > 5 && other > 5, "{same} {other}");
    let alone = send(&mut both(), 2);
    for i in (0..30).filter(|&i| one[i] != two[i]) {
        assert_eq!(after[i], alone[i], "{i}");
    }
}

#[test]
fn views_that_come_again_make_a_run_cheaper() {
    let run = |flip, sample_memory_bytes| {
        let settings = Settings {
            sample_memory_bytes,
            rounds: 5,
            lr: 1e-4,
            lr_server: 1e-4,
            ..by_transform(0.1, 0.3)
        };
        let (bench, images) = (Bench::new(settings, 2), flipped(6, flip));
        let job = Job {
            train: &images,
            ..bench.job()
        };
        let run = common::run(&job).unwrap();
        for state in run.codecs.values() {
            assert_eq!(state.device.streams[0], state.server.streams[0]);
        }
        let up = run.rounds.iter().map(|round| round.bytes_up);
        up.collect::<Vec<_>>()
    };
    let [still, flipped, none] =
        [(false, 1 << 20), (true, 1 << 20), (true, 0)].map(|(f, m)| run(f, m));
    // Of two views of a sample, about half are known in round 2 and nearly all in round 5.
    assert!(
        still[1] < flipped[1] && flipped[1] < none[1],
        "{still:?} {flipped:?} {none:?}"
    );
    assert!(
        flipped[4] < flipped[1] && flipped[4] < none[4],
        "{flipped:?} {none:?}"
    );
}

/// By transform codecs of these steps, every sample once a round.
fn by_transform(up: f64, down: f64) -> Settings {
    Settings {
        activation: CutCodec::Transform(Some(up)),
        gradient: CutCodec::Transform(Some(down)),
        sample_memory_bytes: 1 << 20,
        local_epochs: 1,
        rounds: 3,
        ..settings(Scheme::Sft)
    }
}

fn loss(run: &Run) -> f64 {
    run.rounds.last().unwrap().loss
}

#[test]
fn fine_steps_lose_nothing_and_coarse_ones_send_little() {
    let raw = Bench::new(
        Settings {
            rounds: 3,
            local_epochs: 1,
            ..settings(Scheme::SftRaw)
        },
        3,
    );
    let raw = raw.run().unwrap();
    let fine = Bench::new(by_transform(0.001, 0.001), 3).run().unwrap();
    let coarse = Bench::new(by_transform(0.1, 0.3), 3).run().unwrap();
    // The adapters' codec is part of the difference.
    assert!(
        (loss(&fine) / loss(&raw) - 1.0).abs() < 0.02,
        "{} {}",
        loss(&fine),
        loss(&raw)
    );
    let bytes = |run: &Run, of: fn(&sft_core::run::RoundRecord) -> u64| -> Vec<u64> {
        run.rounds.iter().map(of).collect()
    };
    let (up, whole) = (bytes(&coarse, |r| r.bytes_up), bytes(&raw, |r| r.bytes_up));
    assert!(10 * up[1] < whole[1], "{up:?} of {whole:?}");
    // The first round shows the server activations, and its down bytes hold the bases of three
    // devices; later ones know samples.
    assert!(up[0] > 2 * up[1] && up[2] <= up[1] + up[1] / 2, "{up:?}");
    let down = bytes(&coarse, |r| r.bytes_down);
    let bases = 3 * coarse.bases[&2].to_bytes().len() as u64;
    assert!(
        down[0] > bases && down[1] < down[0] - bases / 2,
        "{down:?}, bases {bases}"
    );
}

#[test]
fn every_cut_has_bases_of_its_own_on_any_number_of_threads() {
    let run = |threads| {
        let settings = Settings {
            threads,
            ..by_transform(0.1, 0.3)
        };
        let bench = Bench::new(settings, 3);
        let cuts: Vec<usize> = (0..bench.partition.len()).map(|n| [1, 3][n % 2]).collect();
        let job = Job {
            device_cuts: Some(&cuts),
            ..bench.job()
        };
        common::run(&job).unwrap()
    };
    let (one, three) = (run(1), run(3));
    assert!(one.adapters == three.adapters && one.bases == three.bases);
    assert_eq!(one.bases.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert!(one.bases[&1] != one.bases[&3]);
}

#[test]
fn bases_are_their_bytes() {
    let run = Bench::new(
        Settings {
            rounds: 1,
            ..by_transform(0.1, 0.3)
        },
        3,
    )
    .run()
    .unwrap();
    let bytes = run.bases[&2].to_bytes();
    assert!(Bases::from_bytes(&bytes).unwrap() == run.bases[&2]);
    assert_eq!(Bases::default().name(), 0);
    for end in 0..bytes.len() {
        assert!(Bases::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
    assert!(Bases::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_device_that_lost_its_samples_is_sent_nothing_wrong() {
    let settings = by_transform(0.1, 0.3);
    let bench = Bench::new(settings, 3);
    let mut lost = Bench::new(
        Settings {
            rounds: 1,
            ..settings
        },
        3,
    )
    .run()
    .unwrap();
    let kept = lost.clone();
    for state in lost.codecs.values_mut() {
        assert!(
            !state.server.streams[0].is_empty(),
            "samples are remembered"
        );
        state.server.streams[0].clear();
    }
    let [lost, kept] = [lost, kept]
        .map(|run| sft_core::run::finetune(&bench.job(), run, &mut |_| Ok(())).unwrap());
    // What had to be sent again costs bytes, and both sides agree about it.
    assert!(lost.rounds[1].bytes_up > kept.rounds[1].bytes_up);
    assert!((loss(&lost) / loss(&kept) - 1.0).abs() < 0.05);
    for state in lost.codecs.values() {
        assert_eq!(state.device.streams[0], state.server.streams[0]);
    }
}

#[test]
fn codecs_of_the_cut_are_their_text() {
    for text in [
        "transform",
        "transform:0.3",
        "transform:24",
        "raw",
        "dead-zone:1.25",
    ] {
        let codec: CutCodec = text.parse().unwrap();
        assert_eq!(codec.to_string(), text);
        let json = serde_json::to_string(&codec).unwrap();
        assert_eq!(serde_json::from_str::<CutCodec>(&json).unwrap(), codec);
    }
    for (text, reason) in [
        ("transform:0", "step must be in 0.001..=1000, got 0"),
        ("transform:", "step must be in 0.001..=1000, got "),
        ("transform:nan", "step must be in 0.001..=1000, got nan"),
        ("transfrom:1", "transfrom"),
    ] {
        let error = text.parse::<CutCodec>().unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn bases_of_a_round_that_was_stopped_are_learnt_and_paid_for_again() {
    let settings = Settings {
        participation: 0.34,
        rounds: 6,
        ..by_transform(0.1, 0.3)
    };
    let bench = Bench::new(settings, 3);
    let cuts = [1, 2, 3];
    let job = Job {
        device_cuts: Some(&cuts[..bench.partition.len()]),
        ..bench.job()
    };
    let straight = common::run(&job).unwrap();
    // The first round whose device has a cut that none had before.
    let cut = |round: &RoundRecord| cuts[round.devices[0]];
    let first = cut(&straight.rounds[0]);
    let new = straight.rounds.iter().position(|round| cut(round) != first);
    let new = new.expect("the devices differ");
    let (batches, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let before = straight.rounds[..new]
        .iter()
        .map(|round| bench.partition[round.devices[0]].len());
    let before: usize = before.map(|samples| samples.div_ceil(settings.batch)).sum();
    let on_batch = || {
        if batches.fetch_add(1, Ordering::Relaxed) == before {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let stopped = Job {
        on_batch: &on_batch,
        stop: &stop,
        ..job
    };
    let run = common::run(&stopped).unwrap();
    assert_eq!(run.rounds.len(), new);
    assert_eq!(run.bases.keys().copied().collect::<Vec<_>>(), [first]);
    let whole = finetune(&job, run, &mut |_| Ok(())).unwrap();
    let bytes = |run: &Run| -> Vec<_> {
        let each = run.rounds.iter();
        each.map(|round| (round.bytes_up, round.bytes_down))
            .collect()
    };
    assert_eq!(bytes(&whole), bytes(&straight));
    assert!(whole.adapters == straight.adapters && whole.bases == straight.bases);
}
