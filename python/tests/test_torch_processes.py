"""Halves in two processes: messages, and that nothing else passes."""

import copy
from typing import Any

import pytest
import torch
from split_models import (
    CASES,
    IDS,
    MASK,
    RAW,
    Case,
    build,
    every_case,
    gradients,
    loss_of,
    train_whole,
)

import sft
import sft.torch as st


@every_case
def test_halves_in_two_processes_equal_the_whole(case: Case) -> None:
    model, point, inputs = build(case), case.point, case.inputs
    if any(x == (2, 64, 16, 16) for x in case.beside):
        pytest.skip("a residual has no way back between processes")
    model.eval()
    expected, grads = train_whole(model, inputs)
    # Each process has a model of its own: the halves know nothing of each other.
    here, there = model, copy.deepcopy(model)
    (device_model, _), (_, server_model) = (st.split(m, after=point) for m in (here, there))
    device, server = st.Cut(RAW, RAW), st.Cut(RAW, RAW)
    h = device_model(**inputs)
    z: Any = server.decode(device.encode(h)).requires_grad_()
    result = server_model(z)
    loss_of(result).backward()
    h.backward(device.decode_gradient(server.encode_gradient(z.grad)))
    assert torch.equal(loss_of(result), loss_of(expected))
    assert device.traffic == server.traffic
    found = [
        sum(g for g in (a, b) if g is not None) if a is not None or b is not None else None
        for a, b in zip(gradients(here), gradients(there), strict=True)
    ]
    for a, b in zip(found, grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_what_crosses_is_all_that_the_server_sees() -> None:
    """The inputs do not reach the server: with other ones it returns the same."""
    model = build(CASES["BERT, mask"]).eval()
    device_model, server_model = st.split(model, after="bert.encoder.layer.1")
    h: Any = device_model(input_ids=IDS, attention_mask=MASK)
    assert [x.equal(MASK) for x in h.sent] == [True]
    embeddings: Any = model.get_submodule("bert.embeddings.word_embeddings")
    with torch.no_grad():
        expected = server_model(h).logits
        embeddings.weight.fill_(torch.nan)
        assert torch.equal(server_model(h).logits, expected)


def message() -> bytes:
    model = build(CASES["BERT, mask"])
    device_model, _ = st.split(model, after="bert.encoder.layer.1")
    return st.Cut().encode(device_model(input_ids=IDS, attention_mask=MASK))


def test_damaged_messages_are_codec_errors() -> None:
    whole, cut = message(), st.Cut()
    assert isinstance(cut.decode(whole), st.Crossing)
    for end in range(len(whole)):
        with pytest.raises(sft.CodecError):
            cut.decode(whole[:end])
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        with pytest.raises(sft.CodecError):
            cut.decode(bytes(damaged))
    assert cut.traffic.up.messages == 1
