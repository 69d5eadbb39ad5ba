//! Parameters, memory, FLOPs and payloads against the paper's tables and counts by hand.

#![allow(clippy::float_cmp, reason = "counts and limits are exact")]

use sft_opt::cost::{
    BatchFlops, Memory, Pass, activation_bits, adapter_bits, device_memory, feature_bits,
    model_bits,
};
use sft_opt::system::{DeviceAdapters, FlHead, Flops, LabelSide, Qkv, ServerModel};
use sft_opt::{Device, Placement, Round, Server, System, Training, Transformer};

const MIB: f64 = 1024.0 * 1024.0;

/// Equal at the two decimals that the paper prints, which are cut off (337.0354 is 337.03).
fn assert_mib(bytes: f64, printed: f64) {
    let mib = bytes / MIB;
    assert!(
        (mib * 100.0).floor() == (printed * 100.0).round(),
        "{mib} is not {printed}"
    );
}

fn assert_within(found: f64, expected: f64, relative: f64) {
    let error = found / expected - 1.0;
    assert!(
        error.abs() <= relative,
        "{found} is {error:+.4} from {expected}"
    );
}

/// Table III was made for 200 classes.
fn table_three(scheme: Placement) -> Memory {
    let mut training = Training::default();
    training.fl_head = FlHead::Adapters;
    device_memory(&Transformer::vit_base(200), &training, scheme).unwrap()
}

#[test]
fn memory_of_table_three() {
    let split = table_three(Placement::Split { cut: 5 });
    assert_mib(split.input_bytes, 36.75);
    assert_mib(split.model_bytes, 141.19);
    assert_mib(split.optimizer_bytes, 3.75);
    assert_within(split.activation_bytes / MIB, 3941.0, 0.003);
    assert_within(split.total_bytes() / MIB, 4122.9, 0.003);

    let lora = table_three(Placement::FlLora);
    assert_mib(lora.input_bytes, 36.75);
    assert_mib(lora.model_bytes, 337.03);
    assert_mib(lora.optimizer_bytes, 9.09);
    assert_within(lora.activation_bytes / MIB, 9514.0, 0.015);
    assert_within(lora.total_bytes() / MIB, 9896.7, 0.015);

    let full = table_three(Placement::FlFull);
    assert_mib(full.model_bytes, 327.88);
    // The paper prints 329.76; momentum has the size of the parameters.
    assert_mib(full.optimizer_bytes, 327.88);
    assert_within(full.activation_bytes / MIB, 9171.0, 0.024);
    assert_within(full.total_bytes() / MIB, 9865.5, 0.024);

    let saved = 1.0 - split.total_bytes() / lora.total_bytes();
    assert!((saved - 0.582).abs() < 0.005, "saves {saved}");
}

#[test]
fn federated_lora_with_a_head_in_full() {
    let (model, training) = (Transformer::vit_base(200), Training::default());
    let memory = device_memory(&model, &training, Placement::FlLora).unwrap();
    let adapters = 12.0 * 16.0 * 768.0 * 16.0;
    let head = 769.0 * 200.0;
    assert_eq!(memory.model_bytes, 4.0 * (85_952_456.0 + adapters));
    assert_eq!(memory.optimizer_bytes, 4.0 * (adapters + head));
    assert_eq!(
        adapter_bits(&model, &training, Placement::FlLora),
        32.0 * (adapters + head)
    );
}

#[test]
fn memory_is_linear_in_the_cut_and_strict_at_the_limit() {
    let at = |cut| table_three(Placement::Split { cut }).total_bytes();
    for cut in 2..11 {
        assert_within(at(cut + 1) - at(cut), at(2) - at(1), 1e-12);
    }
    let memory = table_three(Placement::Split { cut: 5 });
    let limit = memory.total_bytes() as u64;
    assert!(!memory.fits(limit) && memory.fits(limit + 1));
}

#[test]
fn gradients_and_optimizer_follow_the_trained_parameters() {
    let model = Transformer::vit_base(100);
    let mut training = Training::default();
    training.count_gradients = true;
    training.optimizer_bytes_per_parameter = 8.0;
    let memory = device_memory(&model, &training, Placement::Split { cut: 3 }).unwrap();
    assert_eq!(memory.optimizer_bytes, 8.0 * 3.0 * 196_608.0);
    assert_eq!(memory.gradient_bytes, 4.0 * 3.0 * 196_608.0);
}

