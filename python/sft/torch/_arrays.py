"""Tensors to frames and back; what is copied is copied between devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import sft

_DTYPES = {torch.float32, torch.float16, torch.bfloat16}
# More than a frame has that keeps nothing.
_EMPTY_BYTES = 128
# A few bytes can stand for any number of zeros.
_MOST_ELEMENTS, _ELEMENTS_A_BYTE = 1 << 24, 1 << 10
_ML_DTYPES = find_spec("ml_dtypes") is not None


def check(x: object, name: str) -> Tensor:
    """Return a tensor that a codec can encode.

    Raises
    ------
    TypeError
        If it is no tensor, or of a type that frames do not have.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if x.is_nested:
        raise TypeError(f"{name} must be dense, got a nested tensor: pad it")
    if x.layout != torch.strided:
        raise TypeError(f"{name} must be dense, got {x.layout}: convert it with {name}.to_dense()")
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"{name} must be float32, float16 or bfloat16, got {x.dtype}: convert it with "
            f"{name}.float()"
        )
    return x


def frame_bytes(frame: object, name: str) -> bytes:
    """Return what a buffer holds.

    Raises
    ------
    TypeError
        If it is no buffer of bytes.
    """
    try:
        return memoryview(frame).tobytes()  # type: ignore[arg-type]
    except TypeError:
        kind = type(frame).__name__
        raise TypeError(
            f"{name} must be bytes, bytearray, memoryview or another buffer of bytes, got {kind}"
        ) from None


def to_host(x: Tensor) -> Tensor:
    """Return a tensor as a contiguous one of the CPU, copied only if it is not that.

    Raises
    ------
    TypeError
        If it has no values, as on the device ``meta``.
    """
    try:
        return x.detach().cpu().contiguous()
    except NotImplementedError as error:
        raise TypeError(
            f"a tensor on the device {x.device} cannot cross the cut: {error}"
        ) from error


def encode(codec: sft.Codec | sft.ErrorFeedback, x: Tensor, seed: int) -> bytes:
    """Encode a tensor of any device; a contiguous one of the CPU is not copied."""
    array, dtype = to_array(x)
    return codec.encode(array, seed, dtype=dtype)


def to_array(x: Tensor) -> tuple[npt.NDArray[Any], Literal["bf16"] | None]:
    """Return a tensor as an encoder takes it; what NumPy has no type for as its bits."""
    x = to_host(x)
    if x.dtype == torch.bfloat16:
        return x.view(torch.uint16).numpy(), "bf16"
    return x.numpy(), None


def decode(
    frame: bytes,
    device: torch.device | str | None = None,
    shape: Sequence[int] | None = None,
) -> Tensor:
    """Decode a frame to a tensor of its type, and of this shape where it is known."""
    y = sft.decode(frame, shape=shape)
    if not _ML_DTYPES and sft.inspect(frame).dtype == "bf16":
        return torch.from_numpy(y).to(torch.bfloat16).to(device=device)
    return from_numpy(y).to(device=device)


def is_zeroed(frame: bytes, x: Tensor) -> bool:
    """Tell whether the frame of a tensor that is not zero keeps nothing of it."""
    if x.is_meta or len(frame) >= _EMPTY_BYTES or sft.inspect(frame).kept > 0:
        return False
    return bool(x.any())


def shape_of(frame: bytes) -> tuple[int, ...]:
    """Return the shape of a frame that may come from anyone.

    Raises
    ------
    sft.CodecError
        If it has more elements than a frame of so many bytes may claim.
    """
    shape = tuple(sft.inspect(frame).shape)
    elements, most = math.prod(shape), _MOST_ELEMENTS + _ELEMENTS_A_BYTE * len(frame)
    if elements > most:
        error = sft.CodecError(f"a tensor of {elements} elements, at most {most} are accepted")
        error.kind = "too_large"
        raise error
    return shape


def from_numpy(y: npt.NDArray[Any]) -> Tensor:
    """Return an array as a tensor; the bfloat16 of ml_dtypes as that of torch."""
    if y.dtype.name == "bfloat16":
        return torch.from_numpy(y.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(y)
