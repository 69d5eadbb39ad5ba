"""Runs of the `sft` program over the network of this machine: beside the run in memory, and with what goes wrong.

    cargo build --release --features sft-compress/ndarray,sft-compress/rayon,sft-compress/serde
    python benches/network.py wall   --sft target/release/sft [-- FLAGS of sft server]
    python benches/network.py drop   --sft target/release/sft --moments 100 (needs root)
    python benches/network.py resume --sft target/release/sft --moments 30

Prints one line of CSV for each run. `wall` compares every record and the adapters with `vit_finetune`'s, which lies
beside it in `examples`; `resume` those of a run whose server was killed with those of one that was not.
"""

import argparse
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from namespaces import SERVER, inside, namespaces, set_link

DEVICES = 8
PORT = 7451
# What may happen to a device.
KINDS = ("SIGKILL", "SIGSTOP", "link down")
SEEN = re.compile(r"(\d\d):(\d\d):(\d\d\.\d+)Z")


class Network:
    """A server and its devices as processes, their certificates and what they write."""

    address = f"127.0.0.1:{PORT}"

    def __init__(self, sft: Path, folder: Path, devices: int, data: str, flags: list[str]) -> None:
        self.sft, self.folder, self.devices = sft, folder, devices
        self.data, self.flags = data, flags
        host, _ = self.address.split(":")
        certs = ["certs", "--out", folder / "certs", "--devices", devices, "--host", host]
        subprocess.run([str(sft), *map(str, certs)], check=True, stdout=subprocess.DEVNULL)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, name: str, *arguments: object) -> "subprocess.Popen[bytes]":
        return self.spawn(name, [], *arguments)

    def spawn(
        self, name: str, before: "list[str]", *arguments: object
    ) -> "subprocess.Popen[bytes]":
        command = [*before, str(self.sft), *map(str, arguments)]
        with self.log(name).open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "RUST_LOG": "sft_core=info", "NO_COLOR": "1"},
            )

    def server(self, *more: str) -> "subprocess.Popen[bytes]":
        own = ["--certs", self.folder / "certs", "--listen", self.address]
        run = ["--devices", self.devices, "--out", self.folder / "edge"]
        return self.start("server", "server", *own, *run, *self.flags, *more)

    def device(self, number: int) -> "subprocess.Popen[bytes]":
        own = [
            "--certs",
            self.folder / "certs" / f"device-{number}",
            "--cache",
            self.folder / "cache",
        ]
        where = ["--server", self.address, "--data", self.data, "--patience-s", 60]
        return self.start(f"device-{number}", "device", *where, *own)

    def wait_for(self, text: str, count: int, seconds: float = 120) -> None:
        """Until the server said `text` so often."""
        until = time.monotonic() + seconds
        while self.log("server").read_text().count(text) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"the server did not say {text!r} {count} times")
            time.sleep(0.005)


class Namespaces(Network):
    """The same with every process in the namespace of its name."""

    address = f"{SERVER}:7443"

    def start(self, name: str, *arguments: object) -> "subprocess.Popen[bytes]":
        return self.spawn(name, inside(name), *arguments)


@contextmanager
def network(args: argparse.Namespace, devices: int, flags: list[str]) -> Iterator[Network]:
    with tempfile.TemporaryDirectory() as folder:
        yield Network(args.sft.resolve(), Path(folder), devices, args.data, flags)


def finish(processes: "list[subprocess.Popen[bytes]]", seconds: float = 900) -> None:
    for process in processes:
        if process.wait(seconds) not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")


def rounds(folder: Path) -> "list[dict[str, object]]":
    run = json.loads((folder / "run.json").read_text())
    records: list[dict[str, object]] = run["schemes"][0]["rounds"]
    return records


def same(one: Path, other: Path) -> bool:
    """Whether two runs are equal in every bit but the time that they took."""

    def told(folder: Path) -> "list[dict[str, object]]":
        return [{k: v for k, v in record.items() if k != "wall_s"} for record in rounds(folder)]

    adapters = [path / "adapters-sft" / "adapter_model.safetensors" for path in (one, other)]
    return told(one) == told(other) and adapters[0].read_bytes() == adapters[1].read_bytes()


