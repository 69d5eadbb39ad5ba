"""The solver's conversions and errors; what it computes is tested in Rust."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sft

A_S = [1.0, 0.5, 2.0]
C = [3e6, 8e6, 1e6]
TOTAL_HZ = 4e6
ALLOCATORS = [
    functools.partial(sft.allocate_bandwidth, rule=rule)
    for rule in ("optimal", "even", "proportional", "random")
]
each_allocator = pytest.mark.parametrize("allocate", ALLOCATORS)


def delay_s(solution: sft.Solution) -> float:
    return float(np.max(np.array(A_S) + np.array(C) / solution.b_hz))


def test_exact_allocation_beats_the_baselines() -> None:
    best = sft.allocate_bandwidth(A_S, C, TOTAL_HZ)
    assert best.regime == "bandwidth"
    assert best.iterations > 0
    assert best.equality_feasible is True
    assert best.shadow_price_s_per_hz > 0
    assert best.tau_s == pytest.approx(delay_s(best), rel=1e-12)
    assert best.tau_minus_amax_s == pytest.approx(best.tau_s - max(A_S), rel=1e-12)
    assert best.used_hz == pytest.approx(TOTAL_HZ, rel=1e-12)
    for baseline in (
        sft.allocate_bandwidth(A_S, C, TOTAL_HZ, rule="even"),
        sft.allocate_bandwidth(A_S, C, TOTAL_HZ, rule="proportional"),
        sft.allocate_bandwidth(A_S, C, TOTAL_HZ, rule="random", seed=3),
    ):
        assert baseline.regime == "given"
        assert baseline.tau_s == pytest.approx(delay_s(baseline), rel=1e-12)
        assert baseline.tau_s > best.tau_s
        assert baseline.used_hz == pytest.approx(TOTAL_HZ, rel=1e-12)


def test_random_allocation_follows_the_seed() -> None:
    draw = functools.partial(sft.allocate_bandwidth, A_S, C, TOTAL_HZ, rule="random")
    first, again, other = (draw(seed=seed).b_hz.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert draw().b_hz.tolist() == draw(seed=0).b_hz.tolist()


@each_allocator
def test_caps_are_kept(allocate: Callable[..., sft.Solution]) -> None:
    caps = np.array([5e5, math.inf, 5e5])
    solution = allocate(A_S, C, TOTAL_HZ, caps)
    assert (solution.b_hz <= caps).all()
    assert solution.b_hz[0] == pytest.approx(5e5)


def test_no_demand_and_infeasible_are_regimes() -> None:
    idle = sft.allocate_bandwidth([1.0, 2.0], [0.0, 0.0], 1e6)
    assert (idle.regime, idle.tau_s) == ("no_demand", 2.0)
    starved = sft.allocate_bandwidth([1.0], [1.0], 0.0)
    assert (starved.regime, starved.tau_s) == ("infeasible", math.inf)
    capped = sft.allocate_bandwidth([0.0], [1e6], 1e6, [1e5])
    assert (capped.regime, capped.tau_s) == ("cap_or_floor", 10.0)
    assert capped.equality_feasible is False


@each_allocator
@pytest.mark.parametrize(
    "convert",
    [
        tuple,
        np.array,
        lambda values: np.array(values, dtype=np.float32),
        lambda values: np.array(values, dtype=np.int64),
        lambda values: np.repeat(np.array(values, dtype=float), 2)[::2],
    ],
)
def test_every_sequence_of_numbers_is_accepted(
    allocate: Callable[..., sft.Solution], convert: Callable[[list[float]], Any]
) -> None:
    a_s, cap_hz = [1.0, 0.0, 2.0], [1e6, 2e6, 1e6]
    expected = allocate(a_s, C, 4_000_000, cap_hz)
    solution = allocate(convert(a_s), convert(C), np.float64(TOTAL_HZ), cap_hz=convert(cap_hz))
    assert solution.b_hz.tolist() == expected.b_hz.tolist()


@each_allocator
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"a_s": []}, "no devices"),
        ({"a_s": [1.0, -1.0, 0.0]}, r"a_s\[1\] is -1"),
        ({"a_s": [1.0, None, 0.0]}, r"a_s\[1\] is NaN"),
        ({"a_s": [A_S, A_S]}, "a_s must have one dimension, got 2"),
        ({"a_s": 1.0}, "a_s must have one dimension, got 0"),
        ({"c_bits_per_bps_hz": [1.0]}, "c_bits_per_bps_hz has 1 entries, expected 3"),
        ({"total_hz": math.inf}, "total_hz is inf"),
        ({"cap_hz": [1.0, math.nan, 1.0]}, r"cap_hz\[1\] is NaN"),
    ],
)
def test_bad_values_are_named(
    allocate: Callable[..., sft.Solution], arguments: dict[str, Any], message: str
) -> None:
    good = {"a_s": A_S, "c_bits_per_bps_hz": C, "total_hz": TOTAL_HZ}
    with pytest.raises(ValueError, match=message):
        allocate(**good | arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a_s", ["slow", "fast", "x"]),
        ("a_s", [[1.0], [1.0, 2.0]]),
        ("c_bits_per_bps_hz", {"a": 1.0}),
        ("cap_hz", "none"),
    ],
)
def test_other_objects_are_type_errors(name: str, value: Any) -> None:
    good: dict[str, Any] = {"a_s": A_S, "c_bits_per_bps_hz": C, "total_hz": TOTAL_HZ}
    with pytest.raises(TypeError, match=f"{name} must be a sequence of numbers"):
        sft.allocate_bandwidth(**good | {name: value})


def test_rule_and_seed_are_keyword_only_and_checked() -> None:
    with pytest.raises(TypeError, match="positional"):
        sft.allocate_bandwidth(A_S, C, TOTAL_HZ, None, "even")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"seed must be in 0\.\.2\*\*64, got -1"):
        sft.allocate_bandwidth(A_S, C, TOTAL_HZ, rule="random", seed=-1)
    with pytest.raises(ValueError, match=r"rule must be one of 'optimal', .*, got 'best'"):
        sft.allocate_bandwidth(A_S, C, TOTAL_HZ, rule="best")  # type: ignore[arg-type]


def test_two_pools_meet_their_caps_and_totals() -> None:
    caps = ([1e6, math.inf], None)
    demands = ([2e6, 3e6], [1e12, 4e12])
    solution = sft.allocate_two_pools([1.0, 0.5], demands, (4e6, 5e12), caps)
    assert solution.regime == "bandwidth"
    assert solution.shares.sum(axis=1) == pytest.approx([4e6, 5e12], rel=1e-9)
    assert solution.shares[0, 0] <= 1e6
    delay_s = np.array([1.0, 0.5]) + (np.array(demands) / solution.shares).sum(axis=0)
    assert delay_s.max() == pytest.approx(solution.tau_s, rel=1e-9)
    free = sft.allocate_two_pools([1.0, 0.5], demands, (4e6, 5e12))
    assert free.tau_s < solution.tau_s
    with pytest.raises(ValueError, match="read-only"):
        solution.shares[0, 0] = 0
    with pytest.raises(TypeError, match=r"demands\[1\] must be a sequence of numbers"):
        sft.allocate_two_pools([1.0], ([1.0], "x"), (1.0, 1.0))


def test_solution_is_frozen() -> None:
    solution: Any = sft.allocate_bandwidth(A_S, C, TOTAL_HZ)
    with pytest.raises(AttributeError):
        solution.tau_s = 0.0
    with pytest.raises(ValueError, match="read-only"):
        solution.b_hz[0] = 0.0


def test_solution_repr_names_every_field() -> None:
    solution = sft.allocate_bandwidth([10.0, 0.0], [2e6, 24e6], 3e6)
    fields: dict[str, Any] = eval(
        repr(solution), {"Solution": dict, "array": np.array, "inf": math.inf}
    )
    b_hz = fields.pop("b_hz")
    np.testing.assert_allclose(b_hz, solution.b_hz, rtol=1e-8)
    assert fields == {name: getattr(solution, name) for name in fields}
    public = {name for name in dir(solution) if not name.startswith("_")}
    assert public == {*fields, "b_hz"}
