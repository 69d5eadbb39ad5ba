"""Plans of hidden states that lost theirs on the way to the server."""

from __future__ import annotations

from collections import deque
from weakref import ReferenceType, ref

from torch import Tensor

from sft.torch._crossing import CallPlan

_PLANS = 32


class Kept:
    """The plans of the last calls, for tensors that do not carry one.

    What shares memory with a hidden state, as after `detach`, has its plan. Anything else has one
    only if all calls that gave a hidden state of its shape agree: a plan is never guessed.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[ReferenceType[Tensor], tuple[int, ...], CallPlan]] = deque(
            maxlen=_PLANS
        )

    def add(self, hidden: Tensor, plan: CallPlan) -> None:
        """Keep the plan of a hidden state."""
        self._calls.append((ref(hidden), tuple(hidden.shape), plan))

    def find(self, h: Tensor) -> CallPlan | None:
        """Return the plan of a tensor; none if there is none, or more than one.

        Raises
        ------
        ValueError
            If calls of this shape differ.
        """
        calls = [(hidden(), plan) for hidden, shape, plan in self._calls if shape == tuple(h.shape)]
        for hidden, plan in reversed(calls):
            if hidden is not None and hidden.data_ptr() == h.data_ptr() != 0:
                return plan
        plans = [plan for _, plan in calls]
        if not all(_same(plans[0], plan) for plan in plans):
            raise ValueError(
                f"h does not tell which of the calls with a hidden state of shape {tuple(h.shape)} "
                "it belongs to: pass what device_model, Cut or Cut.decode returned"
            )
        return plans[-1] if plans else None

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """Forget the calls in a copy."""
        return Kept, ()


def _same(a: CallPlan, b: CallPlan) -> bool:
    try:
        return bool(a == b)
    except Exception:  # arguments may be objects that do not compare
        return False
