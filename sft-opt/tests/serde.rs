//! Plain types as JSON: defaults filled in, unknown keys refused, values kept.

use sft_opt::bandwidth::Regime;
use sft_opt::system::Qkv;
use sft_opt::{
    Compression, Constraint, Device, Error, Placement, Server, Status, System, Training,
    Transformer,
};

#[test]
fn settings_fill_in_defaults_and_refuse_unknown_keys() {
    let device: Device = serde_json::from_str(r#"{"clock_hz": 2e9}"#).unwrap();
    let mut expected = Device::default();
    expected.clock_hz = 2e9;
    assert_eq!(device, expected);
    assert!(serde_json::from_str::<Device>(r#"{"clock": 2e9}"#).is_err());
    assert!(serde_json::from_str::<Server>(r#"{"speed": 1}"#).is_err());
    let training: Training = serde_json::from_str(r#"{"flops": "exact"}"#).unwrap();
    assert_eq!(training.batch, 64);
    assert_eq!(training.flops, sft_opt::system::Flops::Exact);
}

#[test]
fn values_survive() {
    let model = Transformer::vit_tiny(10).with_lora(4, Qkv::Separate);
    let text = serde_json::to_string(&model).unwrap();
    assert_eq!(serde_json::from_str::<Transformer>(&text).unwrap(), model);
    let placement = Placement::Split { cut: 5 };
    assert_eq!(
        serde_json::to_string(&placement).unwrap(),
        r#"{"split":{"cut":5}}"#
    );
    for regime in [Regime::Bandwidth, Regime::CapOrFloor, Regime::NoDemand] {
        assert_eq!(serde_json::to_value(regime).unwrap(), regime.as_str());
    }
    for status in [
        Status::Optimal,
        Status::Feasible,
        Status::IterationLimit,
        Status::Stalled,
        Status::Given,
    ] {
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    let status = Status::Infeasible(Constraint::Memory);
    assert_eq!(
        serde_json::to_string(&status).unwrap(),
        r#"{"infeasible":"memory"}"#
    );
}

#[test]
fn a_system_from_toml_and_json() {
    let text = r#"
        total_hz = 30e6
        model = { preset = "vit_base", classes = 100, lora_rank = 8 }
        server = { model = "optimal_share" }
        [[devices]]
        clock_hz = 0.5e9
        [[devices]]
        samples = 100
        cap_hz = 5e6
    "#;
    let system: System = toml::from_str(text).unwrap();
    assert_eq!(system.model().lora_rank, 8);
    assert_eq!(system.training(), &Training::default());
    assert_eq!(system.devices()[1].samples, 100);
    let json = serde_json::to_string(&system).unwrap();
    assert_eq!(serde_json::from_str::<System>(&json).unwrap(), system);
    let wrong = text.replace("0.5e9", "-1.0");
    let message = toml::from_str::<System>(&wrong).unwrap_err().to_string();
    assert!(message.contains("clock_hz[0] is -1"), "{message}");
    assert!(toml::from_str::<System>(&text.replace("total_hz", "band")).is_err());
}

#[test]
fn a_model_is_vit_base_unless_told_otherwise() {
    let system = |model: &str| {
        let text = format!(r#"{{"total_hz": 1.0, "devices": [{{}}]{model}}}"#);
        serde_json::from_str::<System>(&text).map_err(|error| error.to_string())
    };
    let base = Transformer::vit_base(100);
    for model in ["", r#", "model": {}"#, r#", "model": {"classes": 100}"#] {
        assert_eq!(system(model).unwrap().model(), &base);
    }
    let shape = serde_json::to_string(&base).unwrap();
    assert_eq!(
        system(&format!(r#", "model": {shape}"#)).unwrap().model(),
        &base
    );
    let wrong = [
        (
            r#"{"preset": "vit_huge"}"#,
            "unknown variant `vit_huge`, expected one of `vit_tiny`",
        ),
        (
            r#"{"clases": 10}"#,
            "unknown field `clases`, expected one of `preset`, `blocks`",
        ),
        (r#"{"blocks": 12, "width": 192}"#, "missing field `heads`"),
        (r#"{"counts": {}}"#, "missing field `block`"),
        (
            r#"{"preset": "vit_tiny", "blocks": 6}"#,
            "preset stands for a whole shape",
        ),
    ];
    for (model, expected) in wrong {
        let error = system(&format!(r#", "model": {model}"#)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn compression_has_a_box_without_being_told() {
    let text = r#"{"accuracy": {"terms": []}, "accuracy_min": 0.5}"#;
    let compression: Compression = serde_json::from_str(text).unwrap();
    compression.validate().unwrap();
    let (keep, bits) = (
        compression.keep_min..=compression.keep_max,
        compression.bits_min..=compression.bits_max,
    );
    assert_eq!((keep, bits), (0.01..=1.0, 1..=8));
    let wrong = text.replace("[]", r#"[{"i": 0, "j": 0, "w": 0.5, "k": 0}]"#);
    assert!(serde_json::from_str::<Compression>(&wrong).is_err());
}

#[test]
fn errors_can_be_shared_between_threads() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<Error>();
}
