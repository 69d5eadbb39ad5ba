"""Settings of a cut: checked where they are made."""

from __future__ import annotations

from operator import index

from torch import Tensor


def number(value: object, name: str) -> int:
    """Return a whole number of any library."""
    try:
        number = index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | Tensor) or type(value).__name__ == "bool":
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} must be in 0..2**64, got {number}")
    return number
