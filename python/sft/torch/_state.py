"""What a cut is set to, has counted, and remembers."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

import sft
from sft.torch._coding import DOWN, UP, Codecs, Coding, Encoded, Way, lacks
from sft.torch._replay import Replay, called_from
from sft.torch._settings import number
from sft.torch._traffic import Traffic
from sft.torch._transform import Bases, Batch, Transform, Transforms, codec_of

_STEP, _CAUSAL_STEP, _GRID_GRADIENT_STEP, _GRADIENT_STEP = 0.3, 0.6, 1.5, 2.0


class CutState(nn.Module):
    """All of a `Cut` but what crosses it."""

    traffic: Traffic

    def __init__(
        self,
        activation: sft.Codec | Transform | str | None = None,
        gradient: sft.Codec | Transform | str | None = None,
        *,
        grid: tuple[int, int] | None = None,
        prefix: int = 1,
        sample_memory_mb: int = 64,
        compress_eval: bool = False,
        error_feedback: bool = False,
        seed: int = 0,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.activation = codec_of(activation, sft.Codec.default_activation(), "activation")
        self.gradient = codec_of(gradient, sft.Codec.default_gradient(), "gradient")
        self.compress_eval = compress_eval
        self.error_feedback = error_feedback
        self.seed = seed
        self.rank = rank
        self.traffic = Traffic()
        self._replay = Replay()
        memory_bytes = number(sample_memory_mb, "sample_memory_mb") << 20
        self._coding = Coding(Transforms(grid, number(prefix, "prefix"), memory_bytes))
        self._batch = Batch()

    @classmethod
    def of_tokens(
        cls,
        *,
        grid: tuple[int, int] | None = None,
        prefix: int = 1,
        causal: bool = False,
        **settings: Any,
    ) -> Self:
        """Make the cut of a transformer: its tokens cross by a basis that is learnt from the first.

        Parameters
        ----------
        grid : tuple of int, optional
            Height and width of the grid of tokens of a vision transformer; by default the tokens
            are those of a language model.
        prefix : int, default 1
            Tokens before, such as a class token, or the first of a text.
        causal : bool, default False
            Whether a token sees only those before it, as in a decoder: its activations stand twice
            the step.
        **settings
            As `Cut` takes them.

        Examples
        --------
        >>> import sft.torch as st
        >>> st.Cut.of_tokens()
        Cut(activation=transform:0.3, gradient=transform:2, seed=0)
        >>> st.Cut.of_tokens(causal=True).activation
        Transform(step=0.6)
        >>> st.Cut.of_tokens(grid=(14, 14)).gradient
        Transform(step=1.5)
        """
        down = _GRADIENT_STEP if grid is None else _GRID_GRADIENT_STEP
        if not isinstance(causal, bool):
            raise TypeError(f"causal must be True or False, got {causal!r}")
        codecs = (Transform(_CAUSAL_STEP if causal else _STEP), Transform(down))
        return cls(*codecs, grid=grid, prefix=prefix, **settings)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a setting is checked as when the cut is made."""
        if name in ("activation", "gradient"):
            if value is None:
                raise TypeError(f"{name} must be a sft.Codec, got None")
            value = codec_of(value, sft.Codec.raw(), name)
        elif name in ("compress_eval", "error_feedback"):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        elif name == "seed" or (name == "rank" and value is not None):
            value = number(value, name)
        settings = {**self.__dict__, name: value}
        codecs = (settings.get("activation"), settings.get("gradient"))
        if settings.get("error_feedback") and any(isinstance(c, Transform) for c in codecs):
            raise ValueError("error_feedback must be False with a transform codec, got True")
        if name in ("activation", "gradient") and value != self.__dict__.get(name, value):
            # A basis has the step that it was learnt for.
            self._coding.drop_basis(UP if name == "activation" else DOWN)
        super().__setattr__(name, value)

    def _passes(self) -> bool:
        """Tell whether this is evaluation, in which nothing is compressed."""
        if self.compress_eval:
            return False
        generating = not torch.is_grad_enabled() and called_from("transformers.generation")
        return not self.training or generating

    @property
    def _codecs(self) -> Codecs:
        return self.activation, self.gradient

    def _encode(self, x: Tensor, way: Way, batch: Batch) -> Encoded:
        """Encode by the codec of a direction; in evaluation as it is, but for `compress_eval`."""
        compresses = self.training or self.compress_eval
        codec = self._codecs[way] if compresses else sft.Codec.raw()
        seed = self._coding.seed(self.seed, self.rank, way)
        feedback = self.error_feedback and self.training
        return self._coding.encode(x, way, batch, codec, seed, feedback=feedback)

    def reset_traffic(self) -> Traffic:
        """Count from zero again.

        Returns
        -------
        Traffic
            What was counted so far.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut()
        >>> _ = cut(torch.ones(4, 8))
        >>> cut.reset_traffic().up.messages, cut.traffic.up.messages
        (1, 0)
        """
        counted, self.traffic = self.traffic, Traffic()
        return counted

    def state(self) -> dict[str, Any]:
        """Return seed, counters and error feedback as plain data, to go on from by `restore`.

        They are no part of `state_dict`: what averages, copies or stores the tensors of a model
        finds nothing else in it.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut, again = st.Cut(), st.Cut()
        >>> _ = cut(torch.ones(4, 8))
        >>> again.restore(cut.state())
        >>> again.traffic == cut.traffic
        True
        """
        return {
            "seed": self.seed,
            "traffic": self.traffic.state(),
            **self._coding.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; the rank stays this one's.

        Raises
        ------
        ValueError
            If `state` is something else; the cut stays as it was.

        Examples
        --------
        >>> import sft.torch as st
        >>> cut = st.Cut()
        >>> cut.restore(st.Cut(seed=3).state())
        >>> cut.seed
        3
        """
        try:
            seed, traffic = number(state["seed"], "seed"), Traffic.restore(state["traffic"])
            coding = self._coding.restored(state, self._codecs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state must be what Cut.state returned, got {state!r:.80}") from error
        self.seed, self.traffic, self._coding = seed, traffic, coding

    def extra_repr(self) -> str:
        """Name the settings."""
        text = f"activation={self.activation}, gradient={self.gradient}, seed={self.seed}"
        text += "" if self.rank is None else f", rank={self.rank}"
        for name in ("compress_eval", "error_feedback"):
            text += f", {name}=True" if getattr(self, name) else ""
        return text

    @property
    def bases(self) -> Bases:
        """The bases of 'transform' for activations and gradients; None where there is none yet.

        In one process a cut learns them by itself. Where `encode` and `decode` are in two, the
        server gets them from `learn` and sends their bytes to the device, and both set them
        between two steps. Devices of one server share what it has learnt from the first of them:
        ``other.bases = cut.bases``. Their bytes are counted as traffic down, once for each cut that
        did not have them.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut("transform:0.2")
        >>> for _ in range(3):
        ...     _ = cut(torch.randn(16, 5, 8))
        >>> cut.bases[0].width, cut.bases[1]
        (8, None)
        """
        return self._coding.bases

    @bases.setter
    def bases(self, bases: Bases) -> None:
        up, down = bases
        for basis in (up, down):
            if basis is not None and not isinstance(basis, sft.Basis):
                raise TypeError(f"bases must be two of sft.Basis or None, got {basis!r:.80}")
        pairs = zip((up, down), self.bases, strict=True)
        new = [basis for basis, before in pairs if basis is not None and basis != before]
        self.traffic.down.bytes += sum(len(basis.to_bytes()) for basis in new)
        self._coding.use((up, down), self._codecs)

    def learn(self) -> Bases | None:
        """Return bases learnt from the first activations decoded; None while they are too few.

        A basis takes at least 16 samples, and as many tokens as there are channels.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut.of_tokens()
        >>> _ = cut.decode(cut.encode(torch.randn(16, 5, 8)))
        >>> cut.bases = cut.learn()
        >>> len(cut.encode(torch.randn(16, 5, 8))) < 16 * 5 * 8
        True
        """
        bases = self._coding.learnt(self._codecs)
        return None if bases is None or lacks(bases, self._codecs) else bases

    def reset_memory(self) -> None:
        """Forget what both sides remember of samples and rows, not the bases.

        After a message was lost, which the next one fails of with the kind 'lost_reference', call it
        in both processes and send the message anew.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut.of_tokens()
        >>> _ = cut(torch.randn(16, 5, 8))
        >>> cut.reset_memory()
        """
        self._coding.reset()
