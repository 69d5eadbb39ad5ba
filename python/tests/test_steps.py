"""Codecs with one knob from Python: curves, their fit and the solvers; the mathematics is in Rust."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sft

SYSTEM = sft.System(
    total_hz=30e6,
    devices=sft.Device.many(4, clock_hz=np.linspace(0.5e9, 1.5e9, 4)),
    server=sft.Server(model="even"),
)
ACCURACY = sft.StepCurve(step=[0.3, 1.0, 3.0], value=[0.93, 0.92, 0.8])
RATE = sft.StepCurve(step=[0.2, 1.0, 5.0], value=[0.04, 0.02, 0.01])
WANTED = sft.StepCompression(accuracy=ACCURACY, accuracy_min=0.9, rate=RATE)


def test_the_coarsest_step_that_is_accurate_enough_is_chosen() -> None:
    plan = sft.optimize(SYSTEM, WANTED)
    # No step of a fine grid with enough accuracy has fewer bits.
    steps = np.geomspace(0.3, 3.0, 20_001)
    enough = steps[ACCURACY(steps) >= 0.9]
    assert plan.setting.step == pytest.approx(enough[-1], rel=2e-4)
    assert plan.setting.step >= enough[-1]
    assert plan.setting.beta == pytest.approx(RATE(plan.setting.step), rel=1e-12)
    assert plan.setting.accuracy == pytest.approx(0.9, rel=1e-12)
    # What the plan takes is what a setting with its rate takes.
    fixed = sft.optimize(SYSTEM, sft.Setting(keep=1.0, bits=1, beta=plan.setting.beta))
    assert plan.cut == fixed.cut
    assert plan.tau_s == pytest.approx(fixed.tau_s, rel=1e-12)
    assert sft.optimize(SYSTEM, dataclasses.asdict(WANTED)) == plan
    arrays = {"step": np.array(ACCURACY.step), "value": np.array(ACCURACY.value)}
    assert sft.optimize(SYSTEM, dataclasses.replace(WANTED, accuracy=arrays)) == plan
    assert plan.summary().startswith(f"cut layer {plan.cut}, step 1.2, accuracy 90.0%")


def test_every_solver_takes_steps_that_takes_one_setting_for_all() -> None:
    plan = sft.optimize(SYSTEM, WANTED)
    cuts = sft.optimize_device_cuts(SYSTEM, WANTED)
    assert cuts.setting == plan.setting
    assert cuts.tau_s <= plan.tau_s * (1 + 1e-12)
    steered = sft.two_timescale(SYSTEM, WANTED, rounds=3)
    assert steered.configuration == plan
    predicted = sft.predict(SYSTEM, plan=plan, rounds=3)
    assert predicted.round_s[2] == pytest.approx(plan.tau_s, rel=1e-9)
    with pytest.raises(TypeError, match="kept fractions and bits here, got one of steps"):
        sft.optimize_device_compression(SYSTEM, WANTED)  # type: ignore[arg-type]


def test_an_accuracy_out_of_reach_is_told() -> None:
    with pytest.raises(sft.SolverError) as caught:
        sft.optimize(SYSTEM, dataclasses.replace(WANTED, accuracy_min=0.95))
    assert caught.value.constraint == "accuracy"


def test_the_fit_pools_what_is_in_the_wrong_order() -> None:
    fit = sft.fit_steps([2.0, 0.2, 0.5, 0.2], [0.8, 0.9, 0.95, 0.94])
    assert fit.curve.step == [0.2, 0.5, 2.0]
    assert fit.curve.value == pytest.approx([0.93, 0.93, 0.8])
    np.testing.assert_allclose(fit.residuals, [0, 0.03, -0.02, -0.01], atol=1e-15)
    assert fit.max_error == pytest.approx(0.03)
    assert fit.rmse == pytest.approx(np.sqrt(np.mean(fit.residuals**2)))


def test_a_curve_has_the_shape_of_its_steps() -> None:
    assert ACCURACY(1.0) == 0.92
    assert ACCURACY([[0.3], [3.0]]).tolist() == [[0.93], [0.8]]
    assert np.isnan(ACCURACY([0.1, 4.0])).all()


def wanted(**changes: Any) -> sft.StepCompression:
    """Return the problem with other fields."""
    return dataclasses.replace(WANTED, **changes)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: sft.fit_steps([1.0], [0.5]), ValueError, "two different steps"),
        (lambda: sft.fit_steps([1.0, 0.0], [0.5, 0.5]), ValueError, r"points.step\[1\] is 0"),
        (lambda: sft.fit_steps([1.0, 2.0], [0.5]), ValueError, "value has 1 entries, expected 2"),
        (lambda: sft.fit_steps(["a"], [0.5]), TypeError, "step must be a sequence of numbers"),
        (
            lambda: sft.StepCurve(step=[1.0, 1.0], value=[1.0, 1.0])(1.0),
            ValueError,
            r"curve: step\[1\] is 1, expected finite, positive and ascending",
        ),
        (
            lambda: sft.optimize(SYSTEM, wanted(rate={"step": [0.5, 1], "value": [0.1, 0.2]})),
            ValueError,
            r"compression.rate: value\[1\] is 0.2, expected finite and at most the value before",
        ),
        (
            lambda: sft.optimize(SYSTEM, wanted(rate={"step": [9], "value": [0.1]})),
            ValueError,
            "is 9, expected at most the last of both",
        ),
        (
            lambda: sft.optimize(SYSTEM, wanted(accuracy={"terms": []})),
            ValueError,
            "compression.accuracy",
        ),
        (
            lambda: sft.optimize(SYSTEM, {**dataclasses.asdict(WANTED), "keep_min": 0.1}),
            ValueError,
            "keep_min",
        ),
    ],
)
def test_mistakes_name_the_argument(
    call: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call()
