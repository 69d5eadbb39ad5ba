"""What device and server say over a link: calls and steps up, gradients and faults down.

The layout is in ``MESSAGE.md``. Nothing here computes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sft
from sft.torch._arrays import to_host
from sft.torch._message import error_of, limit
from sft.torch._packing import DTYPES, Reader, packed, unpacked, varint
from sft.torch._transform import Bases

HELLO, STEP, LEAVE = b"\0", b"\1", b"\2"
"""Up: the first byte tells what follows."""
AGREED, GRADIENT, FAULT = b"\0", b"\1", b"\2"
"""Down."""
_NOTHING = 255
_MOST_DIMENSIONS = 16
_LONGEST_FAULT = 1000
_LOSS = struct.Struct("<d")


@dataclass(frozen=True)
class Step:
    """A mini-batch on its way up.

    Attributes
    ----------
    message
        The activation, as `Cut.encode` returned it.
    targets
        What the loss is told beside what the model returns.
    samples, mask
        As `Cut.encode` took them.
    """

    message: bytes
    targets: Tensor | None
    samples: Tensor | None
    mask: Tensor | None

    def to_bytes(self) -> bytes:
        """Return what goes up, behind its first byte."""
        tensors = (self.targets, self.samples, self.mask)
        head = STEP + varint(len(self.message))
        return head + self.message + b"".join(map(_tensor_bytes, tensors))

    @classmethod
    def of(cls, data: bytes) -> Step:
        """Read what may come from anyone.

        Raises
        ------
        sft.CodecError
            If the bytes are not a step.
        """
        reader, most = Reader(data), limit(data)
        try:
            message = reader.take(reader.varint())
            targets, samples, mask = (_tensor(reader, most) for _ in range(3))
            reader.end()
        except ValueError as error:
            raise error_of("corrupt", f"the step contradicts its format: {error}") from error
        return cls(message, targets, samples, mask)


@dataclass(frozen=True)
class Answer:
    """What comes of a step.

    Attributes
    ----------
    loss
        Its loss.
    frame
        The gradient, as `Cut.encode_gradient` returned it.
    bases
        What `Cut.learn` returned, for the messages behind this one.
    """

    loss: float
    frame: bytes
    bases: Bases | None

    def to_bytes(self) -> bytes:
        """Return what goes down, behind its first byte."""
        bases = [b"" if b is None else b.to_bytes() for b in self.bases or (None, None)]
        learnt = b"".join(varint(len(basis)) + basis for basis in bases)
        return GRADIENT + _LOSS.pack(self.loss) + learnt + self.frame

    @classmethod
    def of(cls, data: bytes) -> Answer:
        """Read what the server sent.

        Raises
        ------
        sft.CodecError
            If the bytes are not an answer.
        """
        reader = Reader(data)
        try:
            (loss,) = _LOSS.unpack(reader.take(_LOSS.size))
            up, down = (reader.take(reader.varint()) for _ in range(2))
            frame = reader.rest()
        except ValueError as error:
            raise error_of("corrupt", f"the answer contradicts its format: {error}") from error
        bases = tuple(sft.Basis(basis) if basis else None for basis in (up, down))
        return cls(loss, frame, bases if any(bases) else None)  # type: ignore[arg-type]


def fault(error: BaseException) -> bytes:
    """Return what tells a device why it is let go."""
    return FAULT + f"{type(error).__name__}: {error}".encode()[:_LONGEST_FAULT]


def told(reply: bytes, expected: bytes) -> bytes:
    """Return what is behind the first byte of a reply of the expected kind.

    Raises
    ------
    ConnectionError
        If the server lets this device go, or says something else.
    """
    if reply[:1] == FAULT:
        text = reply[1:].decode(errors="replace")
        raise ConnectionError(f"the server let this device go: {text}")
    if reply[:1] != expected:
        raise ConnectionError(f"the server sent a reply of another kind: {reply[:1]!r}")
    return reply[1:]


def _tensor_bytes(x: Tensor | None) -> bytes:
    if x is None:
        return bytes([_NOTHING])
    if x.dtype not in DTYPES:
        raise TypeError(f"a tensor of {x.dtype} has no place in a message")
    sizes, data = b"".join(map(varint, x.shape)), packed(to_host(x))
    kind = bytes([DTYPES.index(x.dtype)])
    return b"".join((kind, varint(x.dim()), sizes, varint(len(data)), data))


def _tensor(reader: Reader, most: int) -> Tensor | None:
    kind = reader.take(1)[0]
    if kind == _NOTHING:
        return None
    if kind >= len(DTYPES):
        raise ValueError(f"{kind} is not a type of tensors")
    dimensions = reader.varint()
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor of {dimensions} dimensions, above {_MOST_DIMENSIONS}")
    shape = tuple(reader.varint(31) for _ in range(dimensions))
    elements = Reader(reader.take(reader.varint()))
    x = unpacked(elements, DTYPES[kind], shape, most)
    elements.end()
    return x


def tensor_of(x: Any, name: str) -> Tensor | None:
    """Return what goes up beside an activation as a tensor.

    Raises
    ------
    TypeError
        If it is none, and no numbers.
    """
    if x is None or isinstance(x, Tensor):
        return x
    try:
        return torch.as_tensor(list(x))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a tensor or numbers, got {type(x).__name__}") from error
