"""Masks, labels and positions in few bits; varints. See MESSAGE.md."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
"""The types of tensors beside a hidden state; the place is the number in a message."""

_RAW = 255
_WIDEST = 56
"""Wider numbers than this are not packed."""
_AT_ONCE = 1 << 16
"""So many numbers are unpacked at once; a multiple of eight, so that they begin with a byte."""


def varint(number: int) -> bytes:
    """Return a number as groups of seven bits, least significant first."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def zigzag(number: int) -> bytes:
    """Return a number with a sign as a varint."""
    return varint(2 * number if number >= 0 else -2 * number - 1)


class Reader:
    """Takes bytes from the front; raises ValueError if there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """Take so many bytes."""
        if count > len(self._data) - self._at:
            raise ValueError("it ends early")
        self._at += count
        return self._data[self._at - count : self._at]

    def varint(self, bits: int = 32) -> int:
        """Take a number of at most so many bits."""
        number, shift = 0, 0
        while True:
            group = self.take(1)[0]
            number |= (group & 0x7F) << shift
            shift += 7
            if group < 0x80:
                break
            if shift >= bits:
                raise ValueError(f"a number has more than {bits} bits")
        if number >> bits or (group == 0 and shift > 7):
            raise ValueError("a number is not in its shortest form")
        return number

    def zigzag(self, bits: int = 65) -> int:
        """Take a number with a sign."""
        number = self.varint(bits)
        return number >> 1 if number % 2 == 0 else -(number >> 1) - 1

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        """Refuse bytes that are left."""
        if self._at != len(self._data):
            raise ValueError("bytes follow the end")


def packed(x: Tensor) -> bytes:
    """Return the elements: whole numbers as their least, and the bits of what is above it."""
    x = x.detach().cpu().contiguous().view(-1)
    if x.dtype.is_floating_point or x.numel() == 0:
        return bytes([_RAW]) + x.view(torch.uint8).numpy().tobytes()
    least, largest = (int(end) for end in (x.min(), x.max()))
    width = (largest - least).bit_length()
    if width > _WIDEST:
        return bytes([_RAW]) + x.view(torch.uint8).numpy().tobytes()
    above = x.numpy().astype(np.int64) - least
    bits = (above[:, None] >> np.arange(width)) & 1
    data = np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    return bytes([width]) + zigzag(least) + data


def unpacked(reader: Reader, dtype: torch.dtype, shape: tuple[int, ...], most: int) -> Tensor:
    """Take a tensor of this type and shape.

    Raises
    ------
    ValueError
        If the bytes are not those of one, or it has more than `most` elements.
    """
    count, width = math.prod(shape), reader.take(1)[0]
    if count > most:
        raise ValueError(f"a tensor of {count} elements, above the limit of {most}")
    if width == _RAW:
        data = bytearray(reader.take(count * dtype.itemsize))
        if dtype == torch.bool and any(data.translate(None, b"\0\1")):
            raise ValueError("a truth value is neither 0 nor 1")
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.view(shape)
    if dtype.is_floating_point or width > _WIDEST:
        raise ValueError(f"{width} is not a width of {dtype}")
    least = reader.zigzag()
    lowest, highest = _ends(dtype)
    if not lowest <= least <= highest:
        raise ValueError(f"{least} is not of {dtype}")
    bits = reader.take((count * width + 7) // 8)
    above = np.concatenate([np.zeros(0, np.int64), *_numbers(bits, count, width)])
    if int(above.max(initial=0)) + least > highest:
        raise ValueError(f"a number is not of {dtype}")
    return torch.from_numpy(above + least).to(dtype).view(shape)


def _numbers(data: bytes, count: int, width: int) -> Iterator[np.ndarray]:
    """Read numbers of so many bits, some at a time so that the single bits take little memory."""
    if width == 0:
        yield np.zeros(count, np.int64)
        return
    whole = np.frombuffer(data, np.uint8)
    for first in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - first)
        part = whole[first * width // 8 :]
        bits = np.unpackbits(part, count=some * width, bitorder="little").reshape(some, width)
        yield bits.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))


def _ends(dtype: torch.dtype) -> tuple[int, int]:
    if dtype == torch.bool:
        return 0, 1
    info = torch.iinfo(dtype)
    return info.min, info.max
