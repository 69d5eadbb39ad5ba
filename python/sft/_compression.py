"""How tensors are compressed, and what compression may do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from sft import _sft
from sft._steps import StepCompression, StepSetting
from sft._system import Accuracy, encode


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

    def _told(self) -> str:
        accuracy = "" if self.accuracy is None else f", accuracy {self.accuracy:.1%}"
        share = "" if self.beta is None else f", {self.beta:.1%} of the bits"
        return f"keep {self.keep:.3g}, {self.levels} levels{accuracy}{share}"


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


LevelsCompression = Compression | Setting
AnyCompression = LevelsCompression | StepCompression | Mapping[str, Any]

AnySetting = TypeVar("AnySetting", bound=Setting | StepSetting)

PAPER = Setting(keep=0.2, bits=3)
"""The paper's own setting."""


def encode_compression(given: AnyCompression) -> str:
    """Return the problem as JSON; a setting as one whose only solution it is."""
    setting = setting_of(given)
    if setting is not None:
        return encode(_pinned(setting), "compression")
    if not isinstance(given, Compression | StepCompression | Mapping):
        kind = type(given).__name__
        msg = (
            f"compression must be a Compression, a StepCompression, a Setting or a dict, got {kind}"
        )
        raise TypeError(msg)
    problem = dict(given if isinstance(given, Mapping) else vars(given))
    table = problem.get("rate")
    if isinstance(table, _sft.RateTable):
        levels = [n for n in table.levels if n & (n - 1) == 0]
        rates = [[table.rate(keep, n) for keep in table.keeps] for n in levels]
        problem["rate"] = _table(table.keeps, [n.bit_length() - 1 for n in levels], rates)
    return encode(problem, "compression")


def setting_of(given: AnyCompression) -> Setting | None:
    """Return the setting, if it is one or a dict of its fields."""
    if isinstance(given, Mapping) and "keep" in given:
        for name in given:
            if name not in Setting.__dataclass_fields__:
                accepted = ", ".join(Setting.__dataclass_fields__)
                msg = f"compression: unknown field `{name}`, expected one of {accepted}"
                raise ValueError(msg)
        return Setting(**given)
    return given if isinstance(given, Setting) else None


def _pinned(setting: Setting) -> dict[str, Any]:
    keep, bits = setting.keep, setting.bits
    if not (isinstance(keep, int | float | np.floating) and 0 < keep <= 1):
        msg = f"keep must be a number above 0 and at most 1, got {keep!r}"
        raise ValueError(msg)
    if not (isinstance(bits, int | np.integer) and 1 <= bits <= 32):
        msg = f"bits must be a whole number in 1..=32, got {bits!r}"
        raise ValueError(msg)
    rate: Any = "formula"
    if setting.beta is not None:
        rate = _table([keep], [bits], [[float(setting.beta)]])
    return {
        "accuracy": {"terms": []},
        "accuracy_min": 0.0,
        "keep_min": keep,
        "keep_max": keep,
        "bits_min": bits,
        "bits_max": bits,
        "rate": rate,
    }


def _table(
    keep: Sequence[float], bits: Sequence[int], beta: Sequence[Sequence[float | None]]
) -> dict[str, Any]:
    return {"table": {"keep": keep, "bits": bits, "beta": beta}}
