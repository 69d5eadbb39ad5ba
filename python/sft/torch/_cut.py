"""The cut as a module: what crosses it is encoded and decoded, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from sft.torch import _arrays, _message
from sft.torch._autograd import NO_SCRIPT, Counted, StraightThrough, refuse_tracing
from sft.torch._coding import DOWN, UP, Way
from sft.torch._crossing import CallPlan, Crossing, plan_of, with_plan
from sft.torch._eager import eager
from sft.torch._packing import Reader
from sft.torch._replay import Received
from sft.torch._state import CutState
from sft.torch._transform import Batch
from sft.torch._values import Ghost

if TYPE_CHECKING:
    from sft.torch._halves import ServerHalf

_H = TypeVar("_H", Tensor, Crossing)


class Cut(CutState):
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
            return self._cross(h)

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

    @eager
    def _cross(self, h: _H) -> _H:
        hidden = h.hidden if isinstance(h, Crossing) else h
        again = self._replay.take(hidden)
        if again is None:
            self.traffic.up.bytes += _message.overhead(h)
            self.traffic.up.raw_bytes += sum(x.nbytes for x in _message.beside(h))
        batch = self._batch if again is None else again.batch
        batch.check(tuple(hidden.shape))
        # Sent, or taken up again as it was received; the gradient goes as that went.
        z: Tensor = StraightThrough.apply(hidden, self, batch, again and again.tensor)
        if not isinstance(h, Crossing):
            return with_plan(z, plan_of(h))
        sent = tuple(Counted.apply(x, self) if x.requires_grad else x for x in h.sent)
        return Crossing(z, sent, h.plan)

    def _send(self, x: Tensor, way: Way, batch: Batch) -> Tensor:
        """Encode and decode in one process."""
        if (learnt := self._coding.learnt_now(way, self._codecs)) is not None:
            self.bases = learnt
        sent = self._encode(x, way, batch)
        count = (self.traffic.up, self.traffic.down)[way]
        count.add(len(sent.frame) + (way == UP) * batch.mask_bytes, x.nbytes, zeroed=sent.zeroed)
        received = self._coding.decode(sent.frame, way, batch, tuple(x.shape))
        self._coding.saw(received, way, batch, self._codecs)
        received = received.to(x.dtype).to(x.device)
        if way == UP:
            self._replay.keep(x, Received(received, batch))
        return received

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
        sent = self._encode(hidden, UP, batch)
        message = _message.pack(h, sent.frame)
        raw = hidden.nbytes + sum(x.nbytes for x in _message.beside(h))
        self.traffic.up.add(len(message), raw, zeroed=sent.zeroed)
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
        plan, sent = _entered(server_model, head, tensors, _message.limit(message))
        batch = Batch.of(samples, mask)
        if plan is not None:
            _message.check_hidden(plan, frame, batch)
        z = self._coding.decode(frame, UP, batch).to(device)
        self._coding.saw(z, UP, batch, self._codecs)
        self.traffic.up.add(len(message), z.nbytes + sum(x.nbytes for x in sent))
        if plan is not None and sent:
            return Crossing(z, tuple(x.to(device) for x in sent), plan)
        return with_plan(z, plan)

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
        sent = self._encode(grad, DOWN, batch)
        self.traffic.down.add(len(sent.frame), grad.nbytes, zeroed=sent.zeroed)
        return sent.frame

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
        grad = self._coding.decode(frame, DOWN, Batch.of(None, mask)).to(device)
        self.traffic.down.add(len(reply), grad.nbytes)
        return grad


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
