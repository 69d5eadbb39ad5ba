"""Two halves of a model, sharing its parameters."""

from __future__ import annotations

from torch import nn

from sft.torch._halves import DeviceHalf, Half, ServerHalf
from sft.torch._kept import Kept
from sft.torch._points import find


def split(model: nn.Module, *, after: str) -> tuple[DeviceHalf, ServerHalf]:
    """Split a model in two halves behind one of its modules.

    The halves run the model's own code and share its parameters: nothing is copied, and the
    model can still be used. The part of `forward` before the cut may use any Python; on the server
    it is run again without values, so that it must not depend on random numbers outside of
    modules.

    What a whole model collects over its layers cannot come from one half and is refused: a cache,
    whatever its argument is called (``cache``, ``past_key_values``), ``use_cache=True``, and what
    is recorded of every layer (``output_hidden_states``, ``output_attentions``,
    ``output_router_logits``). A cache that comes back unasked has the layers of the server alone.
    For these, and to generate text, put a cut into the whole model by `attach`.

    Parameters
    ----------
    model : torch.nn.Module
        Any module whose `forward` passes through the cut: of timm, Transformers, PEFT,
        `torch.nn.Sequential` or your own. If it passes more than once, it is cut the first time.
    after : str
        The name of the last module on the device, as `named_modules` tells it. For a model of
        PEFT the name may leave out ``base_model.model.``.

    Returns
    -------
    device_model : DeviceHalf
        Takes what the model takes and returns the hidden state, or a `Crossing` if more is used
        behind the cut. Holds the parameters of the modules registered before the cut.
    server_model : ServerHalf
        Takes that and returns what the model returns. Holds the other parameters. Names are those
        of the model in both. A parameter of both, as where the embedding is the head, is among
        those of the device alone, so that it is stepped once; `shared` names it. Two processes
        would have two of it: there it must be frozen.

    Raises
    ------
    ValueError
        If there is no module `after`; the message lists those that are.
    TypeError
        If `model` is not a module, or a half of one.

    Examples
    --------
    >>> import torch
    >>> import sft.torch as st
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    >>> device_model, server_model = st.split(model, after="0")
    >>> [name for name, _ in device_model.named_parameters()]
    ['0.weight', '0.bias']
    >>> x = torch.randn(3, 8)
    >>> bool((server_model(device_model(x)) == model(x)).all())
    True
    """
    if isinstance(model, Half):
        raise TypeError("model must be a whole model, got a half: split it once, attach more cuts")
    # A compiled model: its halves may be compiled again.
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise TypeError(
            f"model must not be wrapped in {type(model).__name__}: split model.module, and wrap "
            "the halves"
        )
    point, kept = find(model, after), Kept()
    device, server = DeviceHalf(model, point, kept), ServerHalf(model, point, kept)
    owned = {id(p): name for name, p in device.named_parameters(remove_duplicate=False)}
    shared = {
        owned[id(p)]: (name, p)
        for name, p in server.named_parameters(remove_duplicate=False)
        if id(p) in owned
    }
    for half in (device, server):
        half.__dict__["_shared"] = shared
    return device, server
