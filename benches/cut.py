"""What a cut costs in PyTorch, beside the Rust codec and the same pipeline in torch's operations.

    python benches/cut.py                       # needs torch; and cargo for the Rust codec's rows

One thread unless said otherwise; the least of interleaved runs, as other work on the machine only
adds to them, on an activation [64, 197, 192] of float32 with outlier channels and uneven rows. The
Rust codec is that of the example `codec_report`, whose encoder and decoder reuse their memory: the
least of three medians, before, between and after.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import sft
import sft.torch as st

ROOT = Path(__file__).parents[1]
SHAPE = (64, 197, 192)
KEEP, LEVELS = 0.2, 8


def activation() -> Tensor:
    """Return a tensor like a transformer's hidden state."""
    rng = np.random.default_rng(0)
    channels = np.exp(rng.standard_normal(SHAPE[2]))
    rows = np.exp(0.3 * rng.standard_normal((*SHAPE[:2], 1)))
    return torch.from_numpy((rng.standard_normal(SHAPE) * channels * rows).astype(np.float32))


def torch_ops(levels: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Top-K and stochastic quantization written in torch; nothing is coded."""
    flat = h.flatten()
    magnitudes, positions = flat.abs().topk(round(KEEP * flat.numel()), sorted=False)
    values = levels(magnitudes).copysign_(flat[positions])
    return torch.zeros_like(flat).scatter_(0, positions, values).view_as(h)


def linear(magnitudes: Tensor) -> Tensor:
    """Round to evenly spaced levels, as `Codec.paper` does."""
    low, high = magnitudes.min(), magnitudes.max()
    step = (high - low) / (LEVELS - 1)
    level = torch.floor((magnitudes - low) / step + torch.rand_like(magnitudes))
    return low + level.clamp_(max=LEVELS - 1) * step


def log(magnitudes: Tensor) -> Tensor:
    """Round to levels that are even in the power -1/4, as `Codec.activation` does."""
    root = magnitudes.sqrt().sqrt_().reciprocal_()
    first, last = root.max(), root.min()
    step = (last - first) / (LEVELS - 1)
    points = (first + step * torch.arange(LEVELS)) ** -4
    level = ((root - first) / step).long().clamp_(0, LEVELS - 2)
    below, above = points[level], points[level + 1]
    up = magnitudes - below > torch.rand_like(magnitudes) * (above - below)
    return torch.where(up, above, below)


def there_and_back(codec: sft.Codec, x: npt.NDArray[np.float32]) -> object:
    """Encode and decode."""
    return sft.decode(codec.encode(x))


def rust_codec(x: npt.NDArray[np.float32]) -> dict[str, float]:
    """Seconds to encode and decode in Rust on one thread; nothing where cargo is missing."""
    if shutil.which("cargo") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "activation.npy"
        np.save(path, x)
        command = ["cargo", "run", "--quiet", "--release", "--example", "codec_report", "--"]
        command += [str(path), "--keep", str(KEEP), "--levels", str(LEVELS), "--json"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {
        row["codec"]: x.nbytes / 1e9 * (1 / row["encode_gbps"] + 1 / row["decode_gbps"])
        for row in json.loads(run.stdout)
        if row["threads"] == 1
    }


def interleaved(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of each run, taken in turn so that other work hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: min(seconds) for name, seconds in times.items()}


def forward(repeats: int) -> dict[str, float]:
    """Time the cut's forward against its codec and against torch."""
    h = activation()
    rows: dict[str, float] = {}
    reports = [rust_codec(h.numpy())]
    for name, codec, levels in (
        ("activation", sft.Codec.activation(keep=KEEP, levels=LEVELS), log),
        ("paper", sft.Codec.paper(keep=KEEP, levels=LEVELS), linear),
    ):
        seconds = interleaved(
            {
                "cut": partial(st.Cut(activation=codec), h),
                "numpy": partial(there_and_back, codec, h.numpy()),
                "torch": partial(torch_ops, levels, h),
            },
            repeats,
        )
        rows |= {f"{name}_{what}_s": value for what, value in seconds.items()}
        reports.append(rust_codec(h.numpy()))
        rows[f"{name}_torch_over_cut"] = seconds["torch"] / seconds["cut"]
    for name in reports[0]:
        if f"{name}_cut_s" in rows:
            rows[f"{name}_rust_s"] = min(report[name] for report in reports)
            rows[f"{name}_cut_over_rust"] = rows[f"{name}_cut_s"] / rows[f"{name}_rust_s"]
    return rows


def two_threads(repeats: int) -> dict[str, float]:
    """Time eight messages encoded one after the other and by two Python threads."""
    x, codec = activation().numpy(), sft.Codec.activation(keep=KEEP, levels=LEVELS)

    def encode(seed: int) -> bytes:
        return codec.encode(x, seed)

    with ThreadPoolExecutor(2) as pool:
        runs: dict[str, Callable[[], object]] = {
            "one_thread": lambda: list(map(encode, range(8))),
            "two_threads": lambda: list(pool.map(encode, range(8))),
        }
        seconds = interleaved(runs, repeats)
    rows = {f"eight_messages_{name}_s": value for name, value in seconds.items()}
    return rows | {"two_threads_speedup": seconds["one_thread"] / seconds["two_threads"]}


def imports(repeats: int) -> dict[str, float]:
    """Time `import sft` after numpy in fresh interpreters."""
    code = "import numpy, time; t = time.perf_counter(); import sft; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(repeats)
    ]
    return {"import_sft_beyond_numpy_s": min(runs)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    setting = {
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}, sft {sft.__version__}",
        "cores": os.cpu_count(),
        "repeats": repeats,
    }
    rows = forward(repeats) | two_threads(repeats) | imports(repeats)
    print(json.dumps(setting | {name: round(value, 5) for name, value in rows.items()}, indent=2))
