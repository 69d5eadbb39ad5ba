"""Two halves of a model, sharing its parameters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sft.torch._crossing import HIDDEN, Crossing, Plan, Slot, plan_of, with_plan
from sft.torch._eager import eager
from sft.torch._points import find, path_of
from sft.torch._stubs import (
    DEVICE,
    SERVER,
    DevicePass,
    Reached,
    ServerPass,
    device_pass,
    prune,
    server_pass,
    traced,
)
from sft.torch._trees import leaves, map_leaves
from sft.torch._values import Ghost, NotSentError, Run, Source, Traced, not_sent, plain
from sft.torch._whole import whole_only

_PLANS = 32
"""How many plans are kept for hidden states that lost theirs."""


def split(model: nn.Module, *, after: str) -> tuple[DeviceHalf, ServerHalf]:
    """Split a model in two halves behind one of its modules.

    The halves run the model's own code and share its parameters: nothing is copied, and the
    model can still be used. The part of `forward` before the cut may use any Python; on the server
    it is run again without values, so that it must not depend on random numbers outside of
    modules.

    What a whole model collects over its layers cannot come from one half and is refused: a cache,
    whatever its argument is called (``cache``, ``past_key_values``), ``use_cache=True``, and what
    is recorded of every layer (``output_hidden_states``, ``output_attentions``,
    ``output_router_logits``). A cache that comes back unasked has the layers of the server alone.
    For these, and to generate text, put a cut into the whole model by `attach`.

    Parameters
    ----------
    model : torch.nn.Module
        Any module whose `forward` passes through the cut: of timm, Transformers, PEFT,
        `torch.nn.Sequential` or your own. If it passes more than once, it is cut the first time.
    after : str
        The name of the last module on the device, as `named_modules` tells it. For a model of
        PEFT the name may leave out ``base_model.model.``.

    Returns
    -------
    device_model : DeviceHalf
        Takes what the model takes and returns the hidden state, or a `Crossing` if more is used
        behind the cut. Holds the parameters of the modules registered before the cut.
    server_model : ServerHalf
        Takes that and returns what the model returns. Holds the other parameters. Names are those
        of the model in both.

    Raises
    ------
    ValueError
        If there is no module `after`; the message lists those that are.
    TypeError
        If `model` is not a module, or a half of one.

    Examples
    --------
    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    >>> device_model, server_model = st.split(model, after="0")
    >>> [name for name, _ in device_model.named_parameters()]
    ['0.weight', '0.bias']
    >>> x = torch.randn(3, 8)
    >>> bool((server_model(device_model(x)) == model(x)).all())
    True
    """
    if isinstance(model, _Half):
        raise TypeError("model must be a whole model, got a half: split it once, attach more cuts")
    point = find(model, after)
    plans: dict[tuple[int, ...], Plan] = {}
    return DeviceHalf(model, point, plans), ServerHalf(model, point, plans)


class _Half(nn.Module):
    """A half: the modules of a pruned copy of the model, under the same names."""

    def __init__(self, pruned: nn.Module, point: str, plans: dict[tuple[int, ...], Plan]) -> None:
        super().__init__()
        self.training = pruned.training
        self.__dict__["_pruned"] = pruned
        for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[name] = pruned.__dict__[name]
        self.point = point
        self._plans = plans

    def _code(self) -> nn.Module:
        pruned: nn.Module = self.__dict__["_pruned"]
        pruned.training = self.training
        return pruned


class DeviceHalf(_Half):
    """The part of a model before the cut; see `split`.

    Examples
    --------
    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    >>> device_model, server_model = st.split(model, after="1")
    >>> device_model(torch.randn(3, 8)).shape
    torch.Size([3, 4])
    >>> device_model.get_parameter("0.weight") is model.get_parameter("0.weight")
    True
    """

    def __init__(self, model: nn.Module, point: str, plans: dict[tuple[int, ...], Plan]) -> None:
        super().__init__(prune(model, "", point.split("."), DEVICE), point, plans)
        self._in_a_row = all(type(module) is nn.Sequential for module in path_of(model, point))
        self._needed: dict[object, frozenset[Source]] = {}
        self._whole_only = whole_only(path_of(model, point))

    @eager
    def forward(self, *args: Any, **kwargs: Any) -> Tensor | Crossing:
        """Run the model up to the cut.

        Parameters
        ----------
        *args, **kwargs
            What the model takes.

        Returns
        -------
        torch.Tensor or Crossing
            The hidden state, with all else that is used behind the cut.
        """
        self._whole_only.check(args, kwargs, self._configs())
        run = Run()
        current = DevicePass(run, _way((args, kwargs), self.training), self._needed, self._in_a_row)
        token = device_pass.set(current)
        inputs = (args, kwargs)
        try:
            moved_args, moved_kwargs = traced(inputs, run, ("input",))
            result = self._code()(*moved_args, **moved_kwargs)
            self._needed[current.key] = frozenset(run.needed | _sources(result))
        except Reached:
            pass
        except Exception as error:
            if run.behind:
                error.add_note("while following the model behind the cut to learn what it uses")
            raise
        finally:
            run.close()
            device_pass.reset(token)
        if current.hidden is None:
            raise RuntimeError(
                f"the forward did not pass through {self.point}, or it returned no hidden state"
            )
        if self._in_a_row:
            return current.hidden
        return self._crossing(inputs, current, current.hidden)

    def _configs(self) -> list[Any]:
        """Return the configurations of the modules that contain the cut, as they are now."""
        found = [getattr(module, "config", None) for module in path_of(self._code(), self.point)]
        return [config for config in found if config is not None]

    def _crossing(self, inputs: Any, current: DevicePass, hidden: Tensor) -> Tensor | Crossing:
        needed, sent = self._needed[current.key], list[Tensor]()

        def described(tree: Any, source: Source) -> Any:
            numbers = iter(range(1 << 30))

            def slot(x: Any) -> Any:
                if not isinstance(x, Tensor):
                    return x
                place, number = None, next(numbers)
                if x is hidden:
                    place = HIDDEN
                elif (*source, number) in needed:
                    place = len(sent)
                    sent.append(x)
                return Slot(x.dtype, tuple(x.shape), place)

            return map_leaves(slot, tree)

        plan = Plan(
            inputs=described(inputs, ("input",)),
            outputs={
                name: [described(x, ("output", name, i)) for i, x in enumerate(calls)]
                for name, calls in current.outputs.items()
            },
            cut=described(current.cut, ("cut",)),
            reads=current.run.reads,
        )
        if sent:
            return Crossing(hidden, tuple(sent), plan)
        self._plans.pop(tuple(hidden.shape), None)
        self._plans[tuple(hidden.shape)] = plan
        if len(self._plans) > _PLANS:
            del self._plans[next(iter(self._plans))]
        return with_plan(hidden, plan)


class ServerHalf(_Half):
    """The part of a model behind the cut; see `split`.

    Examples
    --------
    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    >>> device_model, server_model = st.split(model, after="1")
    >>> server_model(device_model(torch.randn(3, 8))).shape
    torch.Size([3, 2])
    >>> [name for name, _ in server_model.named_parameters()]
    ['2.weight', '2.bias']
    """

    def __init__(self, model: nn.Module, point: str, plans: dict[tuple[int, ...], Plan]) -> None:
        super().__init__(prune(model, "", point.split("."), SERVER), point, plans)
        self._in_a_row = all(type(module) is nn.Sequential for module in path_of(model, point))

    @eager
    def forward(self, h: Tensor | Crossing) -> Any:
        """Run the model from the cut on.

        Parameters
        ----------
        h : torch.Tensor or Crossing
            What `device_model` returned, or what `Cut` made of it.

        Returns
        -------
        object
            What the model returns.
        """
        current = self._pass(h)
        token = server_pass.set(current)
        try:
            if current.plan is None:
                # Stand-ins of modules in a row pass on what they get.
                result = self._code()(current.hidden)
            else:
                args, kwargs = map_leaves(current.value, current.plan.inputs)
                result = self._code()(*args, **kwargs)
        finally:
            server_pass.reset(token)
        return map_leaves(_value, result)

    def _pass(self, h: Tensor | Crossing) -> ServerPass:
        if isinstance(h, Crossing):
            sent = tuple(x.to(h.device) for x in h.sent)
            return ServerPass(Run(iter(h.plan.reads)), h.hidden, sent, h.plan)
        if not isinstance(h, Tensor):
            raise TypeError(f"h must be what device_model or Cut returned, got {type(h).__name__}")
        plan = None if self._in_a_row else plan_of(h) or self._plans.get(tuple(h.shape))
        if plan is None and not self._in_a_row:
            raise ValueError(
                "h tells nothing about the device's inputs: pass what device_model, Cut or "
                "Cut.decode returned"
            )
        return ServerPass(Run(iter(plan.reads if plan else ())), h, (), plan)


def _way(inputs: Any, training: bool) -> object:
    """Tell what decides the way through the model's code, beside what it reads from values."""

    def describe(x: Any) -> object:
        if isinstance(x, Tensor):
            # Code tells apart one and many, but hardly 7 and 8.
            return x.dtype, [min(size, 2) for size in x.shape]
        return x if isinstance(x, str | bool | int | float | None) else type(x)

    return repr(map_leaves(describe, inputs)), training


def _sources(result: Any) -> set[Source]:
    return {s for x in leaves(result) if isinstance(x, Traced | Ghost) for s in x.sources}


def _value(x: Any) -> Any:
    if isinstance(x, Ghost):
        raise NotSentError(not_sent(x.sources))
    return plain(x)
