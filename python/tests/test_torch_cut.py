"""The cut as a module: what autograd, autocast, the compiler and `state_dict` see."""

import copy
import hashlib
import io
import pickle
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sft
import sft.torch as st

RAW = sft.Codec.raw()


def hidden(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).requires_grad_()


def stream(seed: int, rank: int, way: int, message: int) -> int:
    """Return the seed of a message, as the documentation of `Cut` tells it."""
    numbers = b"".join(x.to_bytes(8, "little") for x in (seed, rank, way, message))
    return int.from_bytes(hashlib.blake2b(numbers, digest_size=8).digest(), "little")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_forward_and_backward_are_the_codecs(dtype: torch.dtype) -> None:
    activation, gradient = sft.Codec.activation(keep=0.3), sft.Codec.gradient(keep=0.1)
    cut = st.Cut(activation, gradient, seed=5)
    for message in range(2):
        h, g = hidden(8, 16, dtype=dtype), hidden(8, 16, dtype=dtype, seed=1).detach()
        z = cut(h)
        assert (z.dtype, z.shape) == (dtype, h.shape)
        z.backward(g)
        assert h.grad is not None
        for codec, x, y, way in ((activation, h, z, 0), (gradient, g, h.grad, 1)):
            bits = x.detach().view(torch.uint16).numpy() if dtype == torch.bfloat16 else None
            seed = stream(5, 0, way, message)
            if bits is None:
                frame = codec.encode(x.detach().numpy(), seed)
            else:
                frame = codec.encode(bits, seed, dtype="bf16")
            decoded = torch.from_numpy(sft.decode(frame).astype(np.float32)).to(dtype)
            assert torch.equal(y.detach(), decoded)


def test_lossless_settings_are_the_identity() -> None:
    cut, h, g = st.Cut(RAW, RAW), hidden(4, 3, 8), hidden(4, 3, 8, seed=1)
    z = cut(h)
    assert torch.equal(z, h)
    z.backward(g.detach())
    assert h.grad is not None
    assert torch.equal(h.grad, g)


def test_traffic_counts_the_frames() -> None:
    cut = st.Cut(seed=3)
    assert (cut.traffic.messages, cut.traffic.bytes) == (0, 0)
    assert str(cut.traffic).startswith("up 0 bytes in 0 messages")
    h = hidden(32, 64)
    cut(h).sum().backward()
    activation, gradient = sft.Codec.default_activation(), sft.Codec.default_gradient()
    assert (cut.activation, cut.gradient) == (activation, gradient)
    up = activation.encode(h.detach().numpy(), stream(3, 0, 0, 0))
    down = gradient.encode(np.ones((32, 64), np.float32), stream(3, 0, 1, 0))
    traffic = cut.traffic
    assert traffic.up == st.Direction(1, len(up), 4 * h.numel())
    # Nothing of a gradient of ones is as large as the default step asks for.
    assert traffic.down == st.Direction(1, len(down), 4 * h.numel(), zeroed=0)
    assert traffic.bytes == len(up) + len(down)
    assert traffic.up.ratio == 4 * h.numel() / len(up)
    assert traffic.ratio == 8 * h.numel() / traffic.bytes
    assert "in 1 message (" in str(traffic)
    assert cut.reset_traffic() is traffic
    assert cut.traffic == st.Traffic()


def test_no_gradient_no_message_down() -> None:
    cut = st.Cut()
    z = cut(hidden(8, 8).detach())
    assert not z.requires_grad
    with torch.no_grad():
        cut(hidden(8, 8))
    assert (cut.traffic.up.messages, cut.traffic.down.messages) == (2, 0)


