"""The frames that the Rust tests prove, read and written by Python: the same bytes."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft

GOLDEN = Path(__file__).parents[2] / "sft-compress" / "tests" / "golden"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sft")), ids=lambda path: path.stem)
def test_golden_frames_decode_to_the_stored_elements(path: Path) -> None:
    decoded = sft.decode(path.read_bytes())
    assert decoded.astype("<f4").tobytes() == path.with_suffix(".f32").read_bytes()


def cases() -> list[dict[str, str]]:
    with (GOLDEN / "cases.tsv").open(newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def codec(case: dict[str, str]) -> sft.Codec:
    if case["codec"] == "raw":
        return sft.Codec.raw()
    range_: Any = case["range"]
    return sft.Codec.paper(keep=float(case["keep"]), levels=int(case["levels"]), range=range_)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_golden_frames_are_still_written(case: dict[str, str]) -> None:
    shape = tuple(int(dim) for dim in case["shape"].split("x"))
    stored = np.fromfile(GOLDEN / "inputs" / f"{case['input']}.f32", dtype="<f4")
    x = stored.astype(np.float32).reshape(shape)
    frame = codec(case).encode(x, seed=int(case["seed"]))
    assert frame == (GOLDEN / f"{case['name']}.sft").read_bytes()
    assert sft.decode(frame).shape == shape
