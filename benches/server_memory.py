"""Memory of a server over the number of its devices, which are threads of this program.

    cargo build --release --features sft-compress/ndarray,sft-compress/rayon,sft-compress/serde
    python benches/server_memory.py --sft target/release/sft [--devices 1 4 16 64 256] [-- FLAGS of sft server]

Needs the package sft. Over mutual TLS on loopback, four rounds of the digits, as many images for every number
of devices. Prints one line of CSV for each number: the server's peak memory, and how much a further device
adds to it.
"""

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from network import Network, finish, peak_mb

import sft

DATA = Path(__file__).parents[1] / "examples" / "data" / "digits.bin"


def digits() -> "tuple[np.ndarray, np.ndarray]":
    """Return the images and labels for training."""
    records = np.fromfile(DATA, np.uint8).reshape(-1, 65)
    records = records[np.arange(len(records)) % 5 != 4]
    return records[:, 1:].reshape(-1, 8, 8), records[:, 0]


def server_mb(program: Path, devices: int, flags: list[str]) -> float:
    """Return the peak of a server with so many devices."""
    peak = 0.0
    with TemporaryDirectory() as folder, ThreadPoolExecutor(devices) as pool:
        flags = ["--rounds", "4", *flags]
        net = Network(program.resolve(), Path(folder), devices, "digits", flags)
        server = net.server()
        net.wait_for("listening", 1)
        data = digits()
        joined = [
            pool.submit(
                sft.join,
                net.address,
                data=data,
                full=16,
                certs=net.folder / "certs" / f"device-{device}",
                cache=net.folder / "cache" / str(device),
            )
            for device in range(devices)
        ]
        while server.poll() is None:
            peak = max(peak, peak_mb(server.pid))
            time.sleep(0.01)
        finish([server])
        for one in joined:
            one.result()
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sft", type=Path, required=True, help="the program")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    threading.stack_size(1 << 20)
    print("devices,server_peak_mb,mb_a_further_device")
    before: tuple[int, float] | None = None
    for devices in args.devices:
        peak = server_mb(args.sft, devices, given[end + 1 :])
        more = "" if before is None else f"{(peak - before[1]) / (devices - before[0]):.3f}"
        print(f"{devices},{peak:.1f},{more}", flush=True)
        before = devices, peak


if __name__ == "__main__":
    main()
