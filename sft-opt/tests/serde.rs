//! Plain types as JSON: defaults filled in, unknown keys refused, values kept.

use sft_opt::{Device, Error, Qkv, Regime, Scheme, Server, System, Training, Transformer};

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
    assert_eq!(training.flops, sft_opt::Flops::Exact);
}

#[test]
fn values_survive() {
    let model = Transformer::vit_tiny(10).with_lora(4, Qkv::Separate);
    let text = serde_json::to_string(&model).unwrap();
    assert_eq!(serde_json::from_str::<Transformer>(&text).unwrap(), model);
    let scheme = Scheme::Split { cut: 5 };
    assert_eq!(
        serde_json::to_string(&scheme).unwrap(),
        r#"{"split":{"cut":5}}"#
    );
    for regime in [
        Regime::Bandwidth,
        Regime::CapOrFloor,
        Regime::NoDemand,
        Regime::Infeasible,
    ] {
        assert_eq!(serde_json::to_value(regime).unwrap(), regime.as_str());
    }
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
fn errors_can_be_shared_between_threads() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<Error>();
}