#[test]
fn a_frozen_half_runs_forward_alone() {
    let (model, split) = (Transformer::vit_base(100), Placement::Split { cut: 3 });
    let (rows, d) = (64.0 * 197.0, 768.0);
    for flops in [Flops::Paper, Flops::Exact] {
        let mut lora = Training::default();
        lora.count_gradients = true;
        lora.flops = flops;
        let mut none = lora;
        none.device_adapters = DeviceAdapters::None;
        let [with, without] = [lora, none].map(|t| device_memory(&model, &t, split).unwrap());
        assert_eq!(without.input_bytes, with.input_bytes);
        assert_eq!(
            without.model_bytes,
            with.model_bytes - 4.0 * 3.0 * 196_608.0
        );
        assert_eq!(
            (without.optimizer_bytes, without.gradient_bytes),
            (0.0, 0.0)
        );
        assert_eq!(without.activation_bytes, 4.0 * rows * d);
        let devices = vec![Device::default(); 2];
        let round = |training| {
            let system = System::new(model, training, Server::default(), devices.clone(), 30e6);
            let (system, placements) = (system.unwrap(), [split; 2]);
            let payloads = system.payloads(&placements, 0.1, false).unwrap();
            let round = Round {
                placements: &placements,
                links: &system.links(),
                payloads: &payloads,
            };
            let delay = system.parallel_delay(&round, &[15e6; 2]).unwrap();
            let first = system.payloads(&placements, 0.1, true).unwrap()[0];
            (delay.devices[0], payloads[0], first)
        };
        let ((with, sent, first), (phases, payload, alone)) = (round(lora), round(none));
        assert_eq!(payload.uplink_bits, sent.uplink_bits);
        assert_eq!((payload.downlink_bits, payload.adapter_bits), (0.0, 0.0));
        assert_eq!(payload.broadcast_bits, 0.0);
        assert_eq!(
            first.broadcast_bits - alone.broadcast_bits,
            32.0 * 3.0 * 196_608.0
        );
        assert_eq!((phases.device_backward_s, phases.downlink_s), (0.0, 0.0));
        // Forward without the adapters' 2BSp_L; the server's first block spares 6BSD².
        let exact = if flops == Flops::Exact { 1.0 } else { 0.0 };
        let cost = |of: Placement| flops.mini_batch(&model, of, 64);
        let share = |part: f64, whole: f64| 1.0 - exact * part / whole;
        let near = |got: f64, want: f64| (got / want - 1.0).abs() < 1e-12;
        let adapters = 3.0 * 2.0 * rows * 196_608.0;
        let forward = share(adapters, cost(split).device.forward);
        assert!(near(
            phases.device_forward_s,
            forward * with.device_forward_s
        ));
        let server = share(6.0 * rows * d * d, cost(split).server.total());
        assert!(near(phases.server_s, server * with.server_s));
    }
    // Federated training has no half.
    let mut none = Training::default();
    none.device_adapters = DeviceAdapters::None;
    for whole in [Placement::FlLora, Placement::FlFull] {
        let memory = |training| device_memory(&model, training, whole).unwrap();
        assert_eq!(memory(&none), memory(&Training::default()));
    }
}

/// Behind a shallower cut the server's blocks up to the deepest have no adapters either.
#[test]
fn all_blocks_before_the_deepest_cut_run_forward_alone() {
    let model = Transformer::vit_base(100);
    let cuts = [1, 3].map(|cut| Placement::Split { cut });
    let rows = 64.0 * 197.0;
    let mut server = Server::default();
    server.model = ServerModel::PerDevice;
    let new = |training| System::new(model, training, server, vec![Device::default(); 2], 30e6);
    let server_flop = |training: Training| {
        let system = new(training).unwrap();
        let payloads = system.payloads(&cuts, 0.1, false).unwrap();
        let round = Round {
            placements: &cuts,
            links: &system.links(),
            payloads: &payloads,
        };
        let delay = system.parallel_delay(&round, &[15e6; 2]).unwrap();
        let batches = training.batches_per_round(Device::default().samples);
        [0, 1].map(|n| delay.devices[n].server_s * server.flop_per_s() / batches)
    };
    for flops in [Flops::Paper, Flops::Exact] {
        let mut training = Training::default();
        training.flops = flops;
        training.device_adapters = DeviceAdapters::None;
        let [_, own] = server_flop(training);
        training.frozen_blocks = 3;
        let [shallow, deep] = server_flop(training);
        assert_within(deep, own, 1e-12);
        let mut forward = flops.block(&model, 64).forward;
        if flops == Flops::Exact {
            forward -= 2.0 * rows * 196_608.0;
        }
        assert_within(shallow, deep + 2.0 * forward, 1e-12);
    }
    let mut training = Training::default();
    training.frozen_blocks = 3;
    let error = new(training).unwrap_err().to_string();
    assert!(error.contains("frozen_blocks is 3"), "{error}");
    training.device_adapters = DeviceAdapters::None;
    training.frozen_blocks = 12;
    let error = new(training).unwrap_err().to_string();
    assert!(error.contains("below the number of blocks"), "{error}");
}

