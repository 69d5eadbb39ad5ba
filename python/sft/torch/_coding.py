"""What a cut knows from one message to the next."""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Literal

import torch.distributed

import sft
from sft.torch import _arrays
from sft.torch._settings import number

Way = Literal[0, 1]
UP: Way = 0
DOWN: Way = 1


class Coding:
    """What a cut remembers of its messages: how many there were, and what error feedback owes."""

    def __init__(self) -> None:
        self._drawn = [0, 0]
        self._feedback: list[sft.ErrorFeedback | None] = [None, None]

    def seed(self, seed: int, rank: int | None, way: Way) -> int:
        """Return the seed of the next message of a direction, from a stream of its own."""
        message = self._drawn[way]
        self._drawn[way] += 1
        return _stream(seed, _rank(rank), way, message)

    def with_feedback(self, codec: sft.Codec, way: Way) -> sft.ErrorFeedback:
        """Return the codec with what earlier messages of a direction dropped."""
        feedback = self._feedback[way]
        if feedback is None or feedback.codec != codec:
            feedback = sft.ErrorFeedback(codec, feedback and feedback.residual)
            self._feedback[way] = feedback
        return feedback

    def state(self) -> dict[str, Any]:
        """Return counters and residuals as plain data."""
        residuals = [f and f.residual for f in self._feedback]
        return {
            "drawn": list(self._drawn),
            "feedback": [None if r is None else _arrays.from_numpy(r) for r in residuals],
        }

    @classmethod
    def restored(cls, state: dict[str, Any], codecs: tuple[sft.Codec, sft.Codec]) -> Coding:
        """Return what goes on from what `state` returned."""
        coding, (up, down) = cls(), state["drawn"]
        coding._drawn = [number(up, "drawn"), number(down, "drawn")]
        coding._feedback = [
            None if x is None else sft.ErrorFeedback(codec, x.cpu().numpy())
            for codec, x in zip(codecs, state["feedback"], strict=True)
        ]
        return coding


def _stream(seed: int, rank: int, way: Way, message: int) -> int:
    """Return the seed of one message."""
    numbers = struct.pack("<4Q", seed, rank, way, message)
    return int.from_bytes(hashlib.blake2b(numbers, digest_size=8).digest(), "little")


def _rank(rank: int | None) -> int:
    if rank is not None:
        return rank
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_rank() if distributed else 0
