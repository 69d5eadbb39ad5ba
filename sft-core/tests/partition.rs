//! How training data is spread over devices.

mod common;

use common::InMemory;
use sft_core::data::{Data, Partition};

#[test]
fn every_example_goes_to_one_device_and_every_device_gets_one() {
    let data = InMemory::new(30, 3, 1);
    for partition in [
        Partition::Iid,
        Partition::Dirichlet(0.5),
        Partition::Dirichlet(1e-3),
        Partition::Shards(1),
    ] {
        for devices in [1, 2, 7, 30] {
            for seed in 0..20 {
                let parts = partition.split(&data, devices, seed).unwrap();
                assert!(
                    parts.iter().all(|part| !part.is_empty()),
                    "{partition} {devices}"
                );
                let mut all = parts.concat();
                all.sort_unstable();
                assert_eq!(all, (0..30).collect::<Vec<_>>());
                assert_eq!(parts, partition.split(&data, devices, seed).unwrap());
                if partition == Partition::Iid {
                    let sizes = parts.iter().map(Vec::len);
                    assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
                }
            }
        }
    }
}

/// With a large concentration every device sees the classes as they are, with a small one not.
#[test]
fn concentration_decides_how_uneven_the_classes_are() {
    let data = InMemory::new(300, 3, 1);
    let unevenness = |concentration| {
        let parts = Partition::Dirichlet(concentration)
            .split(&data, 4, 1)
            .unwrap();
        let largest = |part: &Vec<usize>| {
            let count = |class| part.iter().filter(|&&i| data.label(i) == class).count();
            (0..3).map(count).max().unwrap() as f64 / part.len() as f64
        };
        parts.iter().map(largest).sum::<f64>() / 4.0
    };
    assert!(unevenness(1e3) < 0.40, "{}", unevenness(1e3));
    assert!(unevenness(0.05) > 0.70, "{}", unevenness(0.05));
}

#[test]
fn partitions_that_cannot_be_made_are_refused() {
    let data = InMemory::new(5, 3, 1);
    let error =
        |partition: Partition, devices| partition.split(&data, devices, 0).unwrap_err().to_string();
    assert_eq!(
        error(Partition::Iid, 0),
        "devices must be at least 1, got 0"
    );
    let many = "devices must be at most the 5 training samples, got 6";
    assert_eq!(error(Partition::Iid, 6), many);
    for concentration in [0.0, -1.0, f64::NAN] {
        let error = error(Partition::Dirichlet(concentration), 2);
        assert!(
            error.starts_with("partition needs a positive number"),
            "{error}"
        );
    }
    for text in [
        "",
        "iid:1",
        "dirichlet",
        "dirichlet:0",
        "dirichlet:x",
        "dirichlet:inf",
    ] {
        assert!(text.parse::<Partition>().is_err(), "{text}");
    }
    assert_eq!("dirichlet:0.5".parse(), Ok(Partition::Dirichlet(0.5)));
    for text in ["shards", "shards:0", "shards:-1", "shards:x"] {
        assert!(text.parse::<Partition>().is_err(), "{text}");
    }
    assert_eq!("shards:2".parse(), Ok(Partition::Shards(2)));
    let message = "partition needs 1 to 5 shards in all, got 3 on 2 devices";
    assert_eq!(error(Partition::Shards(3), 2), message);
    assert!(error(Partition::Shards(0), 2).starts_with("partition needs 1 to 5"));
}

/// With as many shards as classes in all, and classes of one size, a shard is a class.
#[test]
fn shards_hold_one_class_each() {
    let data = InMemory::new(300, 3, 1);
    for (devices, each) in [(3, 1), (1, 3)] {
        let parts = Partition::Shards(each).split(&data, devices, 4).unwrap();
        for part in parts {
            let mut classes: Vec<u32> = part.iter().map(|&i| data.label(i)).collect();
            classes.dedup();
            assert_eq!((part.len(), classes.len()), (300 / devices, each));
        }
    }
}
