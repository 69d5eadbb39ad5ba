"""The modules of a model where it can be cut."""

from __future__ import annotations

import re

from torch import nn

_PEFT = "base_model.model."


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
    names = {name for name, _ in model.named_modules(remove_duplicate=False)} - {""}
    for name in (after, _PEFT + after):
        if name in names:
            return name
    raise ValueError(
        f"after must name a module of the model, got {after!r}; there are {_list(model)}"
    )


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
