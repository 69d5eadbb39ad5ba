"""The transform codec at a cut: bases from what crossed first, and what both sides remember."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor

import sft
from sft.torch import _arrays
from sft.torch._settings import number

Bases = tuple[sft.Basis | None, sft.Basis | None]

_SAMPLES = 16
"""A basis is learnt from at least so many samples, and from as many tokens as there are channels."""
_METHOD, _TRANSFORM = 9, 3
"""The place of a frame's method behind its envelope, and that of a basis."""
_MOST_TOKENS = 1536
"""More channels are not rotated, so that their tokens need not be as many."""
_TEXT = "transform"
_MOST_PREFIX, _MOST_SIDE = 64, 1024


@dataclass(frozen=True)
class Transform:
    """The transform codec as a setting of a `Cut`; 'transform:STEP' as text.

    The cut learns a `sft.Basis` from what crosses first, for which it uses a plain codec, and
    counts its bytes as traffic down.

    Parameters
    ----------
    step : float
        As `sft.Basis.of_activations` and `sft.Basis.of_gradients` take it.

    Raises
    ------
    ValueError
        If `step` is not in 0.001 to 1000.

    Examples
    --------
    >>> import sft.torch as st
    >>> str(st.Cut(activation="transform:0.2").activation)
    'transform:0.2'
    """

    step: float

    def __post_init__(self) -> None:
        """Check the step."""
        if not 0.001 <= self.step <= 1000:
            raise ValueError(f"step must be in 0.001..=1000, got {self.step}")

    def __str__(self) -> str:
        """Return the setting as text."""
        return f"{_TEXT}:{self.step:g}"


def codec_of(
    codec: sft.Codec | Transform | str | None, default: sft.Codec, name: str
) -> sft.Codec | Transform:
    """Return what text or nothing stands for."""
    if codec is None:
        return default
    if isinstance(codec, str):
        kind, _, step = codec.partition(":")
        if kind != _TEXT:
            return sft.Codec(codec)
        try:
            return Transform(float(step))
        except ValueError:
            raise ValueError(
                f"{name} must have a step in 0.001..=1000 behind '{_TEXT}:', got {codec!r}"
            ) from None
    if not isinstance(codec, sft.Codec | Transform):
        raise TypeError(
            f"{name} must be a sft.Codec, a Transform or text such as 'error:0.02' or "
            f"'transform:0.2', got {type(codec).__name__}"
        )
    return codec


