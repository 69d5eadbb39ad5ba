"""The frames that the Rust tests prove, read and written by Python: the same bytes."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import sft

GOLDEN = Path(__file__).parents[2] / "sft-compress" / "tests" / "golden"
DTYPES: dict[str, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}

# The codecs of context.tsv: a named one with its arguments, or a combination without a name.
CONTEXT: dict[str, Callable[..., sft.Codec]] = {
    "raw": sft.Codec.raw,
    "activation": lambda keep, levels: sft.Codec.activation(keep=float(keep), levels=int(levels)),
    "gradient": lambda keep, levels: sft.Codec.gradient(keep=float(keep), levels=int(levels)),
    "dead_zone": lambda step: sft.Codec.dead_zone(float(step)),
    "unbiased": lambda step: sft.Codec.unbiased(float(step)),
    "error": lambda error: sft.Codec.for_error(float(error)),
    "paper+context": lambda keep, levels: sft.Codec(
        sparsify="top_k", quantize="levels", keep=float(keep), levels=int(levels), spacing="linear"
    ),
    "log+row+nearest": lambda keep, levels: sft.Codec(
        sparsify="top_k",
        quantize="levels",
        keep=float(keep),
        levels=int(levels),
        rounding="nearest",
        range="row",
    ),
    "row_top_k+f16": lambda keep: sft.Codec(sparsify="row_top_k", keep=float(keep), quantize="f16"),
    "threshold+exact": lambda threshold: sft.Codec(
        sparsify="threshold", threshold=float(threshold), quantize="none"
    ),
    "saturate+exact": lambda: sft.Codec(sparsify="none", quantize="none", non_finite="saturate"),
}


def convert(stored: npt.NDArray[np.float32], dtype: Any) -> npt.NDArray[Any]:
    """Convert to nearest; a NaN keeps the upper bits of its payload, as it does in Rust."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = stored.astype(dtype)
    if x.dtype.name == "bfloat16":
        upper = (stored.view(np.uint32) >> 16).astype(np.uint16)
        upper |= np.where(upper & 0x7F, 0, 0x40).astype(np.uint16)
        x[np.isnan(stored)] = upper.view(dtype)[np.isnan(stored)]
    return x


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sft")), ids=lambda path: path.stem)
def test_golden_frames_decode_to_the_stored_elements(path: Path) -> None:
    frame = path.read_bytes()
    stored = np.fromfile(path.with_suffix(".f32"), dtype="<f4").astype(np.float32)
    dtype = DTYPES[sft.inspect(frame).dtype]
    decoded = sft.decode(frame)
    assert decoded.dtype == dtype
    assert decoded.tobytes() == convert(stored, dtype).tobytes()


def cases() -> list[dict[str, str]]:
    tables = (GOLDEN / name for name in ("cases.tsv", "context.tsv"))
    return [case for table in tables for case in read(table)]


def read(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def codec(case: dict[str, str]) -> sft.Codec:
    name, *arguments = case["codec"].split(" ")
    if name == "paper":
        range_: Any = case["range"]
        return sft.Codec.paper(keep=float(case["keep"]), levels=int(case["levels"]), range=range_)
    return CONTEXT[name](*arguments)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_golden_frames_are_still_written(case: dict[str, str]) -> None:
    shape = tuple(int(dim) for dim in case["shape"].split("x"))
    stored = np.fromfile(GOLDEN / "inputs" / f"{case['input']}.f32", dtype="<f4")
    dtype = DTYPES[case.get("dtype", "f32")]
    x = convert(stored.astype(np.float32), dtype).reshape(shape)
    frame = codec(case).encode(x, seed=int(case["seed"]))
    assert frame == (GOLDEN / f"{case['name']}.sft").read_bytes()
    assert sft.decode(frame).shape == shape
