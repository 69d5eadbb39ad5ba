//! Settings of training against slow, obvious versions of themselves.

mod common;

use std::f64::consts::PI;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Bench, InMemory, config, run, settings, weights};
use sft_compress::Codec;
use sft_core::Result;
use sft_core::adapter::Adapters;
use sft_core::data::{Batch, Data};
use sft_core::model::{Backend, Vit};
use sft_core::optim::Optimizer;
use sft_core::optim::{Decay, Schedule};
use sft_core::run::{Channel, DeviceRound, Job, Run, Scheme, Settings, Wireless};
use sft_core::split::Traffic;
use sft_opt::Placement;
use sft_opt::cost::{adapter_bits, model_bits};

#[test]
fn schedules_are_their_formulas() {
    let (rounds, steps) = (5, 4);
    for warmup_rounds in [0.0, 0.5, 2.0] {
        for decay in [Decay::Constant, Decay::Exponential(0.9), Decay::Cosine] {
            let schedule = Schedule {
                warmup_rounds,
                decay,
            };
            for i in 0..rounds * steps {
                let (round, step) = (i / steps + 1, i % steps);
                let got = schedule.factor(round, rounds, step as u64, steps as u64);
                let warmup = warmup_rounds * steps as f64;
                let rise = if warmup > 0.0 {
                    ((i + 1) as f64 / warmup).min(1.0)
                } else {
                    1.0
                };
                let left = (rounds * steps) as f64 - warmup;
                let fall = match decay {
                    Decay::Constant => 1.0,
                    Decay::Exponential(factor) => factor.powf(round as f64 - 1.0),
                    Decay::Cosine => (PI * (i as f64 - warmup).max(0.0) / left / 2.0)
                        .cos()
                        .powi(2),
                };
                assert!(
                    (got - rise * fall).abs() < 1e-12,
                    "{schedule:?} at {i}: {got}"
                );
            }
        }
    }
}

