"""Nested containers of tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to everything that is not a container; other objects stay the same."""
    if type(tree) in (tuple, list):
        return type(tree)(map_leaves(function, item) for item in tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_leaves(function, item) for item in tree))
    if type(tree) in (dict, OrderedDict) or _is_model_output(tree):
        return type(tree)(**{key: map_leaves(function, item) for key, item in tree.items()})
    return function(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Everything that is not a container, in order."""
    found: list[Any] = []
    map_leaves(found.append, tree)
    return iter(found)


def _is_model_output(tree: Any) -> bool:
    """Tell whether this is a dictionary with a field for each key, as in Transformers."""
    return isinstance(tree, OrderedDict) and hasattr(tree, "__dataclass_fields__")