#[test]
fn cut_must_leave_work_on_both_sides() {
    let at = |cut| {
        let (model, training) = (Transformer::vit_base(100), Training::default());
        device_memory(&model, &training, Placement::Split { cut })
    };
    assert!(at(1).is_ok() && at(11).is_ok());
    for cut in [0, 12, usize::MAX] {
        let message = at(cut).unwrap_err().to_string();
        assert!(message.starts_with("cut is "), "{message}");
    }
}

#[test]
fn parameters_of_known_models() {
    // `timm` counts of vit_{tiny,small,base,large}_patch16_224 with 1000 classes.
    assert_eq!(Transformer::vit_tiny(1000).parameters(), 5_717_416.0);
    assert_eq!(Transformer::vit_small(1000).parameters(), 22_050_664.0);
    assert_eq!(Transformer::vit_base(1000).parameters(), 86_567_656.0);
    assert_eq!(Transformer::vit_large(1000).parameters(), 304_326_632.0);
}

#[test]
fn adapter_parameters() {
    let (d, r) = (768.0, 16.0);
    let base = Transformer::vit_base(100);
    let separate = base.with_lora(16, Qkv::Separate);
    assert_eq!(base.lora_parameters_per_block(), 16.0 * d * r);
    assert_eq!(separate.lora_parameters_per_block(), 18.0 * d * r);
    assert_eq!(
        base.with_lora(0, Qkv::Fused).lora_parameters_per_block(),
        0.0
    );
    let mut narrow = separate;
    narrow.mlp_width = 1000;
    assert_eq!(
        narrow.lora_parameters_per_block(),
        8.0 * d * r + 2.0 * r * (d + 1000.0)
    );
}

#[test]
fn payloads_in_bits() {
    let (model, training) = (Transformer::vit_base(100), Training::default());
    let split = Placement::Split { cut: 5 };
    assert_eq!(
        activation_bits(&model, &training),
        32.0 * 64.0 * 197.0 * 768.0
    );
    assert_eq!(
        adapter_bits(&model, &training, split),
        32.0 * 5.0 * 196_608.0
    );
    // Blocks with adapters; patch projection, positions and class token once.
    let (d, block) = (768.0, 12.0 * 768.0 * 768.0 + 13.0 * 768.0 + 196_608.0);
    let embedding = 768.0 * d + d + 197.0 * d + d;
    assert_eq!(
        model_bits(&model, &training, split),
        32.0 * (5.0 * block + embedding)
    );
    // Twenty rounds of one device both ways, uncompressed: the paper's 144.76 GB of SL.
    let traffic = 20.0 * 98.0 * 2.0 * activation_bits(&model, &training) / 8.0;
    assert_within(traffic / f64::powi(1024.0, 3), 140.9, 0.005);
}

/// Only what split devices exchange after the first broadcast is coded.
#[test]
fn coded_adapters_in_bits() {
    let (model, mut training) = (Transformer::vit_base(100), Training::default());
    training.adapter_uplink_bits_per_parameter = Some(1.5);
    training.adapter_downlink_bits_per_parameter = Some(2.0);
    let system = |training| {
        let (server, devices) = (Server::default(), vec![Device::default()]);
        System::new(model, training, server, devices, 1e6)
    };
    let coded = system(training).unwrap();
    let payload = |system: &System, placement, first| {
        let payloads = system.payloads(&[placement], 1.0, first).unwrap();
        (payloads[0].adapter_bits, payloads[0].broadcast_bits)
    };
    let (split, parameters) = (Placement::Split { cut: 5 }, 5.0 * 196_608.0);
    let expected = (1.5 * parameters, 2.0 * parameters);
    assert_eq!(payload(&coded, split, false), expected);
    let whole = model_bits(&model, &training, split);
    assert_eq!(payload(&coded, split, true), (1.5 * parameters, whole));
    let plain = system(Training::default()).unwrap();
    let federated = payload(&plain, Placement::FlLora, false);
    assert_eq!(payload(&coded, Placement::FlLora, false), federated);
    let sequential = coded.sequential_payloads(&[split], 1.0, false).unwrap();
    assert_eq!(sequential[0].broadcast_bits, 2.0 * parameters);
    // Fewer bits are less delay, by just these bits.
    let delay = |system: &System| {
        let round = Round {
            placements: &[split],
            links: &system.links(),
            payloads: &system.payloads(&[split], 1.0, false).unwrap(),
        };
        system.parallel_delay(&round, &[1e6]).unwrap().devices[0]
    };
    let (few, all) = (delay(&coded), delay(&plain));
    let ratio = |few: f64, all: f64, wanted: f64| assert!((few / all - wanted).abs() < 1e-12);
    ratio(few.adapter_upload_s, all.adapter_upload_s, 1.5 / 32.0);
    ratio(few.broadcast_s, all.broadcast_s, 2.0 / 32.0);
    for bits in [0.0, -1.0, f64::NAN] {
        training.adapter_downlink_bits_per_parameter = Some(bits);
        let error = system(training).unwrap_err().to_string();
        let expected =
            format!("adapter_downlink_bits_per_parameter is {bits}, expected finite and positive");
        assert_eq!(error, expected);
    }
}

