"""Links between network namespaces: one that goes down, and shares of one that is slow."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from namespaces import SERVER, inside, may_make_namespaces, namespaces, set_link
from test_network import comparable
from test_train import MODEL, few

import sft

PLACES = ("server", "device-0", "device-1")
HERE = Path(__file__).parent
ADDRESS = f"{SERVER}:7443"
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


pytestmark = pytest.mark.skipif(
    not may_make_namespaces(), reason="needs root, ip and tc, and the right to make namespaces"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Iterator[list[Any]]]]:
    """Return what starts a server with two devices, and yields what the server tells."""
    sft.make_certificates(tmp_path / "certs", 2, hosts=(SERVER,))
    with ExitStack() as running:

        def run(settings: str, pause: float = 0.0) -> Iterator[list[Any]]:
            processes = []
            for place in PLACES:
                worker = [sys.executable, "-c", WORKER, place, str(tmp_path), settings]
                process = subprocess.Popen(
                    [*inside(place), *worker, str(pause)],
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
    start: Callable[..., Iterator[list[Any]]],
) -> None:
    seen: list[list[int]] = []
    with namespaces(dict.fromkeys(PLACES)):
        for number, devices, _ in start(json.dumps({"rounds": 60, "quorum": 1}), 0.1):
            if [devices] != seen[-1:]:
                seen.append(devices)
            if number == 2:
                set_link("device-1", "down")
            elif devices == [0]:
                set_link("device-1", "up")
            elif len(seen) == 3:
                break
    assert seen == [[0, 1], [0], [0, 1]]


def test_shares_of_a_slow_link_change_no_result(
    start: Callable[..., Iterator[list[Any]]], tmp_path: Path
) -> None:
    """Of links that are measured in two rounds, then held to equal shares."""
    same: dict[str, Any] = {"rounds": 6, "activation": "raw"}
    expected = sft.finetune(model=MODEL, **few() | same)
    with namespaces({"server": 40.0, "device-0": None, "device-1": None}):
        told = list(start(json.dumps(same | {"control": True, "even": True}), 0.1))
    assert [number for number, _, _ in told] == [1, 2, 3, 4, 5, 6]
    *_, (_, _, shares) = told
    assert shares[0] == shares[1]
    assert 0 < shares[0] < 40e6
    (run,) = sft.Run.load(tmp_path / "out" / "run.json")
    assert comparable(run) == comparable(expected)
