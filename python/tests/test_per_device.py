"""Cuts and compression of their own for every device, and the two timescales, from Python."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import sft

CLOCKS_HZ = np.linspace(0.5e9, 1.5e9, 8)
EVEN = sft.System(
    total_hz=30e6,
    devices=sft.Device.many(8, clock_hz=CLOCKS_HZ, samples=np.arange(1, 9) * 100),
    server=sft.Server(model="even"),
)
SURFACE = sft.Accuracy(terms=[sft.Term(0, 0, 0.9), sft.Term(1, 0, 0.02)])
WANTED = sft.Compression(accuracy=SURFACE, accuracy_min=0.85)


@pytest.mark.parametrize("model", ["per_device", "even", "optimal_share"])
def test_cuts_of_their_own_are_no_slower_than_a_common_one(model: Any) -> None:
    # A server this slow is worth avoiding, by the devices that can.
    server = sft.Server(model=model, clock_hz=3e7)
    devices = sft.Device.many(4, memory_bytes=[2**30, 2**33, 2**33, 2**33], clock_hz=5e9)
    system = dataclasses.replace(EVEN, server=server, devices=devices)
    best, common = sft.optimize_device_cuts(system), sft.optimize(system)
    assert best.bound_s <= best.tau_s < common.tau_s
    assert best.cuts[0] < best.cuts[1]
    assert best.cuts.dtype == np.int64
    assert best.b_hz.sum() == pytest.approx(30e6, rel=1e-6)
    assert (best.server_flop_per_s is not None) == (model == "optimal_share")
    assert best.setting == common.setting
    assert len(best.summary().splitlines()) == 3 + 4
    assert "<table>" in best._repr_html_()
    for array in (best.cuts, best.b_hz):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        best.tau_s = 0.0  # type: ignore[misc]


def test_compressions_of_their_own_keep_the_mean_accuracy() -> None:
    best, common = sft.optimize_device_compression(EVEN, WANTED), sft.optimize(EVEN, WANTED)
    assert best.bound_s <= best.tau_s <= common.tau_s
    samples = np.arange(1, 9) * 100
    accuracy = [setting.accuracy for setting in best.settings]
    assert np.average(accuracy, weights=samples) >= 0.85 - 1e-9  # type: ignore[arg-type]
    equal = sft.optimize_device_compression(EVEN, dataclasses.asdict(WANTED), samples)
    assert equal == best
    other = sft.optimize_device_compression(EVEN, WANTED, weights=samples[::-1])
    assert other != best
    assert best.summary().count("\n") == 2 + 8
    assert "<table>" in best._repr_html_()


def test_two_timescales_are_the_plan_and_its_prediction() -> None:
    run = sft.two_timescale(EVEN, rounds=4, fading_seed=3)
    assert run.configuration == sft.optimize(EVEN)
    predicted = sft.predict(EVEN, plan=run.configuration, rounds=4, fading_seed=3)
    np.testing.assert_allclose(run.rounds_s, predicted.round_s, rtol=1e-12)
    assert run.total_s == run.rounds_s.sum()
    p1 = sft.two_timescale(EVEN, WANTED, assumption="even", rounds=1)
    assert p1.configuration.b_hz.tolist() == [30e6 / 8] * 8
    assert p1.configuration.tau_s >= sft.optimize(EVEN, WANTED).tau_s
    assert p1.configuration.tau_s in [cut.tau_s for cut in p1.configuration.cuts]
    assert "whole training, s" in p1.summary()
    assert p1._repr_html_().count("<table>") == 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: sft.optimize_device_cuts(dataclasses.replace(EVEN, server={})),
            ValueError,
            "server model is sequential, expected per_device, even or optimal_share",
        ),
        (
            lambda: sft.optimize_device_compression(EVEN, WANTED, [1.0]),
            ValueError,
            "weights has 1 entries, expected 8",
        ),
        (
            lambda: sft.optimize_device_compression(EVEN, WANTED, "x"),
            TypeError,
            "weights must be a sequence of numbers",
        ),
        (
            lambda: sft.optimize_device_compression(
                EVEN, dataclasses.replace(WANTED, accuracy_min=2.0)
            ),
            sft.SolverError,
            "accurate enough",
        ),
        (
            lambda: sft.two_timescale(EVEN, assumption="odd"),  # type: ignore[call-overload]
            ValueError,
            "assumption must be one of 'joint', 'even', got 'odd'",
        ),
        (lambda: sft.two_timescale(EVEN, rounds=0), ValueError, "rounds is empty"),
        (lambda: sft.two_timescale(EVEN, rounds=-1), ValueError, "rounds must be in"),
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
