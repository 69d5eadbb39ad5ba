"""Tensors whose use can be followed, and stand-ins for tensors that are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)

from sft.torch._eager import uncompiled
from sft.torch._trees import leaves, map_leaves

Source = tuple[str | int, ...]
"""Where a value comes from: an input, or an output of a module on the device."""

NOWHERE: frozenset[Source] = frozenset()

_READS = {"__bool__": bool, "__int__": int, "__index__": int, "__float__": float, "equal": bool}
"""What functions of torch return that read a value."""


class NotSentError(RuntimeError):
    """The part behind the cut needs a value that did not cross."""


class Run:
    """One pass of a half through the model's own code.

    Before the cut every tensor is a `Traced` with a value, or, on the server, a `Ghost` without
    one. Behind the cut the server computes on plain tensors; the device, if it follows the code at
    all, on ghosts, to learn which values are needed there.

    Parameters
    ----------
    reads
        On the server: what the device's code read from values, as by ``if mask.all()``.
    """

    def __init__(self, reads: Iterator[object] | None = None) -> None:
        self.behind = False
        self.needed: set[Source] = set()
        self.reads: list[object] = []
        self.on_server = reads is not None
        self.server_pass: Any = None
        self._recorded = reads or iter(())
        self._fake: FakeTensorMode | None = None
        self._stack = ExitStack()

    @property
    def fake(self) -> FakeTensorMode:
        """The mode of tensors without values."""
        if self._fake is None:
            self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        return self._fake

    def stand_in(self, x: Any) -> Any:
        """Return a tensor without a value for what is followed; anything else as it is."""
        if isinstance(x, Traced):
            return self.fake.from_tensor(plain(x).detach())
        return x.fake if isinstance(x, Ghost) else x

    def read(self, value: object, name: str) -> object:
        """Return what the code reads from a value by a function; the same on device and server."""
        if not self.on_server:
            self.reads.append(value)
            return value
        value = next(self._recorded, self)
        if value is self:
            raise NotSentError("the model's code reads more values than on the device")
        if type(value) is not _READS.get(name, type(value)):
            raise NotSentError(f"the model's code reads no {type(value).__name__} by {name}")
        return value

    def all_read(self) -> bool:
        """Whether the code on the server read all that was read on the device."""
        return next(self._recorded, self) is self

    def follow(self) -> None:
        """Go on behind the cut without computing."""
        self._stack.enter_context(uncompiled())
        self._stack.enter_context(shapes_only(self.fake))

    def close(self) -> None:
        """End what `follow` began."""
        self._stack.close()


class Traced(Tensor):
    """A tensor that knows which values it was made of."""

    run: Run
    sources: frozenset[Source]

    @staticmethod
    def of(x: Tensor, run: Run, sources: frozenset[Source]) -> Traced:
        """Follow a plain tensor."""
        traced = x.as_subclass(Traced)
        traced.run, traced.sources = run, sources
        return traced

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch and follow its result."""
        return _call(func, args, kwargs or {})


class Ghost(Tensor):
    """A tensor without a value: shape, type and device are all that is known."""

    run: Run
    sources: frozenset[Source]
    fake: FakeTensor

    @staticmethod
    def of(fake: FakeTensor, run: Run, sources: frozenset[Source]) -> Ghost:
        """Stand in for the tensor that a fake one describes."""
        ghost: Ghost = Tensor._make_wrapper_subclass(
            Ghost, fake.shape, dtype=fake.dtype, device=fake.device
        )
        ghost.run, ghost.sources, ghost.fake = run, sources, fake
        return ghost

    @staticmethod
    def empty(
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        run: Run,
        sources: frozenset[Source] = NOWHERE,
    ) -> Ghost:
        """Stand in for a tensor of this shape, type and device."""
        with run.fake:
            fake = torch.empty(shape, dtype=dtype, device=device)
        assert isinstance(fake, FakeTensor)
        return Ghost.of(fake, run, sources)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch on the shapes alone."""
        return _call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse: there is no value to compute with."""
        raise NotSentError(f"{func} needs a value that is on the other side of the cut")


def plain(x: Any) -> Any:
    """Return a traced tensor as it was before; anything else as it is."""
    if not isinstance(x, Traced):
        return x
    with torch._C.DisableTorchFunctionSubclass():
        return x.as_subclass(Tensor)


