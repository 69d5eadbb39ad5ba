"""The frames that the Rust tests prove, read and written by Python: the same bytes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft

GOLDEN = Path(__file__).parents[2] / "sft-compress" / "tests" / "golden"


def cases() -> list[dict[str, str]]:
    with (GOLDEN / "cases.tsv").open(newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def codec(case: dict[str, str]) -> sft.Codec:
    if case["codec"] == "raw":
        return sft.Codec.raw()
    range_: Any = case["range"]
    return sft.Codec.paper(keep=float(case["keep"]), levels=int(case["levels"]), range=range_)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_golden_frames(case: dict[str, str]) -> None:
    shape = tuple(int(dim) for dim in case["shape"].split("x"))
    frame = (GOLDEN / f"{case['name']}.sft").read_bytes()
    decoded = sft.decode(frame)
    assert decoded.shape == shape
    assert decoded.astype("<f4").tobytes() == (GOLDEN / f"{case['name']}.f32").read_bytes()
    stored = np.fromfile(GOLDEN / "inputs" / f"{case['input']}.f32", dtype="<f4")
    x = stored.astype(np.float32).reshape(shape)
    assert codec(case).encode(x, seed=int(case["seed"])) == frame
