"""The accuracy surface of measured runs."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._system import Accuracy, Term


@dataclass(frozen=True)
class NotMonotone:
    """A place where more bits on the air lower the fitted accuracy.

    Attributes
    ----------
    axis : str
        The direction in which it falls: 'keep' or 'bits'.
    keep : float
        Where it falls most: kept fraction.
    bits : float
        Where it falls most: bits.
    change : float
        Change of accuracy there, negative: for a doubling of the kept fraction (for all
        elements kept more with the scale 'keep'), or for one bit more.

    Examples
    --------
    >>> import numpy as np
    >>> import sft
    >>> keep, bits = map(np.ravel, np.meshgrid([0.1, 0.2, 0.5, 1.0], [1, 2, 4, 8]))
    >>> [worst] = sft.fit_accuracy(keep, bits, 0.9 - 0.01 * bits).warnings
    >>> worst.axis, round(worst.change, 6)
    ('bits', -0.01)

    """

    __module__ = "sft"

    axis: str
    keep: float
    bits: float
    change: float


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted accuracy surface and how far it can be trusted.

    Attributes
    ----------
    accuracy : Accuracy
        The surface, callable with kept fractions and bits.
    rmse : float
        Root of the mean squared residual.
    max_error : float
        Largest residual in magnitude.
    residuals : numpy.ndarray of float64, [points]
        Surface less measured accuracy at every point.
    warnings : tuple of NotMonotone
        The worst place of either direction where the surface is not monotone, if any:
        near it the fit, not the training, decides what is optimal.

    Examples
    --------
    >>> import numpy as np
    >>> import sft
    >>> keep, bits = map(np.ravel, np.meshgrid([0.1, 0.2, 0.5, 1.0], [1, 2, 4, 8]))
    >>> fit = sft.fit_accuracy(keep, bits, 0.9 + 0.02 * np.log2(keep))
    >>> fit.residuals.shape, fit.max_error < 1e-9, len(fit.accuracy.terms)
    ((16,), True, 10)

    """

    __module__ = "sft"

    accuracy: Accuracy
    rmse: float
    max_error: float
    residuals: npt.NDArray[np.float64] = field(compare=False)
    warnings: tuple[NotMonotone, ...]


def fit_accuracy(
    keep: npt.ArrayLike,
    bits: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    *,
    scale: Literal["log2_keep", "keep"] = "log2_keep",
) -> Fit:
    """Fit the paper's accuracy surface, a cubic, to measured runs by least squares.

    Parameters
    ----------
    keep : array_like of float, [points]
        Kept fractions, above 0 and at most 1; at least four different ones.
    bits : array_like of float, [points]
        Bits of a level, ``log2`` of the levels; at least four different ones.
    accuracy : array_like of float, [points]
        Accuracy reached, a fraction.
    scale : {'log2_keep', 'keep'}, default 'log2_keep'
        What the surface is a polynomial of, beside the bits.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        If a number is out of its range, lists differ in length, or the points do not
        determine ten weights.
    TypeError
        If an argument does not consist of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import sft
    >>> keep, bits = map(np.ravel, np.meshgrid([0.1, 0.2, 0.5, 1.0], [1, 2, 4, 8]))
    >>> fit = sft.fit_accuracy(keep, bits, 0.9 + 0.02 * np.log2(keep))
    >>> round(fit.accuracy(0.25, 3), 6), fit.warnings
    (0.86, ())

    """
    text, residuals = _sft._fit(keep, bits, accuracy, scale)
    fit: dict[str, Any] = json.loads(text)
    surface = fit["accuracy"]
    terms = tuple(Term(**term) for term in surface["terms"])
    return Fit(
        accuracy=Accuracy(terms=terms, scale=surface["scale"]),
        rmse=fit["rmse"],
        max_error=fit["max_error"],
        residuals=residuals,
        warnings=tuple(NotMonotone(**warning) for warning in fit["warnings"]),
    )
