"""Calls run without the interpreter's lock, and threads get the results of one thread."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import numpy as np
import pytest

import sft

RNG = np.random.default_rng(1)
X = RNG.standard_normal((256, 512), dtype=np.float32)
A_S, C = RNG.random(100_000), RNG.random(100_000) * 1e6
CODEC = sft.Codec.paper(keep=0.3, range="row")
FRAME = CODEC.encode(X)
FEEDBACK = sft.ErrorFeedback(CODEC)

each_call = pytest.mark.parametrize(
    "call",
    [
        lambda seed: CODEC.encode(X, seed),
        lambda seed: sft.Codec.activation().encode(X, seed),
        lambda seed: sft.decode(CODEC.encode(X[: 1 + seed])).tobytes(),
        lambda seed: sft.allocate_bandwidth(A_S, C, 1e6 * (1 + seed)).b_hz.tobytes(),
        lambda seed: sft.allocate_bandwidth(A_S, C, 1e6, rule="random", seed=seed).b_hz.tobytes(),
    ],
    ids=["encode", "encode by context", "decode", "allocate_bandwidth", "random rule"],
)


@each_call
def test_threads_get_the_results_of_one_thread(call: Callable[[int], bytes]) -> None:
    expected = [call(seed) for seed in range(20)]
    assert len(set(expected)) == 20
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(call, range(20))) == expected


@pytest.fixture
def lock_is_kept_until_released() -> Iterator[None]:
    """Make no thread ask another one for the lock."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(3600)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("lock_is_kept_until_released")
@pytest.mark.parametrize(
    "call",
    [
        lambda: CODEC.encode(X),
        lambda: sft.Codec.activation().encode(X.astype(np.float16)),
        lambda: sft.decode(FRAME),
        lambda: sft.measure(CODEC, X),
        lambda: FEEDBACK.encode(X),
        lambda: sft.allocate_bandwidth(A_S, C, 1e6),
        lambda: sft.allocate_bandwidth(A_S, C, 1e6, rule="even"),
    ],
    ids=[
        *("encode", "encode halves", "decode", "measure", "add"),
        *("allocate_bandwidth", "even rule"),
    ],
)
def test_calls_release_the_lock(call: Callable[[], object]) -> None:
    start, ran = Event(), Event()

    def wait_and_run() -> None:
        start.wait()
        ran.set()

    thread = Thread(target=wait_and_run, daemon=True)
    thread.start()
    start.set()
    # The thread needs the lock to run on, and only `call` can give it away.
    assert not ran.is_set()
    for _ in range(1000):
        call()
        if ran.is_set():
            return
    pytest.fail("no other thread ran during 1000 calls")
