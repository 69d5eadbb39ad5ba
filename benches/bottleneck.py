"""Four devices behind one bottleneck: shares by `--control`, equal shares and plain TCP.

    cargo build --release --features sft-compress/ndarray,sft-compress/rayon,sft-compress/serde
    python benches/bottleneck.py --sft target/release/sft [--mbit 30 5] [--repeats 5]

Needs safetensors, and root, for it makes network namespaces of its own: one for the server, one for each device, and a switch
between them. What the devices send together goes through `tc tbf` at the rate of the bottleneck, what the
server sends likewise, and each device has a `tbf` of its own, as one that is farther away would. The digits
are shared out unevenly, activations cross raw, so that the link is what a round waits for. Prints one line
of CSV for each round of each run: seconds by the clock, and for the rounds with shares those that P2
predicted, both also without what the slowest device spends off its link.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from namespaces import namespaces
from network import Namespaces, finish, rounds
from safetensors.numpy import load_file, save_file

DEVICES = 4
# Each device's own rate over that of the bottleneck.
OWN = (0.7, 0.6, 0.5, 0.45)
WAYS = {"control": ["--control"], "even": ["--control", "--even"], "tcp": []}
FLAGS = ["--activation", "raw", "--partition", "dirichlet:0.1", "--device-adapters", "none"]
MODEL = Path(__file__).parents[1] / "examples" / "data" / "digits_vit"
BLOCKS = 2
SHARES = re.compile(r"round_s=([0-9.]+) idle_s=([0-9.]+)")


def shallow(model: Path, folder: Path, blocks: int) -> None:
    """Write the first blocks of a model as a model: little to compute for what crosses."""
    tensors = load_file(model / "model.safetensors")
    behind = {
        name
        for name in tensors
        if (block := re.search(r"layers?\.(\d+)\.", name)) and int(block[1]) >= blocks
    }
    folder.mkdir()
    save_file(
        {name: tensor for name, tensor in tensors.items() if name not in behind},
        folder / "model.safetensors",
    )
    config = json.loads((model / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))


def run(args: argparse.Namespace, way: str, seed: int) -> Iterator[str]:
    flags = ["--rounds", str(args.rounds), "--seed", str(seed), *WAYS[way], *FLAGS, *args.flags]
    with TemporaryDirectory() as folder:
        shallow(MODEL, Path(folder) / "model", BLOCKS)
        flags += ["--model", str(Path(folder) / "model"), "--cut", "1"]
        net = Namespaces(args.sft.resolve(), Path(folder), DEVICES, "digits", flags)
        finish([net.server(), *(net.device(number) for number in range(DEVICES))])
        walls = [float(str(record["wall_s"])) for record in rounds(net.folder / "edge")]
        log = net.log("server").read_text()
        if args.verbose:
            print(log, file=sys.stderr)
    # What is told of shares stands before the line of the round that they are for.
    parts = log.split("round begins")[:-1]
    for number, (wall_s, part) in enumerate(zip(walls, parts, strict=True), 1):
        shares = SHARES.search(part)
        if shares is None:
            yield f"{number},{wall_s:.3f},,,"
        else:
            round_s, idle_s = map(float, shares.groups())
            yield f"{number},{wall_s:.3f},{round_s:.3f},{wall_s - idle_s:.3f},{round_s - idle_s:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sft", type=Path, required=True, help="the program")
    parser.add_argument("--mbit", type=float, nargs="+", default=[30.0, 5.0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--verbose", action="store_true", help="the server's log, too")
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    args.flags = given[end + 1 :]
    print("mbit,repeat,way,round,wall_s,predicted_s,transmission_s,predicted_transmission_s")
    for mbit in args.mbit:
        own: dict[str, float | None] = {f"device-{n}": mbit * own for n, own in enumerate(OWN)}
        with namespaces({"server": mbit} | own):
            for repeat in range(args.repeats):
                for way in args.ways:
                    for line in run(args, way, repeat + 1):
                        print(f"{mbit:g},{repeat},{way},{line}", flush=True)


if __name__ == "__main__":
    main()
