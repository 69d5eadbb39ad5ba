"""Arguments that only a whole model can serve."""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import Parameter, signature
from itertools import chain
from typing import Any, NamedTuple

from torch import nn

_CACHE = "a cache has keys and values of all layers"
_REASONS = {
    "past_key_values": _CACHE,
    "cache": _CACHE,
    "use_cache": "the cache that comes back would lack the layers before the cut",
    "output_hidden_states": "the hidden states before the cut stay on the device",
    "output_attentions": "the attention before the cut stays on the device",
}
"""What names mean where no signature tells, as behind ``**kwargs``."""

_RECORDED = "what the layers before the cut give for it stays on the device"
_CACHE_TYPE = re.compile(r"Cache\b")
_IN_ORDER = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class WholeOnly(NamedTuple):
    """Why arguments of a model are for whole models, and the names of those given in order."""

    reasons: dict[str, str]
    order: tuple[str, ...]

    def check(self, args: Iterable[Any], kwargs: dict[str, Any], configs: Iterable[Any]) -> None:
        """Refuse what would come back incomplete, also where a configuration asks for it."""
        given = dict(chain(zip(self.order, args, strict=False), kwargs.items()))
        for name, value in given.items():
            reason = _CACHE if _is_cache(value) else self.reasons.get(name)
            if reason and value is not None and value is not False:
                raise ValueError(_refusal(name, reason))
        for config in configs:
            for name, reason in self.reasons.items():
                unsaid = name.startswith("output_") and given.get(name) is None
                if unsaid and getattr(config, name, None):
                    raise ValueError(_refusal(name, reason))


def whole_only(path: list[nn.Module]) -> WholeOnly:
    """Learn from the modules that contain the cut, the model first, what only a whole one serves.

    A cache is what a signature declares as one: by a type of that name, or by a usual name for an
    argument that may be left out. What Transformers records by hooks on its layers, a model lists.
    """
    reasons, order = dict(_REASONS), tuple[str, ...]()
    for module in reversed(path):
        parameters = signature(module.forward).parameters.values()
        for parameter in parameters:
            if _CACHE_TYPE.search(str(parameter.annotation)):
                reasons[parameter.name] = _CACHE
            elif reasons.get(parameter.name) == _CACHE and parameter.default is not None:
                del reasons[parameter.name]
        for kind in getattr(module, "_can_record_outputs", None) or ():
            reasons.setdefault(f"output_{kind}", _RECORDED)
        # What a wrapper passes on by *args is named by the module inside.
        named = tuple(p.name for p in parameters if p.kind in _IN_ORDER)
        passed_on = any(p.kind is Parameter.VAR_POSITIONAL for p in parameters)
        order = named + order[len(named) :] if passed_on else named
    return WholeOnly(reasons, order)


def _is_cache(value: Any) -> bool:
    """Tell whether this is a cache of Transformers, by its class or one above it."""
    return any(
        kind.__name__.endswith("Cache") and kind.__module__.startswith("transformers.")
        for kind in type(value).__mro__
    )


def _refusal(name: str, reason: str) -> str:
    return f"{name} is for whole models: {reason}; put the cut in by attach"
