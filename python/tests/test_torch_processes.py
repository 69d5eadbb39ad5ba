"""Halves in two processes: messages, and that nothing else passes."""

import copy
import random as random_numbers
import zlib
from typing import Any

import pytest
import torch
import transformers
from split_models import (
    CASES,
    IDS,
    LABELS,
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
from sft.torch._packing import DTYPES, Reader, packed, unpacked


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
    for name, other in device_model.shared.items():
        with pytest.raises(ValueError, match=f"{name} and {other} are one parameter in both"):
            device_model.hello(**inputs)
        with pytest.raises(ValueError, match=f"{name} and {other} are one parameter in both"):
            server_model.agree(b"", **inputs)
        for m in (here, there):
            m.get_parameter(name).requires_grad_(False)
        expected, grads = train_whole(model, inputs)
    server_model.agree(device_model.hello(**inputs), **inputs)
    h = device_model(**inputs)
    z: Any = server.decode(device.encode(h), server_model).requires_grad_()
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


INPUTS = {"input_ids": IDS, "attention_mask": MASK}


def halves(name: str = "BERT, mask") -> tuple[Any, Any]:
    """Halves of models of two processes."""
    model = build(CASES[name]).eval()
    point = CASES[name].point
    return st.split(model, after=point)[0], st.split(copy.deepcopy(model), after=point)[1]


@pytest.fixture(scope="module")
def agreed() -> tuple[Any, Any]:
    device_model, server_model = halves()
    server_model.agree(device_model.hello(**INPUTS), **INPUTS)
    return device_model, server_model


def summed(message: bytes) -> bytes:
    """Put the right checksum behind a message without one."""
    return message + zlib.crc32(message).to_bytes(4, "little")


def refused(message: bytes, server_model: Any, kind: str) -> str:
    with pytest.raises(sft.CodecError) as error:
        st.Cut().decode(message, server_model)
    assert error.value.kind == kind
    return str(error.value)


def test_a_message_names_a_plan_that_both_agreed_on(agreed: tuple[Any, Any]) -> None:
    device_model, _ = agreed
    message = st.Cut(RAW).encode(device_model(**INPUTS))
    _, other = halves()
    assert "was not agreed on" in refused(message, other, "unknown_plan")
    assert "no half that could have agreed" in refused(message, None, "unknown_plan")
    other.agree(device_model.hello(**INPUTS), **INPUTS)
    assert isinstance(st.Cut().decode(message, other), st.Crossing)
    frame = st.Cut(RAW).encode(torch.ones(2, 7, 32))
    assert "a frame alone" in refused(frame, other, "unknown_plan")


def test_a_device_does_not_choose_how_the_model_is_called(agreed: tuple[Any, Any]) -> None:
    device_model, server_model = agreed
    for call in (
        {"input_ids": IDS},
        {**INPUTS, "return_dict": False},
        {**INPUTS, "labels": LABELS},
        {"input_ids": IDS, "attention_mask": MASK.float()},
    ):
        with pytest.raises(sft.CodecError, match="names a plan that is not agreed on") as error:
            server_model.agree(device_model.hello(**call), **INPUTS)
        assert error.value.kind == "unknown_plan"
        refused(st.Cut(RAW).encode(device_model(**call)), server_model, "unknown_plan")
    for name in ("BERT", "GPT-2"):
        model = build(CASES[name]).requires_grad_(False)
        stranger = st.split(model, after=CASES[name].point)[0]
        with pytest.raises(sft.CodecError, match="not agreed on"):
            server_model.agree(stranger.hello(**INPUTS, labels=LABELS), **INPUTS)


def test_any_sizes_and_paths_of_an_agreed_call_pass(agreed: tuple[Any, Any]) -> None:
    """The example has two rows of seven; what the code reads from the mask takes two paths."""
    device_model, server_model = agreed
    for mask in (MASK, torch.ones_like(MASK)):
        for rows, columns in ((2, 7), (1, 5), (2, 1), (2, 7)):
            inputs = {"input_ids": IDS[:rows, :columns], "attention_mask": mask[:rows, :columns]}
            with torch.no_grad():
                message = st.Cut(RAW).encode(device_model(**inputs))
                z = st.Cut().decode(message, server_model)
                expected = server_model(device_model(**inputs)).logits
                assert torch.equal(server_model(z).logits, expected)


def test_containers_need_no_place_in_a_message() -> None:
    """The encoder of T5 returns its states in a class of its own, which the decoder uses."""
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_heads": 2}
    special: dict[str, Any] = {"decoder_start_token_id": 0, "use_cache": False}
    config = transformers.T5Config(**sizes, **special, num_layers=2, vocab_size=50)
    model = transformers.T5ForConditionalGeneration(config).eval()
    point, inputs = "decoder.block.0.layer.1", {"input_ids": IDS, "decoder_input_ids": IDS}
    model.requires_grad_(False)
    device_model: Any = st.split(model, after=point)[0]
    server_model: Any = st.split(copy.deepcopy(model), after=point)[1]
    server_model.agree(device_model.hello(**inputs), **inputs)
    z = st.Cut().decode(st.Cut(RAW).encode(device_model(**inputs)), server_model)
    assert torch.equal(server_model(z).logits, model(**inputs).logits)
    model.requires_grad_(True)
    with pytest.raises(TypeError, match="requires a gradient, which has no way back"):
        st.Cut().encode(device_model(**inputs))


def test_masks_and_labels_cross_in_few_bits(agreed: tuple[Any, Any]) -> None:
    """An attention mask of int64 in one bit an element, and less than a hundred bytes beside."""
    device_model, _ = agreed
    cut = st.Cut(RAW)
    h = device_model(input_ids=IDS.repeat(8, 9), attention_mask=MASK.repeat(8, 9))
    message = cut.encode(h)
    beside = len(message) - len(sft.Codec.raw().encode(h.hidden.detach().numpy()))
    assert beside < 100 + MASK.repeat(8, 9).numel() / 8
    cut.reset_traffic()
    cut(h)
    assert cut.traffic.up.bytes == len(message)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_tensor_comes_back(dtype: torch.dtype) -> None:
    if dtype.is_floating_point:
        numbers = [torch.randn(5).to(dtype), torch.tensor([torch.nan, torch.inf]).to(dtype)]
    elif dtype == torch.bool:
        numbers = [torch.tensor([True, False, True]), torch.ones(2, dtype=dtype)]
    else:
        ends = torch.iinfo(dtype)
        numbers = [
            torch.tensor(some, dtype=dtype)
            for some in ([ends.min, ends.max], [ends.max], [3, 3, 3], [0, 1, 1, 0], [ends.min, 5])
        ]
        numbers.append(torch.arange(70000).to(dtype))
    for x in (*numbers, torch.zeros(0, 3, dtype=dtype), torch.tensor(1, dtype=dtype)):
        reader = Reader(packed(x))
        again = unpacked(reader, dtype, tuple(x.shape), 1 << 24)
        reader.end()
        assert again.dtype == dtype
        assert again.shape == x.shape
        assert packed(again) == packed(x)


def test_damaged_messages_are_codec_errors(agreed: tuple[Any, Any]) -> None:
    device_model, server_model = agreed
    whole, cut = st.Cut().encode(device_model(**INPUTS)), st.Cut()
    assert isinstance(cut.decode(whole, server_model), st.Crossing)
    for end in range(len(whole)):
        with pytest.raises(sft.CodecError):
            cut.decode(whole[:end], server_model)
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        with pytest.raises(sft.CodecError):
            cut.decode(bytes(damaged), server_model)
    assert cut.traffic.up.messages == 1


@pytest.mark.parametrize("name", ["BERT, mask", "GPT-2, pooled at the last token"])
def test_hostile_messages_are_codec_errors(name: str) -> None:
    """With right checksums: all else would be found by these."""
    device_model, server_model = halves(name)
    for half in (device_model, server_model):
        half.requires_grad_(False)
    server_model.agree(device_model.hello(**INPUTS), **INPUTS)
    message = st.Cut(sft.Codec.dead_zone(1.25)).encode(device_model(**INPUTS))
    hello = device_model.hello(**INPUTS)
    random, taken, kinds = random_numbers.Random(0), 0, set()
    for attempt in range(3000):
        data = bytearray((hello if attempt % 10 == 0 else message)[:-4])
        # Mostly the head: the frame behind it has fuzz tests of its own.
        last = len(data) if attempt % 4 == 0 else min(len(data), 45)
        for _ in range(random.randint(1, 3)):
            place = random.randrange(5, last)
            match random.randrange(4):
                case 0:
                    data[place] = random.choice([0, 1, 2, 5, 0x7F, 0x80, 0xFF, 56, 57])
                case 1:
                    data[place] ^= 1 << random.randrange(8)
                case 2:
                    del data[place : place + random.randint(1, 4)]
                case 3:
                    data[place:place] = bytes(random.choices(range(256), k=random.randint(1, 4)))
            last = min(last, len(data))
        try:
            if attempt % 10 == 0:
                server_model.agree(summed(bytes(data)), **INPUTS)
            else:
                st.Cut().decode(summed(bytes(data)), server_model)
            taken += 1
        except sft.CodecError as error:
            kinds.add(error.kind)
    assert {"corrupt", "unknown_plan"} <= kinds
    assert taken < 1500


def test_a_message_of_another_kind_is_a_codec_error(agreed: tuple[Any, Any]) -> None:
    _, server_model = agreed
    refused(b"", server_model, "unknown_plan")
    refused(b"SFTC", server_model, "truncated")
    refused(summed(b"SFTC\2" + bytes(20)), server_model, "unsupported_version")
    with pytest.raises(sft.CodecError, match="not a hello"):
        server_model.agree(b"SFTC", **INPUTS)
    with pytest.raises(TypeError, match="hello must be bytes"):
        server_model.agree(None, **INPUTS)
    with pytest.raises(TypeError, match="a object among the arguments has no place in a plan"):
        server_model.agree(b"", object())
