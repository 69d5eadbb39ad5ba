"""A cut inside a whole model."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sft.torch._autograd import NO_SCRIPT, refuse_tracing
from sft.torch._cut import Cut
from sft.torch._eager import forget_compiled
from sft.torch._points import find
from sft.torch._trees import leaves, map_leaves


def attach(model: nn.Module, *, after: str, cut: Cut) -> RemovableHandle:
    """Put a cut behind a module of a whole model, for an unchanged training loop.

    The cut is in training or evaluation as the module is: call ``model.train()`` for what
    ``from_pretrained`` of Transformers returns. A copy of the model has a copy of the cut, which
    `cuts` finds; set its `rank` if it is for another device. The model can be pickled.

    What is compiled already is compiled anew. `torch.export`, `torch.jit.trace` and `torch.fx`,
    which would lose the cut, raise an error that names it.

    Parameters
    ----------
    model : torch.nn.Module
        Any module.
    after : str
        The name of the module whose output crosses the cut, as for `split`.
    cut : Cut
        The cut.

    Returns
    -------
    torch.utils.hooks.RemovableHandle
        Its `remove` takes the cut out again.

    Raises
    ------
    ValueError
        If there is no module `after`; the message lists those that are.
    TypeError
        If `cut` is not a `Cut`.

    Examples
    --------
    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Linear(64, 2))
    >>> cut = st.Cut()
    >>> handle = st.attach(model, after="0", cut=cut)
    >>> model(torch.randn(32, 8)).sum().backward()
    >>> cut.traffic.up.messages, cut.traffic.down.messages
    (1, 1)
    >>> handle.remove()
    """
    if not isinstance(cut, Cut):
        raise TypeError(f"cut must be a Cut, got {type(cut).__name__}")
    point = find(model, after)

    handle = model.get_submodule(point).register_forward_hook(_Crossing(cut, point))
    forget_compiled()
    return _Attached(handle)


def cuts(model: nn.Module) -> dict[str, Cut]:
    """Find the cuts of a model, attached and inside.

    Parameters
    ----------
    model : torch.nn.Module
        Any module.

    Returns
    -------
    dict of str to Cut
        By the name of the module behind which a cut is attached, or which it is.

    Examples
    --------
    >>> import copy
    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Linear(64, 2))
    >>> cut = st.Cut()
    >>> handle = st.attach(model, after="0", cut=cut)
    >>> client = copy.deepcopy(model)
    >>> st.cuts(model)["0"] is cut, st.cuts(client)["0"] is cut
    (True, False)
    """
    found: dict[str, Cut] = {}
    for name, module in model.named_modules():
        if isinstance(module, Cut):
            found[name] = module
        for hook in module._forward_hooks.values():
            if isinstance(hook, _Crossing):
                found[name] = hook.cut
    return found


class _Attached(RemovableHandle):
    """The handle of a hook, whose removal compiled models notice, too."""

    def __init__(self, handle: RemovableHandle) -> None:
        self.__setstate__(handle.__getstate__())

    def remove(self) -> None:
        super().remove()
        forget_compiled()


class _Crossing:
    """The hook: what a module returns crosses the cut. A copy of it has a copy of the cut."""

    def __init__(self, cut: Cut, point: str) -> None:
        self.cut, self.point, self._told = cut, point, False

    @property
    def __name__(self) -> str:
        """What `torch.jit.script` asks a hook for first, and is refused."""
        raise AttributeError(NO_SCRIPT)

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Let the first tensor of floating-point numbers cross."""
        self.cut.train(module.training)
        found = [x for x in leaves(output) if _is_hidden(x)]
        if not found:
            raise TypeError(
                f"{self.point} must return a tensor of floating-point numbers, alone or in a "
                f"container, got {type(output).__name__}"
            )
        refuse_tracing(found[0])
        self._tell(module)
        crossed = self.cut(found[0])
        return map_leaves(lambda x: crossed if x is found[0] else x, output)

    def _tell(self, module: nn.Module) -> None:
        counting = module.training or self.cut.compress_eval or self.cut.traffic.messages > 0
        if counting or self._told:
            return
        self._told = True
        warnings.warn(
            f"{self.point} is in evaluation: its cut passes everything through and counts nothing; "
            "call model.train(), or make the cut with compress_eval=True",
            stacklevel=2,
        )


def _is_hidden(x: Any) -> bool:
    if isinstance(x, torch.fx.Proxy):
        return True
    return isinstance(x, Tensor) and x.is_floating_point()
