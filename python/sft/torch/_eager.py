"""Functions that `torch.compile` leaves alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar, cast

import torch

_F = TypeVar("_F", bound=Callable[..., Any])

# The compiler takes seconds to import: nothing here imports it before the user does.


def eager(function: _F) -> _F:
    """Break the graph at a function instead of compiling it."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _loaded():
            return function(*args, **kwargs)
        reason = "what crosses a cut is encoded to bytes, which is not compiled (fullgraph=False)"
        return torch.compiler.disable(function, reason=reason)(*args, **kwargs)

    return cast(_F, call)


def forget_compiled() -> None:
    """Let compiled models be compiled anew, as after a hook was put in that they do not know."""
    if _loaded():
        torch.compiler.reset()


def uncompiled() -> AbstractContextManager[None]:
    """Run compiled modules as they were written."""
    if not _loaded():
        return nullcontext()
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


def _loaded() -> bool:
    return "torch._dynamo" in sys.modules
