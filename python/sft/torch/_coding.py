"""What a cut knows from one message to the next."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Literal

import torch.distributed
from torch import Tensor

import sft
from sft.torch import _arrays, _message
from sft.torch._settings import number
from sft.torch._transform import Bases, Batch, Transform, Transforms

Way = Literal[0, 1]
UP: Way = 0
DOWN: Way = 1


Codecs = tuple[sft.Codec | Transform, sft.Codec | Transform]

# What crosses before there is a basis: finely, as it is learnt from, and as the first gradients set
# the scales of adaptive optimizers.
_PLAIN = (sft.Codec("error:0.003"), sft.Codec("unbiased:1"))


@dataclass(frozen=True)
class Encoded:
    """A frame, and whether it keeps nothing of a tensor that is not zero."""

    frame: bytes
    zeroed: bool


class Coding:
    """What a cut remembers of its messages: how many there were, what error feedback owes, bases."""

    def __init__(self, transforms: Transforms) -> None:
        self._drawn = [0, 0]
        self._feedback: list[sft.ErrorFeedback | None] = [None, None]
        self._transforms = transforms

    def encode(
        self,
        x: Tensor,
        way: Way,
        batch: Batch,
        codec: sft.Codec | Transform,
        seed: int,
        *,
        feedback: bool,
    ) -> Encoded:
        """Encode the real tokens of a tensor, as they are where they are not finite."""
        rows = batch.packed(x)
        try:
            frame = self._frame(rows, way, batch, codec, seed, feedback)
        except sft.CodecError as error:
            if error.kind != "non_finite":
                raise
            frame = _arrays.encode(sft.Codec.raw(), rows, seed)
        # Nothing kept by a basis is what is expected.
        zeroed = not self._transforms.is_of(frame) and _arrays.is_zeroed(frame, rows)
        return Encoded(frame, zeroed)

    def _frame(
        self,
        rows: Tensor,
        way: Way,
        batch: Batch,
        codec: sft.Codec | Transform,
        seed: int,
        feedback: bool,
    ) -> bytes:
        if isinstance(codec, Transform):
            frame = self._transforms.encode(rows, way, batch)
            return _arrays.encode(_PLAIN[way], rows, seed) if frame is None else frame
        if feedback:
            return _arrays.encode(self._with_feedback(codec, way), rows, seed)
        return _arrays.encode(codec, rows, seed)

    def decode(
        self, frame: bytes, way: Way, batch: Batch, shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """Decode a frame of either kind to a tensor of this shape, where it is known."""
        rows = batch.packed_shape(shape) if shape else _arrays.shape_of(frame)
        if batch.mask is not None and rows[:1] != (int(batch.mask.sum()),):
            raise _message.error_of(
                "other_shape", f"a tensor of {list(rows)}, mask has {int(batch.mask.sum())} tokens"
            )
        y = self._transforms.decode(frame, rows, way, batch)
        if y is None:
            y = _arrays.decode(frame, shape=rows)
        if shape is None and batch.mask is not None:
            shape = (*batch.mask.shape, *rows[1:])
        return batch.unpacked(y, shape or rows)

    @property
    def bases(self) -> Bases:
        """The basis of each direction that has one."""
        return self._transforms.bases

    def use(self, bases: Bases, codecs: Codecs) -> None:
        """Take over bases, and learn no more if none is missing."""
        self._transforms.use(bases)
        if not lacks(bases, codecs):
            self._transforms.forget()

    def drop_basis(self, way: Way) -> None:
        """Let a direction learn its basis anew."""
        up, down = self.bases
        self._transforms.use((None, down) if way == UP else (up, None))

    def reset(self) -> None:
        """Forget what both sides remember of messages, not the bases."""
        self._transforms.reset()

    def saw(self, x: Tensor, way: Way, batch: Batch, codecs: Codecs) -> None:
        """Keep what crossed while a basis is missing."""
        if lacks(self.bases, codecs):
            self._transforms.saw(batch.packed(x), way, batch)

    def learnt(self, codecs: Codecs) -> Bases | None:
        """Return bases from what crossed; None while that is too little, or none is missing."""
        up, down = (c.step if isinstance(c, Transform) else None for c in codecs)
        return self._transforms.learnt((up, down))

    def learnt_now(self, way: Way, codecs: Codecs) -> Bases | None:
        """Return what is learnt before a message; of a grid when all gradients of it are there."""
        if way == DOWN and self._transforms.grid is not None:
            return None
        return self.learnt(codecs) if lacks(self.bases, codecs) else None

    def seed(self, seed: int, rank: int | None, way: Way) -> int:
        """Return the seed of the next message of a direction, from a stream of its own."""
        message = self._drawn[way]
        self._drawn[way] += 1
        return _stream(seed, _rank(rank), way, message)

    def _with_feedback(self, codec: sft.Codec, way: Way) -> sft.ErrorFeedback:
        """Return the codec with what earlier messages of a direction dropped."""
        feedback = self._feedback[way]
        if feedback is None or feedback.codec != codec:
            feedback = sft.ErrorFeedback(codec, feedback and feedback.residual)
            self._feedback[way] = feedback
        return feedback

    def state(self) -> dict[str, Any]:
        """Return counters, residuals, bases and memories as plain data."""
        residuals = [f and f.residual for f in self._feedback]
        return {
            "drawn": list(self._drawn),
            "feedback": [None if r is None else _arrays.from_numpy(r) for r in residuals],
            **self._transforms.state(),
        }

    def restored(self, state: dict[str, Any], codecs: Codecs) -> Coding:
        """Return what goes on from what `state` returned, with the settings of this one."""
        coding, (up, down) = Coding(self._transforms.restored(state)), state["drawn"]
        coding._drawn = [number(up, "drawn"), number(down, "drawn")]
        plain = (p if isinstance(c, Transform) else c for c, p in zip(codecs, _PLAIN, strict=True))
        coding._feedback = [
            None if x is None else sft.ErrorFeedback(codec, x.cpu().numpy())
            for codec, x in zip(plain, state["feedback"], strict=True)
        ]
        return coding


def lacks(bases: Bases, codecs: Codecs) -> bool:
    """Tell whether a direction needs a basis and has none."""
    pairs = zip(bases, codecs, strict=True)
    return any(basis is None and isinstance(codec, Transform) for basis, codec in pairs)


def _stream(seed: int, rank: int, way: Way, message: int) -> int:
    """Return the seed of one message."""
    numbers = struct.pack("<4Q", seed, rank, way, message)
    return int.from_bytes(hashlib.blake2b(numbers, digest_size=8).digest(), "little")


def _rank(rank: int | None) -> int:
    if rank is not None:
        return rank
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if distributed else 0
