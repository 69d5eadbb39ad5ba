"""What autograd does at a cut: the identity, whose values and gradients are coded."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sft.torch._coding import DOWN, UP
from sft.torch._transform import Batch

if TYPE_CHECKING:
    from sft.torch._cut import Cut

_NOT_UNDER = "a Cut cannot be under {}: take it out for this"
NO_SCRIPT = _NOT_UNDER.format("torch.jit.script, which has no codec")


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(h: Tensor, cut: Cut, batch: Batch, again: Tensor | None) -> Tensor:
        if again is not None:
            return again.clone()
        return cut._send(h, UP, batch)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Cut, Batch, Tensor | None], output: Tensor
    ) -> None:
        ctx.cut, ctx.batch = inputs[1], Batch(None, inputs[2].mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        cut: Cut = ctx.cut
        # Recorded only where it may be differentiated again: to apply costs as much as to code.
        if not torch.is_grad_enabled():
            return cut._send(grad, DOWN, ctx.batch), None, None, None
        received: Tensor = _Once.apply(grad, cut, ctx.batch)
        return received, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise RuntimeError(_NOT_UNDER.format("torch.vmap, which would make one message of many"))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise RuntimeError(_NOT_UNDER.format("forward-mode differentiation (jvp)"))


class _Once(torch.autograd.Function):
    """The way of a gradient down; it is not differentiated again."""

    @staticmethod
    def forward(grad: Tensor, cut: Cut, batch: Batch) -> Tensor:
        return cut._send(grad, DOWN, batch)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Cut, Batch], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(_NOT_UNDER.format("a second differentiation (create_graph)"))

    vmap = StraightThrough.vmap
    jvp = StraightThrough.jvp


class Counted(torch.autograd.Function):
    """The identity, whose gradient is counted: it comes down as it is."""

    @staticmethod
    def forward(x: Tensor, cut: Cut) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Cut], output: Tensor) -> None:
        ctx.cut = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        count = ctx.cut.traffic.down
        count.bytes += grad.nbytes
        count.raw_bytes += grad.nbytes
        return grad, None

    vmap = StraightThrough.vmap
    jvp = StraightThrough.jvp


# PyTorch reads the signature anew in every call, which costs a third of a small message.
for _forward in (StraightThrough.forward, _Once.forward, Counted.forward):
    setattr(_forward, "__signature__", inspect.signature(_forward))  # noqa: B010


def refuse_tracing(h: object) -> None:
    """Refuse what records a forward and would lose the cut, or bake what it decoded."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise RuntimeError(_NOT_UNDER.format("torch.jit.trace, which would keep one message"))
    if isinstance(h, torch.fx.Proxy):
        raise RuntimeError(_NOT_UNDER.format("torch.fx, which would record the model without it"))
    if torch.compiler.is_exporting():
        raise RuntimeError(_NOT_UNDER.format("torch.export, which has no bytes"))
