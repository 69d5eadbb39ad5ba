"""A cut whose tokens cross by a basis."""

from __future__ import annotations

import copy
import pickle
import zlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import sft
import sft.torch as st

BATCH, TOKENS, WIDTH = 8, 10, 32


def hidden(seed: int, tokens: int = TOKENS) -> Tensor:
    """Tokens of a few patterns behind a large first one."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))
    h = 1 + torch.randn(BATCH, tokens, 6, generator=generator) @ patterns
    h[:, 0] += 100
    return h


def mask() -> Tensor:
    lengths = torch.tensor([10, 3, 5, 10, 1, 7, 8, 2])
    return (torch.arange(TOKENS) < lengths[:, None]).long()


def warm(cut: st.Cut, steps: int = 4) -> None:
    """Let a cut learn its bases."""
    for seed in range(steps):
        h = hidden(seed).requires_grad_()
        (cut(h, mask=mask()) * hidden(100 + seed)).sum().backward()


def test_a_cut_learns_its_bases_and_counts_them() -> None:
    cut = st.Cut.of_tokens()
    assert cut.bases == (None, None)
    warm(cut)
    up, down = cut.bases
    assert up is not None
    assert down is not None
    assert (up.width, up.grid, up.prefix) == (WIDTH, None, 1)
    cut.reset_traffic()
    h = hidden(9).requires_grad_()
    y = cut(h, mask=mask())
    real = mask().bool()
    error = (y - h)[real].square().sum() / (h - h.mean(0))[real].square().sum()
    assert error < 0.03
    elements = int(real.sum()) * WIDTH
    assert 8 * cut.traffic.up.bytes < 5 * elements
    fresh = st.Cut.of_tokens()
    warm(fresh, 1)
    told = fresh.traffic.down.bytes
    warm(fresh, 3)
    assert fresh.traffic.down.bytes > told + len(up.to_bytes())


def test_padding_does_not_cross_and_has_no_gradient() -> None:
    for codec in ("transform:0.3", "error:0.02", "raw"):
        cut = st.Cut(codec, codec)
        warm(cut)
        h = hidden(9).requires_grad_()
        cut.reset_traffic()
        y = cut(h, mask=mask())
        (y * hidden(3)).sum().backward()
        none = ~mask().bool()
        assert not y[none].any()
        assert h.grad is not None
        assert not h.grad[none].any()
        assert h.grad[~none].any()
        assert cut.traffic.up.raw_bytes == h.nbytes
        if codec == "raw":
            assert cut.traffic.up.bytes < int(mask().sum()) * WIDTH * 4 + 100


def test_samples_that_come_again_cost_little() -> None:
    cut = st.Cut.of_tokens()
    warm(cut)
    ids = torch.arange(BATCH) + 10
    sent = []
    for _ in range(2):
        before = cut.traffic.up.bytes
        cut(hidden(7), samples=ids)
        sent.append(cut.traffic.up.bytes - before)
    assert sent[0] > 10 * sent[1]


def test_a_cut_in_a_whole_model_is_told_of_its_batch() -> None:
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))
    cut = st.Cut.of_tokens()
    handle = st.attach(model, after="0", cut=cut)
    for seed in range(4):
        with cut.batch(mask=mask(), samples=range(BATCH)):
            y = model(hidden(seed))
        y.sum().backward()
    assert cut.bases[0] is not None
    seen: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with cut.batch(mask=mask()):
        model(hidden(1))
    assert not seen[0][~mask().bool()].any()
    handle.remove()


def test_grids_learn_from_their_gradients() -> None:
    steps = {}
    for sensitive in (False, True):
        cut = st.Cut.of_tokens(grid=(3, 3))
        for seed in range(4):
            h = hidden(seed).requires_grad_()
            y = cut(h)
            if sensitive:
                (y * torch.linspace(0, 1, TOKENS)[:, None]).sum().backward()
        up = cut.bases[0]
        assert up is not None
        assert up.grid == (3, 3)
        steps[sensitive] = up
    assert steps[False] != steps[True]


def test_copies_and_states_go_on_as_the_cut() -> None:
    cut = st.Cut.of_tokens()
    warm(cut)
    restored = st.Cut.of_tokens()
    restored.restore(pickle.loads(pickle.dumps(cut.state())))
    cuts = [cut, copy.deepcopy(cut), pickle.loads(pickle.dumps(cut)), restored]
    outputs = [c(hidden(9), samples=range(BATCH)) for c in cuts]
    assert all(torch.equal(y, outputs[0]) for y in outputs)
    assert len({c.traffic.up.bytes for c in cuts}) == 1
    early = st.Cut.of_tokens()
    early(hidden(0))
    again = st.Cut.of_tokens()
    again.restore(early.state())
    warm(early)
    warm(again)
    assert early.bases == again.bases


def test_what_is_computed_again_is_what_crossed() -> None:
    cut = st.Cut.of_tokens()
    warm(cut)
    other = copy.deepcopy(cut)
    third, gradients = copy.deepcopy(cut), []
    for c, reentrant in ((cut, None), (other, False), (third, True)):
        h = hidden(9).requires_grad_()

        def run(h: Tensor, c: st.Cut = c) -> Tensor:
            y: Tensor = c(h)
            return y.square()

        with c.batch(samples=range(BATCH), mask=mask()):
            y = run(h) if reentrant is None else checkpoint(run, h, use_reentrant=reentrant)
        y.sum().backward()
        assert h.grad is not None
        gradients.append(h.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
    assert cut.traffic == other.traffic == third.traffic


def test_two_processes_share_bases_by_their_bytes() -> None:
    device, server = st.Cut.of_tokens(), st.Cut.of_tokens()
    for seed in range(4):
        server.decode(device.encode(hidden(seed), mask=mask()), mask=mask())
    assert server.bases == (None, None)
    learnt = server.learn()
    assert learnt is not None
    sent = [b.to_bytes() for b in learnt if b is not None]
    for cut in (device, server):
        up, down = map(sft.Basis, sent)
        cut.bases = (up, down)
    message = device.encode(hidden(9), mask=mask(), samples=range(BATCH))
    z = server.decode(message, mask=mask(), samples=range(BATCH))
    assert isinstance(z, Tensor)
    assert z.shape == hidden(9).shape
    assert len(message) < int(mask().sum()) * WIDTH
    reply = server.encode_gradient(z, mask=mask())
    grad = device.decode_gradient(reply, mask=mask())
    assert grad.shape == z.shape
    assert not grad[~mask().bool()].any()


def test_devices_share_bases_that_one_has_learnt() -> None:
    first, second = st.Cut.of_tokens(), st.Cut.of_tokens()
    warm(first)
    second.bases = first.bases
    told = sum(len(b.to_bytes()) for b in first.bases if b is not None)
    assert second.traffic.down.bytes == told > 0
    ids = range(BATCH)
    sent: list[int] = []
    for _ in range(2):
        second(hidden(7), samples=ids)
        sent.append(second.traffic.up.bytes - sum(sent))
        # What it has already is neither counted nor makes it forget.
        second.bases = first.bases
    assert second.traffic.down.bytes == told
    assert sent[0] > 10 * sent[1]


def test_what_is_not_finite_crosses_uncompressed() -> None:
    cut = st.Cut.of_tokens()
    warm(cut)
    h = hidden(9)
    h[0, 0, 0] = torch.inf
    assert torch.equal(cut(h), h)
    cut(hidden(9))


def test_what_is_not_finite_is_not_learnt_from() -> None:
    cut = st.Cut.of_tokens()
    h = hidden(0)
    h[3, 2, 1] = torch.nan
    cut(h)
    warm(cut)
    assert cut.bases[0] is not None


def test_texts_of_a_token_are_not_learnt_from() -> None:
    cut = st.Cut.of_tokens()
    for _ in range(3):
        h = torch.randn(BATCH, 1, WIDTH).requires_grad_()
        cut(h).sum().backward()
    assert cut.bases == (None, None)
    warm(cut)
    assert cut.bases[0] is not None


def test_a_server_keeps_no_more_than_it_learns_from() -> None:
    device, server = st.Cut.of_tokens(), st.Cut.of_tokens()
    assert server.learn() is None
    for seed in range(9):
        server.decode(device.encode(hidden(seed)))
    rows = sum(len(x) for x, _ in server.state()["seen"])
    assert rows == 2 * BATCH * TOKENS
    learnt = server.learn()
    assert learnt is not None
    assert all(learnt)


def test_lost_messages_are_told_of_and_forgotten() -> None:
    device, server = st.Cut.of_tokens(), st.Cut.of_tokens()
    server.decode(device.encode(hidden(0)))
    server.decode(device.encode(hidden(1)))
    learnt = server.learn()
    assert learnt is not None
    device.bases = server.bases = learnt
    server.decode(device.encode(hidden(2)))
    device.encode(hidden(3))
    with pytest.raises(sft.CodecError) as caught:
        server.decode(device.encode(hidden(4)))
    assert caught.value.kind == "lost_reference"
    for cut in (device, server):
        cut.reset_memory()
    server.decode(device.encode(hidden(4)))
    with pytest.raises(sft.CodecError) as caught:
        server.decode(device.encode(hidden(5), mask=mask()), mask=mask()[:, :3])
    assert caught.value.kind == "other_shape"


def test_messages_that_change_nothing_are_not_zeroed() -> None:
    cut = st.Cut.of_tokens()
    warm(cut)
    before = cut.traffic.up.zeroed
    for _ in range(3):
        cut(hidden(7), samples=range(BATCH))
    assert cut.traffic.up.zeroed == before


def test_few_bytes_are_not_believed_to_be_a_huge_tensor() -> None:
    body = bytes([3, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0, 0, 0, 0, 0, 0])
    for start in (body, bytes([1]) + body[1:]):
        sealed = b"SFTZ\x01" + len(start).to_bytes(4, "little") + start
        frame = sealed + zlib.crc32(sealed).to_bytes(4, "little")
        with pytest.raises(sft.CodecError):
            st.Cut().decode_gradient(frame)


def test_another_step_needs_another_basis() -> None:
    cut = st.Cut.of_tokens()
    warm(cut)
    before = cut.bases
    cut.activation = "transform:0.1"  # type: ignore[assignment]
    assert cut.bases == (None, before[1])
    warm(cut)
    assert cut.bases[0] not in (None, before[0])
    assert cut.bases[1] == before[1]


def test_half_precision_comes_back_as_it_went() -> None:
    cut = st.Cut.of_tokens()
    for seed in range(4):
        y = cut(hidden(seed).bfloat16())
    assert y.dtype == torch.bfloat16
    assert cut.bases[0] is not None


H = hidden(0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: st.Cut("transform:0"), ValueError, "activation must have a step in 0.001..=1000"),
        (lambda: st.Cut("transform:x"), ValueError, "activation must have a step"),
        (lambda: st.Cut("transform"), ValueError, "activation must have a step"),
        (lambda: st.Transform(0), ValueError, "step must be in 0.001..=1000, got 0"),
        (lambda: st.Cut(sample_memory_mb=-1), ValueError, "sample_memory_mb must be in"),
        (lambda: st.Cut(prefix=0.5), TypeError, "prefix must be a whole number"),  # type: ignore[arg-type]
        (lambda: st.Cut.of_tokens()(H, mask=mask()[:3]), ValueError, r"mask must be \[B, T\] of h"),
        (lambda: st.Cut()(H, mask=mask().float()), TypeError, "mask must be a tensor"),
        (lambda: st.Cut()(H, mask=mask() * 0), ValueError, "mask must leave every sample a token"),
        (lambda: st.Cut()(H, samples=range(3)), ValueError, "one for each of the 8 of h, got 3"),
        (lambda: st.Cut()(H, samples=[0.5] * 8), TypeError, "samples must be a whole number"),
        (lambda: st.Cut.of_tokens()(H[0, 0]), ValueError, "S, D"),
        (lambda: st.Cut.of_tokens(grid=(0, 3)), ValueError, "grid must be two numbers"),
        (
            lambda: st.Cut.of_tokens(causal=1),  # type: ignore[arg-type]
            TypeError,
            "causal must be True or False",
        ),
        (
            lambda: st.Cut("transform:0.3", error_feedback=True),
            ValueError,
            "error_feedback must be False",
        ),
        (lambda: st.Cut(grid=14), ValueError, "got 14"),  # type: ignore[arg-type]
        (lambda: st.Cut(prefix=65), ValueError, "prefix must be at most 64, got 65"),
        (lambda: setattr(st.Cut.of_tokens(), "bases", (1, None)), TypeError, "bases must be"),
        (lambda: st.Cut.of_tokens().restore({"seed": 0}), ValueError, "state must be"),
    ],
)
def test_bad_arguments_are_named(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
