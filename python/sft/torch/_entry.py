"""How a server enters the forward that a device in another process has begun."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from sft.torch._crossing import HIDDEN, CallPlan, Slot, slots, slots_of
from sft.torch._eager import uncompiled
from sft.torch._message import Head, error_of
from sft.torch._packing import Reader, unpacked
from sft.torch._stubs import DevicePass, Reached, device_pass
from sft.torch._trees import map_leaves
from sft.torch._values import Ghost, Run, Traced

_KEPT = 64
"""So many plans are kept, the ones used last."""


class Entry:
    """The plans of one server: what its own code before the cut does for the calls it agreed to.

    A message tells sizes, what the code read from values, and which tensors were sent; arguments
    and structure are those of the call that was agreed on, and of the server's own model.
    """

    def __init__(self, code: nn.Module, model: str) -> None:
        self.calls: dict[bytes, Any] = {}
        self._code, self._model = code, model
        self._plans: dict[object, CallPlan] = {}

    def take(self, head: Head, reader: Reader, most: int) -> tuple[CallPlan, tuple[Tensor, ...]]:
        """Return the plan of a message, and the tensors sent beside the hidden state.

        Raises
        ------
        sft.CodecError
            If the plan was not agreed on, or the message contradicts it.
        """
        call = self.calls.get(head.digest)
        if call is None:
            raise error_of(
                "unknown_plan",
                f"the message names plan {head.digest.hex()}, which was not agreed on: "
                "server_model.agree takes the hello of a device and an example of its calls",
            )
        try:
            inputs, sent = _sized(call, head.sizes, most), list[Tensor]()
            given = slots(inputs)
            for number, dtype in head.beside:
                if number < len(given):
                    _take(reader, sent, given[number], dtype, most)
            plan = self._plan(head, inputs, sent)
            for slot in slots_of(plan):
                # The hidden state is in the frame; what is among the arguments was taken above.
                if slot.sent is not None and slot.sent >= len(sent):
                    _take(reader, sent, slot, head.beside[slot.sent][1], most)
            reader.end()
        except ValueError as error:
            raise error_of("corrupt", f"the message contradicts its plan: {error}") from error
        return plan, tuple(sent)

    def _plan(self, head: Head, inputs: Any, sent: list[Tensor]) -> CallPlan:
        key = head, tuple(module.training for module in self._code.modules())
        plan = self._plans.pop(key, None)
        if plan is None:
            try:
                plan = self._followed(head, inputs, [])
            except DynamicOutputShapeException as error:
                if not sent:
                    raise ValueError(f"what the code returns depends on values: {error}") from error
                return self._followed(head, inputs, sent)
        self._plans[key] = plan
        if len(self._plans) > _KEPT:
            del self._plans[next(iter(self._plans))]
        return plan

    def _followed(self, head: Head, inputs: Any, sent: list[Tensor]) -> CallPlan:
        """Run the code before the cut on shapes."""
        run = Run(iter(head.reads))
        current = DevicePass(run, None, {}, in_a_row=True)
        where = next((p.device for p in self._code.parameters()), torch.device("cpu"))
        values = {number: x for (number, _), x in zip(head.beside, sent, strict=False)}
        numbers = iter(range(1 << 30))

        def stand_in(slot: Any) -> Any:
            if not isinstance(slot, Slot):
                return slot
            value = values.get(next(numbers))
            if value is not None:
                return Traced.of(value.to(where), run, frozenset())
            return Ghost.empty(slot.shape, slot.dtype, where, run)

        token = device_pass.set(current)
        try:
            args, kwargs = map_leaves(stand_in, inputs)
            with uncompiled(), torch.no_grad():
                self._code(*args, **kwargs)
        except Reached:
            pass
        except Exception as error:
            if isinstance(error, DynamicOutputShapeException) and not sent:
                raise
            text = f"the model's code before the cut does not take it: {error}"
            raise ValueError(text) from error
        finally:
            run.close()
            device_pass.reset(token)
        if current.hidden is None:
            raise ValueError("the model's code did not come to the cut")
        if not run.all_read():
            raise ValueError("it has numbers that the model's code does not read")
        return _numbered(inputs, current, current.hidden, head, self._model)


def _numbered(inputs: Any, current: DevicePass, hidden: Tensor, head: Head, model: str) -> CallPlan:
    """Describe what the code returned, with the tensors that were sent in their places."""
    places = {number: (place, dtype) for place, (number, dtype) in enumerate(head.beside)}
    numbers = iter(range(1 << 30))

    def slot(x: Any) -> Any:
        if not isinstance(x, Tensor | Slot):
            return x
        number = next(numbers)
        if x is hidden:
            if places.pop(number, None) is not None:
                raise ValueError("the hidden state was sent twice")
            return Slot(x.dtype, tuple(x.shape), HIDDEN)
        place, dtype = places.pop(number, (None, x.dtype))
        if dtype != x.dtype and not (dtype.is_floating_point and x.dtype.is_floating_point):
            raise ValueError(f"tensor {number} is of {dtype}, must be of {x.dtype}")
        return Slot(dtype, tuple(x.shape), place)

    plan = CallPlan(
        inputs=map_leaves(slot, inputs),
        outputs={
            name: [map_leaves(slot, x) for x in calls] for name, calls in current.outputs.items()
        },
        cut=map_leaves(slot, current.cut),
        reads=list(head.reads),
        model=model,
    )
    if places:
        raise ValueError(f"there is no tensor {next(iter(places))}")
    return plan


def _sized(call: Any, sizes: tuple[int, ...], most: int) -> Any:
    """Give the tensors of a call the sizes of a message."""
    left = list(sizes)

    def sized(slot: Any) -> Any:
        if not isinstance(slot, Slot):
            return slot
        shape = tuple(left[: len(slot.shape)])
        del left[: len(slot.shape)]
        if len(shape) != len(slot.shape):
            raise ValueError("there are too few sizes")
        if math.prod(shape) > most:
            raise ValueError(f"an argument of shape {shape}, above the limit of {most} elements")
        return Slot(slot.dtype, shape, None)

    tree = map_leaves(sized, call)
    if left:
        raise ValueError("there are too many sizes")
    return tree


def _take(reader: Reader, sent: list[Tensor], slot: Slot, dtype: torch.dtype, most: int) -> None:
    both = dtype.is_floating_point and slot.dtype.is_floating_point
    if dtype != slot.dtype and not both:
        raise ValueError(f"tensor {len(sent)} beside is of {dtype}, must be of {slot.dtype}")
    sent.append(unpacked(reader, dtype, slot.shape, most))
