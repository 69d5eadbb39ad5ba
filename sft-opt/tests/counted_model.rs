//! A transformer by what its parts count: the same numbers as by its shape, and files.

use sft_opt::system::{Counts, FlHead, Flops, Part, Qkv};
use sft_opt::{Device, Placement, Round, Server, System, Training, Transformer};

/// A ViT-Base with the counts of the paper's formulas, per sample.
fn counted() -> Transformer {
    let shape = Transformer::vit_base(100);
    let part = |parameters: f64, lora: f64, pass: sft_opt::cost::Pass| Part {
        parameters: parameters as u64,
        lora_parameters: lora as u64,
        forward_flop: pass.forward as u64,
        backward_flop: pass.backward as u64,
    };
    let flops = Flops::Paper;
    let counts = Counts {
        block: part(
            shape.block_parameters(),
            shape.lora_parameters_per_block(),
            flops.block(&shape, 1),
        ),
        embedding: part(
            shape.embedding_parameters(),
            2.0 * 768.0 * 16.0,
            flops.embedding(&shape, 1),
        ),
        // The last layer norm belongs to the head.
        head: part(
            shape.head_parameters() + 2.0 * 768.0,
            16.0 * (768.0 + 100.0),
            flops.head(&shape, 1),
        ),
    };
    let mut model = Transformer::counted(12, 197, 768, 12, counts);
    (model.image, model.channels) = (224, 3);
    model
}

fn system(model: Transformer, fl_head: FlHead) -> System {
    let mut training = Training::default();
    training.fl_head = fl_head;
    System::new(
        model,
        training,
        Server::default(),
        vec![Device::default(); 3],
        30e6,
    )
    .unwrap()
}

#[test]
fn counts_of_a_shape_give_the_figures_of_the_shape() {
    for fl_head in [FlHead::Adapters, FlHead::Full] {
        let (by_shape, by_counts) = (
            system(Transformer::vit_base(100), fl_head),
            system(counted(), fl_head),
        );
        assert_eq!(
            by_shape.model().parameters().to_bits(),
            by_counts.model().parameters().to_bits()
        );
        for placement in [
            Placement::Split { cut: 5 },
            Placement::FlFull,
            Placement::FlLora,
        ] {
            let round_s = |system: &System| {
                let links = system.links();
                let payloads = system
                    .payloads(&system.everywhere(placement), 0.1, true)
                    .unwrap();
                let round = Round {
                    placements: &system.everywhere(placement),
                    links: &links,
                    payloads: &payloads,
                };
                system.parallel_delay(&round, &[1e7; 3]).unwrap().total_s
            };
            let gap = round_s(&by_counts) / round_s(&by_shape) - 1.0;
            // FL-LoRA with a full head does not send the last layer norm; counts cannot tell.
            let tolerance = if fl_head == FlHead::Full { 1e-2 } else { 1e-12 };
            assert!(gap.abs() < tolerance, "{placement:?}: {gap:e}");
            let bytes = |system: &System| system.memory(placement).unwrap().total_bytes();
            // A counted embedding is held with its positions, which Table III leaves out.
            let gap = bytes(&by_counts) / bytes(&by_shape) - 1.0;
            assert!(gap.abs() < 1e-3, "{placement:?}: {gap:e}");
        }
    }
}

#[test]
fn a_counted_model_in_toml_and_json() {
    let text = r"
        total_hz = 30e6
        devices = [{}]
        [model]
        blocks = 32
        tokens = 1024
        width = 4096
        heads = 32
        [model.counts]
        block = { parameters = 202383360, lora_parameters = 1000000, forward_flop = 415, backward_flop = 830 }
        embedding = { parameters = 131072000 }
        head = { parameters = 131076096, forward_flop = 268, backward_flop = 536 }
    ";
    let system: System = toml::from_str(text).unwrap();
    let flops = Flops::Exact.mini_batch(system.model(), Placement::Split { cut: 2 }, 10);
    assert_eq!(flops.device.forward.to_bits(), 8300f64.to_bits());
    assert_eq!(
        flops.server.backward.to_bits(),
        (249_000f64 + 5360.0).to_bits()
    );
    let full = Flops::Exact.mini_batch(system.model(), Placement::FlFull, 1);
    assert_eq!(
        full.device.backward.to_bits(),
        (2.0 * 32.0 * 415.0 + 536f64).to_bits()
    );
    let json = serde_json::to_string(&system).unwrap();
    assert_eq!(serde_json::from_str::<System>(&json).unwrap(), system);
    for (from, to) in [("heads = 32", "heads = 3"), ("tokens = 1024", "tokens = 0")] {
        let wrong = toml::from_str::<System>(&text.replace(from, to))
            .unwrap_err()
            .to_string();
        let name = from.split(' ').next().unwrap();
        assert!(wrong.contains(&format!("{name} is ")), "{wrong}");
    }
    assert!(toml::from_str::<System>(&text.replace("[model.counts]", "[model.count]")).is_err());
}

/// Whatever a file says of a counted model beside its counts arrives, field by field.
#[test]
fn a_file_sets_every_field_of_a_counted_model() {
    let needed = r#""blocks": 4, "tokens": 9, "width": 8, "heads": 2,
        "counts": {"block": {"parameters": 7}, "embedding": {"parameters": 5}, "head": {"parameters": 3}}"#;
    let model = |more: &str| {
        let text =
            format!(r#"{{"total_hz": 1.0, "devices": [{{}}], "model": {{{needed}{more}}}}}"#);
        *serde_json::from_str::<System>(&text).unwrap().model()
    };
    let plain = model("");
    assert_eq!(
        (plain.channels, plain.image, plain.classes, plain.lora_rank),
        (1, 1, 1, 0)
    );
    let (rank, qkv) = (plain.lora_rank, plain.qkv);
    let changes: [(&str, Transformer); 6] = [
        (r#", "channels": 3"#, {
            let mut m = plain;
            m.channels = 3;
            m
        }),
        (r#", "image": 224"#, {
            let mut m = plain;
            m.image = 224;
            m
        }),
        (r#", "patch": 2, "image": 2"#, {
            let mut m = plain;
            (m.patch, m.image) = (2, 2);
            m
        }),
        (r#", "classes": 10"#, {
            let mut m = plain;
            m.classes = 10;
            m
        }),
        (r#", "lora_rank": 8"#, plain.with_lora(8, qkv)),
        (
            r#", "qkv": "separate""#,
            plain.with_lora(rank, Qkv::Separate),
        ),
    ];
    for (field, expected) in changes {
        assert_ne!(expected, plain, "{field}");
        assert_eq!(model(field), expected, "{field}");
    }
}
