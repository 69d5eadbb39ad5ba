"""The cut as a module: what crosses it is encoded and decoded, and counted."""

from __future__ import annotations

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
from sft.torch._replay import Replay, called_from
from sft.torch._settings import codec_of, number
from sft.torch._traffic import Direction, Traffic
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
    activation : sft.Codec or str, optional
        For what goes up, as a codec or as text such as 'dead-zone:1.25'; by default
        ``Codec.default_activation()``.
    gradient : sft.Codec or str, optional
        For what comes down; by default ``Codec.default_gradient()``.
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
        activation: sft.Codec | str | None = None,
        gradient: sft.Codec | str | None = None,
        *,
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

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a setting is checked as when the cut is made."""
        if name in ("activation", "gradient"):
            if value is None:
                raise TypeError(f"{name} must be a sft.Codec, got None")
            value = codec_of(value, value, name)
        elif name in ("compress_eval", "error_feedback"):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        elif name == "seed" or (name == "rank" and value is not None):
            value = number(value, name)
        super().__setattr__(name, value)

    def forward(self, h: _H) -> _H:
        """Send an activation through the cut.

        Parameters
        ----------
        h : torch.Tensor or Crossing
            A tensor of float32, float16 or bfloat16, or what `device_model` returned.

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
        crossed: _H = self._cross(h)
        return crossed

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

    def _crossed_again(self, h: _H, frame: bytes) -> _H:
        if not isinstance(h, Crossing):
            return with_plan(self._hidden(h, frame), plan_of(h))
        sent = tuple(Counted.apply(x, self) if x.requires_grad else x for x in h.sent)
        return Crossing(self._hidden(h.hidden, frame), sent, h.plan)

    def _hidden(self, h: Tensor, frame: bytes | None = None) -> Tensor:
        z: Tensor = StraightThrough.apply(h, self, frame)
        return z

    def encode(self, h: Tensor | Crossing) -> bytes:
        """Encode an activation on the device, for a server in another process.

        In evaluation without `compress_eval` nothing is lost.

        Parameters
        ----------
        h : torch.Tensor or Crossing
            What `device_model` returned.

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
        frame = self._encode(hidden, UP)
        message = _message.pack(h, frame)
        raw = hidden.nbytes + sum(x.nbytes for x in _message.beside(h))
        self.traffic.up.add(len(message), raw, zeroed=_arrays.is_zeroed(frame, hidden))
        return message

    def decode(
        self,
        message: bytes,
        server_model: ServerHalf | None = None,
        *,
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
        if plan is not None:
            _message.check_hidden(plan, frame)
        z = _arrays.decode(frame, device)
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

    def encode_gradient(self, grad: Tensor | None) -> bytes:
        """Encode the gradient of an activation on the server.

        Parameters
        ----------
        grad : torch.Tensor
            ``z.grad`` after ``loss.backward()``.

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
        frame = self._encode(grad, DOWN)
        self.traffic.down.add(len(frame), grad.nbytes, zeroed=_arrays.is_zeroed(frame, grad))
        return frame

    def decode_gradient(self, reply: bytes, *, device: torch.device | str | None = None) -> Tensor:
        """Decode the gradient of an activation on the device.

        Parameters
        ----------
        reply : bytes
            What `encode_gradient` returned on the server.
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
        grad = _arrays.decode(_arrays.frame_bytes(reply, "reply"), device)
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
        return {"seed": self.seed, "traffic": self.traffic.state(), **self._coding.state()}

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
            coding = Coding.restored(state, (self.activation, self.gradient))
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

    def _send(self, x: Tensor, way: Way, count: Direction) -> Tensor:
        """Encode and decode in one process."""
        frame = self._encode(x, way)
        count.add(len(frame), x.nbytes, zeroed=_arrays.is_zeroed(frame, x))
        if way == UP:
            self._replay.keep(x, frame)
        return self._received(frame, x)

    @staticmethod
    def _received(frame: bytes, x: Tensor) -> Tensor:
        return _arrays.decode(frame, shape=tuple(x.shape)).to(x.dtype).to(x.device)

    def _encode(self, x: Tensor, way: Way) -> bytes:
        codec: sft.Codec | sft.ErrorFeedback
        codec = setting = (self.activation, self.gradient)[way]
        if not self.training and not self.compress_eval:
            codec = sft.Codec.raw()
        elif self.error_feedback and self.training:
            codec = self._coding.with_feedback(setting, way)
        seed = self._coding.seed(self.seed, self.rank, way)
        try:
            return _arrays.encode(codec, x, seed)
        except sft.CodecError as error:
            if error.kind != "non_finite":
                raise
            return _arrays.encode(sft.Codec.raw(), x, seed)
