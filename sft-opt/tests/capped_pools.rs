//! Two pools with caps: against a search over the first pool, optimality conditions, limits.

#![allow(clippy::float_cmp, reason = "limits are exact")]

mod common;

use common::joint::Rng;
use sft_opt::bandwidth::{Regime, Shares, TwoPools, allocate_two_pools};
use sft_opt::system::ServerModel;
use sft_opt::{
    Constraint, Device, Placement, Problem, Round, Server, Solution, System, Training, Transformer,
    allocate_bandwidth,
};

struct Instance {
    a_s: Vec<f64>,
    demands: [Vec<f64>; 2],
    totals: [f64; 2],
    caps: [Vec<f64>; 2],
}

impl Instance {
    /// Caps from a fifth of an even share to far above the pool, or none.
    fn random(rng: &mut Rng, n: usize) -> Self {
        let mut list = |low, high| (0..n).map(|_| rng.decades(low, high)).collect::<Vec<_>>();
        let a_s = list(0.0, 3.0);
        let demands = [list(6.0, 9.0), list(10.0, 13.0)];
        let totals = [rng.decades(5.0, 7.0), rng.decades(9.0, 11.0)];
        let mut caps = |total: f64| -> Vec<f64> {
            let even = total / n as f64;
            (0..n)
                .map(|_| match rng.uniform() {
                    x if x < 0.2 => f64::INFINITY,
                    _ => even * rng.decades(-0.7, 1.0),
                })
                .collect()
        };
        let caps = totals.map(&mut caps);
        Self {
            a_s,
            demands,
            totals,
            caps,
        }
    }

    fn problem(&self) -> TwoPools<'_> {
        TwoPools {
            a_s: &self.a_s,
            demands: [&self.demands[0], &self.demands[1]],
            totals: self.totals,
            caps: [Some(&self.caps[0]), Some(&self.caps[1])],
        }
    }

    fn solve(&self) -> Solution<Shares> {
        allocate_two_pools(&self.problem()).unwrap()
    }

    /// Delay when the first pool is shared as `x`: the second then is P2 with caps.
    fn with_first(&self, x: &[f64]) -> f64 {
        let a_s: Vec<f64> = (0..x.len())
            .map(|n| self.a_s[n] + self.demands[0][n] / x[n])
            .collect();
        let problem = Problem {
            a_s: &a_s,
            c_bits_per_bps_hz: &self.demands[1],
            total_hz: self.totals[1],
            cap_hz: Some(&self.caps[1]),
        };
        allocate_bandwidth(&problem).unwrap().tau_s
    }

    /// Time that device `n` takes with its shares.
    fn time(&self, solution: &Solution<Shares>, n: usize) -> f64 {
        let part = |k: usize| match self.demands[k][n] {
            0.0 => 0.0,
            demand => demand / solution.value.shares[k][n],
        };
        self.a_s[n] + part(0) + part(1)
    }
}

/// Least value of a convex function between `low` and `high`.
fn least(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..120 {
        let (left, right) = ((2.0 * low + high) / 3.0, (low + 2.0 * high) / 3.0);
        if f(left) <= f(right) {
            high = right;
        } else {
            low = left;
        }
    }
    f(f64::midpoint(low, high))
}

#[test]
fn agrees_with_a_search_over_two_devices() {
    let mut rng = Rng(61);
    for case in 0..300 {
        let instance = Instance::random(&mut rng, 2);
        let solution = instance.solve();
        let (total, caps) = (instance.totals[0], &instance.caps[0]);
        // Whatever the first device leaves goes to the second, up to its cap.
        let high = caps[0].min(total * (1.0 - 1e-12));
        let searched = least(0.0, high, |x| {
            instance.with_first(&[x.max(1e-12 * total), caps[1].min(total - x)])
        });
        let gap = solution.tau_s / searched - 1.0;
        assert!(gap.abs() < 1e-8, "{case}: {gap:e}");
    }
}