def in_memory(args: argparse.Namespace, folder: Path, devices: int) -> float:
    """Run in memory, into a folder; seconds of the rounds."""
    program = args.sft.resolve().parent / "examples" / "vit_finetune"
    flags = ["--scheme", "sft", "--devices", str(devices), "--out", str(folder), *args.flags]
    subprocess.run(
        [program, *flags], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return sum(float(str(record["wall_s"])) for record in rounds(folder))


def wall(args: argparse.Namespace) -> None:
    print("repeat,memory_s,network_s,ratio,equal")
    for repeat in range(args.moments or 5):
        with network(args, DEVICES, args.flags) as net:
            memory_s = in_memory(args, net.folder / "memory", DEVICES)
            finish([net.server(), *(net.device(number) for number in range(DEVICES))])
            network_s = training_s(net.log("server"))
            equal = same(net.folder / "memory", net.folder / "edge")
        print(
            f"{repeat},{memory_s:.3f},{network_s:.3f},{network_s / memory_s:.3f},{equal}",
            flush=True,
        )


def training_s(log: Path) -> float:
    """From the first round's begin to the last one's end, what is kept between rounds included."""
    lines = log.read_text().splitlines()
    begun = next(line for line in lines if "round begins" in line)
    ended = next(line for line in reversed(lines) if "round finished" in line)
    return (seconds_of_day(ended) - seconds_of_day(begun)) % 86_400


def drop(args: argparse.Namespace) -> None:
    """A device of four is killed, stopped, or cut off at a random moment of the third round on."""
    print("seed,what,noticed_s,rounds,without_it,back,server_mb")
    places = ["server", *(f"device-{number}" for number in range(4))]
    flags = ["--rounds", "12", *args.flags]
    with namespaces(dict.fromkeys(places)):
        seeds = range(args.first, args.first + (args.moments or 100))
        for seed, what in itertools.product(seeds, args.kinds):
            rng = random.Random(seed)
            with tempfile.TemporaryDirectory() as folder:
                net = Namespaces(args.sft.resolve(), Path(folder), 4, args.data, flags)
                server = net.server()
                devices = [net.device(number) for number in range(4)]
                net.wait_for("round begins", 3)
                time.sleep(rng.uniform(0, 0.5))
                victim = rng.randrange(4)
                at = time.time()
                if what == "link down":
                    set_link(f"device-{victim}", "down")
                else:
                    devices[victim].send_signal(getattr(signal, what))
                net.wait_for("device lost", 1, 30)
                if what == "link down":
                    set_link(f"device-{victim}", "up")
                elif what == "SIGSTOP":
                    devices[victim].send_signal(signal.SIGCONT)
                else:
                    devices.append(net.device(victim))
                lines = net.log("server").read_text().splitlines()
                lost = next(line for line in lines if "device lost" in line)
                noticed = seconds_of_day(lost) - at % 86_400
                memory_mb = peak_mb(server.pid)
                finish([server, *devices])
                records = rounds(net.folder / "edge")
            without = sum(victim not in record["devices"] for record in records)  # type: ignore[operator]
            back = victim in records[-1]["devices"]  # type: ignore[operator]
            told = f"{noticed:.3f},{len(records)},{without},{back},{memory_mb:.1f}"
            print(f"{seed},{what},{told}", flush=True)


def seconds_of_day(line: str) -> float:
    found = SEEN.search(line)
    if found is None:
        raise ValueError(f"no time in {line!r}")
    hours, minutes, seconds = found.groups()
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) / 1e6 if found else 0.0


def resume(args: argparse.Namespace) -> None:
    """The server of four devices is killed at a random moment and started again."""
    flags = ["--rounds", "5", *args.flags]
    args.flags = flags
    with tempfile.TemporaryDirectory() as whole:
        in_memory(args, Path(whole), 4)
        print("seed,killed_after_s,rounds_kept,equal")
        for seed in range(args.moments or 30):
            with network(args, 4, flags) as net:
                server = net.server()
                devices = [net.device(number) for number in range(4)]
                net.wait_for("round begins", 1)
                after = random.Random(seed).uniform(0, 3.5)
                time.sleep(after)
                server.kill()
                server.wait()
                kept = net.log("server").read_text().count("round finished")
                edge = net.folder / "edge"
                resumes = (edge / "checkpoint-sft.safetensors").exists()
                finish([net.server(*(["--resume", str(edge)] if resumes else [])), *devices])
                equal = same(Path(whole), edge)
            print(f"{seed},{after:.2f},{kept},{equal}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["wall", "drop", "resume"])
    parser.add_argument("--sft", type=Path, required=True, help="the program")
    parser.add_argument("--moments", type=int, help="how many runs")
    parser.add_argument("--first", type=int, default=0, help="the first moment of drop")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="those of drop")
    parser.add_argument("--data", default="digits", help="the data of the devices")
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    args.flags = given[end + 1 :]
    if not args.sft.exists():
        sys.exit(f"error: {args.sft} is not there: build it first")
    # A bench that is stopped takes its namespaces with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    {"wall": wall, "drop": drop, "resume": resume}[args.what](args)


if __name__ == "__main__":
    main()
