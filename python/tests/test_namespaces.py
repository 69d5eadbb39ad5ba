"""Links between network namespaces: one that goes down, and shares of one that is slow."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from test_network import comparable
from test_train import MODEL, few

import sft

PLACES = ("server", "device-0", "device-1")
HERE = Path(__file__).parent
ADDRESS = "10.78.0.1:7443"
# What runs in each place: a server that tells of its rounds, or a device.
WORKER = """
import json, sys, time, urllib.request
import sft
from test_train import MODEL, few
place, folder, settings, pause = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
def told(one):
    with urllib.request.urlopen("http://127.0.0.1:8080/status.json") as page:
        devices = json.load(page)["devices"]
    shares = [device["allocated_bit_s"] for device in devices]
    print(json.dumps([one.round, list(one.devices), shares]), flush=True)
    time.sleep(pause)
if place == "server":
    own = {"listen": "ADDRESS", "certs": folder + "/certs", "status": "127.0.0.1:8080"}
    settings = few() | settings | {"out": folder + "/out", "progress": told}
    sft.serve(model=MODEL, **settings, **own)
else:
    own = {"certs": folder + "/certs/" + place, "cache": folder + "/" + place}
    sft.join("ADDRESS", data=few()["data"], full=16, **own)
""".replace("ADDRESS", ADDRESS)


def ip(*arguments: str, check: bool = True) -> bool:
    done = subprocess.run(["ip", *arguments], check=check, capture_output=True)
    return done.returncode == 0


def may_make_namespaces() -> bool:
    if shutil.which("ip") is None or shutil.which("tc") is None or os.geteuid() != 0:
        return False
    if not ip("netns", "add", "sftt-may", check=False):
        return False
    inside = ("netns", "exec", "sftt-may", "tc", "qdisc", "add", "dev", "lo", "root", "tbf")
    can = ip(*inside, "rate", "1mbit", "burst", "16kb", "latency", "50ms", check=False)
    for kind in (("switch", "type", "bridge"), ("up0", "type", "veth")):
        can = can and ip("-n", "sftt-may", "link", "add", *kind, check=False)
    ip("netns", "del", "sftt-may")
    return can


pytestmark = pytest.mark.skipif(
    not may_make_namespaces(), reason="needs root, ip and tc, and the right to make namespaces"
)


@pytest.fixture
def places() -> Iterator[Callable[[str, str], None]]:
    """Make namespaces on one bridge, and return what brings a place's link up or down."""
    names = [f"sftt-{place}" for place in ("switch", *PLACES)]

    def set_link(place: str, state: str) -> None:
        ip("-n", f"sftt-{place}", "link", "set", "up0", state)

    with ExitStack() as made:
        for name in names:
            ip("netns", "add", name)
            made.callback(ip, "netns", "del", name)
        ip("-n", "sftt-switch", "link", "add", "switch", "type", "bridge")
        ip("-n", "sftt-switch", "link", "set", "switch", "up")
        for number, place in enumerate(PLACES, 1):
            name, port = f"sftt-{place}", f"port{number}"
            ends = ("type", "veth", "peer", "name", port, "netns", "sftt-switch")
            ip("-n", name, "link", "add", "up0", *ends)
            ip("-n", "sftt-switch", "link", "set", port, "master", "switch", "up")
            ip("-n", name, "addr", "add", f"10.78.0.{number}/24", "dev", "up0")
            ip("-n", name, "link", "set", "lo", "up")
            set_link(place, "up")
        yield set_link


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Iterator[list[Any]]]]:
    """Return what starts a server with two devices, and yields what the server tells."""
    sft.make_certificates(tmp_path / "certs", 2, hosts=("10.78.0.1",))
    with ExitStack() as running:

        def run(settings: str, pause: float = 0.0) -> Iterator[list[Any]]:
            processes = []
            for place in PLACES:
                inside = ["ip", "netns", "exec", f"sftt-{place}", sys.executable, "-c", WORKER]
                process = subprocess.Popen(
                    [*inside, place, str(tmp_path), settings, str(pause)],
                    cwd=HERE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                running.enter_context(process)
                running.callback(process.kill)
                processes.append(process)
            assert processes[0].stdout is not None
            for line in processes[0].stdout:
                yield json.loads(line)
            assert [process.wait(60) for process in processes] == [0, 0, 0]

        yield run


def test_a_device_whose_link_is_down_is_left_out_until_it_is_back(
    places: Callable[[str, str], None], start: Callable[..., Iterator[list[Any]]]
) -> None:
    seen: list[list[int]] = []
    for number, devices, _ in start(json.dumps({"rounds": 60, "quorum": 1}), 0.1):
        if [devices] != seen[-1:]:
            seen.append(devices)
        if number == 2:
            places("device-1", "down")
        elif devices == [0]:
            places("device-1", "up")
        elif len(seen) == 3:
            break
    assert seen == [[0, 1], [0], [0, 1]]


@pytest.mark.usefixtures("places")
def test_shares_of_a_slow_link_change_no_result(
    start: Callable[..., Iterator[list[Any]]], tmp_path: Path
) -> None:
    """Of links that are measured in two rounds, then held to equal shares."""
    rate = ["rate", "40mbit", "burst", "16kb", "latency", "200ms"]
    inside = ["ip", "netns", "exec", "sftt-switch"]
    subprocess.run(
        [*inside, "tc", "qdisc", "add", "dev", "port1", "root", "tbf", *rate], check=True
    )
    same: dict[str, Any] = {"rounds": 6, "activation": "raw"}
    expected = sft.finetune(model=MODEL, **few() | same)
    told = list(start(json.dumps(same | {"control": True, "even": True}), 0.1))
    assert [number for number, _, _ in told] == [1, 2, 3, 4, 5, 6]
    *_, (_, _, shares) = told
    assert shares[0] == shares[1]
    assert 0 < shares[0] < 40e6
    (run,) = sft.Run.load(tmp_path / "out" / "run.json")
    assert comparable(run) == comparable(expected)