/// Counts of the tiny model below, by hand.
fn tiny() -> Transformer {
    let mut model = Transformer::vit(3, 4, 2, 5)
        .with_image(8, 4)
        .with_lora(2, Qkv::Separate);
    model.mlp_width = 6;
    model
}

#[test]
fn flops_as_printed() {
    let model = Transformer::vit_base(100);
    let (b, s, d, k) = (64.0, 197.0, 768.0, 100.0);
    let g = 24.0 * b * s * d * d + 4.0 * b * s * s * d;
    let head = 2.0 * b * s * d * k;
    let flops = Flops::Paper.mini_batch(&model, Placement::Split { cut: 5 }, 64);
    let expected = BatchFlops {
        device: Pass {
            forward: 5.0 * g + head,
            backward: 10.0 * g + 2.0 * head,
        },
        server: Pass {
            forward: 7.0 * g,
            backward: 14.0 * g + 2.0 * head,
        },
    };
    assert_eq!(flops, expected);
    for scheme in [Placement::FlFull, Placement::FlLora] {
        let flops = Flops::Paper.mini_batch(&model, scheme, 64);
        assert_eq!(flops.device.total(), 36.0 * g + 3.0 * head);
        assert_eq!(flops.server, Pass::default());
    }
}

#[test]
fn flops_of_a_tiny_model_by_hand() {
    // B = 2, S = 5, D = 4, D_mlp = 6, A = 2, K = 5, r = 2: 10 rows.
    let model = tiny();
    assert_eq!(model.tokens, 5);
    let qkv = 2.0 * 10.0 * 4.0 * 12.0;
    let out = 2.0 * 10.0 * 4.0 * 4.0;
    let mlp = 2.0 * (2.0 * 10.0 * 4.0 * 6.0);
    let linear = qkv + out + mlp;
    // Scores and their use: 2·(2·rows·S·D).
    let attention = 2.0 * (2.0 * 10.0 * 5.0 * 4.0);
    // Four attention adapters 4→2→4 and two of the feed-forward layer.
    let lora = 4.0 * 2.0 * 10.0 * (8.0 + 8.0) + 2.0 * 2.0 * 10.0 * (8.0 + 12.0);
    let patches = 2.0 * 10.0 * (4.0 * 4.0 * 3.0) * 4.0;
    let head = 2.0 * 2.0 * 4.0 * 5.0;
    let forward = linear + attention + lora;
    // Input gradients of linear layers, both factors of attention and of adapters.
    let backward = linear + 2.0 * attention + 2.0 * lora;
    let split = Flops::Exact.mini_batch(&model, Placement::Split { cut: 1 }, 2);
    assert_eq!(split.device.forward, patches + forward);
    assert_eq!(split.device.backward, backward - qkv);
    assert_eq!(split.server.forward, 2.0 * forward + head);
    assert_eq!(split.server.backward, 2.0 * backward + 2.0 * head);

    let lora_only = Flops::Exact.mini_batch(&model, Placement::FlLora, 2).device;
    assert_eq!(
        lora_only.forward,
        split.device.forward + split.server.forward
    );
    assert_eq!(
        lora_only.backward,
        split.device.backward + split.server.backward
    );

    let full = Flops::Exact.mini_batch(&model, Placement::FlFull, 2).device;
    assert_eq!(full.forward, patches + 3.0 * (linear + attention) + head);
    assert_eq!(
        full.backward,
        patches + 6.0 * (linear + attention) + 2.0 * head
    );
}

