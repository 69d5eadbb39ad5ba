//! Delays against (18') written out, limits of every server model, mistakes.

#![allow(clippy::float_cmp, reason = "counts and limits are exact")]

mod common;

use common::system::{CUT, devices, server};
use sft_opt::cost::{Payload, Phases, activation_bits, adapter_bits, model_bits};
use sft_opt::system::{Flops, Link, ServerModel};
use sft_opt::{
    Device, Placement, Round, Server, System, Training, Transformer, allocate_bandwidth,
};

fn assert_close(found: f64, expected: f64) {
    assert!(
        (found / expected - 1.0).abs() <= 1e-13,
        "{found} is not {expected}"
    );
}

/// Two unlike devices on 2 MHz, links and samples included.
fn pair(server_model: ServerModel) -> System {
    let mut devices = devices(&[0.5e9, 1.5e9]);
    devices[0].samples = 100;
    devices[1].samples = 129;
    devices[1].snr_downlink_db = 3.0;
    let mut training = Training::default();
    training.local_epochs = 2;
    let model = Transformer::vit_base(100);
    System::new(model, training, server(server_model), devices, 2e6).unwrap()
}

const LINKS: [Link; 2] = [
    Link {
        uplink_bps_hz: 2.0,
        downlink_bps_hz: 4.0,
    },
    Link {
        uplink_bps_hz: 5.0,
        downlink_bps_hz: 3.0,
    },
];

#[test]
fn every_phase_is_as_in_the_formula() {
    let (beta, b_hz) = (0.25, [0.5e6, 1.5e6]);
    for first in [true, false] {
        let system = pair(ServerModel::PerDevice);
        let (model, training) = (system.model(), system.training());
        let payloads = system
            .payloads(&system.everywhere(CUT), beta, first)
            .unwrap();
        let round = Round {
            placements: &system.everywhere(CUT),
            links: &LINKS,
            payloads: &payloads,
        };
        let delay = system.parallel_delay(&round, &b_hz).unwrap();
        let flops = Flops::Paper.mini_batch(model, CUT, 64);
        let psi_l = adapter_bits(model, training, CUT);
        let sent = if first {
            model_bits(model, training, CUT)
        } else {
            psi_l
        };
        let payload = beta * activation_bits(model, training);
        // Two epochs of ⌈100/64⌉ and ⌈129/64⌉ mini-batches.
        for (n, (batches, clock)) in [(4.0, 0.5e9), (6.0, 1.5e9)].into_iter().enumerate() {
            let (rate, link, phases) = (clock * 256.0 * 4.0, LINKS[n], delay.devices[n]);
            assert_close(phases.broadcast_s, sent / (2e6 * 3.0));
            assert_close(
                phases.device_forward_s,
                batches * flops.device.forward / rate,
            );
            assert_close(
                phases.uplink_s,
                batches * payload / (b_hz[n] * link.uplink_bps_hz),
            );
            assert_close(
                phases.server_s,
                batches * flops.server.total() / (3e9 * 2048.0 * 4.0),
            );
            assert_close(
                phases.downlink_s,
                batches * payload / (b_hz[n] * link.downlink_bps_hz),
            );
            assert_close(
                phases.device_backward_s,
                batches * flops.device.backward / rate,
            );
            assert_close(
                phases.adapter_upload_s,
                psi_l / (b_hz[n] * link.uplink_bps_hz),
            );
        }
        let slowest = delay
            .devices
            .iter()
            .map(Phases::total_s)
            .fold(0.0, f64::max);
        assert_close(delay.total_s, slowest);
    }
}

#[test]
fn server_models() {
    let waits = |server_model| {
        let system = pair(server_model);
        let payloads = system
            .payloads(&system.everywhere(CUT), 1.0, false)
            .unwrap();
        let round = Round {
            placements: &system.everywhere(CUT),
            links: &LINKS,
            payloads: &payloads,
        };
        let delay = system.parallel_delay(&round, &[1e6, 1e6]).unwrap();
        [delay.devices[0].server_s, delay.devices[1].server_s]
    };
    let alone = waits(ServerModel::PerDevice);
    assert_close(alone[1] / alone[0], 6.0 / 4.0);
    let sum = alone[0] + alone[1];
    for wait in waits(ServerModel::Sequential) {
        assert_close(wait, sum);
    }
    let even = waits(ServerModel::Even);
    for n in 0..2 {
        assert_close(even[n], 2.0 * alone[n]);
    }
}

