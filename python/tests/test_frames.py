"""Frames in: whatever holds bytes, and what is not a frame."""

import copy
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import sft


def tensor(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


FRAME = sft.Codec.paper().encode(tensor(8, 8))


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b"", "truncated"),
        (FRAME[:-1], "truncated"),
        (FRAME + b"\0", "trailing_bytes"),
        (b"PNG!" + FRAME[4:], "corrupt"),
        (FRAME[:4] + b"\xff" + FRAME[5:], "unsupported_version"),
        (FRAME[:-1] + bytes([FRAME[-1] ^ 1]), "checksum"),
    ],
)
def test_bad_frames_have_a_kind(frame: bytes, kind: str) -> None:
    with pytest.raises(sft.CodecError) as raised:
        sft.decode(frame)
    assert raised.value.kind == kind
    assert str(raised.value)


def test_codec_error_survives_pickling_and_copying() -> None:
    with pytest.raises(sft.CodecError) as raised:
        sft.decode(b"")
    for again in (pickle.loads(pickle.dumps(raised.value)), copy.copy(raised.value)):
        assert type(again) is sft.CodecError
        assert (again.kind, str(again)) == ("truncated", str(raised.value))


def test_max_elements_bounds_the_result() -> None:
    assert sft.decode(FRAME, max_elements=64).size == 64
    with pytest.raises(sft.CodecError, match="limit of 63") as raised:
        sft.decode(FRAME, max_elements=63)
    assert raised.value.kind == "too_large"
    with pytest.raises(ValueError, match=r"max_elements must be in .*, got -1"):
        sft.decode(FRAME, max_elements=-1)


@pytest.mark.parametrize(
    "frame",
    [
        bytearray(FRAME),
        memoryview(FRAME),
        memoryview(b"".join(bytes([byte, 0]) for byte in FRAME))[::2],
        np.frombuffer(FRAME, dtype=np.uint8),
    ],
)
def test_every_buffer_of_bytes_is_a_frame(frame: Any) -> None:
    np.testing.assert_array_equal(sft.decode(frame), sft.decode(FRAME))


@pytest.mark.parametrize("frame", ["SFTZ", 5, None, [1, 2], np.ones(3, dtype=np.float32)])
def test_other_frames_are_type_errors(frame: Any) -> None:
    with pytest.raises(TypeError, match="frame must be bytes, bytearray, memoryview"):
        sft.decode(frame)


def test_inspect_tells_without_decoding() -> None:
    info = sft.inspect(FRAME)
    assert (info.shape, info.dtype, info.code, info.kept) == ((8, 8), "f32", "golomb", 13)
    assert 0 < info.payload_bytes < len(FRAME)
    assert info.chunks == 1
    assert info == sft.inspect(bytearray(FRAME))
    assert repr(info).startswith("Info(shape=(8, 8), dtype='f32', code='golomb', kept=13, ")
    with pytest.raises(sft.CodecError) as raised:
        sft.inspect(FRAME[:-1])
    assert raised.value.kind == "truncated"
    with pytest.raises(TypeError, match="frame must be"):
        sft.inspect("SFTZ")  # type: ignore[arg-type]
