//! Statistics and reproducibility of the channel.

use std::collections::HashSet;

use sft_opt::system::{Direction, Fading, random_clocks_hz, spectral_efficiency};

#[test]
fn gains_are_exponential() {
    let fading = Fading::new(11);
    for direction in [Direction::Uplink, Direction::Downlink] {
        let gains: Vec<f64> = (0..200)
            .flat_map(|n| (0..250).map(move |t| fading.gain(n, t, direction)))
            .collect();
        let count = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / count;
        let square = gains.iter().map(|g| g * g).sum::<f64>() / count;
        let above = gains.iter().filter(|&&g| g > 2.0).count() as f64 / count;
        // 50 000 draws: standard errors 0.0045, 0.02 and 0.0015.
        assert!((mean - 1.0).abs() < 0.02, "mean {mean}");
        assert!((square - 2.0).abs() < 0.1, "second moment {square}");
        assert!((above - (-2f64).exp()).abs() < 0.006, "tail {above}");
        assert!(gains.iter().all(|&g| g > 0.0 && g.is_finite()));
    }
}

#[test]
fn every_coordinate_has_its_own_draw() {
    let mut seen = HashSet::new();
    for seed in 0..3 {
        for device in 0..10 {
            for round in (0..10).chain([u64::MAX / 2, u64::MAX]) {
                for direction in [Direction::Uplink, Direction::Downlink] {
                    let gain = Fading::new(seed).gain(device, round, direction);
                    assert!(seen.insert(gain.to_bits()));
                }
            }
        }
    }
}

#[test]
fn draws_do_not_depend_on_threads() {
    let gain = |n: usize| Fading::new(5).gain(n, 9, Direction::Uplink);
    let here: Vec<f64> = (0..8).map(gain).collect();
    let handles: Vec<_> = (0..8)
        .rev()
        .map(|n| std::thread::spawn(move || gain(n)))
        .collect();
    let there: Vec<f64> = handles
        .into_iter()
        .rev()
        .map(|h| h.join().unwrap())
        .collect();
    assert_eq!(here, there);
}

#[test]
fn draws_stay_the_same_forever() {
    // Written down once: a change would change every recorded experiment.
    let gain = Fading::new(1).gain(2, 3, Direction::Downlink);
    let clock_hz = random_clocks_hz(3, 0.5e9..1.5e9, 1)[2];
    // The logarithm may differ in its last digit between platforms.
    assert!((gain / 2.454_044_575_940_703 - 1.0).abs() < 1e-15);
    assert!((clock_hz / 1_165_918_362.991_237_9 - 1.0).abs() < 1e-15);
}

#[test]
fn clocks_are_uniform_and_do_not_depend_on_their_number() {
    let clocks = random_clocks_hz(20_000, 0.5e9..1.5e9, 4);
    assert_eq!(clocks[..10], random_clocks_hz(10, 0.5e9..1.5e9, 4));
    let mean = clocks.iter().sum::<f64>() / 2e4;
    assert!((mean / 1e9 - 1.0).abs() < 0.01, "mean {mean}");
    let below = clocks.iter().filter(|&&f| f < 0.75e9).count() as f64 / 2e4;
    assert!((below - 0.25).abs() < 0.012, "lowest quarter {below}");
    assert!(clocks.iter().all(|f| (0.5e9..1.5e9).contains(f)));
}

#[test]
fn efficiency_keeps_its_digits_at_low_signal() {
    let (snr, gain) = (-100.0, 1e-5);
    let expected = 1e-15 / std::f64::consts::LN_2;
    assert!((spectral_efficiency(snr, gain) / expected - 1.0).abs() < 1e-12);
}