#[test]
fn agrees_with_a_nested_search_over_three_devices() {
    let mut rng = Rng(62);
    for case in 0..5 {
        let instance = Instance::random(&mut rng, 3);
        let (total, caps) = (instance.totals[0], &instance.caps[0]);
        let tiny = 1e-12 * total;
        let searched = least(0.0, caps[0].min(total), |x| {
            least(0.0, caps[1].min(total - x), |y| {
                let rest = caps[2].min(total - x - y).max(tiny);
                instance.with_first(&[x.max(tiny), y.max(tiny), rest])
            })
        });
        let gap = instance.solve().tau_s / searched - 1.0;
        assert!(gap.abs() < 1e-8, "{case}: {gap:e}");
    }
}

/// The problem is convex: nobody late and no bound broken, everybody on time with both pools
/// used up, and one price ratio, which only caps may shift the right way, prove the optimum.
fn check_conditions(instance: &Instance, solution: &Solution<Shares>) {
    let n = instance.a_s.len();
    let below_cap =
        |k: usize, n: usize| solution.value.shares[k][n] < instance.caps[k][n] * (1.0 - 1e-9);
    for k in 0..2 {
        let sum: f64 = solution.value.shares[k].iter().sum();
        assert!(sum <= instance.totals[k] * (1.0 + 1e-9));
        let over = |n: usize| solution.value.shares[k][n] > instance.caps[k][n] * (1.0 + 1e-12);
        assert!(!(0..n).any(over));
    }
    for n in 0..n {
        let late = instance.time(solution, n) / solution.tau_s - 1.0;
        assert!(late <= 1e-9, "device {n} is late by {late:e}");
    }
    if solution.value.regime == Some(Regime::CapOrFloor) {
        let at_caps = |n: usize| {
            let early = 1.0 - instance.time(solution, n) / solution.tau_s;
            !below_cap(0, n) && !below_cap(1, n) && early.abs() < 1e-9
        };
        assert!((0..n).any(at_caps));
        return;
    }
    // What a second of device n costs in the first pool, over what it costs in the second.
    let ratio = |n: usize| {
        let marginal = |k: usize| solution.value.shares[k][n].powi(2) / instance.demands[k][n];
        marginal(0) / marginal(1)
    };
    let both_free = |&n: &usize| below_cap(0, n) && below_cap(1, n);
    let free: Vec<f64> = (0..n).filter(both_free).map(ratio).collect();
    let (low, high) = (
        free.iter().copied().fold(f64::INFINITY, f64::min),
        free.iter().copied().fold(0.0, f64::max),
    );
    if free.is_empty() {
        return;
    }
    assert!(high / low - 1.0 < 1e-5, "prices {low:e} to {high:e}");
    for n in 0..n {
        // At the cap of the first pool a device has less of it than it would take.
        assert!(below_cap(0, n) || ratio(n) <= high * (1.0 + 1e-5));
        assert!(below_cap(1, n) || ratio(n) >= low * (1.0 - 1e-5));
    }
    let used = |k: usize| solution.value.shares[k].iter().sum::<f64>() / instance.totals[k];
    // Near a corner of two caps the last bit of the delay moves the second pool by 1e-6.
    let unused = (1.0 - used(0)).max(1e-5 * (1.0 - used(1)));
    assert!(unused < 1e-9, "{unused:e}");
}

#[test]
fn optimality_conditions_hold() {
    let mut rng = Rng(63);
    let (mut pools, mut caps) = (0, 0);
    for case in 0..400 {
        let n = rng.count(1, 60);
        let mut instance = Instance::random(&mut rng, n);
        if case % 2 == 0 {
            // Wide caps, of which only some bind.
            let widen = |cap: &mut f64| *cap *= 8.0;
            instance.caps.iter_mut().flatten().for_each(widen);
        }
        let solution = instance.solve();
        match solution.value.regime {
            Some(Regime::Bandwidth) => pools += 1,
            _ => caps += 1,
        }
        check_conditions(&instance, &solution);
    }
    println!("{pools} fixed by the pools, {caps} by a device at its caps");
    assert!(pools > 50 && caps > 50);
}

#[test]
fn caps_that_do_not_bind_change_nothing() {
    let mut rng = Rng(64);
    for _ in 0..50 {
        let mut instance = Instance::random(&mut rng, 5);
        instance.caps = instance.totals.map(|total| vec![total; 5]);
        let free = TwoPools {
            caps: [None; 2],
            ..instance.problem()
        };
        assert_eq!(instance.solve(), allocate_two_pools(&free).unwrap());
    }
}

