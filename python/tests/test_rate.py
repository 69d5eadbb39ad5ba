"""Rate tables: measured through any codec, saved as JSON."""

import json
import pickle

import numpy as np
import pytest

import sft

SAMPLES = [np.random.default_rng(i).standard_normal((64, 64), dtype=np.float32) for i in (1, 2)]
TABLE = sft.RateTable.measure(SAMPLES, sft.Codec.gradient, [0.1, 0.2, 0.4], [4, 8])


def test_points_are_what_the_codec_measures() -> None:
    assert (TABLE.keeps, TABLE.levels) == ([0.1, 0.2, 0.4], [4, 8])
    for levels in (4, 8):
        codec = sft.Codec.gradient(keep=0.2, levels=levels)
        measured = [sft.measure(codec, x, seed) for seed, x in enumerate(SAMPLES)]
        rate = sum(m.bits_per_element for m in measured) / 64
        assert TABLE.rate(0.2, levels) == pytest.approx(rate)
        error = sum(m.relative_mse for m in measured) / 2
        assert TABLE.relative_mse(0.2, levels) == pytest.approx(error)
    assert TABLE.rate(0.5, 4) is None
    assert TABLE.rate(0.2, 5) is None


def test_any_function_makes_the_codec() -> None:
    calls = []

    def codec(*, keep: float, levels: int) -> sft.Codec:
        calls.append((keep, levels))
        return sft.Codec(f"activation:{keep}:{levels},rounding=nearest")

    table = sft.RateTable.measure(SAMPLES[:1], codec, [0.1, 0.2], [4])
    assert calls == [(0.1, 4), (0.2, 4)]
    expected = sft.measure(sft.Codec("activation:0.1:4,rounding=nearest"), SAMPLES[0])
    assert table.relative_mse(0.1, 4) == expected.relative_mse


def test_best_has_the_least_error_or_the_highest_accuracy() -> None:
    best = TABLE.best(0.05)
    assert best is not None
    assert best.rate <= 0.05
    assert TABLE.best(0.05, lambda keep, levels: -(TABLE.relative_mse(keep, levels) or 9)) == best
    least = TABLE.best(0.05, lambda keep, levels: -keep)
    assert least is not None
    assert least.keep == 0.1
    assert TABLE.best(1e-6) is None
    assert repr(best).startswith("Choice(keep=")


def test_errors_of_functions_come_through() -> None:
    def fail(keep: float, levels: int) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        TABLE.best(0.05, fail)
    with pytest.raises(ZeroDivisionError):
        sft.RateTable.measure(SAMPLES, fail, [0.1], [4])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"levels must be in 2\.\.=256"):
        sft.RateTable.measure(SAMPLES, sft.Codec.paper, [0.1], [1])
    with pytest.raises(TypeError, match="Codec"):
        sft.RateTable.measure(SAMPLES, lambda keep, levels: 3, [0.1], [4])  # type: ignore


def test_json_and_pickle_keep_the_table() -> None:
    assert sft.RateTable.from_json(TABLE.to_json()) == TABLE
    assert pickle.loads(pickle.dumps(TABLE)) == TABLE
    assert sorted(json.loads(TABLE.to_json())) == ["keep", "levels", "rate", "relative_mse"]
    for text in ("", "{}", TABLE.to_json().replace("0.1", "7")):
        with pytest.raises(ValueError, match="text is not a rate table"):
            sft.RateTable.from_json(text)


@pytest.mark.parametrize(
    ("samples", "keep", "message"),
    [
        ([], [0.1], "samples must hold an element"),
        (SAMPLES, [], "keep"),
        (SAMPLES, [0.2, 0.1], "ascending"),
    ],
)
def test_bad_arguments_are_named(
    samples: list[np.ndarray[tuple[int, int], np.dtype[np.float32]]],
    keep: list[float],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        sft.RateTable.measure(samples, sft.Codec.paper, keep, [4])


def test_levels_beyond_any_integer_are_refused_by_name() -> None:
    for call in (
        lambda: sft.RateTable.measure(SAMPLES, sft.Codec.gradient, [0.1], [2**64]),
        lambda: TABLE.rate(0.1, 2**64),
        lambda: TABLE.relative_mse(0.1, -1),
    ):
        with pytest.raises(ValueError, match=r"levels must be in 2\.\.=256, got"):
            call()
