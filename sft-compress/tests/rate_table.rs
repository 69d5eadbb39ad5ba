//! A rate table saved as JSON, and what is refused of it.
#![cfg(feature = "serde")]

use serde_json::{Value, from_value, json, to_value};
use sft_compress::{Codec, RateTable, TensorView, measure};

const KEEP: [f64; 3] = [0.05, 0.2, 1.0];
const LEVELS: [u32; 2] = [4, 16];

fn samples() -> [Vec<f32>; 2] {
    [1, 2].map(|seed| {
        let noise = |i: u32| (i * seed).wrapping_mul(0x9e37_79b9) >> 12;
        (0..4096)
            .map(|i| (noise(i) as f32 / 5e5 - 1.0).powi(3))
            .collect()
    })
}

fn table() -> RateTable {
    let samples = samples();
    let views = [
        TensorView::new(&samples[0], &[64, 64]).unwrap(),
        TensorView::new(&samples[1][..1024], &[16, 64]).unwrap(),
    ];
    RateTable::measure(&views, Codec::activation, &KEEP, &LEVELS).unwrap()
}

#[test]
fn a_table_is_what_measuring_each_setting_gives() {
    let (table, samples) = (table(), samples());
    for keep in KEEP {
        for levels in LEVELS {
            let codec = Codec::activation(keep, levels).unwrap();
            let first = TensorView::new(&samples[0], &[64, 64]).unwrap();
            let second = TensorView::new(&samples[1][..1024], &[16, 64]).unwrap();
            let measured = [
                measure(codec, first, 0).unwrap(),
                measure(codec, second, 1).unwrap(),
            ];
            let bytes: usize = measured.iter().map(|m| m.bytes).sum();
            let rate = table.rate(keep, levels).unwrap();
            assert!((rate - bytes as f64 / (4.0 * 5120.0)).abs() < 1e-12);
            let error = 0.8 * measured[0].relative_mse + 0.2 * measured[1].relative_mse;
            assert!((table.relative_mse(keep, levels).unwrap() - error).abs() < 1e-12);
        }
    }
}

#[test]
fn json_gives_the_same_table_back() {
    let table = table();
    let text = serde_json::to_string(&table).unwrap();
    let back: RateTable = serde_json::from_str(&text).unwrap();
    assert_eq!(back, table);
    assert_eq!(back.best(0.05), table.best(0.05));
    let Value::Object(fields) = to_value(&table).unwrap() else {
        panic!("not an object: {text}")
    };
    let names: Vec<&String> = fields.keys().collect();
    assert_eq!(names, ["keep", "levels", "rate", "relative_mse"]);
}

#[test]
fn json_that_is_no_table_is_refused() {
    let refused = |field: &str, value: Value| {
        let mut table = to_value(table()).unwrap();
        table[field] = value;
        from_value::<RateTable>(table).unwrap_err().to_string()
    };
    for keep in [
        json!([]),
        json!([0.2, 0.05, 1.0]),
        json!([0.2, 0.2, 1.0]),
        json!([0.0, 0.2, 1.0]),
        json!([0.05, 0.2, 1.5]),
    ] {
        let message = refused("keep", keep);
        assert!(
            message.starts_with("keep must be in (0, 1] and ascending, got ["),
            "{message}"
        );
    }
    for levels in [
        json!([]),
        json!([16, 4]),
        json!([4, 4]),
        json!([1, 16]),
        json!([4, 257]),
    ] {
        let message = refused("levels", levels);
        assert!(
            message.starts_with("levels must be in 2..=256 and ascending, got ["),
            "{message}"
        );
    }
    for field in ["rate", "relative_mse"] {
        for rows in [
            json!([]),
            json!([[0.1, 0.2, 0.3]]),
            json!([[0.1, 0.2, 0.3], [0.1, 0.2]]),
            json!([[0.1, 0.2, 0.3], [0.1, -0.2, 0.3]]),
        ] {
            assert_eq!(
                refused(field, rows),
                format!("{field} must hold 2 rows of 3 finite numbers of at least 0")
            );
        }
        // JSON has no NaN: serializers write null.
        assert!(refused(field, json!([[0.1, 0.2, 0.3], [0.1, null, 0.3]])).contains("null"));
    }
    assert!(refused("colour", json!(1)).contains("unknown field"));
    let huge = r#"{"keep": [0.5], "levels": [4], "rate": [[1e999]], "relative_mse": [[0.1]]}"#;
    assert!(serde_json::from_str::<RateTable>(huge).is_err());
    assert!(serde_json::from_str::<RateTable>(r#"{"keep": [0.5]}"#).is_err());
    assert!(serde_json::from_str::<RateTable>("[]").is_err());
}