# What tells about a tensor without reading its values.
_METADATA = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "__len__"),
    *("is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_inference"),
    *("element_size", "get_device", "is_same_size", "result_type", "can_cast", "type"),
    *("is_tensor", "is_pinned", "is_shared", "__hash__", "__repr__", "__format__"),
}
# New tensors of which only shape, type and device come from the argument.
_FACTORIES = {
    *("zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor"),
}
# What has a shape that depends on values.
_VALUE_SHAPED = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"}


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a function of torch that was given a traced tensor or a ghost."""
    values = [x for x in leaves((args, kwargs)) if isinstance(x, Traced | Ghost)]
    run, name = values[0].run, getattr(func, "__name__", "")
    ghostly = any(isinstance(x, Ghost) for x in values)
    sources = NOWHERE.union(*(x.sources for x in values))
    if name in _FACTORIES and not run.behind:
        return _run(func, *map_leaves(_shape_only, (args, kwargs)))
    if name == "__get__" or name in _METADATA:
        stand_ins = map_leaves(lambda x: x.fake if isinstance(x, Ghost) else x, (args, kwargs))
        return follow(_run(func, *stand_ins), run, sources)
    if run.behind and run.on_server:
        if ghostly:
            raise NotSentError(not_sent(sources))
        return _run(func, *map_leaves(plain, (args, kwargs)))
    if run.behind or _needs_value(name, args):
        run.needed |= sources
    if run.behind:
        # Code on inputs alone may decide by their values; what has a parameter is not computed.
        tensors = (x for x in leaves((args, kwargs)) if isinstance(x, Tensor))
        ghostly = any(type(x) is not Traced for x in tensors)
    if ghostly:
        return _without_values(run, func, args, kwargs, sources)
    with unset_fake_temporarily():
        result = _run(func, args, kwargs)
    if _is_value(result):
        return result if run.behind else run.read(result, name)
    return follow(result, run, sources)


@contextmanager
def shapes_only(fake: FakeTensorMode) -> Iterator[None]:
    """Compute on shapes; autocast must not keep parameters that it converts meanwhile."""
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with fake, torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(cached)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _without_values(run: Run, func: Any, args: Any, kwargs: Any, sources: frozenset[Source]) -> Any:
    """Run a function on shapes; what it reads from values was recorded before the cut."""
    try:
        with shapes_only(run.fake):
            result = _run(func, *map_leaves(run.stand_in, (args, kwargs)))
    except DataDependentOutputException:
        if run.behind:
            raise
        return run.read(None, getattr(func, "__name__", ""))
    return follow(result, run, sources)


def follow(result: Any, run: Run, sources: frozenset[Source]) -> Any:
    """Wrap the tensors of a result."""

    def wrap(x: Any) -> Any:
        if isinstance(x, Traced | Ghost):
            x.sources |= sources
        elif isinstance(x, FakeTensor):
            return Ghost.of(x, run, sources)
        elif isinstance(x, Tensor):
            return Traced.of(x, run, sources)
        return x

    return map_leaves(wrap, result)


def _shape_only(x: Any) -> Any:
    """Return a tensor of the same shape, type and device that takes no memory."""
    if isinstance(x, Ghost):
        return torch.empty((), dtype=x.fake.dtype, device=x.fake.device).expand(x.fake.shape)
    return plain(x)


def _is_value(result: Any) -> bool:
    """Tell whether a result is something that was read: a number or a list of them."""
    return all(isinstance(x, bool | int | float) for x in leaves(result))


def _needs_value(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether the server cannot repeat this on shapes alone."""
    if name in _VALUE_SHAPED:
        return True
    if name == "__getitem__":
        return any(isinstance(x, Tensor) and x.dtype == torch.bool for x in leaves(args[1:]))
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return writes and not isinstance(args[0], Traced | Ghost)


def not_sent(sources: frozenset[Source]) -> str:
    """Say which values are missing."""
    names = sorted(" ".join(map(str, source)) for source in sources) or ["a value of the device"]
    return (
        f"the part of the model behind the cut uses {', '.join(names)}, which did not cross: "
        "its forward took another path than on the device"
    )
