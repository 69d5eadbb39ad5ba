"""Links from Python: whole messages between processes, and who is let in."""

import _thread
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import sft


@pytest.fixture
def pair(certs: Path) -> Iterator[tuple[sft.Link, sft.Link]]:
    """Return a device's and the server's end of a link."""
    with (
        sft.listen("localhost:0", certs) as listener,
        sft.connect(listener.address, certs / "device-1") as device,
    ):
        server = listener.accept()
        assert server is not None
        with server:
            yield device, server


def test_any_buffer_comes_as_bytes(pair: tuple[sft.Link, sft.Link]) -> None:
    device, server = pair
    assert (device.peer, server.peer) == ("server", "device-1")
    long = np.random.default_rng(0).bytes(3 << 20)
    for message in (b"", b"a", bytearray(b"b"), memoryview(b"cde")[1:], long):
        for one, other in ((device, server), (server, device)):
            one.send(message)
            assert other.receive() == bytes(message)
    counts = server.counts
    assert counts.received_messages == 5
    assert counts.received_bytes == len(long) + 4
    assert counts.receiving_bit_s is not None
    for wrong in ("text", None, [1]):
        with pytest.raises(TypeError, match="message must be bytes, bytearray, memoryview"):
            device.send(wrong)  # type: ignore[arg-type]


def test_waiting_ends_when_it_should(pair: tuple[sft.Link, sft.Link]) -> None:
    device, server = pair
    assert server.receive(timeout=0) is None
    assert server.receive(timeout=0.08) is None
    device.send(b"late")
    assert server.receive(timeout=60) == b"late"
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout must be at least 0 and finite, got"):
            server.receive(timeout=wrong)


def interrupted(wait: Callable[[], object]) -> None:
    timer = threading.Timer(0.1, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join()


def test_ctrl_c_ends_waiting_and_nothing_else(pair: tuple[sft.Link, sft.Link]) -> None:
    device, server = pair
    interrupted(server.receive)
    with sft.listen("localhost:0") as listener:
        interrupted(listener.accept)

    def send_until_full() -> None:
        while True:
            device.send(bytes(1 << 20))

    interrupted(send_until_full)
    assert server.receive() == bytes(1 << 20)


def test_other_threads_run_while_one_waits(pair: tuple[sft.Link, sft.Link]) -> None:
    device, server = pair
    with ThreadPoolExecutor() as pool:
        received = pool.submit(server.receive)
        device.send(b"from this thread")
        assert received.result() == b"from this thread"


def test_a_link_that_ended_says_so(pair: tuple[sft.Link, sft.Link]) -> None:
    device, server = pair
    device.send(b"last")
    device.close()
    device.close()
    assert server.receive() == b"last"
    with pytest.raises(ConnectionError, match="the link to device-1 was closed by the other side"):
        server.receive()
    with pytest.raises(ConnectionError, match="the link to server was closed: by this side"):
        device.send(b"")


def test_an_address_is_free_once_its_listener_is_closed() -> None:
    with sft.listen("127.0.0.1:0") as listener:
        address = listener.address
    for _ in range(20):
        sft.listen(address).close()


def test_a_longer_message_than_is_taken_ends_the_link() -> None:
    with (
        sft.listen("127.0.0.1:0", max_message_bytes=1000) as listener,
        sft.connect(listener.address) as device,
    ):
        server = listener.accept()
        assert server is not None
        device.send(bytes(1001))
        with pytest.raises(ConnectionError, match="more than the 1000 bytes"):
            server.receive()


def test_a_rate_is_kept_or_refused(pair: tuple[sft.Link, sft.Link]) -> None:
    device, server = pair
    device.set_rate(8e6)
    device.send(bytes(100_000))
    assert server.receive() == bytes(100_000)
    assert server.counts.receiving_bit_s == pytest.approx(8e6, rel=0.3)
    device.set_rate(None)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="bit_s must be positive and finite, or None, got"):
            device.set_rate(wrong)


def test_strangers_are_refused(certs: Path, tmp_path: Path) -> None:
    sft.make_certificates(tmp_path / "others", 1)
    with sft.listen("localhost:0", certs / "server") as listener:
        for stranger, reason in (
            (tmp_path / "others" / "device-0", "not believed"),
            (None, "the link to"),
        ):
            with pytest.raises(ConnectionError, match=reason):
                sft.connect(listener.address, stranger)
        # Who believes the server is not believed there.
        mixed = tmp_path / "mixed"
        mixed.mkdir()
        for name in ("cert.pem", "key.pem"):
            (mixed / name).write_bytes((tmp_path / "others" / "device-0" / name).read_bytes())
        (mixed / "ca.pem").write_bytes((certs / "ca.pem").read_bytes())
        with pytest.raises(ConnectionError):
            sft.connect(listener.address, mixed)
        assert listener.accept(timeout=0.1) is None
        sft.connect(listener.address, certs / "device-0").close()


def test_bad_arguments_are_named(certs: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"ca\.pem: is there already"):
        sft.make_certificates(certs, 1)
    for arguments, named in (((0,), "devices"), ((-1,), "devices"), ((1, (), 0), "days")):
        with pytest.raises(ValueError, match=f"{named} must be"):
            sft.make_certificates(tmp_path / "none", *arguments)
    with pytest.raises(TypeError, match="hosts"):
        sft.make_certificates(tmp_path / "none", 1, "edge")
    assert not (tmp_path / "none").exists()
    with pytest.raises(OSError, match=r"cert\.pem"):
        sft.listen("localhost:0", tmp_path)
    for address in ("nowhere", "localhost:x", "192.0.2.1:0"):
        with pytest.raises(ValueError, match="listen cannot be"):
            sft.listen(address)
    with pytest.raises(ValueError, match="server must be host:port, got"):
        sft.connect("localhost")
    with pytest.raises(ValueError, match="certs must be given for a server on another machine"):
        sft.connect("192.0.2.1:7443")
    for name, value in (("silence_s", 0.0), ("max_message_bytes", -1), ("max_connections", 0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            sft.listen("localhost:0", **{name: value})  # type: ignore[arg-type]
    with sft.listen("127.0.0.1:0") as listener:
        address = listener.address
    with pytest.raises(ConnectionError, match="is not there"):
        sft.connect(address)


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork")
def test_a_forked_process_is_told_that_it_has_no_links() -> None:
    code = """if True:
        import os, sft
        listener = sft.listen("127.0.0.1:0")
        if os.fork() == 0:
            try:
                sft.connect(listener.address)
            except RuntimeError as error:
                told = "'spawn'" in str(error)
            del listener
            os._exit(7 if told else 1)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    """
    run = [sys.executable, "-W", "ignore", "-c", code]
    subprocess.run(run, check=True, timeout=60)
