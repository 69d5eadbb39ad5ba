"""One message: the frame of a hidden state, and what passes unchanged beside it.

A hidden state alone is its frame, nothing else. With a plan a message is, little-endian,

====== ==============================================================
bytes  content
====== ==============================================================
4      magic, ASCII ``SFTC``
1      version, 1
4      length of the header
4      length of the frame
.      header: the plan as JSON, in UTF-8
.      frame
.      the elements of the tensors sent beside it, one after the other
4      CRC-32 of all bytes before it
====== ==============================================================
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from typing import Any

import torch
from torch import Tensor

import sft
from sft.torch._crossing import HIDDEN, Crossing, Plan, Slot, plan_of, slots, with_plan

_START = struct.Struct("<4sBII")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    )
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def pack(h: Tensor | Crossing, frame: bytes) -> bytes:
    """Put the frame of a hidden state and all that passes beside it into one message.

    Raises
    ------
    TypeError
        If a part of it has no place in a message.
    """
    header, sent = _header(h), beside(h)
    if header is None:
        return frame
    start = _START.pack(b"SFTC", 1, len(header), len(frame))
    message = b"".join((start, header, frame, *map(_elements, sent)))
    return message + struct.pack("<I", zlib.crc32(message))


def overhead(h: Tensor | Crossing) -> int:
    """Bytes that a message has beside the frame of the hidden state."""
    try:
        header = _header(h)
    except TypeError:
        # What cannot leave the process has no description in bytes.
        header = b""
    sent = sum(x.nbytes for x in beside(h))
    return sent if header is None else sent + _START.size + len(header) + 4


def beside(h: Tensor | Crossing) -> tuple[Tensor, ...]:
    """Tensors that pass unchanged."""
    return h.sent if isinstance(h, Crossing) else ()


def unpack(message: bytes) -> tuple[bytes, tuple[Tensor, ...], Plan | None]:
    """Take a message apart: the frame, the tensors beside it, and the plan.

    Raises
    ------
    sft.CodecError
        If the bytes are not a message.
    """
    if message[:4] != b"SFTC":
        return message, (), None
    if len(message) < _START.size + 4:
        raise _error("truncated", "the message ends early")
    _, version, header_bytes, frame_bytes = _START.unpack_from(message)
    if version != 1:
        raise _error("unsupported_version", f"version {version} of the message is not known")
    if struct.unpack("<I", message[-4:])[0] != zlib.crc32(message[:-4]):
        raise _error("checksum", "the checksum of the message does not match")
    body = message[_START.size : -4]
    header, frame = body[:header_bytes], body[header_bytes : header_bytes + frame_bytes]
    try:
        plan = _plan(json.loads(header))
        sent = _tensors(plan, body[header_bytes + frame_bytes :])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise _error("corrupt", f"the message contradicts its format: {error}") from error
    return frame, sent, plan


def join(z: Tensor, sent: tuple[Tensor, ...], plan: Plan | None) -> Tensor | Crossing:
    """Put a received hidden state together with what came beside it."""
    if plan is not None and sent:
        return Crossing(z, sent, plan)
    return with_plan(z, plan)


def _header(h: Tensor | Crossing) -> bytes | None:
    """Describe what the server needs to know beside the hidden state, if anything."""
    plan = h.plan if isinstance(h, Crossing) else plan_of(h)
    if plan is None:
        return None
    return json.dumps(_describe_plan(plan), separators=(",", ":")).encode()


def _describe_plan(plan: Plan) -> dict[str, Any]:
    return {
        "inputs": _describe(plan.inputs),
        "outputs": {name: [_describe(x) for x in calls] for name, calls in plan.outputs.items()},
        "cut": _describe(plan.cut),
        "reads": plan.reads,
    }


def _describe(tree: Any) -> Any:
    """Return a tree as JSON: scalars as they are, all else as an object with its kind."""
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Slot):
        return {"tensor": [_NAMES[tree.dtype], list(tree.shape), tree.sent]}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [_describe(item) for item in tree]}
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _describe(item) for key, item in tree.items()}}
    raise TypeError(
        f"a {type(tree).__name__} passes the cut, which has no place in a message: only tensors, "
        "numbers, strings, tuples, lists and dictionaries have"
    )


def _plan(header: dict[str, Any]) -> Plan:
    outputs = {name: [_restore(x) for x in calls] for name, calls in header["outputs"].items()}
    inputs, cut = _restore(header["inputs"]), _restore(header["cut"])
    if not (isinstance(inputs, tuple) and len(inputs) == 2):
        raise ValueError("inputs are not arguments")
    if sum(slot.sent == HIDDEN for slot in slots(cut)) != 1:
        raise ValueError("there is not one hidden state")
    return Plan(inputs, outputs, cut, list(header["reads"]))


def _restore(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        name, shape, sent = value
        if not all(isinstance(size, int) and 0 <= size < 2**31 for size in shape):
            raise ValueError(f"{shape} is not a shape")
        return Slot(_DTYPES[name], tuple(shape), sent)
    if kind == "dict":
        return {key: _restore(item) for key, item in value.items()}
    items = [_restore(item) for item in value]
    return {"tuple": tuple, "list": list}[kind](items)


def _tensors(plan: Plan, data: bytes) -> tuple[Tensor, ...]:
    """Read the tensors that were sent, in the order of their places."""
    found = [*slots(plan.inputs), *slots(list(plan.outputs.values())), *slots(plan.cut)]
    places = {slot.sent: slot for slot in found if slot.sent not in (None, HIDDEN)}
    tensors, start = [], 0
    for place in range(len(places)):
        slot = places[place]
        end = start + math.prod(slot.shape) * slot.dtype.itemsize
        part = bytearray(data[start:end])
        if len(part) != end - start:
            raise ValueError("a tensor ends early")
        empty = torch.empty(slot.shape, dtype=slot.dtype)
        tensors.append(torch.frombuffer(part, dtype=slot.dtype).view(slot.shape) if part else empty)
        start = end
    if start != len(data):
        raise ValueError("bytes follow the last tensor")
    return tuple(tensors)


def _elements(x: Tensor) -> bytes:
    if x.requires_grad:
        raise TypeError(
            f"a tensor of shape {tuple(x.shape)} passes the cut beside the hidden state and "
            "requires a gradient, which has no way back between processes"
        )
    if x.dtype not in _NAMES:
        raise TypeError(f"a tensor of {x.dtype} passes the cut, which has no place in a message")
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _error(kind: str, text: str) -> sft.CodecError:
    error = sft.CodecError(text)
    error.kind = kind  # type: ignore[assignment]
    return error