@dataclass(frozen=True)
class Batch:
    """What both sides know of the samples of a message.

    Attributes
    ----------
    samples
        Their numbers in the data set.
    mask
        Which tokens are real, [B, T] on the CPU; only those cross.
    """

    samples: tuple[int, ...] | None = None
    mask: Tensor | None = None

    @classmethod
    def of(cls, samples: Iterable[int] | Tensor | None, mask: Tensor | None) -> Batch:
        """Check numbers and mask.

        Raises
        ------
        TypeError, ValueError
            If they are no numbers, or no mask.
        """
        numbers = None
        if samples is not None:
            found = samples.tolist() if isinstance(samples, Tensor) else samples
            numbers = tuple(number(sample, "samples") for sample in found)
        if mask is not None:
            if not isinstance(mask, Tensor) or mask.is_floating_point() or mask.dim() != 2:
                what = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
                raise TypeError(f"mask must be a tensor [B, T] of 0 and 1, got {what}")
            mask = mask.detach().bool().cpu()
            if not bool(mask.any(1).all()):
                raise ValueError("mask must leave every sample a token")
        return cls(numbers, mask)

    def check(self, shape: tuple[int, ...]) -> None:
        """Check that this can be said of a tensor.

        Raises
        ------
        ValueError
            If there are other samples or tokens.
        """
        if self.samples is not None and len(self.samples) != shape[0]:
            raise ValueError(
                f"samples must be one for each of the {shape[0]} of h, got {len(self.samples)}"
            )
        if self.mask is not None and shape[:2] != self.mask.shape:
            raise ValueError(f"mask must be [B, T] of h {list(shape)}, got {list(self.mask.shape)}")

    @property
    def lengths(self) -> list[int] | None:
        """The real tokens of each sample, if some are not."""
        return None if self.mask is None else self.mask.sum(1).tolist()

    @property
    def mask_bytes(self) -> int:
        """What it takes to tell which tokens are real, a bit each."""
        return 0 if self.mask is None else (self.mask.numel() + 7) // 8

    def packed(self, x: Tensor) -> Tensor:
        """Return the real tokens of all samples, one after the other."""
        return x if self.mask is None else x[self.mask.to(x.device)]

    def unpacked(self, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor of these real tokens, with zeros for the others."""
        if self.mask is None:
            return rows
        x = rows.new_zeros(shape)
        x[self.mask.to(rows.device)] = rows
        return x

    def packed_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the real tokens."""
        return shape if self.mask is None else (int(self.mask.sum()), *shape[2:])


class _Tokens(TypedDict):
    """How tokens lie, as `sft.Basis` takes it."""

    grid: tuple[int, int] | None
    prefix: int
    lengths: list[int]


class Transforms:
    """The bases of a cut, and what its two directions remember.

    Parameters
    ----------
    grid, prefix
        As `sft.Basis.of_activations` takes them.
    memory_bytes
        For samples, in each direction and on each side.

    Raises
    ------
    ValueError
        If they are not in their ranges.
    """

    def __init__(self, grid: tuple[int, int] | None, prefix: int, memory_bytes: int) -> None:
        if grid is not None:
            grid = _sides(grid)
        if prefix > _MOST_PREFIX:
            raise ValueError(f"prefix must be at most {_MOST_PREFIX}, got {prefix}")
        self.grid, self.prefix, self.memory_bytes = grid, prefix, memory_bytes
        self.bases: Bases = (None, None)
        self._encoders: list[sft.TransformEncoder | None] = [None, None]
        self._decoders: list[sft.TransformDecoder | None] = [None, None]
        self._seen: list[tuple[Tensor, list[int]]] = []
        self._gradients: list[Tensor] = []

    def use(self, bases: Bases) -> None:
        """Take over bases, and forget what was remembered with others."""
        memory = self.memory_bytes
        for way, (basis, before) in enumerate(zip(bases, self.bases, strict=True)):
            if basis != before:
                self._encoders[way] = basis and sft.TransformEncoder(basis, memory_bytes=memory)
                self._decoders[way] = basis and sft.TransformDecoder(basis, memory_bytes=memory)
        self.bases = bases

    def reset(self) -> None:
        """Forget what both sides remember of messages, not the bases."""
        for side in (*self._encoders, *self._decoders):
            if side is not None:
                side.reset()

    def forget(self) -> None:
        """Forget what was seen, as all is learnt."""
        self._seen, self._gradients = [], []

    def saw(self, x: Tensor, way: int, batch: Batch) -> None:
        """Keep what crossed, as [S, D], to learn from."""
        x = x.detach().float().cpu()
        if x.dim() < 2:
            raise ValueError(f"h must be [..., S, D] for a transform codec, got {list(x.shape)}")
        rows = x.reshape(-1, x.shape[-1])
        if not bool(x.isfinite().all()):
            return
        if way == 1:
            # Those of what is learnt from, and no more.
            waiting = sum(len(x) for x, _ in self._seen) - sum(map(len, self._gradients))
            if len(rows) <= waiting:
                self._gradients.append(rows)
            return
        lengths = batch.lengths or [x.shape[-2]] * (x.shape[:-2].numel())
        if not self._is_enough() and min(lengths) >= self.prefix < max(lengths):
            self._seen.append((rows, lengths))

    def _is_enough(self) -> bool:
        """Tell whether a basis can be learnt."""
        lengths = [length for _, some in self._seen for length in some]
        needed = min(self._seen[0][0].shape[-1], _MOST_TOKENS) if self._seen else 0
        return len(lengths) >= _SAMPLES and sum(lengths) >= needed

    def learnt(self, steps: tuple[float | None, float | None]) -> Bases | None:
        """Return bases from what was seen; None while that is too little.

        That of a sequence's gradients needs no more than a sample.
        """
        if not self._seen:
            return None
        lengths = [length for _, some in self._seen for length in some]
        enough = self._is_enough()
        (up, down), tokens = steps, _Tokens(grid=self.grid, prefix=self.prefix, lengths=lengths)
        x = torch.cat([x for x, _ in self._seen]).numpy()
        bases: list[sft.Basis | None] = list(self.bases)
        if up is not None and enough and bases[0] is None:
            sensitivity = None
            if self.grid is not None and sum(map(len, self._gradients)) == len(x):
                sensitivity = torch.cat(self._gradients).numpy()
            bases[0] = sft.Basis.of_activations(x, up, sensitivity=sensitivity, **tokens)
        if down is not None and (enough or self.grid is None) and bases[1] is None:
            bases[1] = sft.Basis.of_gradients(x, down, **tokens)
        return None if tuple(bases) == self.bases else (bases[0], bases[1])

    def encode(self, x: Tensor, way: int, batch: Batch) -> bytes | None:
        """Encode real tokens by the basis of a direction; None without one."""
        encoder = self._encoders[way]
        if encoder is None:
            return None
        array, dtype = _arrays.to_array(x)
        # Gradients are no samples that come again: theirs are relative to each message.
        return encoder.encode(array, samples=batch.samples, lengths=batch.lengths, dtype=dtype)

    def is_of(self, frame: bytes) -> bool:
        """Tell whether a frame was made with a basis."""
        return any(b is not None for b in self.bases) and frame[_METHOD] == _TRANSFORM

    def decode(self, frame: bytes, shape: tuple[int, ...], way: int, batch: Batch) -> Tensor | None:
        """Decode a message of the basis of a direction; None of a plain frame."""
        decoder = self._decoders[way]
        if decoder is None:
            return None
        try:
            y = decoder.decode(frame, shape, samples=batch.samples, lengths=batch.lengths)
        except sft.CodecError as error:
            if error.kind != "unsupported_version":
                raise
            return None
        except ValueError as error:
            other = sft.CodecError(str(error))
            other.kind = "other_shape"
            raise other from error
        return _arrays.from_numpy(y)

    def state(self) -> dict[str, Any]:
        """Return bases and memories as plain data."""
        return {
            "bases": [b and b.to_bytes() for b in self.bases],
            "encoders": [e and e.save() for e in self._encoders],
            "decoders": [d and d.save() for d in self._decoders],
            "seen": [(x, list(lengths)) for x, lengths in self._seen],
            "gradients": list(self._gradients),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy by `state`."""
        settings = (self.grid, self.prefix, self.memory_bytes)
        return _restored, (settings, self.state())

    def restored(self, state: dict[str, Any]) -> Transforms:
        """Return what goes on from what `state` returned."""
        transforms = Transforms(self.grid, self.prefix, self.memory_bytes)
        up, down = (None if b is None else sft.Basis(b) for b in state["bases"])
        transforms.use((up, down))
        for name in ("encoders", "decoders"):
            for side, memory in zip(getattr(transforms, f"_{name}"), state[name], strict=True):
                if side is not None:
                    side.restore(memory)
        transforms._seen = [(x.float(), [int(n) for n in some]) for x, some in state["seen"]]
        transforms._gradients = [x.float() for x in state["gradients"]]
        return transforms


def _sides(grid: tuple[int, int]) -> tuple[int, int]:
    """Check the sides of a grid."""
    try:
        height, width = (number(side, "grid") for side in grid)
    except (TypeError, ValueError):
        height = width = 0
    if not (1 <= height <= _MOST_SIDE and 1 <= width <= _MOST_SIDE):
        raise ValueError(f"grid must be two numbers in 1..={_MOST_SIDE}, got {grid!r}")
    return height, width


def _restored(settings: tuple[Any, ...], state: dict[str, Any]) -> Transforms:
    return Transforms(*settings).restored(state)
