"""The modules of a model where it can be cut."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

_PEFT = "base_model.model."
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Names under which compiled, sharded and checkpointed modules hold what they wrap."""


def find(model: nn.Module, after: str) -> str:
    """Return the full name of a module.

    Raises
    ------
    TypeError
        If the model is not a module or the name not a string.
    ValueError
        If there is no such module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(after, str):
        raise TypeError(f"after must be the name of a module, got {type(after).__name__}")
    names = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    for wanted in (after, _PEFT + after):
        if wanted in names:
            return wanted
    inner = _inner(model)
    for wanted in (after, _PEFT + after):
        for name in reversed(names):
            if inner(name) == wanted:
                return str(name)
    raise ValueError(
        f"after must name a module of the model, got {after!r}; there are {_list(model)}"
    )


def _inner(model: nn.Module) -> Callable[[str], str]:
    """Return what leaves wrappers out of a name."""
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    begin: str = "module." if isinstance(model, parallel) else ""

    def inner(name: str) -> str:
        parts = name.removeprefix(begin).split(".")
        return ".".join(part for part in parts if part not in _WRAPPERS)

    return inner


def path_of(model: nn.Module, point: str) -> list[nn.Module]:
    """Return the modules that contain a module, the model first."""
    path, module = [model], model
    for name in point.split(".")[:-1]:
        module = module._modules[name]  # type: ignore[assignment]
        path.append(module)
    return path


def _list(model: nn.Module) -> str:
    """Name the modules, and of the blocks of a list only the first and the last."""
    names = [name for name, _ in model.named_modules() if name]
    inside = re.compile(r"\.\d+\.")
    shown: list[str] = []
    for name in names:
        if inside.search(name):
            continue
        stem, _, number = name.rpartition(".")
        if shown and number.isdigit() and shown[-1].startswith(f"{stem}.0"):
            shown[-1] = f"{stem}.0 to {name}"
        else:
            shown.append(name)
    return ", ".join(shown)
