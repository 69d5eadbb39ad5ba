"""Accuracy and bytes of split fine-tuning over the codecs of both directions.

    python benches/codec_accuracy.py OUT.csv -- --model FILE --data DATA ...
    python benches/codec_accuracy.py OUT.csv --cifar100 DIR -- --model FILE ...

Runs the example `vit_finetune` once for every setting and seed, with the flags behind `--`, and
prints the means beside those without compression; adapters cross raw. Every finished run is a row
of OUT.csv; runs that are there already are not made again, so that settings and seeds can be added.
`--cifar100` takes a part of CIFAR-100 (binary layout) that is small enough for many runs: of its
first 20 classes the first 75 training images to train, all others to test.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from datetime import date
from itertools import product
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).parents[1]
MANIFEST = ["--manifest-path", str(ROOT / "Cargo.toml")]
PROGRAM = [
    "cargo",
    "run",
    "--release",
    "-q",
    "--locked",
    *MANIFEST,
    "--example",
    "vit_finetune",
    "--",
]
RAW = ("raw", "raw")
SETTINGS = [
    RAW,
    ("paper:0.2:8", "paper:0.2:8"),
    ("activation:0.2:8", "gradient:0.2:8"),
    ("activation:0.2:8", "raw"),
    ("raw", "gradient:0.2:8"),
    ("dead-zone:1", "raw"),
    ("activation:0.5:4", "gradient:0.05:4"),
    ("activation:0.2:8", "gradient:0.02:4"),
    ("error:0.01", "unbiased:1"),
    ("error:0.02", "unbiased:8"),
    ("dead-zone:1", "error:0.35,of=all"),
    ("dead-zone:1.25", "error:0.35,of=all"),
    ("dead-zone:1.25", "error:0.25,of=all"),
    ("dead-zone:1.5", "error:0.35,of=all"),
    ("dead-zone:1.25", "unbiased:8"),
    ("transform:0.3", "transform:1.5"),
    ("transform:0.3", "transform:1"),
]
COLUMNS = ["activation", "gradient", "seed", "accuracy", "bytes_up", "bytes_down", "delay_s"]
CLASSES, TRAIN = 20, 75
RECORD = 2 + 3 * 32 * 32  # labels, coarse and fine, and the image

Row = dict[str, str]


def main() -> None:
    flags = arguments()
    with tempfile.TemporaryDirectory() as folder:
        training = list(flags.training)
        if flags.cifar100:
            write_part(flags.cifar100, Path(folder))
            training += ["--data", f"cifar100:{folder}"]
        rows = read(flags)
        done = {(row["activation"], row["gradient"], int(row["seed"])) for row in rows}
        chosen = [RAW, *(codecs for codecs in flags.settings if codecs != RAW)]
        for seed, codecs in product(flags.seeds, chosen):
            if (*codecs, seed) not in done:
                rows.append(finetune(codecs, seed, training, Path(folder) / f"{len(rows)}"))
                done.add((*codecs, seed))
                write(flags, rows)
    print(table(rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT.csv")
    parser.add_argument("--cifar100", type=Path, metavar="DIR")
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3], help="comma-separated")
    parser.add_argument(
        "--settings",
        type=settings,
        default=SETTINGS,
        metavar="UP/DOWN;...",
        help="codecs as in --activation and --gradient of vit_finetune",
    )
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    flags = parser.parse_args(sys.argv[1:at])
    flags.training = sys.argv[at + 1 :]
    return flags


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def settings(text: str) -> list[tuple[str, str]]:
    pairs = [part.split("/") for part in text.split(";")]
    return [(up, down) for up, down in pairs]


def write_part(cifar100: Path, folder: Path) -> None:
    train, test = (records(cifar100, name) for name in ("train", "test"))
    seen = dict.fromkeys(range(CLASSES), 0)
    part: list[bytes] = []
    for record in train:
        seen[record[1]] += 1
        (part if seen[record[1]] <= TRAIN else test).append(record)
    (folder / "train.bin").write_bytes(b"".join(part))
    (folder / "test.bin").write_bytes(b"".join(test))


def records(cifar100: Path, name: str) -> list[bytes]:
    """Return the records of the first classes, in order."""
    [path] = cifar100.glob(f"{name}*.bin")
    data = path.read_bytes()
    every = (data[at : at + RECORD] for at in range(0, len(data), RECORD))
    return [record for record in every if record[1] < CLASSES]


def finetune(codecs: tuple[str, str], seed: int, training: list[str], out: Path) -> Row:
    activation, gradient = codecs
    chosen = ["--scheme", "sft", "--activation", activation, "--gradient", gradient]
    chosen += ["--adapter-codec", "raw"]
    run = [*PROGRAM, *training, *chosen, "--seed", str(seed), "--out", str(out)]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
    rounds = json.loads((out / "run.json").read_text())["schemes"][0]["rounds"]
    values = {
        "activation": activation,
        "gradient": gradient,
        "seed": seed,
        "accuracy": round(rounds[-1]["accuracy"], 4),
        "bytes_up": sum(one["bytes_up"] for one in rounds),
        "bytes_down": sum(one["bytes_down"] for one in rounds),
        "delay_s": round(sum(one["delay_s"] for one in rounds), 3),
    }
    return {name: str(value) for name, value in values.items()}


def read(flags: argparse.Namespace) -> list[Row]:
    """Return the runs that are there already."""
    if not flags.out.exists():
        return []
    text = flags.out.read_text()
    if not text.startswith(configuration(flags)):
        sys.exit(f"{flags.out} holds runs with other flags: {text.splitlines()[0]}")
    return list(csv.DictReader(line for line in text.splitlines() if line[0] != "#"))


def configuration(flags: argparse.Namespace) -> str:
    # Where files lie says nothing to a reader.
    training = re.sub(r"[^ :]*/", "", " ".join(flags.training))
    text = f"# {f'vit_finetune --scheme sft {training}'.rstrip()}\n"
    if flags.cifar100:
        text += (
            f"# CIFAR-100: of its first {CLASSES} classes {TRAIN} training images of each to train,"
            " the other training and all test images to test.\n"
        )
    return text


def write(flags: argparse.Namespace, rows: list[Row]) -> None:
    with flags.out.open("w", newline="") as file:
        file.write(f"{configuration(flags)}# {date.today():%-d %B %Y}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows: list[Row]) -> str:
    """Return the means over the seeds as Markdown, with differences seed by seed."""
    runs: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        runs.setdefault((row["activation"], row["gradient"]), {})[row["seed"]] = row
    text = [
        "| activation | gradient | accuracy | spread | against raw | MB up | MB down | smaller | delay |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    total = {pair: sum(mean_of(seeds, "bytes_up", "bytes_down")) for pair, seeds in runs.items()}
    for codecs, seeds in sorted(runs.items(), key=lambda item: -total[item[0]]):
        accuracies = [100 * float(row["accuracy"]) for row in seeds.values()]
        spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
        both = [(row, runs[RAW][seed]) for seed, row in seeds.items() if seed in runs[RAW]]
        change = mean(100 * (float(a["accuracy"]) - float(b["accuracy"])) for a, b in both)
        up, down, delay = mean_of(seeds, "bytes_up", "bytes_down", "delay_s")
        text.append(
            f"| {codecs[0]} | {codecs[1]} | {mean(accuracies):.1f} % | {spread:.1f} | {change:+.1f}"
            f" | {up / 1e6:.2f} | {down / 1e6:.2f} | {total[RAW] / total[codecs]:.1f}"
            f" | {delay:.2f} s |"
        )
    return "\n".join(text)


def mean_of(seeds: dict[str, Row], *columns: str) -> list[float]:
    return [mean(float(row[column]) for row in seeds.values()) for column in columns]


if __name__ == "__main__":
    main()
