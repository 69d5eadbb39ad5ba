"""What stands in a half for the modules of the model."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any, Self

from torch import Tensor, nn

from sft.torch._crossing import HIDDEN, CallPlan, Slot
from sft.torch._trees import leaves, map_leaves
from sft.torch._values import (
    NOWHERE,
    Ghost,
    NotSentError,
    Run,
    Source,
    Traced,
    follow,
    plain,
    shapes_only,
)


class Reached(BaseException):
    """The device's pass is at its end; no error, and not to be caught by the model."""


@dataclass
class DevicePass:
    """The state of one forward on the device.

    `needed` tells for each way through the code what is used behind the cut, and `way` begins the
    key of this one; what the code reads from values completes it. Between modules `in_a_row`
    nothing but the hidden state passes.
    """

    run: Run
    way: object
    needed: dict[object, frozenset[Source]]
    in_a_row: bool
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    cut: Any = None
    hidden: Tensor | None = None

    @property
    def key(self) -> object:
        """Tell the way that was taken."""
        return self.way, repr(self.run.reads)

    def compute(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Run a module on plain tensors; on the server, which has none of them, on shapes."""
        if not self.run.on_server:
            args, kwargs = map_leaves(plain, (args, kwargs))
            return module(*args, **kwargs)
        args, kwargs = map_leaves(self.run.stand_in, (args, kwargs))
        with shapes_only(self.run.fake):
            return module(*args, **kwargs)

    @property
    def known(self) -> bool:
        """Whether it is known what is used behind the cut."""
        return self.in_a_row or self.key in self.needed


@dataclass
class ServerPass:
    """The state of one forward on the server."""

    run: Run
    hidden: Tensor
    sent: tuple[Tensor, ...]
    plan: CallPlan | None
    calls: dict[str, int] = field(default_factory=dict)

    def value(self, slot: Any) -> Any:
        """Return the tensor of a slot: one that crossed, or a stand-in."""
        if not isinstance(slot, Slot):
            return slot
        if slot.sent == HIDDEN:
            return self.hidden
        if slot.sent is None:
            return Ghost.empty(slot.shape, slot.dtype, self.hidden.device, self.run)
        return Traced.of(self.sent[slot.sent], self.run, frozenset())


device_pass: ContextVar[DevicePass | None] = ContextVar("device_pass", default=None)
server_pass: ContextVar[ServerPass | None] = ContextVar("server_pass", default=None)


class Stub(nn.Module):
    """A module of the model in a half: the parameters of the module, or none.

    Everything else is asked of the module itself.
    """

    def __init__(self, original: nn.Module, path: str, *, own: bool) -> None:
        super().__init__()
        self.__dict__["_sft_original"] = original
        self.__dict__["_sft_path"] = path
        self.__dict__["_sft_own"] = own
        self.__dict__["_sft_constants"] = _tensors_of(original)
        self.training = original.training
        if own:
            for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
                self.__dict__[name] = original.__dict__[name]

    def __getattr__(self, name: str) -> Any:
        """Ask the module for what the stub does not have."""
        try:
            value = super().__getattr__(name)
        except AttributeError:
            value = getattr(self.__dict__["_sft_original"], name)
        return self._guarded(name, value)

    def _guarded(self, name: str, value: Any) -> Any:
        """Refuse a tensor that the forward of a module left in it, where it did not cross."""
        run, original = _current_run(), self._sft_original
        if run is None or name in original._parameters or name in original._buffers:
            return value
        path = f"{self._sft_path}.{name}"
        if isinstance(value, nn.Module):
            inner = type(self)(value, path, own=self._sft_own)
            inner.__dict__["_sft_constants"] = self._sft_constants
            return inner
        left = [x for x in leaves(value) if isinstance(x, Tensor)]
        if not left or not (run.behind or run.on_server) or id(left[0]) in self._sft_constants:
            return value
        raise NotSentError(
            f"the part of the model behind the cut uses {path}, which a module keeps as an "
            "attribute and which did not cross: return it, or put the cut in by attach"
        )

    def extra_repr(self) -> str:
        """Name the module."""
        return f"{self._sft_path}: {type(self._sft_original).__name__}"

    def train(self, mode: bool = True) -> Self:
        """Let the module be in training or evaluation, too."""
        if self._sft_own:
            self._sft_original.training = mode
        return super().train(mode)


def _tensors_of(module: nn.Module) -> dict[int, Tensor]:
    """All tensors that a module and those in it have: parameters, buffers, constants."""
    found = [x for m in module.modules() for x in leaves(dict(vars(m))) if isinstance(x, Tensor)]
    found += [*module.parameters(), *module.buffers()]
    return {id(x): x for x in found}


def _current_run() -> Run | None:
    current = device_pass.get() or server_pass.get()
    return None if current is None else current.run


class DeviceStub(Stub):
    """A module on the device: before the cut it computes, behind it nothing does."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute on plain tensors and follow the result."""
        current = device_pass.get()
        if current is None:
            # A checkpointed segment is computed again.
            args, kwargs = map_leaves(plain, (args, kwargs))
        if current is None or not _has_parameters(self._sft_original):
            return self._sft_original(*args, **kwargs)
        if current.run.behind == self._sft_own:
            warn_other_half(self._sft_path)
        if current.run.behind:
            return self._sft_original(*args, **kwargs)
        result = current.compute(self._sft_original, args, kwargs)
        calls = current.outputs.setdefault(self._sft_path, [])
        calls.append(result)
        if current.run.on_server:
            return follow(result, current.run, NOWHERE)
        source = ("output", self._sft_path, len(calls) - 1)
        return traced(result, current.run, source)


class CutStub(Stub):
    """The module at the cut, on the device: its output is what crosses."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute, then end the pass or follow it without values."""
        current = device_pass.get()
        if current is None:
            args, kwargs = map_leaves(plain, (args, kwargs))
        if current is None or current.run.behind:
            return self._sft_original(*args, **kwargs)
        result = current.compute(self._sft_original, args, kwargs)
        found = (x for x in leaves(result) if isinstance(x, Tensor) and x.is_floating_point())
        current.cut, current.hidden = result, next(found, None)
        current.run.behind = True
        if current.hidden is None or current.known:
            raise Reached
        run, numbers = current.run, iter(range(1 << 30))

        def ghost(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            source: tuple[Source, ...] = (("cut", next(numbers)),)
            sources = frozenset[Source](() if x is current.hidden else source)
            return Ghost.empty(tuple(x.shape), x.dtype, x.device, run, sources)

        result = map_leaves(ghost, result)
        run.follow()
        return result


class ServerStub(Stub):
    """A module of the device, on the server: before the cut it returns what it did there."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return stand-ins of what the module returned on the device."""
        current, again = server_pass.get(), _computed_again(args, kwargs)
        if again is not None and again.plan is not None:
            calls = again.plan.outputs.get(self._sft_path)
            return calls and map_leaves(again.value, calls[0])
        if current is None or current.run.behind:
            return self._sft_original(*args, **kwargs)
        if current.plan is None:
            return args[0]
        calls = current.plan.outputs.get(self._sft_path)
        if calls is None:
            return self._sft_original(*args, **kwargs)
        number = current.calls.get(self._sft_path, 0)
        current.calls[self._sft_path] = number + 1
        return map_leaves(current.value, calls[number])


class EntryStub(Stub):
    """The module at the cut, on the server: it returns what crossed."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the hidden state in the place where the module returned it."""
        current = server_pass.get() or _computed_again(args, kwargs)
        if current is None or (current.run.behind and server_pass.get() is not None):
            return self._sft_original(*args, **kwargs)
        current.run.behind = True
        if current.plan is None:
            return current.hidden
        return map_leaves(lambda x: plain(current.value(x)), current.plan.cut)


def _computed_again(args: Any, kwargs: Any) -> ServerPass | None:
    """Return the pass of a checkpointed segment that is computed again in backward."""
    if server_pass.get() is not None:
        return None
    found = (x.run.server_pass for x in leaves((args, kwargs)) if isinstance(x, Ghost))
    current: ServerPass | None = next(found, None)
    return current if current is not None and current.plan is not None else None


@dataclass(frozen=True)
class Role:
    """How one half is made of the model: a stub, or the module, for each place."""

    before: type[Stub]
    cut: type[Stub]
    behind: type[Stub] | None
    owns_before: bool


DEVICE = Role(before=DeviceStub, cut=CutStub, behind=DeviceStub, owns_before=True)
SERVER = Role(before=ServerStub, cut=EntryStub, behind=None, owns_before=False)


def prune(module: nn.Module, path: str, rest: list[str], role: Role) -> nn.Module:
    """Return a shallow copy of a module on the way to the cut, with stubs for its children."""
    if not rest:
        return role.cut(module, path, own=role.owns_before)
    compiled = "_orig_mod" in module._modules
    clone = Uncompiled() if compiled else shallow(module, own=role.owns_before)
    before = True
    for name, child in module._modules.items():
        if child is None:
            continue
        inner = f"{path}.{name}" if path else name
        if name == rest[0]:
            clone._modules[name] = prune(child, inner, rest[1:], role)
            before = False
        elif before:
            clone._modules[name] = stub(child, inner, role.before, own=role.owns_before)
        elif role.behind is not None:
            clone._modules[name] = stub(child, inner, role.behind, own=False)
    return clone


class Uncompiled(nn.Module):
    """Stands for a compiled module that contains the cut."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module as it was written."""
        return self._orig_mod(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Ask the module for everything else."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("_orig_mod"), name)


def stub(module: nn.Module, path: str, kind: type[Stub], *, own: bool) -> nn.Module:
    """Return a stub; a container that is never called gets stubs for its modules."""
    called = type(module).forward is not nn.Module.forward or "_orig_mod" in module._modules
    if called:
        return kind(module, path, own=own)
    clone = shallow(module, own=own)
    for name, child in module._modules.items():
        if child is not None:
            clone._modules[name] = stub(child, f"{path}.{name}", kind, own=own)
    return clone


def shallow(module: nn.Module, *, own: bool) -> nn.Module:
    """Return a copy with its own children and the same parameters.

    Without `own` the parameters are attributes that nobody counts among the half's.
    """
    clone = type(module).__new__(type(module))
    clone.__dict__.update(module.__dict__)
    clone.__dict__["_modules"] = dict(module._modules)
    clone.__dict__["_compiled_call_impl"] = None
    if not own:
        clone.__dict__.update(module._parameters)
        clone.__dict__.update(module._buffers)
        clone.__dict__.update(_parameters={}, _buffers={}, _non_persistent_buffers_set=set())
    for name, value in module.__dict__.items():
        if isinstance(value, MethodType) and value.__self__ is module:
            clone.__dict__[name] = MethodType(value.__func__, clone)
        if isinstance(value, partial) and any(x is module for x in value.args):
            # The forward of a module with hooks of accelerate.
            args = (clone if x is module else x for x in value.args)
            clone.__dict__[name] = rebound = partial(value.func, *args, **value.keywords)
            vars(rebound).update(vars(value))
    return clone


def traced(result: Any, run: Run, source: Source) -> Any:
    """Follow every tensor of a result."""
    numbers = iter(range(1 << 30))

    def follow(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return Traced.of(x, run, frozenset({(*source, next(numbers))}))

    return map_leaves(follow, result)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def warn_other_half(path: str) -> None:
    """Say that a parameter is counted to the half that does not use it."""
    warnings.warn(
        f"{path} is used on the other side of the cut than its place in the model tells: "
        "its parameters are among those of the other half",
        stacklevel=2,
    )
