"""Curves, rendered to memory."""

import dataclasses
import io
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import sft
import sft.plot

RUN = Path(__file__).parents[2] / "examples" / "results" / "run.json"


def test_a_file_gives_one_curve_for_each_scheme() -> None:
    runs = sft.Run.load(RUN)
    last = {"round": 8, "traffic": runs[0].bytes.sum() / 1e6, "time": runs[0].delay_s.sum()}
    for draw, end in zip(
        (sft.plot.accuracy, sft.plot.traffic, sft.plot.delay), last.values(), strict=True
    ):
        ax = draw(RUN)
        assert [line.get_label() for line in ax.lines] == [run.scheme for run in runs]
        assert ax.lines[0].get_xdata()[-1] == pytest.approx(end)  # type: ignore[index]
        assert ax.lines[0].get_ydata()[-1] == pytest.approx(100 * runs[0].accuracy[-1])  # type: ignore[index]
        picture = io.BytesIO()
        ax.get_figure().savefig(picture)  # type: ignore[union-attr]
        assert picture.getvalue().startswith(b"\x89PNG")
        plt.close("all")


def test_rounds_are_whole_numbers() -> None:
    (run, *_) = sft.Run.load(RUN)
    ax = sft.plot.accuracy(dataclasses.replace(run, rounds=run.rounds[:3]))
    assert all(tick == int(tick) for tick in ax.get_xticks())
    plt.close("all")


def test_axes_may_be_given() -> None:
    _, ax = plt.subplots()
    assert sft.plot.accuracy(sft.Run.load(RUN)[0], ax=ax) is ax
    assert sft.plot.accuracy(sft.Run.load(RUN)[1:], ax=ax) is ax
    plt.close("all")
