"""The bytes between two processes: hellos, and hidden states with what passes beside them.

The layout is in ``MESSAGE.md``. A message names the plan that both halves agreed on; it cannot say
how the model is called.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sft
from sft.torch._crossing import HIDDEN, CallPlan, Crossing, plan_of, slots, slots_of
from sft.torch._forms import Form, form_of
from sft.torch._packing import DTYPES, Reader, packed, varint, zigzag
from sft.torch._transform import Batch

VERSION = 1
_NUMBERS = {dtype: number for number, dtype in enumerate(DTYPES)}
_FRAME = struct.Struct("<I")
_NONE, _FALSE, _TRUE, _INT, _FLOAT, _LIST = range(6)
_DEEPEST = 8
_LONGEST_TEXT = 1 << 16


@dataclass(frozen=True)
class Head:
    """What a message tells beside the tensors.

    Attributes
    ----------
    digest
        The plan.
    sizes
        All dimensions of the tensors among the arguments, one after the other.
    reads
        Numbers that the code read from tensors before the cut, in order.
    beside
        Number and type of each tensor that was sent; all tensors of a plan are numbered.
    """

    digest: bytes
    sizes: tuple[int, ...]
    reads: tuple[Any, ...]
    beside: tuple[tuple[int, torch.dtype], ...]


def pack(h: Tensor | Crossing, frame: bytes) -> bytes:
    """Put the frame of a hidden state and all that passes beside it into one message.

    Raises
    ------
    TypeError
        If a part of it has no place in a message.
    """
    plan, sent = _plan(h), beside(h)
    if plan is None:
        return frame
    for x in sent:
        if x.requires_grad:
            raise TypeError(
                f"a tensor of shape {tuple(x.shape)} passes the cut beside the hidden state and "
                "requires a gradient, which has no way back between processes"
            )
    head = _head(plan, sent)
    parts = (b"SFTC", bytes([VERSION]), head, _FRAME.pack(len(frame)), frame, *map(packed, sent))
    return _summed(b"".join(parts))


def overhead(h: Tensor | Crossing) -> int:
    """Bytes that a message has beside the frame of the hidden state."""
    plan, sent = _plan(h), beside(h)
    if plan is None:
        return 0
    try:
        head = len(_head(plan, sent)) + sum(len(packed(x)) for x in sent)
    except TypeError:
        # What cannot leave the process has no description in bytes.
        head = sum(x.nbytes for x in sent)
    return 4 + 1 + head + _FRAME.size + 4


def beside(h: Tensor | Crossing) -> tuple[Tensor, ...]:
    """Tensors that pass unchanged."""
    return h.sent if isinstance(h, Crossing) else ()


def unpack(message: bytes) -> tuple[Head | None, bytes, Reader]:
    """Take a message apart: its head, the frame, and the tensors beside it, yet to be read.

    Raises
    ------
    sft.CodecError
        If the bytes are not a message.
    """
    if message[:4] != b"SFTC":
        return None, message, Reader(b"")
    reader = _checked(message, "message")
    try:
        head = _read_head(reader)
        (length,) = _FRAME.unpack(reader.take(_FRAME.size))
        return head, reader.take(length), reader
    except ValueError as error:
        raise error_of("corrupt", f"the message contradicts its format: {error}") from error


def limit(message: bytes) -> int:
    """Return how many elements a tensor of a message may have, as for the decoder of frames."""
    return (1 << 24) + 1024 * len(message)


def check_hidden(plan: CallPlan, frame: bytes, batch: Batch) -> None:
    """Refuse a frame of another shape than the hidden state has by the plan and its mask.

    Raises
    ------
    sft.CodecError
        If the shapes differ, or the bytes are not a frame.
    """
    shape = next(slot.shape for slot in slots(plan.cut) if slot.sent == HIDDEN)
    found = tuple(sft.inspect(frame).shape)
    if batch.mask is not None and shape[:2] == batch.mask.shape:
        shape = batch.packed_shape(shape)
    if found != shape:
        raise error_of("corrupt", f"the hidden state has shape {found}, by its plan {shape}")


def pack_hello(form: Form, after: str) -> bytes:
    """Return what a device sends first."""
    text = f"after {after}: {form.text}".encode()[:_LONGEST_TEXT]
    parts = (b"SFTH", bytes([VERSION]), form.digest, varint(len(text)), text)
    return _summed(b"".join(parts))


def unpack_hello(hello: bytes) -> tuple[bytes, str]:
    """Return the plan that a device names, and its description for people.

    Raises
    ------
    sft.CodecError
        If the bytes are not a hello.
    """
    if hello[:4] != b"SFTH":
        raise error_of("corrupt", "the bytes are not a hello")
    reader = _checked(hello, "hello")
    try:
        digest = reader.take(8)
        text = reader.take(reader.varint())
        reader.end()
        if len(text) > _LONGEST_TEXT:
            raise ValueError("its text is too long")
        return digest, text.decode(errors="replace")
    except ValueError as error:
        raise error_of("corrupt", f"the hello contradicts its format: {error}") from error


def error_of(kind: str, text: str) -> sft.CodecError:
    """Return an error of this kind."""
    error = sft.CodecError(text)
    error.kind = kind  # type: ignore[assignment]
    return error


def _plan(h: Tensor | Crossing) -> CallPlan | None:
    return h.plan if isinstance(h, Crossing) else plan_of(h)


def _summed(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def _checked(data: bytes, what: str) -> Reader:
    """Check version and checksum, and return what is between."""
    if len(data) < 9:
        raise error_of("truncated", f"the {what} ends early")
    if data[4] != VERSION:
        raise error_of("unsupported_version", f"version {data[4]} of the {what} is not known")
    if struct.unpack("<I", data[-4:])[0] != zlib.crc32(data[:-4]):
        raise error_of("checksum", f"the checksum of the {what} does not match")
    return Reader(data[5:-4])


def _head(plan: CallPlan, sent: tuple[Tensor, ...]) -> bytes:
    form = form_of(plan.inputs, plan.model)
    sizes = [size for slot in slots(plan.inputs) for size in slot.shape]
    numbers = [
        i for i, slot in enumerate(slots_of(plan)) if slot.sent is not None and slot.sent >= 0
    ]
    return b"".join(
        (
            form.digest,
            varint(len(sizes)),
            *map(varint, sizes),
            varint(len(plan.reads)),
            *map(_packed_read, plan.reads),
            varint(len(sent)),
            *(varint(n) + bytes([_number(x)]) for n, x in zip(numbers, sent, strict=True)),
        )
    )


def _read_head(reader: Reader) -> Head:
    digest = reader.take(8)
    sizes = tuple(reader.varint(31) for _ in range(reader.varint()))
    reads = tuple(_read(reader, _DEEPEST) for _ in range(reader.varint()))
    beside = tuple((reader.varint(), _dtype(reader.take(1)[0])) for _ in range(reader.varint()))
    numbers = [number for number, _ in beside]
    if sorted(set(numbers)) != numbers:
        raise ValueError("the tensors are not in order")
    return Head(digest, sizes, reads, beside)


def _number(x: Tensor) -> int:
    if x.dtype not in _NUMBERS:
        raise TypeError(f"a tensor of {x.dtype} passes the cut, which has no place in a message")
    return _NUMBERS[x.dtype]


def _dtype(number: int) -> torch.dtype:
    if number >= len(DTYPES):
        raise ValueError(f"{number} is not a type of tensors")
    return DTYPES[number]


def _packed_read(value: object) -> bytes:
    if value is None or isinstance(value, bool):
        return bytes([{None: _NONE, False: _FALSE, True: _TRUE}[value]])
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return bytes([_INT]) + zigzag(value)
    if isinstance(value, float):
        return bytes([_FLOAT]) + struct.pack("<d", value)
    if isinstance(value, list | tuple):
        return bytes([_LIST]) + varint(len(value)) + b"".join(map(_packed_read, value))
    raise TypeError(f"the code before the cut read {value!r}, which has no place in a message")


def _read(reader: Reader, deepest: int) -> Any:
    kind = reader.take(1)[0]
    if kind in (_NONE, _FALSE, _TRUE):
        return (None, False, True)[kind]
    if kind == _INT:
        return reader.zigzag(64)
    if kind == _FLOAT:
        return struct.unpack("<d", reader.take(8))[0]
    if kind == _LIST and deepest:
        return [_read(reader, deepest - 1) for _ in range(reader.varint())]
    raise ValueError(f"{kind} is not a kind of number")