/// Each device's phases are those of a round in which all have its cut, but for the queue at a
/// server that works one after the other: that is the sum of everybody's own work.
#[test]
fn every_device_has_its_own_cut() {
    const CUTS: [Placement; 2] = [Placement::Split { cut: 2 }, Placement::Split { cut: 9 }];
    for model in [
        ServerModel::PerDevice,
        ServerModel::Sequential,
        ServerModel::Even,
    ] {
        let system = pair(model);
        let phases = |system: &System, placements: &[Placement]| {
            let payloads = system.payloads(placements, 0.1, true).unwrap();
            let round = Round {
                placements,
                links: &LINKS,
                payloads: &payloads,
            };
            let delay = system.parallel_delay(&round, &[0.7e6, 1.3e6]).unwrap();
            (payloads, delay.devices)
        };
        let alike = CUTS.map(|cut| phases(&system, &[cut; 2]));
        let (payloads, devices) = phases(&system, &CUTS);
        let alone = pair(ServerModel::PerDevice);
        let work = [0, 1].map(|n| phases(&alone, &[CUTS[n]; 2]).1[n].server_s);
        for n in 0..2 {
            assert_eq!(payloads[n], alike[n].0[n]);
            let (mut expected, found) = (alike[n].1[n], devices[n]);
            if model == ServerModel::Sequential {
                assert_close(found.server_s, work[0] + work[1]);
                expected.server_s = found.server_s;
            }
            assert_eq!(found, expected, "{model:?}, device {n}");
        }
        let deepest = model_bits(system.model(), system.training(), CUTS[1]);
        let in_turn = |first| system.sequential_payloads(&CUTS, 0.1, first).unwrap();
        let once = in_turn(true)[0].broadcast_bits - in_turn(false)[0].broadcast_bits;
        assert_close(once, deepest);
    }
}

#[test]
fn demands_and_delay_agree() {
    let system = pair(ServerModel::Sequential);
    let payloads = system.payloads(&system.everywhere(CUT), 0.1, true).unwrap();
    let round = Round {
        placements: &system.everywhere(CUT),
        links: &LINKS,
        payloads: &payloads,
    };
    let demands = system.demands(&round).unwrap();
    let b_hz = [0.7e6, 1.3e6];
    let delay = system.parallel_delay(&round, &b_hz).unwrap();
    for (n, phases) in delay.devices.iter().enumerate() {
        let tau = demands.a_s[n] + demands.c_bits_per_bps_hz[n] / b_hz[n];
        assert_close(phases.total_s(), tau);
    }
    let best = allocate_bandwidth(&demands.problem()).unwrap();
    let at_best = system.parallel_delay(&round, &best.value.b_hz).unwrap();
    assert_close(at_best.total_s, best.tau_s);
}

#[test]
fn measured_payloads_are_taken_as_they_are() {
    let system = pair(ServerModel::Sequential);
    let payload = Payload {
        broadcast_bits: 6e6,
        uplink_bits: 4e6,
        downlink_bits: 0.0,
        adapter_bits: 2e6,
    };
    let round = Round {
        placements: &system.everywhere(CUT),
        links: &LINKS,
        payloads: &[payload; 2],
    };
    let delay = system.parallel_delay(&round, &[1e6, 0.0]).unwrap();
    let first = delay.devices[0];
    assert_close(first.broadcast_s, 1.0);
    assert_close(first.uplink_s, 2.0);
    assert_eq!(first.downlink_s.to_bits(), 0);
    assert_close(first.adapter_upload_s, 1.0);
    assert_eq!(delay.devices[1].uplink_s, f64::INFINITY);
    assert_eq!(delay.devices[1].downlink_s.to_bits(), 0);
    assert_eq!(delay.total_s, f64::INFINITY);
}

#[test]
fn devices_one_after_the_other() {
    let system = pair(ServerModel::Sequential);
    let (model, training) = (system.model(), system.training());
    let delay = |first| {
        let payloads = system
            .sequential_payloads(&system.everywhere(CUT), 1.0, first)
            .unwrap();
        let round = Round {
            placements: &system.everywhere(CUT),
            links: &LINKS,
            payloads: &payloads,
        };
        system.sequential_delay(&round).unwrap()
    };
    let later = delay(false);
    let sum: f64 = later.devices.iter().map(Phases::total_s).sum();
    assert_close(later.total_s, sum);
    let raw = 6.0 * activation_bits(model, training);
    assert_close(later.devices[1].uplink_s, raw / (2e6 * 5.0));
    let flops = Flops::Paper.mini_batch(model, CUT, 64);
    let server = flops.server.total() / system.server().flop_per_s();
    assert_close(later.devices[0].server_s, 4.0 * server);
    // The model is broadcast once, before the first round.
    let broadcast = model_bits(model, training, CUT) / (2e6 * 3.0);
    assert_close(delay(true).total_s, sum + broadcast);
}

