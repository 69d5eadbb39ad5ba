"""What passes from one half to the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sft.torch._trees import leaves

HIDDEN = -1
"""The place of the hidden state in `Slot.sent`."""


@dataclass(frozen=True)
class Slot:
    """A tensor of the device: its type and shape, and its place among those sent."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    sent: int | None


@dataclass(frozen=True)
class CallPlan:
    """How the server takes up the forward where the device left it; holds no tensor.

    Attributes
    ----------
    inputs
        Positional and keyword arguments of the model, with a `Slot` for each tensor.
    outputs
        What the device's modules returned, by name and in the order of their calls.
    cut
        What the module at the cut returned.
    reads
        Numbers that the code read from tensors before the cut, in order.
    model
        A hash of the model and its cut.

    Examples
    --------
    >>> import pickle
    >>> import torch
    >>> import sft.torch as st
    >>> crossing = st.Crossing(torch.ones(2, 4), (), st.CallPlan(inputs=((), {}), outputs={}, cut=None))
    >>> pickle.loads(pickle.dumps(crossing.plan)) == crossing.plan
    True
    """

    inputs: Any
    outputs: dict[str, list[Any]]
    cut: Any
    reads: list[object] = field(default_factory=list)
    model: str = ""


@dataclass(frozen=True)
class Crossing:
    """What passes the cut where a hidden state alone is not enough.

    `device_model` returns it for models whose part behind the cut uses more than the hidden
    state, such as attention masks; `Cut` and `server_model` take it. Where a loop
    written for a tensor needs one, it behaves as its hidden state.

    Attributes
    ----------
    hidden : torch.Tensor
        The hidden state, the only part that is compressed.
    sent : tuple of torch.Tensor
        Masks, positions and whatever else is used behind the cut, unchanged.
    plan : CallPlan
        How `server_model` takes up the forward; holds no tensor.

    Examples
    --------
    >>> import torch
    >>> import sft.torch as st
    >>> class Masked(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.second = torch.nn.Linear(8, 4), torch.nn.Linear(4, 2)
    ...
    ...     def forward(self, x, mask):
    ...         return self.second(self.first(x) * mask)
    >>> device_model, server_model = st.split(Masked(), after="first")
    >>> crossing = device_model(torch.ones(3, 8), torch.ones(3, 1))
    >>> crossing.hidden.shape, [x.shape for x in crossing.sent]
    (torch.Size([3, 4]), [torch.Size([3, 1])])
    >>> server_model(crossing).shape
    torch.Size([3, 2])
    """

    hidden: Tensor
    sent: tuple[Tensor, ...]
    plan: CallPlan

    @property
    def shape(self) -> torch.Size:
        """The shape of the hidden state."""
        return self.hidden.shape

    @property
    def dtype(self) -> torch.dtype:
        """The type of the hidden state."""
        return self.hidden.dtype

    @property
    def device(self) -> torch.device:
        """The device of the hidden state."""
        return self.hidden.device

    @property
    def requires_grad(self) -> bool:
        """Whether the hidden state requires a gradient."""
        return self.hidden.requires_grad

    @property
    def grad(self) -> Tensor | None:
        """The gradient of the hidden state."""
        return self.hidden.grad

    def requires_grad_(self, requires_grad: bool = True) -> Crossing:
        """Let the hidden state require a gradient."""
        self.hidden.requires_grad_(requires_grad)
        return self

    def detach(self) -> Crossing:
        """Cut the graph of every tensor."""
        sent = tuple(x.detach() for x in self.sent)
        return Crossing(self.hidden.detach(), sent, self.plan)

    def backward(self, gradient: Tensor | None = None) -> None:
        """Go backward from the hidden state."""
        self.hidden.backward(gradient)

    def with_hidden(self, hidden: Tensor) -> Crossing:
        """Return the same with another hidden state.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> plan = st.CallPlan(inputs=((), {}), outputs={}, cut=None)
        >>> crossing = st.Crossing(torch.ones(2, 4), (torch.zeros(2),), plan)
        >>> decoded = crossing.with_hidden(torch.zeros(2, 4))
        >>> decoded.sent is crossing.sent, decoded.hidden.sum()
        (True, tensor(0.))
        """
        return Crossing(hidden, self.sent, self.plan)


def slots(tree: Any) -> list[Slot]:
    """All tensors of a tree of a plan."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Slot)]


def slots_of(plan: CallPlan) -> list[Slot]:
    """All tensors in order: arguments, outputs, and what the module at the cut returned."""
    return [*slots(plan.inputs), *slots(list(plan.outputs.values())), *slots(plan.cut)]


def plan_of(h: Tensor) -> CallPlan | None:
    """Return the plan that came with a hidden state."""
    plan = getattr(h, "_sft_plan", None)
    return plan if isinstance(plan, CallPlan) else None


def with_plan(h: Tensor, plan: CallPlan | None) -> Tensor:
    """Let a plan come with a hidden state."""
    if plan is not None:
        h._sft_plan = plan  # type: ignore[attr-defined]
    return h
