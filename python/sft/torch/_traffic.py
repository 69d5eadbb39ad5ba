"""What crossed the cut."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field


@dataclass
class Direction:
    """What crossed in one direction.

    Attributes
    ----------
    messages : int
        Messages sent.
    bytes : int
        Bytes of the messages: frames, and masks and positions beside them.
    raw_bytes : int
        Bytes of the same tensors without compression.
    """

    messages: int = 0
    bytes: int = 0
    raw_bytes: int = 0

    @property
    def ratio(self) -> float:
        """How many times smaller than without compression; NaN before the first message."""
        return self.raw_bytes / self.bytes if self.bytes else math.nan

    def add(self, sent: int, raw: int) -> None:
        """Count a message."""
        self.messages += 1
        self.bytes += sent
        self.raw_bytes += raw


@dataclass
class Traffic:
    """What crossed a cut since it was made or reset.

    Attributes
    ----------
    up : Direction
        Activations, from device to server.
    down : Direction
        Gradients, from server to device.
    """

    up: Direction = field(default_factory=Direction)
    down: Direction = field(default_factory=Direction)

    @property
    def messages(self) -> int:
        """Messages in both directions."""
        return self.up.messages + self.down.messages

    @property
    def bytes(self) -> int:
        """Bytes in both directions."""
        return self.up.bytes + self.down.bytes

    @property
    def ratio(self) -> float:
        """How many times smaller than without compression, both directions together."""
        raw = self.up.raw_bytes + self.down.raw_bytes
        return raw / self.bytes if self.bytes else math.nan

    def state(self) -> dict[str, dict[str, int]]:
        """Return the counters as plain data."""
        return asdict(self)

    @classmethod
    def restore(cls, state: dict[str, dict[str, int]]) -> Traffic:
        """Return the counters that were saved as plain data."""
        return cls(Direction(**state["up"]), Direction(**state["down"]))

    def __str__(self) -> str:
        """Tell both directions in a line."""
        parts = [
            f"{name} {d.bytes:,} bytes in {d.messages:,} messages ({d.ratio:.1f}x smaller)"
            for name, d in (("up", self.up), ("down", self.down))
        ]
        return f"{', '.join(parts)}, together {self.ratio:.1f}x smaller"
