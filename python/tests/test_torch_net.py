"""Halves of PyTorch models over links: equal to one process, and no device spoils another's."""

import copy
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from split_models import CASES, IDS, LABELS, MASK, build
from torch import Tensor, nn

import sft
import sft.torch as st
from sft.torch._exchange import AGREED, FAULT, HELLO, STEP, Step

EXAMPLE = torch.empty(1, 8)
LOSS = nn.functional.cross_entropy


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 3))


def halves() -> tuple[Any, Any]:
    return st.split(model(), after="1")


def batches(seed: int, count: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 8, generator=generator), torch.randint(3, (16,), generator=generator))
        for _ in range(count)
    ]


def optimizer(half: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(half.parameters(), lr=1e-2)


def train_device(address: str, device_model: Any, seed: int = 0, **settings: Any) -> list[float]:
    """Be a device; return the losses."""
    opt, losses = optimizer(device_model), []
    with st.connect(address, **settings) as link:
        link.agree(device_model, EXAMPLE)
        for x, y in batches(seed):
            losses.append(link.backward(device_model(x), y))
            opt.step()
            opt.zero_grad()
    return losses


def train_here(cut: st.Cut, seed: int = 0) -> tuple[list[float], Any, Any]:
    """Train as `train_device` and its server do, in one process."""
    (device_model, server_model), losses = halves(), []
    opts = optimizer(device_model), optimizer(server_model)
    for x, y in batches(seed):
        loss = LOSS(server_model(cut(device_model(x))), y)
        loss.backward()
        for opt in opts:
            opt.step()
            opt.zero_grad()
        losses.append(loss.item())
    return losses, device_model, server_model


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Serving:
    """A server on a thread of its own, for the tests."""

    def __init__(self, server_model: Any, loss: Any = LOSS, **settings: Any) -> None:
        self.model = server_model
        self.listener = sft.listen("127.0.0.1:0")
        self.address = self.listener.address
        defaults: dict[str, Any] = {"inputs": EXAMPLE, "devices": 1, "listen": self.listener}
        self._pool = ThreadPoolExecutor()
        self._served: Future[list[st.Served]] = self._pool.submit(
            st.serve, server_model, optimizer(server_model), loss, **defaults | settings
        )

    def served(self) -> list[st.Served]:
        return self._served.result(timeout=60)


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def start(*arguments: Any, **settings: Any) -> Serving:
        started.append(Serving(*arguments, **settings))
        return started[-1]

    yield start
    for one in started:
        one.listener.close()
        assert one._served.done()


CODECS: list[dict[str, Any]] = [
    {},
    {"activation": sft.Codec.raw(), "gradient": sft.Codec.raw()},
    {"error_feedback": True, "seed": 7},
]


@pytest.mark.parametrize("settings", CODECS, ids=["default", "raw", "feedback"])
def test_a_device_over_a_link_is_one_in_this_process(
    serving: Callable[..., Serving], settings: dict[str, Any]
) -> None:
    cut = st.Cut(**settings)
    expected, *trained = train_here(cut)
    device_model, server_model = halves()
    server = serving(server_model, cut=st.Cut(**settings))
    losses = train_device(server.address, device_model, cut=st.Cut(**settings))
    [served] = server.served()
    assert losses == served.losses == expected
    assert served.fault is None
    assert served.traffic == cut.traffic
    assert same(device_model, trained[0])
    assert same(server_model, trained[1])


def test_two_processes_with_certificates_are_one(tmp_path: Path) -> None:
    sft.make_certificates(tmp_path / "certs", 1)
    code = """if True:
        import sys, torch
        import test_torch_net as t
        device_model, _ = t.halves()
        print(t.train_device(sys.argv[1], device_model, certs=sys.argv[2]))
        torch.save(device_model.state_dict(), sys.argv[3])
    """
    expected, *trained = train_here(st.Cut())
    device_model, server_model = halves()
    with sft.listen("localhost:0", tmp_path / "certs") as listener:
        saved, certs = tmp_path / "device.pt", tmp_path / "certs" / "device-0"
        device = subprocess.Popen(
            [sys.executable, "-c", code, listener.address, certs, saved],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        [served] = st.serve(
            server_model,
            optimizer(server_model),
            LOSS,
            inputs=(EXAMPLE,),
            listen=listener,
            devices=1,
        )
        told = device.communicate(timeout=60)[0]
    assert device.returncode == 0
    assert served.peer == "device-0"
    assert told.strip() == str(expected) == str(served.losses)
    device_model.load_state_dict(torch.load(saved))
    assert same(device_model, trained[0])
    assert same(server_model, trained[1])


def test_masks_and_labels_cross_with_a_transformer(serving: Callable[..., Serving]) -> None:
    case, inputs = CASES["BERT, mask"], {"input_ids": IDS, "attention_mask": MASK}
    here = build(case).eval()
    whole, there = copy.deepcopy(here), copy.deepcopy(here)
    device_model, server_model = (
        st.split(here, after=case.point)[0],
        st.split(there, after=case.point)[1],
    )

    def loss(result: Any, targets: Any) -> Tensor:
        return LOSS(result.logits, targets)

    cuts = [st.Cut(sft.Codec.raw(), sft.Codec.raw()) for _ in range(2)]
    server = serving(server_model, loss, cut=cuts[0], inputs=inputs)
    with st.connect(server.address, cuts[1]) as link:
        link.agree(device_model, **inputs)
        found = link.backward(device_model(**inputs), LABELS)
    [served] = server.served()
    expected = loss(whole(**inputs), LABELS)
    expected.backward()
    assert [found] == served.losses == [expected.item()]
    for name, p in device_model.named_parameters():
        torch.testing.assert_close(p.grad, whole.get_parameter(name).grad)


def test_a_basis_is_learnt_and_crosses(serving: Callable[..., Serving]) -> None:
    """Beside the same loop by `encode` and `decode`, with samples that come again."""
    torch.manual_seed(1)
    whole = nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 3))
    x, y = torch.randn(16, 5, 8), torch.randint(3, (16,))
    mask = torch.ones(16, 5, dtype=torch.int64)
    mask[:, 4:] = 0

    def loss(result: Tensor, targets: Any) -> Tensor:
        return LOSS(result.mean(1), targets)

    def parts() -> tuple[Any, Any]:
        """Return halves of copies."""
        return st.split(copy.deepcopy(whole), after="0")

    said: dict[str, Any] = {"samples": range(16), "mask": mask}
    (device_model, server_model), expected = parts(), []
    device, there = st.Cut.of_tokens(), st.Cut.of_tokens()
    opt = optimizer(server_model)
    for _ in range(5):
        message = device.encode(device_model(x), **said)
        z: Any = there.decode(message, server_model, **said).requires_grad_()
        value = loss(server_model(z), y)
        value.backward()
        device.decode_gradient(there.encode_gradient(z.grad, mask=mask), mask=mask)
        if (learnt := there.learn()) is not None:
            device.bases = there.bases = learnt
        opt.step()
        opt.zero_grad()
        expected.append(value.item())
    device_model, server_model = parts()
    server = serving(server_model, loss, inputs=x, cut=st.Cut.of_tokens())
    with st.connect(server.address, st.Cut.of_tokens()) as link:
        link.agree(device_model, x)
        found = [link.backward(device_model(x), y, **said) for _ in range(5)]
    assert link.cut.bases == there.bases
    assert None not in there.bases
    [served] = server.served()
    assert served.losses == found == expected
    assert served.traffic == link.cut.traffic == there.traffic