/// B = 2, D = 4, K = 5, r = 2 of a model that is counted by hand above: the head, its features down and
/// their gradients up.
#[test]
fn the_head_goes_to_the_device_with_the_labels() {
    let (model, split) = (tiny(), Placement::Split { cut: 1 });
    let (parameters, features) = (4.0 * 5.0 + 5.0, 2.0 * 4.0);
    for (fl_head, flops) in [
        (FlHead::Full, Flops::Exact),
        (FlHead::Full, Flops::Paper),
        (FlHead::Adapters, Flops::Exact),
    ] {
        for device_adapters in [DeviceAdapters::Lora, DeviceAdapters::None] {
            let mut server = Training::default();
            (server.batch, server.flops, server.fl_head) = (2, flops, fl_head);
            (server.device_adapters, server.count_gradients) = (device_adapters, true);
            let mut device = server;
            device.labels = LabelSide::Device;
            let (held, trained) = match fl_head {
                FlHead::Full => (parameters, parameters),
                FlHead::Adapters => (parameters + 18.0, 18.0),
            };
            let [without, with] =
                [server, device].map(|t| device_memory(&model, &t, split).unwrap());
            assert_eq!(with.model_bytes, without.model_bytes + 4.0 * held);
            assert_eq!(
                with.optimizer_bytes,
                without.optimizer_bytes + 4.0 * trained
            );
            assert_eq!(with.gradient_bytes, without.gradient_bytes + 4.0 * trained);
            let logits = features + 2.0 * 5.0;
            assert_eq!(
                with.activation_bytes,
                without.activation_bytes + 4.0 * logits
            );
            let bits = |of: fn(&Transformer, &Training, Placement) -> f64| {
                of(&model, &device, split) - of(&model, &server, split)
            };
            assert_eq!(bits(adapter_bits), 32.0 * trained);
            assert_eq!(bits(model_bits), 32.0 * held);
            assert_eq!(bits(feature_bits), 32.0 * features);

            let phases = |training: Training| {
                let one = vec![Device::default()];
                let system = System::new(model, training, Server::default(), one, 30e6).unwrap();
                let payloads = system.payloads(&[split], 0.5, false).unwrap();
                let round = Round {
                    placements: &[split],
                    links: &system.links(),
                    payloads: &payloads,
                };
                let delay = system.parallel_delay(&round, &[15e6]).unwrap();
                (
                    payloads[0],
                    delay.devices[0],
                    *system.server(),
                    system.devices()[0],
                )
            };
            let ((few, before, ..), (many, after, server, at)) = (phases(server), phases(device));
            let batches = device.batches_per_round(at.samples);
            let extra = batches * 32.0 * features;
            assert_within(many.uplink_bits, few.uplink_bits + extra, 1e-12);
            assert_within(many.downlink_bits, few.downlink_bits + extra, 1e-12);
            // Forward 2BDK, of the paper 2BSDK on the device already, backward twice that.
            let rows = if flops == Flops::Paper { 10.0 } else { 2.0 };
            let head = 2.0 * rows * 4.0 * 5.0;
            let exact = if flops == Flops::Exact { 1.0 } else { 0.0 };
            let frozen = device_adapters == DeviceAdapters::None;
            let moved = if flops == Flops::Exact || frozen {
                2.0
            } else {
                0.0
            };
            let near = |after: f64, before: f64, flop: f64, rate: f64| {
                let got = (after - before) * rate / batches;
                assert!((got - flop).abs() < 1e-6, "{got} {flop}");
            };
            let (up, down) = (after.device_forward_s, before.device_forward_s);
            near(up, down, exact * head, at.flop_per_s());
            let (up, down) = (after.device_backward_s, before.device_backward_s);
            near(up, down, moved * head, at.flop_per_s());
            let gone = (exact + 2.0) * head;
            near(after.server_s, before.server_s, -gone, server.flop_per_s());
        }
    }
    // Coded features, and a training that is not split.
    let mut coded = Training::default();
    (coded.labels, coded.bits_per_feature, coded.batch) = (LabelSide::Device, Some(4.5), 2);
    assert_eq!(feature_bits(&model, &coded, split), 4.5 * features);
    for whole in [Placement::FlLora, Placement::FlFull] {
        assert_eq!(feature_bits(&model, &coded, whole), 0.0);
        let of = |training| device_memory(&model, &training, whole).unwrap();
        assert_eq!(of(coded).model_bytes, {
            coded.labels = LabelSide::Server;
            of(coded).model_bytes
        });
    }
    coded.bits_per_feature = Some(0.0);
    let error = device_memory(&model, &coded, split)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "bits_per_feature is 0, expected finite and positive");
}
