"""What crossed the cut."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields

from sft.torch._settings import number


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
    zeroed : int
        Messages of which the codec kept nothing although the tensor was not zero: training
        learns nothing from them, and a smaller step or more kept values help. Who encodes
        counts them.

    Examples
    --------
    >>> import sft.torch as st
    >>> st.Direction(messages=2, bytes=100, raw_bytes=2000).ratio
    20.0
    """

    messages: int = 0
    bytes: int = 0
    raw_bytes: int = 0
    zeroed: int = 0

    @property
    def ratio(self) -> float:
        """How many times smaller than without compression; NaN before the first message."""
        return self.raw_bytes / self.bytes if self.bytes else math.nan

    def add(self, sent: int, raw: int, *, zeroed: bool = False) -> None:
        """Count a message, and whether it keeps nothing of a tensor that is not zero.

        Examples
        --------
        >>> import sft.torch as st
        >>> up = st.Direction()
        >>> up.add(sent=100, raw=2000)
        >>> up
        Direction(messages=1, bytes=100, raw_bytes=2000, zeroed=0)
        """
        self.messages += 1
        self.bytes += sent
        self.raw_bytes += raw
        self.zeroed += zeroed


@dataclass
class Traffic:
    """What crossed a cut since it was made or reset.

    Attributes
    ----------
    up : Direction
        Activations, from device to server.
    down : Direction
        Gradients, from server to device.

    Examples
    --------
    >>> import sft
    >>> import torch
    >>> import sft.torch as st
    >>> cut = st.Cut(sft.Codec.activation(keep=0.2, levels=8), sft.Codec.gradient(keep=0.2, levels=8))
    >>> h = torch.randn(32, 64, requires_grad=True)
    >>> cut(h).sum().backward()
    >>> cut.traffic.up.messages, cut.traffic.down.messages, cut.traffic.up.raw_bytes
    (1, 1, 8192)
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
        """Return the counters as plain data.

        Examples
        --------
        >>> import sft.torch as st
        >>> st.Traffic().state()["up"]
        {'messages': 0, 'bytes': 0, 'raw_bytes': 0, 'zeroed': 0}
        """
        return asdict(self)

    @classmethod
    def restore(cls, state: dict[str, dict[str, int]]) -> Traffic:
        """Return the counters that were saved as plain data.

        Raises
        ------
        ValueError
            If `state` is not what `state` returned.

        Examples
        --------
        >>> import sft.torch as st
        >>> traffic = st.Traffic(up=st.Direction(messages=1, bytes=100, raw_bytes=2000))
        >>> st.Traffic.restore(traffic.state()) == traffic
        True
        """
        try:
            up, down = (_restored(state[way]) for way in ("up", "down"))
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"state must be what Traffic.state returned, got {state!r:.80}"
            ) from error
        return cls(up, down)

    def __str__(self) -> str:
        """Tell both directions in a line."""
        parts = [f"up {_told(self.up)}", f"down {_told(self.down)}"]
        return ", ".join(parts + [f"together {self.ratio:.1f}x smaller"] * (self.bytes > 0))


def _restored(state: dict[str, int]) -> Direction:
    counts = {count.name: number(state[count.name], count.name) for count in fields(Direction)}
    return Direction(**counts)


def _told(count: Direction) -> str:
    messages = "1 message" if count.messages == 1 else f"{count.messages:,} messages"
    ratio = f" ({count.ratio:.1f}x smaller)" if count.bytes else ""
    zeroed = f" ({count.zeroed:,} ZERO though the tensor was not)" if count.zeroed else ""
    return f"{count.bytes:,} bytes in {messages}{ratio}{zeroed}"
