"""Codecs with one knob, their step: curves over it, and the fit of measured runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._system import encode


@dataclass(frozen=True, kw_only=True)
class StepCurve:
    """A value that does not rise with the step of a codec: its rate, or the accuracy it leaves.

    The step stands for any one knob that trades bits against accuracy, as the quantization
    step of ``transform:STEP`` or the wanted error of ``error:MSE``. Between the steps the curve
    is linear in the logarithm of the step; beyond the first and the last there is none.

    Parameters
    ----------
    step : sequence of float, [steps]
        The steps, positive and ascending.
    value : sequence of float, [steps]
        The value at each step, at most the one before.

    Examples
    --------
    >>> import sft
    >>> rate = sft.StepCurve(step=[0.5, 2.0], value=[0.04, 0.02])
    >>> round(rate(1.0), 6)
    0.03

    """

    __module__ = "sft"

    step: Sequence[float] | npt.NDArray[np.float64]
    value: Sequence[float] | npt.NDArray[np.float64]

    def __call__(self, step: npt.ArrayLike) -> Any:
        """Tell the value at steps.

        Parameters
        ----------
        step : array_like of float
            Steps.

        Returns
        -------
        float or numpy.ndarray of float64
            An array of the same shape, or a number for a number; NaN outside the range.

        Examples
        --------
        >>> import sft
        >>> rate = sft.StepCurve(step=[0.5, 2.0], value=[0.04, 0.02])
        >>> rate([0.5, 2.0, 4.0])
        array([0.04, 0.02,  nan])

        """
        steps = np.asarray(step, float)
        values = _sft._step_values(encode(self, "curve"), steps.ravel())
        return values.reshape(steps.shape) if steps.shape else values.item()


@dataclass(frozen=True, kw_only=True)
class StepFit:
    """A curve fitted to measured runs and how far it can be trusted.

    Attributes
    ----------
    curve : StepCurve
        The curve, callable with steps.
    rmse : float
        Root of the mean squared residual.
    max_error : float
        Largest residual in magnitude.
    residuals : numpy.ndarray of float64, [points]
        Curve less measured value at every point.

    Examples
    --------
    >>> import sft
    >>> fit = sft.fit_steps([0.2, 0.5, 2.0], [0.92, 0.94, 0.8])
    >>> fit.residuals.shape, round(fit.max_error, 6)
    ((3,), 0.01)

    """

    __module__ = "sft"

    curve: StepCurve
    rmse: float
    max_error: float
    residuals: npt.NDArray[np.float64] = field(compare=False)


def fit_steps(step: npt.ArrayLike, value: npt.ArrayLike) -> StepFit:
    """Fit a curve that does not rise with the step to measured runs by least squares.

    It is the mean at each step, and one common mean where noise has neighbours in the wrong
    order (isotonic regression).

    Parameters
    ----------
    step : array_like of float, [points]
        Steps, positive, in any order, repeated or not; at least two different ones.
    value : array_like of float, [points]
        What was measured: accuracy reached, or compressed bits over raw bits.

    Returns
    -------
    StepFit

    Raises
    ------
    ValueError
        If a number is out of its range, lists differ in length, or there are fewer than two
        different steps.
    TypeError
        If an argument does not consist of numbers.

    Examples
    --------
    >>> import sft
    >>> fit = sft.fit_steps([0.2, 0.2, 0.5, 2.0], [0.95, 0.93, 0.92, 0.8])
    >>> [round(value, 6) for value in fit.curve.value]
    [0.94, 0.92, 0.8]

    """
    text, residuals = _sft._fit_steps(step, value)
    fit: dict[str, Any] = json.loads(text)
    curve = StepCurve(**fit["curve"])
    return StepFit(curve=curve, rmse=fit["rmse"], max_error=fit["max_error"], residuals=residuals)


@dataclass(frozen=True, kw_only=True)
class StepSetting:
    """A step of a codec, as the solvers choose it.

    Attributes
    ----------
    step : float
        The step.
    beta : float
        Compressed bits over raw bits.
    accuracy : float
        Accuracy that the curve predicts.

    Examples
    --------
    >>> import sft
    >>> accuracy = sft.StepCurve(step=[0.2, 2.0], value=[0.94, 0.9])
    >>> rate = sft.StepCurve(step=[0.2, 2.0], value=[0.03, 0.01])
    >>> wanted = sft.StepCompression(accuracy=accuracy, accuracy_min=0.9, rate=rate)
    >>> sft.optimize({"total_hz": 30e6, "devices": [{}]}, wanted).setting
    StepSetting(step=2.0, beta=0.01, accuracy=0.9)

    """

    __module__ = "sft"

    step: float
    beta: float
    accuracy: float

    def _told(self) -> str:
        share = f"{self.beta:.1%} of the bits"
        return f"step {self.step:.3g}, accuracy {self.accuracy:.1%}, {share}"


@dataclass(frozen=True, kw_only=True)
class StepCompression:
    """What a codec with one knob may do, and what accuracy it must leave.

    The solvers take the coarsest step that both curves cover and that is accurate enough.

    Parameters
    ----------
    accuracy : StepCurve or dict
        Accuracy over the step, as `fit_steps` finds it.
    accuracy_min : float
        Least accuracy: that without compression less the loss allowed.
    rate : StepCurve or dict
        Compressed bits over raw bits over the step, positive.

    Examples
    --------
    >>> import sft
    >>> wanted = sft.StepCompression(
    ...     accuracy=sft.fit_steps([0.3, 1.0, 3.0], [0.93, 0.92, 0.8]).curve,
    ...     accuracy_min=0.92,
    ...     rate=sft.StepCurve(step=[0.3, 1.0, 3.0], value=[0.03, 0.02, 0.01]),
    ... )
    >>> sft.optimize({"total_hz": 30e6, "devices": [{}, {}]}, wanted).setting.step
    1.0

    """

    __module__ = "sft"

    accuracy: StepCurve | Mapping[str, Any]
    accuracy_min: float
    rate: StepCurve | Mapping[str, Any]
