"""The cut as a module: what crosses it is encoded and decoded, and counted."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import sft
from sft.torch import _arrays, _message
from sft.torch._crossing import Crossing, plan_of, with_plan
from sft.torch._eager import eager
from sft.torch._traffic import Direction, Traffic
from sft.torch._values import Ghost

_H = TypeVar("_H", Tensor, Crossing)
_UP, _DOWN = 0, 1


class Cut(nn.Module):
    """The cut between the halves of a model: compresses what crosses it, both ways.

    Forward encodes and decodes the activation, backward encodes and decodes its gradient; for
    autograd the cut is the identity (straight-through). Put it between the halves that `split`
    returns, into a `torch.nn.Sequential`, or into a whole model by `attach`. Use one for each device.

    A gradient with NaN or infinities, as loss scaling in half precision provokes it, crosses
    uncompressed, so that the scaler sees it.

    Parameters
    ----------
    activation : sft.Codec or str, optional
        For what goes up, as a codec or as text such as 'dead-zone:1.25'; by default
        ``Codec.default_activation()``.
    gradient : sft.Codec or str, optional
        For what comes down; by default ``Codec.default_gradient()``.
    compress_eval : bool, default False
        Whether to compress in evaluation too. By default the cut then passes everything through
        and counts nothing, as accuracy is measured in the paper.
    error_feedback : bool, default False
        Whether to add what was dropped from one message to the next of the same shape, in both
        directions (`sft.ErrorFeedback`). For batches that stay the same, not for new samples.
    seed : int, default 0
        Decides the random roundings; every message has its own.

    Attributes
    ----------
    traffic : Traffic
        Messages and bytes, up and down.

    Raises
    ------
    TypeError
        If a codec is not a `sft.Codec`.
    ValueError
        If `seed` is not in 0..2**64.

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
    ) -> None:
        super().__init__()
        self.activation = _codec(activation, sft.Codec.default_activation(), "activation")
        self.gradient = _codec(gradient, sft.Codec.default_gradient(), "gradient")
        if not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, got {type(seed).__name__}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in 0..2**64, got {seed}")
        self.compress_eval = compress_eval
        self.error_feedback = error_feedback
        self.seed = seed
        self.traffic = Traffic()
        self._drawn = [0, 0]
        self._feedback: list[sft.ErrorFeedback | None] = [None, None]

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
        sft.CodecError
            If `h` holds NaN or an infinity that the codec refuses.
        """
        if isinstance(h, Ghost):
            return h
        if not isinstance(h, Crossing):
            _arrays.check(h, "h")
        if not self.training and not self.compress_eval:
            return h
        crossed: _H = self._cross(h)
        return crossed

    @eager
    def _cross(self, h: _H) -> _H:
        self.traffic.up.bytes += _message.overhead(h)
        if not isinstance(h, Crossing):
            return with_plan(self._hidden(h), plan_of(h))
        self.traffic.up.raw_bytes += sum(x.nbytes for x in h.sent)
        sent = tuple(_Counted.apply(x, self) if x.requires_grad else x for x in h.sent)
        return Crossing(self._hidden(h.hidden), sent, h.plan)

    def _hidden(self, h: Tensor) -> Tensor:
        z: Tensor = _StraightThrough.apply(h, self)
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
        message = _message.pack(h, self._encode(hidden, _UP))
        raw = hidden.nbytes + sum(x.nbytes for x in _message.beside(h))
        self.traffic.up.add(len(message), raw)
        return message

    def decode(
        self, message: bytes, *, device: torch.device | str | None = None
    ) -> Tensor | Crossing:
        """Decode an activation on the server.

        Parameters
        ----------
        message : bytes
            What `encode` returned on the device.
        device : torch.device or str, optional
            Where to put it.

        Returns
        -------
        torch.Tensor or Crossing
            What `server_model` takes; `requires_grad_` makes it a leaf.

        Raises
        ------
        sft.CodecError
            If the bytes are not a message; its `kind` tells why.

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
        frame, sent, plan = _message.unpack(_arrays.frame_bytes(message, "message"))
        z = _arrays.decode(frame, device)
        self.traffic.up.add(len(message), z.nbytes + sum(x.nbytes for x in sent))
        return _message.join(z, tuple(x.to(device) for x in sent), plan)

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
        frame = self._encode(grad, _DOWN)
        self.traffic.down.add(len(frame), grad.nbytes)
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

    def get_extra_state(self) -> dict[str, Any]:
        """Return what `state_dict` saves: seed, counters and error feedback, as plain data."""
        residuals = [f and f.residual for f in self._feedback]
        return {
            "seed": self.seed,
            "drawn": list(self._drawn),
            "traffic": self.traffic.state(),
            "feedback": [None if r is None else _arrays.from_numpy(r) for r in residuals],
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_extra_state` returned."""
        self.seed = state["seed"]
        self._drawn = list(state["drawn"])
        self.traffic = Traffic.restore(state["traffic"])
        self._feedback = [
            None if x is None else sft.ErrorFeedback(codec, x.cpu().numpy())
            for codec, x in zip((self.activation, self.gradient), state["feedback"], strict=True)
        ]

    def extra_repr(self) -> str:
        """Name the settings."""
        text = f"activation={self.activation}, gradient={self.gradient}, seed={self.seed}"
        for name in ("compress_eval", "error_feedback"):
            text += f", {name}=True" if getattr(self, name) else ""
        return text

    def _send(self, x: Tensor, way: int, count: Direction) -> Tensor:
        """Encode and decode in one process."""
        frame = self._encode(x, way)
        count.add(len(frame), x.nbytes)
        return _arrays.decode(frame, shape=tuple(x.shape)).to(x.dtype).to(x.device)

    def _encode(self, x: Tensor, way: int) -> bytes:
        codec = (self.activation, self.gradient)[way]
        if not self.training and not self.compress_eval:
            codec = sft.Codec.raw()
        seed = (self.seed + 2 * self._drawn[way] + way) % 2**64
        self._drawn[way] += 1
        try:
            if self.error_feedback and self.training:
                return self._encode_with_feedback(codec, x, seed, way)
            return _arrays.encode(codec, x, seed)
        except sft.CodecError as error:
            if way != _DOWN or error.kind != "non_finite":
                raise
            return _arrays.encode(sft.Codec.raw(), x, seed)

    def _encode_with_feedback(self, codec: sft.Codec, x: Tensor, seed: int, way: int) -> bytes:
        feedback = self._feedback[way]
        if feedback is None or feedback.codec != codec:
            feedback = sft.ErrorFeedback(codec, feedback and feedback.residual)
            self._feedback[way] = feedback
        return _arrays.encode(feedback, x, seed)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, cut: Cut) -> Tensor:
        ctx.cut = cut
        return cut._send(h, _UP, cut.traffic.up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        cut: Cut = ctx.cut
        return cut._send(grad, _DOWN, cut.traffic.down), None


class _Counted(torch.autograd.Function):
    """The identity, whose gradient is counted: it comes down as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cut: Cut) -> Tensor:
        ctx.cut = cut
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        count = ctx.cut.traffic.down
        count.bytes += grad.nbytes
        count.raw_bytes += grad.nbytes
        return grad, None


def _codec(codec: sft.Codec | str | None, default: sft.Codec, name: str) -> sft.Codec:
    if codec is None:
        return default
    if isinstance(codec, str):
        return sft.Codec(codec)
    if not isinstance(codec, sft.Codec):
        raise TypeError(
            f"{name} must be a sft.Codec or text such as 'dead-zone:1.25', "
            f"got {type(codec).__name__}"
        )
    return codec