#[test]
fn one_pool_with_caps_is_p2_with_caps() {
    let mut rng = Rng(65);
    for _ in 0..200 {
        let n = rng.count(1, 30);
        let mut instance = Instance::random(&mut rng, n);
        instance.demands[1].fill(0.0);
        let single = Problem {
            a_s: &instance.a_s,
            c_bits_per_bps_hz: &instance.demands[0],
            total_hz: instance.totals[0],
            cap_hz: Some(&instance.caps[0]),
        };
        let single = allocate_bandwidth(&single).unwrap();
        let solution = instance.solve();
        let error = solution.tau_s / single.tau_s - 1.0;
        assert!(error.abs() < 1e-12, "{error:e}");
        assert_eq!(solution.value.regime, single.value.regime);
    }
}

#[test]
fn limits_and_mistakes() {
    let problem = TwoPools {
        a_s: &[0.0, 50.0],
        demands: [&[4.0, 0.0], &[2.0, 0.0]],
        totals: [10.0, 10.0],
        caps: [Some(&[1.0, 0.0]), Some(&[0.5, 0.0])],
    };
    // Device 0 alone takes 8 s at its caps; device 1 asks nothing and starts at 50 s.
    let solution = allocate_two_pools(&problem).unwrap();
    assert_eq!(
        (solution.value.regime, solution.tau_s),
        (Some(Regime::CapOrFloor), 50.0)
    );
    let early = TwoPools {
        a_s: &[0.0, 1.0],
        ..problem
    };
    let solution = allocate_two_pools(&early).unwrap();
    assert_eq!(solution.value.regime, Some(Regime::CapOrFloor));
    assert!((solution.tau_s - 8.0).abs() < 1e-13);
    assert!((solution.value.shares[0][0] - 1.0).abs() < 1e-13);
    let dead = TwoPools {
        caps: [None, Some(&[0.0, 1.0])],
        ..problem
    };
    let solution = allocate_two_pools(&dead).unwrap();
    assert_eq!(
        (solution.status.constraint(), solution.tau_s),
        (Some(Constraint::Bandwidth), f64::INFINITY)
    );
    for (caps, message) in [
        (
            [Some(&[-1.0, 1.0][..]), None],
            "caps[0][0] is -1, expected at least 0",
        ),
        (
            [None, Some(&[1.0, f64::NAN][..])],
            "caps[1][1] is NaN, expected at least 0",
        ),
        (
            [None, Some(&[1.0][..])],
            "caps[1] has 1 entries, expected 2: one per device",
        ),
    ] {
        let wrong = TwoPools { caps, ..problem };
        assert_eq!(allocate_two_pools(&wrong).unwrap_err().to_string(), message);
    }
}

#[test]
fn caps_of_a_system_reach_its_pools() {
    let mut server = Server::default();
    server.model = ServerModel::OptimalShare;
    let device = |cap_hz| {
        let mut device = Device::default();
        device.cap_hz = cap_hz;
        device
    };
    let devices = vec![device(Some(1e6)), device(None)];
    let model = Transformer::vit_base(10);
    let system = System::new(model, Training::default(), server, devices, 30e6).unwrap();
    let placement = Placement::Split { cut: 3 };
    let (links, payloads) = (
        system.links(),
        system
            .payloads(&system.everywhere(placement), 0.1, false)
            .unwrap(),
    );
    let round = Round {
        placements: &system.everywhere(placement),
        links: &links,
        payloads: &payloads,
    };
    let pools = system.server_pools(&round).unwrap();
    let solution = allocate_two_pools(&pools.problem()).unwrap();
    assert!(solution.value.shares[0][0] <= 1e6);
    let [b_hz, shares] = &solution.value.shares;
    let delay = system.shared_delay(&round, b_hz, shares).unwrap();
    assert!((delay.total_s / solution.tau_s - 1.0).abs() < 1e-12);
    let duplex = system.duplex_pools(&round, 30e6, 30e6);
    // Duplex bands need a server whose shares are fixed.
    assert!(duplex.is_err());
    let joint = system.joint_problem(&links, false).unwrap();
    assert_eq!(joint.cap_hz, Some(vec![1e6, f64::INFINITY]));
}
