"""What two processes agree on before anything crosses: the model, its cut and how it is called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sft.torch._crossing import Slot
from sft.torch._trees import map_leaves


@dataclass(frozen=True)
class Form:
    """How a model is called: its arguments, with a `Slot` for each tensor, whatever its sizes."""

    inputs: Any
    text: str
    digest: bytes


def form_of(inputs: Any, model: str) -> Form:
    """Return the form of a call, given the arguments or the inputs of a plan.

    Raises
    ------
    TypeError
        If an argument is nothing that two processes can agree on.
    """
    slots = map_leaves(_slot, inputs)
    text = json.dumps(_described(slots), separators=(",", ":"), sort_keys=True)
    digest = hashlib.blake2b(f"{model}\n{text}".encode(), digest_size=8).digest()
    return Form(slots, text, digest)


def fingerprint(model: nn.Module, point: str) -> str:
    """Return the cut and the names and shapes of all parameters as one hash."""
    parameters = [(name, list(p.shape)) for name, p in model.named_parameters()]
    return hashlib.blake2b(json.dumps([point, parameters]).encode(), digest_size=16).hexdigest()


def _slot(x: Any) -> Any:
    return Slot(x.dtype, tuple(x.shape), None) if isinstance(x, Tensor) else x


def _described(tree: Any) -> Any:
    """Return arguments as JSON: scalars as they are, all else as an object with its kind."""
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    if isinstance(tree, Slot):
        return {"tensor": [str(tree.dtype).removeprefix("torch."), len(tree.shape)]}
    if isinstance(tree, torch.dtype):
        return {"dtype": str(tree)}
    if type(tree) in (tuple, list):
        return {type(tree).__name__: [_described(item) for item in tree]}
    if type(tree) is dict and all(isinstance(key, str) for key in tree):
        return {"dict": {key: _described(item) for key, item in tree.items()}}
    raise TypeError(
        f"a {type(tree).__name__} among the arguments has no place in a plan: two processes can "
        "agree on tensors, numbers, strings, tuples, lists and dictionaries"
    )
