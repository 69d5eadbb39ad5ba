//! The one spelling of a codec.

use proptest::prelude::*;
use sft_compress::{
    Code, Codec, Config, Energy, ErrorKind, NonFinite, Quantize, Range, Rounding, Spacing, Sparsify,
};

#[test]
fn named_codecs_are_spelled_by_their_name_and_numbers() {
    let row = |codec: Codec| codec.with_range(Range::Row);
    for (text, codec) in [
        ("raw", Codec::raw()),
        ("dead-zone:1.25", Codec::dead_zone(1.25).unwrap()),
        ("dead-zone:0.001", Codec::dead_zone(1e-3).unwrap()),
        ("unbiased:8", Codec::unbiased(8.0).unwrap()),
        ("error:0.02", Codec::for_error(0.02).unwrap()),
        (
            "error:0.3,of=all",
            Codec::for_error(0.3).unwrap().with_energy(Energy::All),
        ),
        ("activation:0.2:8", Codec::activation(0.2, 8).unwrap()),
        ("gradient:0.2:8", Codec::gradient(0.2, 8).unwrap()),
        ("paper:1:256", Codec::paper(1.0, 256).unwrap()),
        ("paper:0.2:8,range=row", row(Codec::paper(0.2, 8).unwrap())),
        (
            "activation:0.2:8,range=row",
            row(Codec::activation(0.2, 8).unwrap()),
        ),
        (
            "gradient:0.2:8,range=tensor",
            Codec::gradient(0.2, 8).unwrap().with_range(Range::Tensor),
        ),
        (
            "dead-zone:4,non-finite=saturate",
            Codec::dead_zone(4.0)
                .unwrap()
                .with_non_finite(NonFinite::Saturate),
        ),
    ] {
        assert_eq!(codec.to_string(), text);
        assert_eq!(text.parse::<Codec>().unwrap(), codec, "{text}");
    }
}

#[test]
fn options_may_come_in_any_order_and_say_what_is_so_anyway() {
    for (text, canonical) in [
        ("paper:0.2:8,code=context", "gradient:0.2:8,range=tensor"),
        ("levels:8,keep=0.2", "activation:0.2:8"),
        ("activation:2e-1:8,range=tensor", "activation:0.2:8"),
        (
            "levels:8,rounding=nearest,row-keep=0.5,spacing=linear",
            "levels:8,row-keep=0.5,spacing=linear,rounding=nearest",
        ),
        ("f16,threshold=0.5", "f16,threshold=0.5"),
        ("dead-zone:1,keep=0.1", "dead-zone:1,keep=0.1"),
    ] {
        assert_eq!(text.parse::<Codec>().unwrap().to_string(), canonical);
    }
}

