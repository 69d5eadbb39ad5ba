"""A small convolutional network over the codecs of both directions.

    python benches/cnn_codecs.py OUT.csv

Two convolutions, the mean over the image and a linear layer learn the digits in 12 epochs, cut in
front of the mean, through a `sft.torch.Cut`. Under the mean all places of a channel have the same
gradient, and that of the true class is many times the others': what a codec drops of it shows.
Prints means over the seeds and writes a row for each run.
"""

import argparse
import csv
import sys
from datetime import date
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

import sft
import sft.torch as st

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import digits

SETTINGS = [
    ("raw", "raw"),
    ("error:0.01", "unbiased:1"),
    ("error:0.01", "unbiased:2"),
    ("error:0.02", "unbiased:8"),
    ("error:0.02", "unbiased:4"),
    ("error:0.1", "unbiased:8"),
    ("dead-zone:1.25", "unbiased:8"),
    ("raw", "error:0.03,of=all"),
    ("raw", "error:0.1,of=all"),
    ("raw", "error:0.35,of=all"),
    ("dead-zone:1.25", "dead-zone:4"),
]
EPOCHS, BATCH, LR = 12, 64, 3e-3
COLUMNS = [
    "activation",
    "gradient",
    "seed",
    "accuracy",
    "steps_without_gradient",
    "bits_up",
    "bits_down",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=6)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for activation, gradient in SETTINGS:
        found = [train(activation, gradient, seed) for seed in range(1, flags.seeds + 1)]
        rows += [[activation, gradient, seed, *run] for seed, run in enumerate(found, 1)]
        accuracy, without, up, down = (mean(values) for values in zip(*found, strict=True))
        print(
            f"| {activation} | {gradient} | {accuracy:.1%} | {without:.0f} | {up:.2f} | {down:.2f} |",
            flush=True,
        )
    with flags.out.open("w", newline="") as file:
        file.write(f"# benches/cnn_codecs.py, sft {sft.__version__}, {date.today():%d %B %Y}\n")
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def train(activation: str, gradient: str, seed: int) -> tuple[float, int, float, float]:
    """Return test accuracy, steps in which no gradient came down, and bits an element."""
    (images, labels), (test_images, test_labels) = digits.load()
    torch.manual_seed(seed)
    device = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
    )
    server = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    cut = st.Cut(activation, gradient, seed=seed)
    parameters = [*device.parameters(), *server.parameters()]
    optimizer, without = torch.optim.AdamW(parameters, lr=LR), 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(server(cut(device(images[batch]))), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            without += not any(bool(_gradient(p).any()) for p in device.parameters())
            optimizer.step()
    with torch.no_grad():
        right = server(device(test_images)).argmax(1) == test_labels
    bits = (32 / count.ratio for count in (cut.traffic.up, cut.traffic.down))
    return right.float().mean().item(), without, *bits


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


if __name__ == "__main__":
    main()