def test_devices_take_turns_and_have_cuts_of_their_own(serving: Callable[..., Serving]) -> None:
    device_model, server_model = halves()
    cut = st.Cut(error_feedback=True)
    server = serving(server_model, cut=cut, devices=3)
    with ThreadPoolExecutor() as pool:
        trained = [
            pool.submit(train_device, server.address, copy.deepcopy(device_model), seed)
            for seed in range(3)
        ]
        losses = sorted(one.result(timeout=60) for one in trained)
    served = server.served()
    assert sorted(one.losses for one in served) == losses
    assert [one.traffic.up.messages for one in served] == [5, 5, 5]
    assert cut.traffic.up.messages == 0


def step(**changed: Any) -> bytes:
    x, y = batches(9, 1)[0]
    settings: dict[str, Any] = {"message": st.Cut().encode(halves()[0](x)), "targets": y}
    return Step(**{"samples": None, "mask": None} | settings | changed).to_bytes()


def raw(x: Tensor) -> bytes:
    return st.Cut(sft.Codec.raw()).encode(x)


def other_hello() -> bytes:
    other, _ = st.split(nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 3)), after="0")
    return bytes(other.hello(EXAMPLE))


GARBAGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "of no kind"),
    "noise": (lambda: b"\x09noise", "of no kind"),
    "an empty hello": (lambda: HELLO, "not a hello"),
    "another model": (lambda: HELLO + other_hello(), "not agreed on"),
    "an empty step": (lambda: STEP, "contradicts its format"),
    "a cut step": (lambda: step()[:-5], "contradicts its format"),
    "a long step": (lambda: step() + b"\0", "contradicts its format"),
    "a damaged frame": (lambda: step(message=b"SFTF" + bytes(40)), "CodecError"),
    "another width": (lambda: step(message=raw(torch.ones(16, 65))), "RuntimeError"),
    "other targets": (lambda: step(targets=torch.zeros(15, dtype=torch.int64)), "batch_size"),
    "no such class": (lambda: step(targets=torch.full((16,), 3)), "out of bounds"),
    "no targets": (lambda: step(targets=None), "TypeError"),
    "NaN": (lambda: step(message=raw(torch.full((16, 64), torch.nan))), "NaN or infinities"),
    "far values": (lambda: step(message=raw(torch.full((16, 64), 3e38))), "not finite"),
    "numbers of no samples": (lambda: step(samples=torch.full((16,), -1)), "samples"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_told_to_its_device_and_harms_no_other(
    name: str, serving: Callable[..., Serving], caplog: pytest.LogCaptureFixture
) -> None:
    make, reason = GARBAGE[name]
    expected, *trained = train_here(st.Cut())
    device_model, server_model = halves()
    server = serving(server_model, devices=2)
    with caplog.at_level(logging.WARNING, "sft.torch"), sft.connect(server.address) as bad:
        if make()[:1] != HELLO:
            bad.send(HELLO + device_model.hello(EXAMPLE))
            assert bad.receive() == AGREED
        bad.send(make())
        reply = bad.receive()
        assert reply is not None
        assert reply[:1] == FAULT
        assert reason in reply.decode()
        with pytest.raises(ConnectionError):
            bad.receive()
    assert train_device(server.address, device_model) == expected
    if make()[:1] == HELLO:
        # It has not agreed: there may be one more.
        train_device(server.address, copy.deepcopy(device_model))
        assert server.served()[0].losses == expected
    else:
        fault, served = server.served()
        assert reason in (fault.fault or "")
        assert (fault.losses, served.losses, served.fault) == ([], expected, None)
        assert same(server_model, trained[1])
    assert reason in caplog.text


def test_a_step_needs_a_hello(serving: Callable[..., Serving]) -> None:
    device_model, server_model = halves()
    server = serving(server_model)
    with sft.connect(server.address) as bad:
        bad.send(step())
        assert "a step came before a hello" in (bad.receive() or b"").decode()
    with st.connect(server.address) as link:
        link.agree(device_model, EXAMPLE)
        link.backward(device_model(batches(0)[0][0]), batches(0)[0][1])
        with pytest.raises(ConnectionError, match="the server let this device go: IndexError"):
            link.backward(device_model(batches(0)[0][0]), torch.full((16,), 7))
    [served] = server.served()
    assert len(served.losses) == 1


def test_a_device_that_breaks_off_is_told_of(serving: Callable[..., Serving]) -> None:
    device_model, server_model = halves()
    server = serving(server_model)
    with sft.connect(server.address) as link:
        link.send(HELLO + device_model.hello(EXAMPLE))
        assert link.receive() == AGREED
    [served] = server.served()
    assert "was closed by the other side" in (served.fault or "")


def test_an_end_by_the_caller_ends_all() -> None:
    device_model, server_model = halves()
    told: list[int] = []

    def stop(served: st.Served) -> None:
        told.append(len(served.losses))
        if len(told) == 3:
            raise KeyboardInterrupt

    with sft.listen("127.0.0.1:0") as listener, ThreadPoolExecutor() as pool:
        device = pool.submit(train_device, listener.address, device_model)
        with pytest.raises(KeyboardInterrupt):
            st.serve(
                server_model,
                optimizer(server_model),
                LOSS,
                inputs=EXAMPLE,
                listen=listener,
                progress=stop,
            )
        assert told == [1, 2, 3]
        with pytest.raises(ConnectionError):
            device.result(timeout=60)
    names = [thread.name for thread in threading.enumerate()]
    deadline = time.monotonic() + 10
    while any("_serve" in name for name in names) and time.monotonic() < deadline:
        names = [thread.name for thread in threading.enumerate()]
    assert not any("_serve" in name or "_accept" in name for name in names)


def test_arguments_are_checked(tmp_path: Path) -> None:
    _, server_model = halves()
    arguments = server_model, optimizer(server_model), LOSS
    with pytest.raises(TypeError, match="inputs must be a tensor, a tuple or a dict, got list"):
        st.serve(*arguments, inputs=[1], listen="127.0.0.1:0")  # type: ignore[arg-type]
    with sft.listen("127.0.0.1:0") as listener:
        with pytest.raises(ValueError, match=r"certs must be given to sft\.listen"):
            st.serve(*arguments, inputs=EXAMPLE, listen=listener, certs=tmp_path)
        with (
            st.connect(listener.address) as link,
            pytest.raises(TypeError, match="targets must be a tensor or numbers, got str"),
        ):
            link.backward(torch.ones(2, 2), "ab")  # type: ignore[arg-type]