def test_evaluation_passes_through_or_compresses() -> None:
    h = hidden(8, 8)
    cut = st.Cut().eval()
    assert cut(h) is h
    assert cut.traffic.messages == 0
    compressing = st.Cut(compress_eval=True).eval()
    assert not torch.equal(compressing(h), h)
    assert compressing.traffic.up.messages == 1
    lossless: Any = st.Cut().eval()
    assert torch.equal(lossless.decode(lossless.encode(h)), h)


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    cut = st.Cut(seed=3)
    cut(torch.ones(4, 8))
    before, good = cut.state(), st.Cut().state()
    traffic: dict[str, Any] = {"up": {}, "down": {}}
    bad: list[Any] = [None, torch.zeros(3), {}, {"seed": 1}, good | {"seed": -1}]
    bad += [good | {"traffic": traffic}, good | {"drawn": [1]}, good | {"feedback": [1, 2]}]
    for state in bad:
        with pytest.raises(ValueError, match=r"state must be what Cut\.state returned, got"):
            cut.restore(state)
        assert cut.state() == before
    with pytest.raises(ValueError, match=r"state must be what Traffic\.state returned, got"):
        st.Traffic.restore(traffic)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_refused_by_name() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)])
    with pytest.raises(TypeError, match="h must be dense, got a nested tensor"):
        st.Cut()(nested)


def test_every_message_has_its_own_seed_and_the_state_goes_on() -> None:
    h = hidden(64, 64)
    cut = st.Cut(sft.Codec.activation(keep=1.0, levels=2), seed=2**64 - 1)
    first, second = cut(h), cut(h)
    assert not torch.equal(first, second)
    file = io.BytesIO()
    torch.save(cut.state(), file)
    file.seek(0)
    for again in (st.Cut(cut.activation), copy.deepcopy(cut), pickle.loads(pickle.dumps(cut))):
        file.seek(0)
        again.restore(torch.load(file))
        assert again.traffic == cut.traffic
        assert torch.equal(again(h), copy.deepcopy(cut)(h))
    assert torch.equal(st.Cut(cut.activation, seed=7)(h), st.Cut(cut.activation, seed=7)(h))


def test_error_feedback_brings_later_what_was_dropped() -> None:
    codec = sft.Codec.paper(keep=0.1, levels=2)
    cut, x = st.Cut(codec, codec, error_feedback=True), hidden(16, 16)
    received, gradient = torch.zeros(16, 16), torch.zeros(16, 16)
    for _ in range(10):
        z = cut(x)
        received += z.detach()
        z.backward(torch.ones(16, 16) / 4)
    restored = st.Cut(codec, codec, error_feedback=True)
    restored.restore(cut.state())
    for _ in range(10):
        z = restored(x)
        received += z.detach()
        z.backward(torch.ones(16, 16) / 4)
    residuals = restored.state()["feedback"]
    torch.testing.assert_close(received + residuals[0], 20 * x.detach(), atol=1e-3, rtol=0)
    assert x.grad is not None
    gradient += x.grad
    torch.testing.assert_close(
        gradient + residuals[1], torch.full((16, 16), 5.0), atol=1e-3, rtol=0
    )