#[test]
fn errors_name_the_text_and_what_is_accepted() {
    for (text, expected) in [
        (
            "",
            "expected raw, dead-zone:STEP, error:MSE, unbiased:STEP, activation:KEEP:LEVELS, ",
        ),
        ("zip", "or exact, and then ,OPTION=VALUE"),
        ("raw:1", "expected raw, dead-zone:STEP"),
        ("dead_zone:1", "expected raw, dead-zone:STEP"),
        ("dead-zone", "expected raw, dead-zone:STEP"),
        ("dead-zone:x", "STEP must be a number, got \"x\""),
        ("dead-zone: 1", "STEP must be a number, got \" 1\""),
        ("dead-zone:0", "step must be in 0.001..=1000, got 0"),
        ("dead-zone:nan", "step must be in 0.001..=1000, got NaN"),
        ("paper:0.2:1", "levels must be in 2..=256, got 1"),
        ("paper:0.2:-1", "LEVELS must be a number, got \"-1\""),
        ("paper:1.5:8", "keep must be in (0, 1], got 1.5"),
        (
            "paper:0.2:8,keep=0.5",
            "keep has no place after paper:0.2:8",
        ),
        ("raw,code=context", "code has no place after raw"),
        ("f16,range=row", "range needs levels, not f16"),
        (
            "exact,code=golomb",
            "code golomb needs linearly spaced levels",
        ),
        (
            "exact,code=zip",
            "code must be context or golomb, got \"zip\"",
        ),
        ("exact,keep=1,threshold=1", "threshold is there twice"),
        ("exact,code", "code must be context or golomb, got \"\""),
        (
            "exact,size=3",
            "expected the options keep, row-keep, threshold, ",
        ),
        ("exact,", "or non-finite, got \"\""),
    ] {
        let error = text.parse::<Codec>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("codec {text:?}: ")),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_defaults_are_safe_for_any_model() {
    assert_eq!(Codec::default(), Codec::default_activation());
    assert_eq!(Codec::default_activation().config(), &Config::default());
    assert_eq!(Codec::default_activation().to_string(), "error:0.01");
    assert_eq!(Codec::default_gradient().to_string(), "unbiased:1");
    assert_eq!(Codec::default_adapter().to_string(), "unbiased:2");
    assert_eq!(Codec::vit_activation().to_string(), "dead-zone:1.25");
    assert_eq!(Codec::vit_gradient().to_string(), "error:0.25,of=all");
}

#[cfg(feature = "serde")]
#[test]
fn it_is_saved_as_its_spelling() {
    let codec = Codec::dead_zone(1.25).unwrap();
    assert_eq!(serde_json::to_value(codec).unwrap(), "dead-zone:1.25");
    let back: Codec = serde_json::from_value("dead-zone:1.25".into()).unwrap();
    assert_eq!(back, codec);
    let error = serde_json::from_value::<Codec>("zip".into()).unwrap_err();
    assert!(error.to_string().starts_with("codec \"zip\": expected raw"));
    assert!(serde_json::from_value::<Codec>(3.into()).is_err());
}

/// Every kind of codec that can be made.
fn any_codec() -> impl Strategy<Value = Codec> {
    let sparsify = prop_oneof![
        Just(Sparsify::None),
        (1e-9_f64..=1.0).prop_map(Sparsify::TopK),
        (1e-9_f64..=1.0).prop_map(Sparsify::RowTopK),
        (f32::from_bits(1)..f32::MAX).prop_map(Sparsify::Threshold),
    ];
    let levels = (2_u32..=256, any::<[bool; 3]>()).prop_map(|(count, [log, random, row])| {
        Quantize::Levels {
            count,
            spacing: [Spacing::Linear, Spacing::Log][usize::from(log)],
            rounding: [Rounding::Nearest, Rounding::Stochastic][usize::from(random)],
            range: [Range::Tensor, Range::Row][usize::from(row)],
        }
    });
    let quantize = prop_oneof![
        Just(Quantize::None),
        Just(Quantize::F16),
        levels,
        (1e-3_f64..=1e3).prop_map(|step| Quantize::DeadZone { step }),
        (1e-3_f64..=1e3).prop_map(|step| Quantize::Unbiased { step }),
        (1e-6_f64..=0.75).prop_map(|relative_mse| Quantize::Error {
            relative_mse,
            of: Energy::All,
        }),
    ];
    let code = prop::sample::select(vec![Code::None, Code::Golomb, Code::Context]);
    let non_finite = prop::sample::select(vec![NonFinite::Refuse, NonFinite::Saturate]);
    (sparsify, quantize, code, non_finite).prop_filter_map(
        "not a combination",
        |(sparsify, quantize, code, non_finite)| {
            let config = Config::default()
                .with_sparsify(sparsify)
                .with_quantize(quantize)
                .with_code(code)
                .with_non_finite(non_finite);
            Codec::new(config).ok()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_written_is_read_as_the_same(codec in any_codec()) {
        prop_assert_eq!(codec.to_string().parse::<Codec>().unwrap(), codec);
    }

    #[test]
    fn any_text_is_a_codec_or_an_error(text in "[a-z:=,.0-9-]{0,40}|(raw|f16|levels:8)(,[a-z-]{1,10}=[a-z0-9.]{0,4}){0,3}") {
        if let Ok(codec) = text.parse::<Codec>() {
            prop_assert_eq!(codec.to_string().parse::<Codec>().unwrap(), codec);
        }
    }
}
