"""Network namespaces behind one switch, for a server and devices. Needs root."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

# Of this process alone.
NAME = f"sft-{os.getpid()}"
SWITCH = f"{NAME}-switch"
# Where the first place is reached by the others.
SERVER = "10.77.0.1"


@contextmanager
def namespaces(places: "dict[str, float | None]") -> Iterator[None]:
    """Make a namespace for each place, joined to a switch by a link of a rate, Mbit/s, both ways."""
    names = [SWITCH, *(f"{NAME}-{place}" for place in places)]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("-n", SWITCH, "link", "add", "switch", "type", "bridge")
        _ip("-n", SWITCH, "link", "set", "switch", "up")
        for number, (place, mbit) in enumerate(places.items(), 1):
            name, port = f"{NAME}-{place}", f"port{number}"
            ends = ["type", "veth", "peer", "name", port, "netns", SWITCH]
            _ip("-n", name, "link", "add", "up0", *ends)
            _ip("-n", SWITCH, "link", "set", port, "master", "switch", "up")
            _ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "up0")
            _ip("-n", name, "link", "set", "lo", "up")
            set_link(place, "up")
            if mbit is not None:
                _tbf(name, "up0", mbit)
                _tbf(SWITCH, port, mbit)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def may_make_namespaces() -> bool:
    """Whether this process has the right to, and what it takes."""
    try:
        with namespaces({"may": 1.0}):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def inside(place: str) -> "list[str]":
    """What stands before a command that runs in a place."""
    return ["ip", "netns", "exec", f"{NAME}-{place}"]


def set_link(place: str, state: str) -> None:
    """Take the link of a place up or down."""
    _ip("-n", f"{NAME}-{place}", "link", "set", "up0", state)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _tbf(namespace: str, interface: str, mbit: float) -> None:
    """Hold what leaves an interface to a rate."""
    rate = ["rate", f"{mbit * 1e3:.0f}kbit", "burst", "16kb", "latency", "200ms"]
    _ip(
        *["netns", "exec", namespace, "tc", "qdisc", "replace", "dev", interface, "root"],
        *["tbf", *rate],
    )
