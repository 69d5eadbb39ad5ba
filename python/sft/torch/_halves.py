"""The halves of a model: each runs its part of the model's own forward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from sft.torch._arrays import frame_bytes
from sft.torch._crossing import HIDDEN, CallPlan, Crossing, Slot, plan_of, with_plan
from sft.torch._eager import eager
from sft.torch._entry import Entry
from sft.torch._forms import fingerprint, form_of
from sft.torch._kept import Kept
from sft.torch._message import Head, error_of, pack_hello, unpack_hello
from sft.torch._packing import Reader
from sft.torch._points import path_of
from sft.torch._stubs import (
    DEVICE,
    SERVER,
    DevicePass,
    Reached,
    Role,
    ServerPass,
    device_pass,
    prune,
    server_pass,
    traced,
)
from sft.torch._trees import leaves, map_leaves
from sft.torch._values import Ghost, NotSentError, Run, Source, Traced, not_sent, plain
from sft.torch._whole import whole_only


class Half(nn.Module):
    """A half: the modules of a pruned copy of the model, under the same names."""

    def __init__(self, model: nn.Module, point: str, kept: Kept, role: Role) -> None:
        super().__init__()
        pruned = prune(model, "", point.split("."), role)
        self.training = pruned.training
        self.__dict__["_pruned"] = pruned
        for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[name] = pruned.__dict__[name]
        self.point = point
        self._kept = kept
        self.__dict__["_shared"] = {}
        self._model = fingerprint(model, point)
        # Between modules in a row nothing passes but the hidden state.
        self._in_a_row = all(type(module) is nn.Sequential for module in path_of(model, point))

    def _refuse_shared(self) -> None:
        """Refuse what would be trained twice, apart from each other."""
        shared: dict[str, tuple[str, nn.Parameter]] = self.__dict__["_shared"]
        trained = [f"{a} and {b}" for a, (b, p) in shared.items() if p.requires_grad]
        if trained:
            raise ValueError(
                f"{', '.join(trained)} are one parameter in both halves, whose copies in two "
                "processes would be trained apart: freeze it in both models, or untie it"
            )

    @property
    def shared(self) -> dict[str, str]:
        """Names of parameters that both halves use: in the device half, and in the server half."""
        return {a: b for a, (b, _) in self.__dict__["_shared"].items()}

    def _code(self) -> nn.Module:
        pruned: nn.Module = self.__dict__["_pruned"]
        pruned.training = self.training
        return pruned


class DeviceHalf(Half):
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

    def __init__(self, model: nn.Module, point: str, kept: Kept) -> None:
        super().__init__(model, point, kept, DEVICE)
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

    def hello(self, *args: Any, **kwargs: Any) -> bytes:
        """Name the plan of a call, for a server in another process; the first thing it is sent.

        Parameters
        ----------
        *args, **kwargs
            An example of what this half will be called with. Of tensors only type and number of
            dimensions matter, of all else the value.

        Returns
        -------
        bytes
            What `ServerHalf.agree` takes. A device that calls its model in more than one way
            sends a hello for each.

        Raises
        ------
        TypeError
            If two processes cannot agree on an argument.
        ValueError
            If the halves share a parameter that is trained; see `split`.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        >>> device_model, server_model = st.split(model, after="0")
        >>> server_model.agree(device_model.hello(torch.randn(3, 8)), torch.empty(1, 8))
        """
        self._refuse_shared()
        return pack_hello(form_of((args, kwargs), self._model), self.point)

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

        plan = CallPlan(
            inputs=described(inputs, ("input",)),
            outputs={
                name: [described(x, ("output", name, i)) for i, x in enumerate(calls)]
                for name, calls in current.outputs.items()
            },
            cut=described(current.cut, ("cut",)),
            reads=current.run.reads,
            model=self._model,
        )
        if sent:
            return Crossing(hidden, tuple(sent), plan)
        self._kept.add(hidden, plan)
        return with_plan(hidden, plan)


class ServerHalf(Half):
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

    def __init__(self, model: nn.Module, point: str, kept: Kept) -> None:
        super().__init__(model, point, kept, SERVER)
        self.__dict__["_before"] = Entry(prune(model, "", point.split("."), DEVICE), self._model)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Name the parameters, without those that belong to the device half, too.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        >>> model[1].weight = model[0].weight
        >>> device_model, server_model = st.split(model, after="0")
        >>> [name for name, _ in server_model.named_parameters()]
        ['1.bias']
        >>> server_model.shared
        {'0.weight': '1.weight'}
        """
        shared = {id(p) for _, p in self.__dict__["_shared"].values()}
        for name, p in super().named_parameters(prefix, recurse, remove_duplicate):
            if id(p) not in shared:
                yield name, p

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
        current.run.server_pass = current
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

    def agree(self, hello: bytes, *args: Any, **kwargs: Any) -> None:
        """Agree on a plan with a device in another process.

        Parameters
        ----------
        hello : bytes
            What `DeviceHalf.hello` returned there.
        *args, **kwargs
            An example of the calls that this server serves, of any sizes: a device cannot choose
            how the model is called.

        Raises
        ------
        sft.CodecError
            If the bytes are not a hello, or (its `kind` is ``'unknown_plan'``) name another call,
            another cut or a model with other parameters.
        TypeError, ValueError
            As `DeviceHalf.hello`.

        Examples
        --------
        >>> import torch
        >>> import sft.torch as st
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        >>> device_model, server_model = st.split(model, after="0")
        >>> server_model.agree(device_model.hello(torch.randn(3, 8)), torch.empty(1, 8))
        """
        self._refuse_shared()
        form = form_of((args, kwargs), self._model)
        digest, text = unpack_hello(frame_bytes(hello, "hello"))
        if digest != form.digest:
            here = f"after {self.point}: {form.text}"
            same = "the same call of a model with other parameters"
            told = same if text == here else f"{text[:500]!r}, here it is {here[:500]!r}"
            raise error_of("unknown_plan", f"the device names a plan that is not agreed on: {told}")
        self._entry.calls[digest] = form.inputs

    def _enter(
        self, head: Head | None, tensors: Reader, most: int
    ) -> tuple[CallPlan | None, tuple[Tensor, ...]]:
        """Return the plan of a message and what was sent beside the hidden state; see `Cut.decode`.

        Raises
        ------
        sft.CodecError
            If the plan was not agreed on, or the message contradicts it.
        """
        if self._in_a_row and head is None:
            return None, ()
        if head is None:
            raise error_of("unknown_plan", "the message is a frame alone and names no plan")
        return self._entry.take(head, tensors, most)

    @property
    def _entry(self) -> Entry:
        entry: Entry = self.__dict__["_before"]
        return entry

    def _pass(self, h: Tensor | Crossing) -> ServerPass:
        if isinstance(h, Crossing):
            sent = tuple(x.to(h.device) for x in h.sent)
            return ServerPass(Run(iter(h.plan.reads)), h.hidden, sent, h.plan)
        if not isinstance(h, Tensor):
            raise TypeError(f"h must be what device_model or Cut returned, got {type(h).__name__}")
        plan = None if self._in_a_row else plan_of(h) or self._kept.find(h)
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
