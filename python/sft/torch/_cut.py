"""The cut as a module: what crosses it is encoded and decoded, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import sft
from sft.torch import _arrays, _message
from sft.torch._autograd import NO_SCRIPT, Counted, StraightThrough, refuse_tracing
from sft.torch._coding import DOWN, UP, Coding, Way
from sft.torch._crossing import CallPlan, Crossing, plan_of, with_plan
from sft.torch._eager import eager
from sft.torch._packing import Reader
from sft.torch._replay import Received, Replay, called_from
from sft.torch._settings import number
from sft.torch._traffic import Direction, Traffic
from sft.torch._transform import Bases, Batch, Transform, Transforms, codec_of
from sft.torch._values import Ghost

if TYPE_CHECKING:
    from sft.torch._halves import ServerHalf

_H = TypeVar("_H", Tensor, Crossing)


class Cut(nn.Module):
    """The cut between the halves of a model: compresses what crosses it, both ways.

    Forward encodes and decodes the activation, backward encodes and decodes its gradient; for
    autograd the cut is the identity (straight-through). Put it between the halves that `split`
    returns, into a `torch.nn.Sequential`, or into a whole model by `attach`. Use one for each device.

    What holds NaN or infinities, as loss scaling in half precision provokes them, crosses
    uncompressed, in both directions: a scaler sees it and skips the step, as without a cut.

    What a checkpointed segment (`torch.utils.checkpoint`) computes again in backward is what
    crossed in forward: nothing is drawn, added to the residual or counted a second time.

    A cut has no part in `state_dict`; `state` returns what it goes on from.

    Parameters
    ----------
    activation : sft.Codec, Transform or str, optional
        For what goes up, as a codec or as text such as 'error:0.02' or 'transform:0.2'; by default
        ``Codec.default_activation()``.
    gradient : sft.Codec, Transform or str, optional
        For what comes down; by default ``Codec.default_gradient()``.
    grid : tuple of int, optional
        For 'transform': height and width of the grid of tokens, as of a vision transformer; by
        default the tokens are a sequence, as those of a language model.
    prefix : int, default 1
        For 'transform': tokens before the grid or sequence that have a mean of their own.
    sample_memory_mb : int, default 64
        For 'transform': memory for samples that have numbers, in each direction.
    compress_eval : bool, default False
        Whether to compress in evaluation too. By default the cut then passes everything through
        and counts nothing, as accuracy is measured in the paper. To generate with Transformers is
        evaluation, too.
    error_feedback : bool, default False
        Whether to add what was dropped from one message to the next of the same shape, in both
        directions (`sft.ErrorFeedback`). For batches that stay the same, not for new samples.
    seed : int, default 0
        Decides the random roundings. Every message draws from a stream of its own, a hash of
        seed, rank, direction and number of the message.
    rank : int, optional
        The number of the device, so that devices with the same seed draw differently; by default
        the rank in `torch.distributed`, 0 outside of it.

    Attributes
    ----------
    traffic : Traffic
        Messages and bytes, up and down.

    Raises
    ------
    TypeError
        If a codec is not a `sft.Codec`, or a number not a whole one.
    ValueError
        If `seed` or `rank` is not in 0..2**64.

    Examples
    --------
    >>> import sft
    >>> import torch
    >>> import sft.torch as st
    >>> cut = st.Cut(activation=sft.Codec.activation(keep=0.2, levels=8))
    >>> h = torch.randn(64, 128, requires_grad=True)
    >>> cut(h).square().sum().backward()
    >>> cut.traffic.up.messages, cut.traffic.down.messages
    (1, 1)
    >>> cut.traffic.ratio > 10
    True
    """

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
        self._coding = Coding()
        memory_bytes = number(sample_memory_mb, "sample_memory_mb") << 20
        self._transforms = Transforms(grid, number(prefix, "prefix"), memory_bytes)
        self._batch = Batch()

    @classmethod
    def of_tokens(
        cls, *, grid: tuple[int, int] | None = None, prefix: int = 1, **settings: Any
    ) -> Cut:
        """Make the cut of a transformer: its tokens cross by a basis that is learnt from the first.

        Parameters
        ----------
        grid : tuple of int, optional
            Height and width of the grid of tokens of a vision transformer; by default the tokens
            are those of a language model.
        prefix : int, default 1
            Tokens before, such as a class token, or the first of a text.
        **settings
            As `Cut` takes them.

        Examples
        --------
        >>> import sft.torch as st
        >>> st.Cut.of_tokens()
        Cut(activation=transform:0.3, gradient=transform:2, seed=0)
        >>> st.Cut.of_tokens(grid=(14, 14)).gradient
        Transform(step=1.5)
        """
        down = _GRADIENT_STEP if grid is None else _GRID_GRADIENT_STEP
        codecs = (Transform(_STEP), Transform(down))
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
            up, down = self._transforms.bases
            self._transforms.use((None, down) if name == "activation" else (up, None))
        super().__setattr__(name, value)

    def forward(
        self,
        h: _H,
        *,
        samples: Iterable[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> _H:
        """Send an activation through the cut.

        Parameters
        ----------
        h : torch.Tensor or Crossing
            A tensor of float32, float16 or bfloat16, or what `device_model` returned.
        samples : sequence of int, optional
            The number of each sample in its data set: with 'transform' one that comes again, in a
            later epoch, costs little.
        mask : torch.Tensor, optional
            Which tokens are real, [B, T] of 0 and 1, as tokenizers give it. Only those cross; the
            others are zero behind the cut, and so is their gradient.

        Returns
        -------
        torch.Tensor or Crossing
            What the server decodes: of the same shape, type and device.

        Raises
        ------
        TypeError
            If `h` is not a tensor of such a type.
        RuntimeError
            Under a transform that would lose the cut or cannot pass it: `torch.vmap`,
            `torch.func.jvp`, `torch.jit.trace`, `torch.fx`, `torch.export`.
        """
        refuse_tracing(h)
        if isinstance(h, Ghost | FakeTensor):
            return h
        if not isinstance(h, Crossing):
            _arrays.check(h, "h")
        if self._passes():
            return h
        said = samples is not None or mask is not None
        with self.batch(samples=samples, mask=mask) if said else nullcontext():
            crossed: _H = self._cross(h)
        return crossed

    @contextmanager
    def batch(
        self, *, samples: Iterable[int] | Tensor | None = None, mask: Tensor | None = None
    ) -> Iterator[None]:
        """Say of which samples and tokens what crosses in the block is, as `forward` takes them.

        For a cut inside a whole model (`attach`), which is not called by itself. The backward of
        what crossed may come later.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Linear(64, 2))
        >>> cut = st.Cut()
        >>> handle = st.attach(model, after="0", cut=cut)
        >>> with cut.batch(mask=torch.tensor([[1, 1, 1], [1, 0, 0]])):
        ...     y = model(torch.randn(2, 3, 8))
        >>> cut.traffic.up.bytes < 2 * 3 * 64 * 4
        True
        """
        before, self._batch = self._batch, Batch.of(samples, mask)
        try:
            yield
        finally:
            self._batch = before

    def __prepare_scriptable__(self) -> None:
        """Be asked by `torch.jit.script` for what it may compile."""
        raise RuntimeError(NO_SCRIPT)

    def _passes(self) -> bool:
        """Tell whether this is evaluation, in which nothing is compressed."""
        if self.compress_eval:
            return False
        generating = not torch.is_grad_enabled() and called_from("transformers.generation")
        return not self.training or generating

    @eager
    def _cross(self, h: _H) -> _H:
        again = self._replay.take(h.hidden if isinstance(h, Crossing) else h)
        if again is not None:
            return self._crossed_again(h, again)
        self.traffic.up.bytes += _message.overhead(h)
        if not isinstance(h, Crossing):
            return with_plan(self._hidden(h), plan_of(h))
        self.traffic.up.raw_bytes += sum(x.nbytes for x in h.sent)
        sent = tuple(Counted.apply(x, self) if x.requires_grad else x for x in h.sent)
        return Crossing(self._hidden(h.hidden), sent, h.plan)

    def _crossed_again(self, h: _H, again: Received) -> _H:
        if not isinstance(h, Crossing):
            return with_plan(self._hidden(h, again), plan_of(h))
        sent = tuple(Counted.apply(x, self) if x.requires_grad else x for x in h.sent)
        return Crossing(self._hidden(h.hidden, again), sent, h.plan)

    def _hidden(self, h: Tensor, again: Received | None = None) -> Tensor:
        """Send, or take up again what was received; the gradient goes as that went."""
        batch = self._batch if again is None else again.batch
        batch.check(tuple(h.shape))
        z: Tensor = StraightThrough.apply(h, self, batch, again and again.tensor)
        return z

    def encode(
        self,
        h: Tensor | Crossing,
        *,
        samples: Iterable[int] | Tensor | None = None,
        mask: Tensor | None = None,
    ) -> bytes:
        """Encode an activation on the device, for a server in another process.

        In evaluation without `compress_eval` nothing is lost.

        Parameters
        ----------
        h : torch.Tensor or Crossing
            What `device_model` returned.
        samples, mask
            As `forward` takes them.

        Returns
        -------
        bytes
            One message: the frame of a tensor, with what passes unchanged beside it.

        Raises
        ------
        TypeError, sft.CodecError
            As `forward`, and if something passes the cut that has no place in a message.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut()
        >>> cut.decode(cut.encode(torch.ones(4, 8))).shape
        torch.Size([4, 8])
        """
        hidden = _arrays.check(h.hidden if isinstance(h, Crossing) else h, "h")
        batch = Batch.of(samples, mask)
        batch.check(tuple(hidden.shape))
        frame = self._encode(hidden, UP, batch)
        message = _message.pack(h, frame)
        raw = hidden.nbytes + sum(x.nbytes for x in _message.beside(h))
        zeroed = not self._transforms.is_of(frame) and _arrays.is_zeroed(frame, hidden)
        self.traffic.up.add(len(message), raw, zeroed=zeroed)
        return message

    def decode(
        self,
        message: bytes,
        server_model: ServerHalf | None = None,
        *,
        samples: Iterable[int] | Tensor | None = None,
        mask: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor | Crossing:
        """Decode an activation on the server.

        Parameters
        ----------
        message : bytes
            What `encode` returned on the device.
        server_model : ServerHalf, optional
            The half that it is for, needed where `split` made it of more than modules in a row.
            What the message holds is checked against the plan that this half agreed on
            (`ServerHalf.agree`) and against its own model.
        samples, mask
            Those that `encode` was given.
        device : torch.device or str, optional
            Where to put it.

        Returns
        -------
        torch.Tensor or Crossing
            What `server_model` takes; `requires_grad_` makes it a leaf.

        Raises
        ------
        sft.CodecError
            If the bytes are not a message for `server_model`; its `kind` tells why, and is
            ``'unknown_plan'`` if the two did not agree on the call.

        Examples
        --------
        >>> import sft
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut(activation=sft.Codec.raw())
        >>> cut.decode(cut.encode(torch.ones(2, 2))).requires_grad_()
        tensor([[1., 1.],
                [1., 1.]], requires_grad=True)
        """
        head, frame, tensors = _message.unpack(_arrays.frame_bytes(message, "message"))
        plan, sent = self._entered(server_model, head, tensors, _message.limit(message))
        batch = Batch.of(samples, mask)
        if plan is not None:
            _message.check_hidden(plan, frame, batch)
        z = self._decode(frame, UP, batch, None).to(device)
        if self._learns():
            self._transforms.saw(batch.packed(z), UP, batch)
        self.traffic.up.add(len(message), z.nbytes + sum(x.nbytes for x in sent))
        if plan is not None and sent:
            return Crossing(z, tuple(x.to(device) for x in sent), plan)
        return with_plan(z, plan)

    @staticmethod
    def _entered(
        server_model: ServerHalf | None, head: _message.Head | None, tensors: Reader, most: int
    ) -> tuple[CallPlan | None, tuple[Tensor, ...]]:
        if server_model is not None:
            return server_model._enter(head, tensors, most)
        if head is None:
            return None, ()
        raise _message.error_of(
            "unknown_plan",
            "the message names a plan, and no half that could have agreed on it was given: "
            "cut.decode(message, server_model)",
        )

    def encode_gradient(self, grad: Tensor | None, *, mask: Tensor | None = None) -> bytes:
        """Encode the gradient of an activation on the server.

        Parameters
        ----------
        grad : torch.Tensor
            ``z.grad`` after ``loss.backward()``.
        mask
            That of the activation.

        Returns
        -------
        bytes
            The reply to the device.

        Raises
        ------
        TypeError
            If `grad` is not a tensor, as where `z` did not require a gradient.
        sft.CodecError
            If it is too large for a frame.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut()
        >>> cut.decode_gradient(cut.encode_gradient(torch.ones(4, 8))).shape
        torch.Size([4, 8])
        """
        grad = _arrays.check(grad, "grad")
        batch = Batch.of(None, mask)
        batch.check(tuple(grad.shape))
        frame = self._encode(grad, DOWN, batch)
        zeroed = not self._transforms.is_of(frame) and _arrays.is_zeroed(frame, grad)
        self.traffic.down.add(len(frame), grad.nbytes, zeroed=zeroed)
        return frame

    def decode_gradient(
        self,
        reply: bytes,
        *,
        mask: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Decode the gradient of an activation on the device.

        Parameters
        ----------
        reply : bytes
            What `encode_gradient` returned on the server.
        mask
            That of the activation.
        device : torch.device or str, optional
            Where to put it.

        Returns
        -------
        torch.Tensor
            What ``h.backward`` takes.

        Raises
        ------
        sft.CodecError
            As `decode`.

        Examples
        --------
        >>> import sft
        >>> import torch
        >>> import sft.torch as st
        >>> cut = st.Cut(gradient=sft.Codec.raw())
        >>> h = torch.zeros(2, requires_grad=True)
        >>> h.backward(cut.decode_gradient(cut.encode_gradient(torch.ones(2))))
        >>> h.grad
        tensor([1., 1.])
        """
        frame = _arrays.frame_bytes(reply, "reply")
        grad = self._decode(frame, DOWN, Batch.of(None, mask), None).to(device)
        self.traffic.down.add(len(reply), grad.nbytes)
        return grad

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
            **self._transforms.state(),
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
            codecs = (self.activation, self.gradient)
            up, down = (
                p if isinstance(c, Transform) else c for c, p in zip(codecs, _PLAIN, strict=True)
            )
            coding = Coding.restored(state, (up, down))
            transforms = self._transforms.restored(state)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"state must be what Cut.state returned, got {state!r:.80}") from error
        self.seed, self.traffic, self._coding = seed, traffic, coding
        self._transforms = transforms

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
        between two steps. Their bytes are counted as traffic down.

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
        return self._transforms.bases

    @bases.setter
    def bases(self, bases: Bases) -> None:
        up, down = bases
        for basis in (up, down):
            if basis is not None and not isinstance(basis, sft.Basis):
                raise TypeError(f"bases must be two of sft.Basis or None, got {basis!r:.80}")
        pairs = zip((up, down), self.bases, strict=True)
        new = [basis for basis, before in pairs if basis is not None and basis != before]
        self.traffic.down.bytes += sum(len(basis.to_bytes()) for basis in new)
        self._transforms.use((up, down))
        if not self._learns():
            self._transforms.forget()

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
        bases, pairs = self._transforms.learnt(self._steps()), self._steps()
        if bases is None or any(s and not b for s, b in zip(pairs, bases, strict=True)):
            return None
        return bases

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
        self._transforms.reset()

    def _steps(self) -> tuple[float | None, float | None]:
        """Return the steps of the directions that need a basis."""
        up, down = (
            codec.step if isinstance(codec, Transform) else None
            for codec in (self.activation, self.gradient)
        )
        return up, down

    def _learns(self) -> bool:
        """Tell whether a basis is missing."""
        pairs = zip(self._steps(), self.bases, strict=True)
        return any(step is not None and basis is None for step, basis in pairs)

    def _send(self, x: Tensor, way: Way, count: Direction, batch: Batch) -> Tensor:
        """Encode and decode in one process."""
        if self._learns():
            self._take_up_bases(way)
        frame = self._encode(x, way, batch)
        by_basis = self._transforms.is_of(frame)
        zeroed = not by_basis and _arrays.is_zeroed(frame, batch.packed(x))
        sent = len(frame) + (batch.mask_bytes if way == UP else 0)
        count.add(sent, x.nbytes, zeroed=zeroed)
        received = self._decode(frame, way, batch, tuple(x.shape))
        if self._learns():
            self._transforms.saw(batch.packed(received), way, batch)
        received = received.to(x.dtype).to(x.device)
        if way == UP:
            self._replay.keep(x, Received(received, batch))
        return received

    def _take_up_bases(self, way: Way) -> None:
        """Learn what can be learnt; of a grid when the gradients of all that was seen are there."""
        learns_now = way == UP or self._transforms.grid is None
        bases = self._transforms.learnt(self._steps()) if learns_now else None
        if bases is not None:
            self.bases = bases

    def _decode(
        self, frame: bytes, way: Way, batch: Batch, shape: tuple[int, ...] | None
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

    def _encode(self, x: Tensor, way: Way, batch: Batch) -> bytes:
        x, setting = batch.packed(x), (self.activation, self.gradient)[way]
        seed = self._coding.seed(self.seed, self.rank, way)
        compresses = self.training or self.compress_eval
        try:
            if not compresses:
                return _arrays.encode(sft.Codec.raw(), x, seed)
            if isinstance(setting, Transform):
                frame = self._transforms.encode(x, way, batch)
                if frame is not None:
                    return frame
                setting = _PLAIN[way]
            if self.error_feedback and self.training:
                return _arrays.encode(self._coding.with_feedback(setting, way), x, seed)
            return _arrays.encode(setting, x, seed)
        except sft.CodecError as error:
            if error.kind != "non_finite":
                raise
            return _arrays.encode(sft.Codec.raw(), x, seed)


_STEP, _GRID_GRADIENT_STEP, _GRADIENT_STEP = 0.3, 1.5, 2.0

# What crosses before there is a basis: finely, as it is learnt from, and as the first gradients set
# the scales of adaptive optimizers.
_PLAIN = (sft.Codec("error:0.003"), sft.Codec("unbiased:1"))