def test_error_feedback_begins_anew_with_another_shape_and_stays_after_errors() -> None:
    cut = st.Cut(error_feedback=True)
    cut(hidden(8, 8))
    before = cut.state()["feedback"][0].clone()
    bad = hidden(8, 8).detach()
    bad[0, 0] = torch.nan
    assert torch.isnan(cut(bad)[0, 0])
    assert torch.equal(cut.state()["feedback"][0], before)
    cut(hidden(4, 8))
    assert cut.state()["feedback"][0].shape == (4, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_error_feedback_keeps_the_type_between_processes(dtype: torch.dtype) -> None:
    cut = st.Cut(error_feedback=True)
    z: Any = cut.decode(cut.encode(hidden(8, 16, dtype=dtype)))
    assert z.dtype == dtype
    assert cut.traffic.up.raw_bytes == 2 * z.nbytes


@pytest.mark.parametrize("feedback", [False, True])
def test_what_is_not_finite_crosses_uncompressed(feedback: bool) -> None:
    """So that a loss scaler sees it, and skips the step."""
    cut, h = st.Cut(error_feedback=feedback), hidden(8, 8)
    g = torch.ones(8, 8)
    g[2, 3] = torch.inf
    cut(h).backward(g)
    assert h.grad is not None
    assert torch.equal(h.grad, g)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        overflown = g.to(dtype)
        assert torch.equal(cut(overflown), overflown)
        assert torch.equal(cut.decode(cut.encode(overflown)).detach(), overflown)  # type: ignore[arg-type]
    assert torch.isfinite(cut(hidden(8, 8))).all()


def test_autocast_keeps_the_types() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        cut = st.Cut()
        model = nn.Sequential(nn.Linear(8, 64), cut, nn.Linear(64, 2))
        with torch.autocast("cpu", dtype):
            out = model(torch.randn(16, 8))
        assert out.dtype == dtype
        out.float().sum().backward()
        assert cut.traffic.up.raw_bytes == cut.traffic.down.raw_bytes == 2 * 16 * 64
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_gradients_accumulate() -> None:
    model = nn.Sequential(nn.Linear(8, 8), st.Cut(RAW, RAW), nn.Linear(8, 2))
    x = torch.randn(6, 8)
    model(x).sum().backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for part in x.split(2):
        model(part).sum().backward()
    for p, expected in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(p.grad, expected)


def test_layouts_are_handled() -> None:
    cut, h = st.Cut(RAW, RAW), hidden(4, 6)
    z = cut(h.T)
    assert torch.equal(z, h.T)
    z.backward(torch.ones(1, 1).expand(6, 4))
    assert h.grad is not None
    assert torch.equal(h.grad, torch.ones(4, 6))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_train(backend: str) -> None:
    cut = st.Cut(RAW, RAW)
    model = nn.Sequential(nn.Linear(8, 8), cut, nn.Linear(8, 2))
    x = torch.randn(4, 8)
    model(x).sum().backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    compiled: Any = torch.compile(model, backend=backend)
    compiled(x).sum().backward()
    for p, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)
    assert cut.traffic.up.messages == cut.traffic.down.messages == 2
    whole = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2))
    st.attach(whole, after="0", cut=cut)
    attached: Any = torch.compile(whole, backend=backend)
    attached(x).sum().backward()
    halves = st.split(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), after="0")
    device_model, server_model = (torch.compile(half, backend=backend) for half in halves)
    server_model(cut(device_model(x))).sum().backward()
    assert cut.traffic.up.messages == cut.traffic.down.messages == 4
    torch.compiler.reset()


