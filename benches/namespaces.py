"""A server and devices in network namespaces of their own, behind one switch. Needs root."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from network import Network

NAME = "sftb"
SWITCH = f"{NAME}-switch"
SERVER = "10.77.0.1"


class Namespaces(Network):
    """Every process in the namespace of its name."""

    address = f"{SERVER}:7443"

    def start(self, name: str, *arguments: object) -> "subprocess.Popen[bytes]":
        return self.spawn(name, ["ip", "netns", "exec", f"{NAME}-{name}"], *arguments)


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
            for interface in ("lo", "up0"):
                set_link(place, interface, "up")
            if mbit is not None:
                _tbf(name, "up0", mbit)
                _tbf(SWITCH, port, mbit)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


def set_link(place: str, interface: str, state: str) -> None:
    """Take an interface of a place up or down."""
    _ip("-n", f"{NAME}-{place}", "link", "set", interface, state)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _tbf(namespace: str, interface: str, mbit: float) -> None:
    """Hold what leaves an interface to a rate."""
    rate = ["rate", f"{mbit * 1e3:.0f}kbit", "burst", "16kb", "latency", "200ms"]
    where = ["ip", "netns", "exec", namespace, "tc", "qdisc", "replace", "dev", interface]
    subprocess.run([*where, "root", "tbf", *rate], check=True)
