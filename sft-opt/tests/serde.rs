//! Plain types as JSON: defaults filled in, unknown keys refused, values kept.

use sft_opt::{Device, Error, Qkv, Regime, Scheme, Server, Training, Transformer};

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
fn errors_can_be_shared_between_threads() {
    fn is_error<E: std::error::Error + Send + Sync + 'static>() {}
    is_error::<Error>();
}
