"""How tensors are compressed, and what compression may do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sft import _sft
from sft._system import Accuracy


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A way to compress activations and gradients.

    Attributes
    ----------
    keep : float
        Kept fraction, above 0 and at most 1.
    bits : int
        Bits of a level: ``2**bits`` levels.
    beta : float, optional
        Compressed bits over raw bits; by the formula of the paper's codec without it.
    accuracy : float, optional
        Accuracy that a surface predicts.

    Examples
    --------
    >>> import sft
    >>> sft.Setting(keep=0.2, bits=3).levels
    8

    """

    __module__ = "sft"

    keep: float
    bits: int
    beta: float | None = None
    accuracy: float | None = None

    @property
    def levels(self) -> int:
        """The number of quantization points."""
        return 1 << self.bits


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What compression may do, and what accuracy it must leave.

    Parameters
    ----------
    accuracy : Accuracy or dict
        Accuracy of a kept fraction and a number of bits, as `fit_accuracy` finds it.
    accuracy_min : float
        Least accuracy: that without compression less the loss allowed.
    keep_min, keep_max : float, default 0.01 and 1
        Range of the kept fraction.
    bits_min, bits_max : int, default 1 and 8
        Range of the bits of a level.
    rate : RateTable or 'formula' or dict, default 'formula'
        Compressed bits over raw bits: measured, or the paper's codec by formula. Of a
        `RateTable` the levels that are powers of two count.

    Examples
    --------
    >>> import sft
    >>> surface = sft.Accuracy(scale="keep", terms=[sft.Term(0, 0, 0.8), sft.Term(1, 0, 0.1)])
    >>> sft.Compression(accuracy=surface, accuracy_min=0.85).keep_max
    1.0

    """

    __module__ = "sft"

    accuracy: Accuracy | Mapping[str, Any]
    accuracy_min: float
    keep_min: float = 0.01
    keep_max: float = 1.0
    bits_min: int = 1
    bits_max: int = 8
    rate: _sft.RateTable | Literal["formula"] | Mapping[str, Any] = "formula"


def _compression(given: Compression | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the problem with a rate as the solvers take it."""
    problem = (
        {**given}
        if isinstance(given, Mapping)
        else {name: getattr(given, name) for name in given.__dataclass_fields__}
    )
    table = problem.get("rate")
    if isinstance(table, _sft.RateTable):
        levels = [n for n in table.levels if n & (n - 1) == 0]
        problem["rate"] = {
            "table": {
                "keep": table.keeps,
                "bits": [n.bit_length() - 1 for n in levels],
                "beta": [[table.rate(keep, n) for keep in table.keeps] for n in levels],
            }
        }
    return problem


def _pinned(setting: Setting) -> dict[str, Any]:
    """Return a problem whose only solution is a setting."""
    rate: Any = "formula"
    if setting.beta is not None:
        rate = {"table": {"keep": [setting.keep], "bits": [setting.bits], "beta": [[setting.beta]]}}
    return {
        "accuracy": {"terms": []},
        "accuracy_min": 0.0,
        "keep_min": setting.keep,
        "keep_max": setting.keep,
        "bits_min": setting.bits,
        "bits_max": setting.bits,
        "rate": rate,
    }
