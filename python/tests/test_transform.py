"""Bases and the codec of them, on NumPy arrays."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import sft

LENGTHS = [5, 9, 2, 16]
Array = npt.NDArray[np.float32]


def texts(seed: int, copies: int = 1) -> Array:
    """Texts of a few patterns, with a large first token, one after the other."""
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).standard_normal((4, 24))
    rows = sum(LENGTHS) * copies
    x = (
        2.0
        + random.standard_normal((rows, 4)) @ patterns
        + 0.1 * random.standard_normal((rows, 24))
    )
    x[np.cumsum([0, *LENGTHS * copies])[:-1]] += 1000.0
    return x.astype(np.float32)


def basis(step: float = 0.2) -> sft.Basis:
    return sft.Basis.of_activations(texts(1, copies=4), step, lengths=LENGTHS * 4)


def test_large_tokens_do_not_starve_the_others() -> None:
    encoder, decoder = sft.TransformEncoder(basis()), sft.TransformDecoder(basis())
    x = texts(2)
    frame = encoder.encode(x, lengths=LENGTHS)
    y = decoder.decode(frame, x.shape, lengths=LENGTHS)
    error = float(((y - x) ** 2).mean())
    assert error < 0.05
    assert sft.inspect(frame).shape == x.shape
    assert 7 * len(frame) < x.nbytes
    # As fine for the large first tokens as for the others, which the plain codec forgets for them.
    small = np.abs(x) < 100
    plain = sft.decode(sft.Codec().encode(x))
    assert ((plain - x)[small] ** 2).mean() > 20 * ((y - x)[small] ** 2).mean()
    with pytest.raises(sft.CodecError) as caught:
        sft.decode(frame)
    assert caught.value.kind == "lost_reference"


def test_both_sides_are_saved_and_go_on() -> None:
    encoder, decoder = (
        sft.TransformEncoder(basis(), memory_bytes=1 << 20),
        sft.TransformDecoder(basis(), memory_bytes=1 << 20),
    )
    x = texts(2)
    said: dict[str, Any] = {"lengths": LENGTHS, "samples": [7, 8, 9, 2**64 - 1]}
    decoder.decode(encoder.encode(x, **said), x.shape, **said)
    again = sft.TransformEncoder(encoder.basis, memory_bytes=1 << 20)
    again.restore(encoder.save())
    frame = again.encode(x, **said)
    assert frame == encoder.encode(x, **said)
    assert len(frame) < 80
    assert encoder.used_bytes == decoder.used_bytes > 0
    assert encoder.evicted == 0
    late = sft.TransformDecoder(encoder.basis, memory_bytes=1 << 20)
    with pytest.raises(sft.CodecError) as caught:
        late.decode(frame, x.shape, **said)
    assert caught.value.kind == "lost_reference"
    late.restore(decoder.save())
    assert np.array_equal(
        late.decode(frame, x.shape, **said), decoder.decode(frame, x.shape, **said)
    )
    encoder.reset()
    assert encoder.used_bytes == 0
    assert encoder.save() == b""


def test_a_basis_is_its_bytes() -> None:
    one = basis()
    for other in (sft.Basis(one.to_bytes()), pickle.loads(pickle.dumps(one))):
        assert other == one
        assert hash(other) == hash(one)
        assert other.name == one.name
    assert (one.width, one.grid, one.prefix, one.cached_rows) == (24, None, 1, 4096)
    grid = sft.Basis.of_activations(np.ones((2, 13, 8), np.float32), 0.3, grid=(3, 4))
    assert (grid.grid, grid.channels, grid.cached_rows) == ((3, 4), 8, 0)
    assert one not in (grid, basis(0.3))
    assert str(len(one.to_bytes())) in repr(one)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_tensors_come_back_in_their_type(dtype: str) -> None:
    encoder, decoder = sft.TransformEncoder(basis()), sft.TransformDecoder(basis())
    x = np.minimum(texts(3), 100).astype(dtype)
    y = decoder.decode(encoder.encode(x, lengths=LENGTHS), x.shape, lengths=LENGTHS)
    assert y.dtype == x.dtype


ONES = np.ones((4, 6, 24), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sft.Basis(b"no basis"), sft.CodecError, "magic|cut off"),
        (lambda: sft.Basis("text"), TypeError, "data must be bytes"),  # type: ignore[arg-type]
        (lambda: sft.Basis.of_activations(ONES, 0.0), ValueError, "step must be in"),
        (lambda: sft.Basis.of_activations(ONES, float("nan")), ValueError, "got NaN"),
        (lambda: sft.Basis.of_activations(ONES[0], 0.3), ValueError, "with lengths, got"),
        (lambda: sft.Basis.of_activations(ONES, 0.3, prefix=65), ValueError, "at most 64, got 65"),
        (lambda: sft.Basis.of_activations(ONES, 0.3, prefix=-1), ValueError, "prefix must be in"),
        (lambda: sft.Basis.of_activations(ONES, 0.3, grid=(2, 3)), ValueError, r"1 \+ 2 x 3"),
        (lambda: sft.Basis.of_activations(ONES * np.inf, 0.3), sft.CodecError, "finite"),
        (lambda: sft.Basis.of_activations(ONES[:0], 0.3), ValueError, "must hold samples"),
        (
            lambda: sft.Basis.of_activations(ONES, 0.3, grid=(1, 5), sensitivity=ONES[:2]),
            ValueError,
            "sensitivity must have the shape",
        ),
        (
            lambda: sft.TransformEncoder(basis()).encode(ONES[0], lengths=[3, 4]),
            ValueError,
            r"lengths must add up .* Some\(7\)",
        ),
        (
            lambda: sft.TransformEncoder(basis()).encode(ONES[0], lengths=[6], samples=[1, 2]),
            ValueError,
            "samples must be one for each",
        ),
        (
            lambda: sft.TransformEncoder(basis()).encode(ONES, samples=["a"] * 4),  # type: ignore[list-item]
            TypeError,
            "samples must be a whole number",
        ),
        (lambda: sft.TransformEncoder(basis(), memory_bytes=-1), ValueError, "memory_bytes"),
        (lambda: sft.TransformEncoder(basis()).encode(ONES.reshape(4, 18, 8)), ValueError, "S, 24"),
        (
            lambda: sft.TransformDecoder(basis()).decode(b"", (4, 6, 24)),
            sft.CodecError,
            "cut off|0 bytes",
        ),
        (lambda: sft.TransformDecoder(basis()).restore(b"12345"), sft.CodecError, "."),
    ],
)
def test_bad_arguments_are_named(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