#[test]
fn federated_learning() {
    let system = pair(ServerModel::Sequential);
    let (model, training) = (system.model(), system.training());
    for placement in [Placement::FlFull, Placement::FlLora] {
        let payloads = system
            .payloads(&system.everywhere(placement), 1.0, false)
            .unwrap();
        let round = Round {
            placements: &system.everywhere(placement),
            links: &LINKS,
            payloads: &payloads,
        };
        let demands = system.demands(&round).unwrap();
        let bits = adapter_bits(model, training, placement);
        let flops = Flops::Paper.mini_batch(model, placement, 64).device.total();
        let compute = 4.0 * flops / (0.5e9 * 256.0 * 4.0);
        assert_close(demands.a_s[0], bits / (2e6 * 3.0) + compute);
        assert_close(demands.c_bits_per_bps_hz[0], bits / 2.0);
    }
    let first = system
        .payloads(&system.everywhere(Placement::FlLora), 1.0, true)
        .unwrap()[0]
        .broadcast_bits;
    assert!(first > 32.0 * model.parameters());
}

#[test]
fn literal_reading_counts_one_mini_batch() {
    let mut training = Training::default();
    assert_eq!(training.batches_per_round(6250).to_bits(), 98f64.to_bits());
    training.literal_single_batch = true;
    assert_eq!(training.batches_per_round(6250).to_bits(), 1f64.to_bits());
}

#[test]
fn mistakes_are_named() {
    let message = |change: &dyn Fn(&mut Transformer, &mut Training, &mut Server, &mut Device)| {
        let (mut model, mut training) = (Transformer::vit_base(10), Training::default());
        let (mut server, mut device) = (Server::default(), Device::default());
        change(&mut model, &mut training, &mut server, &mut device);
        let system = System::new(model, training, server, vec![device], 1e6);
        system.unwrap_err().to_string()
    };
    let cases: [(&str, String); 8] = [
        (
            "heads is 5, expected a divisor of width",
            message(&|m, _, _, _| m.heads = 5),
        ),
        (
            "patch is 0, expected at least 1",
            message(&|m, _, _, _| *m = m.with_image(8, 0)),
        ),
        (
            "batch is 0, expected at least 1",
            message(&|_, t, _, _| t.batch = 0),
        ),
        (
            "bytes_per_number is NaN, expected finite and positive",
            message(&|_, t, _, _| t.bytes_per_number = f64::NAN),
        ),
        (
            "server cores is 0, expected at least 1",
            message(&|_, _, s, _| s.cores = 0),
        ),
        (
            "clock_hz[0] is -1, expected finite and positive",
            message(&|_, _, _, d| d.clock_hz = -1.0),
        ),
        (
            "snr_uplink_db[0] is 301, expected from -300 to 300",
            message(&|_, _, _, d| d.snr_uplink_db = 301.0),
        ),
        (
            "cap_hz[0] is inf, expected finite and at least 0",
            message(&|_, _, _, d| d.cap_hz = Some(f64::INFINITY)),
        ),
    ];
    for (expected, found) in cases {
        assert_eq!(found, expected);
    }
    let system = pair(ServerModel::Even);
    assert!(
        system
            .payloads(&system.everywhere(CUT), 0.0, false)
            .is_err()
    );
    assert!(
        system
            .payloads(&system.everywhere(CUT), f64::NAN, false)
            .is_err()
    );
    let mut payloads = system
        .payloads(&system.everywhere(CUT), 1.0, false)
        .unwrap();
    payloads[1].uplink_bits = f64::NAN;
    let round = Round {
        placements: &system.everywhere(CUT),
        links: &LINKS,
        payloads: &payloads,
    };
    let error = system.demands(&round).unwrap_err().to_string();
    assert_eq!(
        error,
        "payloads.uplink_bits[1] is NaN, expected finite and at least 0"
    );
    let short = Round {
        links: &LINKS[..1],
        ..round
    };
    let error = system.demands(&short).unwrap_err().to_string();
    assert_eq!(error, "links has 1 entries, expected 2: one per device");
}
