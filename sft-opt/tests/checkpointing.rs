//! Gradient checkpointing and mapped weights in memory and FLOPs, by hand.

#![allow(clippy::float_cmp, reason = "counts are exact")]

use sft_opt::cost::device_memory;
use sft_opt::system::{DeviceAdapters, Flops, Qkv};
use sft_opt::{Device, Placement, Round, Server, System, Training, Transformer};

/// L = 3, S = 5, D = 4, `D_mlp` = 6, A = 2, K = 5, r = 2.
fn tiny() -> Transformer {
    let mut model = Transformer::vit(3, 4, 2, 5)
        .with_image(8, 4)
        .with_lora(2, Qkv::Separate);
    model.mlp_width = 6;
    model
}

fn training(checkpointing: bool) -> Training {
    let mut training = Training::default();
    (training.batch, training.flops) = (2, Flops::Exact);
    training.gradient_checkpointing = checkpointing;
    training
}

#[test]
fn blocks_keep_their_input_and_one_of_them_its_activations() {
    // B·S·D numbers of 4 bytes; 72 bytes each and 4 for each of B·A·S·S where a block keeps all.
    let (stream, block) = (4.0 * 40.0, 72.0 * 40.0 + 4.0 * 100.0);
    let bytes = |training: Training, placement| {
        let memory = device_memory(&tiny(), &training, placement).unwrap();
        let rest = memory.total_bytes() - memory.activation_bytes;
        (memory.activation_bytes, rest)
    };
    for (placement, blocks) in [
        (Placement::Split { cut: 1 }, 1.0),
        (Placement::Split { cut: 2 }, 2.0),
        (Placement::FlLora, 3.0),
        (Placement::FlFull, 3.0),
    ] {
        let (all, rest) = bytes(training(false), placement);
        assert_eq!(all, blocks * block + stream);
        let with = bytes(training(true), placement);
        assert_eq!(with, (blocks * stream + block + stream, rest));
    }
    let mut frozen = training(true);
    frozen.device_adapters = DeviceAdapters::None;
    assert_eq!(bytes(frozen, Placement::Split { cut: 2 }).0, stream);
}

#[test]
fn of_mapped_blocks_one_is_held_with_a_copy() {
    let mut model = tiny();
    model.blocks = 6;
    // 4D² + 2·D·D_mlp + 9D + D_mlp parameters.
    let block = 4.0 * (64.0 + 48.0 + 36.0 + 6.0);
    for cut in [2, 5] {
        let bytes = |mapped| {
            let mut training = training(true);
            training.mapped_blocks = mapped;
            device_memory(&model, &training, Placement::Split { cut }).unwrap()
        };
        let (all, one) = (bytes(false), bytes(true));
        let rest = (cut - 2) as f64 * block;
        assert_eq!(one.model_bytes, all.model_bytes - rest);
        assert_eq!(one.total_bytes(), all.total_bytes() - rest);
    }
    let mut mapped = training(true);
    mapped.mapped_blocks = true;
    let whole = |training| device_memory(&model, &training, Placement::FlLora).unwrap();
    assert_eq!(whole(mapped), whole(training(true)));
}

/// Seconds of the device's forward and backward passes and of the server, of a device cut at block 1.
fn seconds(training: Training, placement: Placement) -> [f64; 3] {
    let devices = vec![Device::default()];
    let system = System::new(tiny(), training, Server::default(), devices, 30e6).unwrap();
    let round = Round {
        placements: &[placement],
        links: &system.links(),
        payloads: &system.payloads(&[placement], 1.0, false).unwrap(),
    };
    let device = system.parallel_delay(&round, &[30e6]).unwrap().devices[0];
    [
        device.device_forward_s,
        device.device_backward_s,
        device.server_s,
    ]
}

fn near(got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-12 * want, "{got}, expected {want}");
}

#[test]
fn a_trained_block_runs_forward_again_in_its_backward_pass() {
    // Counted by hand: a block, the head, and the gradient that the first block needs not.
    let (forward, backward, head, first) = (5120.0, 8000.0, 80.0, 960.0);
    let [off, on] = [false, true].map(|on| seconds(training(on), Placement::Split { cut: 1 }));
    assert_eq!(on[0], off[0]);
    near(on[1] / off[1], 1.0 + forward / (backward - first));
    let server = 2.0 * (forward + backward) + 3.0 * head;
    near(on[2] / off[2], 1.0 + 2.0 * forward / server);

    // The whole model on the device; of full training, without the adapters.
    let [off, on] = [false, true].map(|on| seconds(training(on), Placement::FlLora));
    let lora = 3.0 * backward - first + 2.0 * head;
    near(on[1] / off[1], 1.0 + 3.0 * forward / lora);
    let [off, on] = [false, true].map(|on| seconds(training(on), Placement::FlFull));
    let (patches, plain) = (3840.0, forward - 2080.0);
    let full = patches + 6.0 * plain + 2.0 * head;
    near(on[1] / off[1], 1.0 + 3.0 * plain / full);

    // Blocks without adapters have no backward pass, on either side.
    let [off, on] = [false, true].map(|on| {
        let mut training = training(on);
        training.device_adapters = DeviceAdapters::None;
        training.frozen_blocks = 2;
        seconds(training, Placement::Split { cut: 1 })
    });
    assert_eq!((on[0], on[1]), (off[0], 0.0));
    let server = 2.0 * forward + backward - first - 2080.0 + 3.0 * head;
    near(on[2] / off[2], 1.0 + forward / server);
}