def test_what_crosses_goes_over_the_host_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device ``meta`` stands for an accelerator: it holds no values, these are on the host."""
    values, copies, to_host = hidden(4, 8), list[torch.Size](), Tensor.cpu

    def cpu(x: Tensor) -> Tensor:
        copies.append(x.shape)
        return values if x.is_meta else to_host(x)

    monkeypatch.setattr(Tensor, "cpu", cpu)
    h = torch.empty(4, 8, device="meta", requires_grad=True)
    cut = st.Cut()
    z = cut(h)
    assert z.device.type == "meta"
    z.backward(torch.empty(4, 8, device="meta"))
    assert h.grad is not None
    assert h.grad.device.type == "meta"
    assert copies == [h.shape, h.shape]
    assert cut.decode(cut.encode(values), device="meta").device.type == "meta"


def test_a_tensor_without_values_is_refused() -> None:
    with pytest.raises(TypeError, match="a tensor on the device meta cannot cross the cut"):
        st.Cut()(torch.empty(4, 8, device="meta"))


def test_traffic_is_told_before_the_first_message_too() -> None:
    cut = st.Cut(RAW, RAW)
    assert str(cut.traffic) == "up 0 bytes in 0 messages, down 0 bytes in 0 messages"
    cut(hidden(4, 8))
    assert re.fullmatch(
        r"up \d+ bytes in 1 message \(0.\dx smaller\), down 0 bytes in 0 messages, "
        r"together 0.\dx smaller",
        str(cut.traffic),
    )


def test_halves_in_two_processes_agree() -> None:
    device, server = st.Cut(seed=1), st.Cut(seed=1)
    h = hidden(16, 8, 32)
    z: Any = server.decode(device.encode(h)).requires_grad_()
    z.square().sum().backward()
    h.backward(device.decode_gradient(server.encode_gradient(z.grad)))
    cut, again = st.Cut(seed=1), hidden(16, 8, 32)
    together = cut(again)
    together.square().sum().backward()
    assert torch.equal(z.detach(), together.detach())
    assert h.grad is not None
    assert again.grad is not None
    assert torch.equal(h.grad, again.grad)
    assert device.traffic == server.traffic == cut.traffic


def test_half_precision_crosses_between_processes() -> None:
    cut, h = st.Cut(RAW, RAW), hidden(4, 8, dtype=torch.bfloat16)
    for frame in (cut.encode(h), bytearray(cut.encode(h)), memoryview(cut.encode(h))):
        assert torch.equal(cut.decode(frame), h)  # type: ignore[arg-type]
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import torch, sft.torch as st\n"
        "z = st.Cut().decode(sys.stdin.buffer.read())\n"
        "assert z.dtype == torch.bfloat16, z.dtype\n"
        "sys.stdout.buffer.write(z.view(torch.uint16).numpy().tobytes())"
    )
    run = subprocess.run([sys.executable, "-c", code], input=cut.encode(h), capture_output=True)
    assert run.stdout == h.detach().view(torch.uint16).numpy().tobytes(), run.stderr


def test_attach_is_one_line_and_comes_off() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    x, cut = torch.randn(16, 8), st.Cut()
    expected = model[2](st.Cut()(model[1](model[0](x))))
    handle = st.attach(model, after="1", cut=cut)
    assert torch.equal(model(x), expected)
    model(x).sum().backward()
    assert (cut.traffic.up.messages, cut.traffic.down.messages) == (2, 1)
    model.eval()
    model(x)
    assert cut.traffic.up.messages == 2
    assert st.cuts(model) == {"1": cut}
    handle.remove()
    model.train()
    model(x)
    assert cut.traffic.up.messages == 2
    with pytest.raises(ValueError, match="after must name a module of the model, got '7'"):
        st.attach(model, after="7", cut=cut)
    with pytest.raises(TypeError, match="cut must be a Cut, got Linear"):
        st.attach(model, after="1", cut=nn.Linear(1, 1))  # type: ignore[arg-type]


def test_attach_takes_the_first_of_a_tuple() -> None:
    model = nn.Sequential(nn.LSTM(4, 8, batch_first=True))
    cut = st.Cut(RAW, RAW)
    st.attach(model, after="0", cut=cut)
    out, (_, cell) = model(torch.randn(2, 3, 4))
    assert out.shape == (2, 3, 8)
    assert cell.shape == (1, 2, 8)
    assert cut.traffic.up.raw_bytes == 4 * 2 * 3 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_traffic_tells_of_messages_that_kept_nothing(dtype: torch.dtype) -> None:
    """A tensor of even magnitudes through a threshold above them all; zero itself is no loss."""
    nothing = sft.Codec(sparsify="threshold", threshold=2.0, quantize="none")
    even = torch.ones(8, 16, dtype=dtype)
    whole = st.Cut(nothing, nothing)
    h = even.clone().requires_grad_()
    assert not whole(h).any()
    whole(h).backward(even)
    h = torch.zeros_like(even).requires_grad_()
    whole(h).backward(torch.zeros_like(even))
    assert (whole.traffic.up.zeroed, whole.traffic.down.zeroed) == (2, 1)
    assert "2 ZERO though the tensor was not" in str(whole.traffic)
    device, server = st.Cut(nothing, nothing), st.Cut(nothing, nothing)
    server.decode(device.encode(even))
    device.decode_gradient(server.encode_gradient(even))
    assert (device.traffic.up.zeroed, server.traffic.down.zeroed) == (1, 1)
    assert (server.traffic.up.zeroed, device.traffic.down.zeroed) == (0, 0)
    kept = st.Cut()
    kept(3 * torch.randn(8, 16, dtype=dtype))
    assert kept.traffic.up.zeroed == 0
    assert "ZERO" not in str(kept.traffic)