#[test]
fn some_devices_take_part_as_the_seed_says() {
    let settings = Settings {
        participation: 0.5,
        rounds: 12,
        ..settings(Scheme::SftRaw)
    };
    let bench = Bench::new(settings, 4);
    let devices = bench.partition.len();
    let want = (devices as f64 * 0.5).round() as usize;
    let mut seen = vec![0; devices];
    let outcome = bench.run().unwrap();
    for record in &outcome.rounds {
        assert_eq!(record.devices, bench.job().participants(record.round));
        assert_eq!(record.devices.len(), want);
        assert!(record.devices.is_sorted_by(|a, b| a < b));
        record.devices.iter().for_each(|&device| seen[device] += 1);
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
    let all = Bench::new(
        Settings {
            participation: 1.0,
            ..settings
        },
        4,
    );
    assert_eq!(all.job().participants(1), (0..devices).collect::<Vec<_>>());
    assert!(all.run().unwrap().rounds[0].bytes_up > outcome.rounds[0].bytes_up);
    let few = Bench::new(
        Settings {
            participation: 0.01,
            ..settings
        },
        4,
    );
    assert_eq!(few.job().participants(1).len(), 1);
}

#[test]
fn equal_cuts_of_their_own_are_the_common_cut() {
    for scheme in [Scheme::Sft, Scheme::Sl] {
        let bench = Bench::new(settings(scheme), 3);
        let cuts = vec![2; bench.partition.len()];
        let job = Job {
            device_cuts: Some(&cuts),
            ..bench.job()
        };
        let (own, common) = (run(&job).unwrap(), bench.run().unwrap());
        assert_eq!(own.adapters, common.adapters);
        assert_eq!(
            own.rounds[1].delay_s.to_bits(),
            common.rounds[1].delay_s.to_bits()
        );
    }
}

/// Without a codec the cut changes what is sent where, not what is learned.
#[test]
fn devices_with_different_cuts_learn_the_same() {
    let settings = Settings {
        lr_server: 0.02,
        ..settings(Scheme::SftRaw)
    };
    let bench = Bench::new(settings, 3);
    let cuts: Vec<usize> = (0..bench.partition.len()).map(|n| n % 3 + 1).collect();
    let job = Job {
        device_cuts: Some(&cuts),
        ..bench.job()
    };
    let (own, common) = (run(&job).unwrap(), bench.run().unwrap());
    for (a, b) in own
        .adapters
        .blocks
        .concat()
        .iter()
        .zip(common.adapters.blocks.concat())
    {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    assert_ne!(
        own.rounds[0].adapter_bytes_up,
        common.rounds[0].adapter_bytes_up
    );
    let wrong = [1, 4, 1, 1];
    for (cuts, message) in [
        (&wrong[..1], "device_cuts must have one entry for each of"),
        (
            &wrong[..bench.partition.len()],
            "device_cuts must be in 1..=3 for a model of 4 blocks, got 4",
        ),
    ] {
        let job = Job {
            device_cuts: Some(cuts),
            ..bench.job()
        };
        let error = run(&job).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// Two devices without data on the air: the server works through both, whatever their cuts.
#[test]
fn the_server_waits_are_the_sum_over_devices_of_their_own_cuts() {
    let settings = settings(Scheme::SftRaw);
    let channel = Channel {
        bandwidth_hz: 30e6,
        snr_db: 17.0,
        rayleigh: false,
    };
    let model = config().transformer(3, 3);
    let wireless = Wireless::new(model, channel, &[8, 8], &settings).unwrap();
    let part = |device, cut| DeviceRound {
        device,
        cut,
        first: false,
        traffic: Traffic::default(),
    };
    let delay = |parts: &[DeviceRound]| wireless.delay_s(&settings, 2, parts).unwrap();
    let alone = |device, cut| delay(&[part(device, cut)]);
    // At a common cut: the slower device, and the server twice. Alone: a device, and the server.
    let server = |cut| {
        let slower = alone(0, cut).max(alone(1, cut));
        delay(&[part(0, cut), part(1, cut)]) - slower
    };
    let devices = [alone(0, 1) - server(1), alone(1, 3) - server(3)];
    let want = devices[0].max(devices[1]) + server(1) + server(3);
    let both = delay(&[part(0, 1), part(1, 3)]);
    assert!((both - want).abs() < 1e-9 * want, "{both} {want}");
    assert!(server(1) > 1.5 * server(3), "the cuts matter to the server");
    let error = wireless.delay_s(&settings, 2, &[part(2, 1)]).unwrap_err();
    assert_eq!(error.to_string(), "device must be below 2, got 2");
}

#[test]
fn checkpointing_is_modelled_as_less_memory_for_more_time() {
    let settings = settings(Scheme::SftRaw);
    let model = config().transformer(3, 3);
    let modelled = |checkpointing| {
        let wireless = Wireless::new(model, Channel::default(), &[8], &settings).unwrap();
        let wireless = wireless.with_gradient_checkpointing(checkpointing).unwrap();
        let part = DeviceRound {
            device: 0,
            cut: 3,
            first: false,
            traffic: Traffic::default(),
        };
        let delay = wireless.delay_s(&settings, 2, &[part]).unwrap();
        (wireless.device_memory_bytes(&settings, 3).unwrap(), delay)
    };
    let (all, again) = (modelled(false), modelled(true));
    assert!(again.0 < all.0 && again.1 > all.1, "{all:?} {again:?}");
}

/// Broadcasts use the whole band at the rate of the worst receiver; here all links are alike.
#[test]
fn a_device_gets_the_frozen_model_when_it_first_takes_part() {
    let channel = Channel {
        bandwidth_hz: 30e6,
        snr_db: 17.0,
        rayleigh: false,
    };
    for scheme in [Scheme::Sft, Scheme::FlLora, Scheme::FlFull, Scheme::Sl] {
        let settings = settings(scheme);
        let model = config().transformer(3, 3);
        let wireless = Wireless::new(model, channel, &[8, 8], &settings).unwrap();
        let delay = |round, first: [bool; 2]| {
            let part = |device: usize| DeviceRound {
                device,
                cut: 1 + 2 * device,
                first: first[device],
                traffic: Traffic::default(),
            };
            wireless
                .delay_s(&settings, round, &[part(0), part(1)])
                .unwrap()
        };
        let system = wireless.system();
        let bits = |device: usize| {
            let placement = match scheme {
                Scheme::FlLora => Placement::FlLora,
                Scheme::FlFull => Placement::FlFull,
                _ => Placement::Split {
                    cut: 1 + 2 * device,
                },
            };
            let adapters = adapter_bits(system.model(), system.training(), placement);
            let whole = model_bits(system.model(), system.training(), placement);
            if scheme == Scheme::Sl {
                whole
            } else {
                whole - adapters
            }
        };
        let rate = system.total_hz() * system.links()[0].downlink_bps_hz;
        // Not the number of the round decides, but who is new.
        let later = delay(5, [false; 2]);
        assert_eq!(delay(1, [false; 2]).to_bits(), later.to_bits());
        for round in [1, 5] {
            let more = delay(round, [false, true]) - delay(round, [false; 2]);
            match scheme {
                // The two devices wait for nobody but the slower one.
                Scheme::Sl => assert!((more - bits(1) / rate).abs() < 1e-12),
                Scheme::FlFull => assert_eq!(more.to_bits(), 0),
                _ => assert!(more > 0.0 && more <= bits(1) / rate * (1.0 + 1e-9)),
            }
        }
        if scheme == Scheme::Sl {
            // One broadcast, of the deeper part.
            let both = delay(1, [true; 2]) - delay(1, [false; 2]);
            assert!((both - bits(1) / rate).abs() < 1e-12);
        }
    }
}

/// The bytes that crossed decide the modelled delay; before there are any, what the codec needs does.
#[test]
fn coded_adapters_count_with_what_they_take() {
    let of = |scheme, adapter_codec| {
        let settings = Settings {
            adapter_codec,
            ..settings(scheme)
        };
        Bench::new(settings, 3)
    };
    let coded = Codec::default_adapter();
    let bits = |scheme, codec| {
        let training = *of(scheme, codec).wireless.system().training();
        assert_eq!(
            training.adapter_uplink_bits_per_parameter,
            training.adapter_downlink_bits_per_parameter
        );
        training.adapter_uplink_bits_per_parameter
    };
    let needed = bits(Scheme::Sft, coded).unwrap();
    assert!((1.2..2.0).contains(&needed), "{needed}");
    assert!(bits(Scheme::Sft, Codec::for_error(1e-3).unwrap()).unwrap() > 4.0);
    assert_eq!(bits(Scheme::Sft, Codec::raw()), None);
    for scheme in [Scheme::SftRaw, Scheme::Sl, Scheme::FlLora, Scheme::FlFull] {
        assert_eq!(bits(scheme, coded), None, "{scheme:?}");
    }
    let (with, without) = (of(Scheme::Sft, coded), of(Scheme::Sft, Codec::raw()));
    let (few, all) = (with.run().unwrap(), without.run().unwrap());
    for (few, all) in few.rounds.iter().zip(&all.rounds) {
        assert!(few.adapter_bytes_up < all.adapter_bytes_up / 4);
        assert!(few.adapter_bytes_down < all.adapter_bytes_down / 2);
        assert!(few.delay_s < all.delay_s);
    }
    let [whole, later] = [0, 1].map(|round| few.rounds[round].adapter_bytes_down);
    assert!(later < whole, "differences follow the whole");
}

#[test]
fn with_everything_on_the_number_of_threads_changes_nothing() {
    for scheme in Scheme::ALL {
        let targets = common::targets("q_proj,v_proj,fc2,projection,classifier");
        let outcome = |threads| {
            let settings = Settings {
                lora: settings(scheme)
                    .lora
                    .with_targets(targets)
                    .with_dropout(0.1)
                    .unwrap(),
                optimizer: Optimizer::AdamW { weight_decay: 0.1 },
                clip_norm: Some(0.5),
                schedule: Schedule {
                    warmup_rounds: 0.5,
                    decay: Decay::Cosine,
                },
                participation: 0.7,
                threads,
                ..settings(scheme)
            };
            let bench = Bench::new(settings, 4);
            let cuts: Vec<usize> = (0..bench.partition.len()).map(|n| 3 - n % 3).collect();
            let job = Job {
                device_cuts: Some(&cuts),
                ..bench.job()
            };
            let outcome = run(&job).unwrap();
            let losses: Vec<f64> = outcome.rounds.iter().map(|round| round.loss).collect();
            (outcome.adapters, losses)
        };
        assert_eq!(outcome(1), outcome(3), "{scheme:?}");
    }
}

/// What runs where there is no block engine.
#[test]
fn the_plain_model_trains_as_the_engine_does() {
    let mut settings = settings(Scheme::SftRaw);
    settings.lora = settings.lora.with_targets(common::targets(
        "q_proj,k_proj,v_proj,o_proj,fc1,fc2,projection,classifier",
    ));
    let bench = Bench::new(settings, 2);
    let plain = Vit::new(
        &config(),
        &weights(&config(), 7),
        Backend::Candle(candle_core::Device::Cpu),
    )
    .unwrap();
    let job = Job {
        model: &plain,
        ..bench.job()
    };
    let (got, want) = (run(&job).unwrap(), bench.run().unwrap());
    let vectors = |run: &Run| {
        let Adapters {
            embedding,
            blocks,
            head,
        } = run.adapters.clone();
        [vec![embedding, head.adapter], blocks].concat()
    };
    let (all, wanted) = (vectors(&got), vectors(&want));
    let pairs = all.iter().zip(&wanted);
    for (got, want) in pairs.flat_map(|(got, want)| got.iter().zip(want)) {
        assert!((got - want).abs() < 1e-4, "{got} {want}");
    }
    assert_eq!(
        got.rounds[1].adapter_bytes_up,
        want.rounds[1].adapter_bytes_up
    );
}

/// Data that counts what was asked of it.
struct Counting {
    data: InMemory,
    loads: AtomicUsize,
    seeds: Mutex<Vec<(Vec<usize>, u64)>>,
}

impl Data for Counting {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn classes(&self) -> usize {
        self.data.classes()
    }

    fn label(&self, index: usize) -> u32 {
        self.data.label(index)
    }

    fn batch(&self, indices: &[usize]) -> Result<Batch> {
        self.data.batch(indices)
    }

    fn training_batch(&self, indices: &[usize], seed: u64) -> Result<Batch> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.seeds.lock().unwrap().push((indices.to_vec(), seed));
        self.batch(indices)
    }
}

#[test]
fn the_next_batch_is_loaded_while_one_is_trained_on() {
    let settings = Settings {
        rounds: 1,
        threads: 1,
        ..settings(Scheme::Sft)
    };
    let bench = Bench::new(settings, 1);
    let train = Counting {
        data: InMemory::new(30, 3, 1),
        loads: AtomicUsize::new(0),
        seeds: Mutex::default(),
    };
    let done = AtomicUsize::new(0);
    // The trainer holds still until the next batch is loaded, if there is one.
    let on_batch = || {
        let done = done.fetch_add(1, Ordering::SeqCst) + 1;
        let ahead = (done + 1).min(16);
        for _ in 0..10_000 {
            if train.loads.load(Ordering::SeqCst) >= ahead {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("batch {ahead} is not loaded while the trainer is at {done}");
    };
    let job = Job {
        train: &train,
        on_batch: &on_batch,
        ..bench.job()
    };
    assert_eq!(job.batches_after(0), 16);
    assert_eq!(run(&job).unwrap().adapters, bench.run().unwrap().adapters);
    let seeds = train.seeds.lock().unwrap();
    let of_epoch = |batches: std::ops::Range<usize>| seeds[batches].iter().map(|(_, seed)| *seed);
    assert!(
        of_epoch(0..8).all(|seed| seed == seeds[0].1),
        "one seed per epoch"
    );
    assert!(
        of_epoch(8..16).all(|seed| seed != seeds[0].1),
        "another for the next"
    );
}
