"""A cut inside a whole model."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sft.torch._cut import Cut
from sft.torch._points import find


def attach(model: nn.Module, *, after: str, cut: Cut) -> RemovableHandle:
    """Put a cut behind a module of a whole model, for an unchanged training loop.

    The cut is in training or evaluation as the module is: call ``model.train()`` for what
    ``from_pretrained`` of Transformers returns. It is not part of the model: save its
    `state_dict` by itself. A module that computes its forward again in backward (activation
    checkpointing) crosses the cut again, and is counted again.

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

    def cross(module: nn.Module, args: Any, output: Any) -> Any:
        cut.train(module.training)
        if isinstance(output, Tensor):
            return cut(output)
        if not (isinstance(output, tuple | list) and output and isinstance(output[0], Tensor)):
            raise TypeError(
                f"{point} must return a tensor, or a tuple that begins with one, "
                f"got {type(output).__name__}"
            )
        return type(output)((cut(output[0]), *output[1:]))

    return model.get_submodule(point).register_forward_hook(cross)
