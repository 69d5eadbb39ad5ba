"""Cut layers and compression of their own for every device."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, overload

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._compression import (
    PAPER,
    AnyCompression,
    AnySetting,
    Compression,
    LevelsCompression,
    Setting,
    encode_compression,
)
from sft._plan import found, shares
from sft._steps import StepCompression, StepSetting
from sft._system import AnySystem, encode_system
from sft._tables import Table, by_device, html, text


@dataclass(frozen=True, kw_only=True)
class DeviceCuts(Generic[AnySetting]):
    """A cut layer and an allocation for every device; what `optimize_device_cuts` returns.

    Attributes
    ----------
    cuts : numpy.ndarray of int64, [devices]
        Cut layer of every device; read-only.
    setting : Setting or StepSetting
        Compression, the same for all.
    tau_s : float
        Delay in seconds of a round after the first, over the mean links.
    bound_s : float
        No cuts and shares can be faster than this, in seconds: `tau_s` itself but for
        the server model 'optimal_share' with many devices.
    b_hz : numpy.ndarray of float64, [devices]
        Bandwidths in Hz; read-only.
    server_flop_per_s : numpy.ndarray of float64, [devices], or None
        Shares of the server in FLOP/s, with the server model 'optimal_share'.
    iterations : int
        Rounds of choosing cuts and allocating the band; with 'optimal_share' branches
        searched.

    Examples
    --------
    >>> import sft
    >>> devices = sft.Device.many(2, memory_bytes=[2**30, 2**33], clock_hz=[5e8, 2e10])
    >>> server = sft.Server(model="even", clock_hz=1e8)
    >>> best = sft.optimize_device_cuts(sft.System(total_hz=30e6, devices=devices, server=server))
    >>> best.cuts
    array([ 1, 10])

    """

    __module__ = "sft"

    cuts: npt.NDArray[np.int64] = field(compare=False)
    setting: AnySetting
    tau_s: float
    bound_s: float
    b_hz: npt.NDArray[np.float64] = field(compare=False)
    server_flop_per_s: npt.NDArray[np.float64] | None = field(compare=False)
    iterations: int

    def summary(self) -> str:
        """Return cuts and shares as a table of text.

        Returns
        -------
        str

        Examples
        --------
        >>> import sft
        >>> system = {"total_hz": 30e6, "server": {"model": "even"}, "devices": [{}]}
        >>> print(sft.optimize_device_cuts(system).summary().splitlines()[2])
        device  cut layer  bandwidth, MHz

        """
        return f"{self._title()}\n\n{text(self._table())}"

    def _title(self) -> str:
        gap = self.tau_s - self.bound_s
        proved = "" if gap == 0 else f", at most {gap:.2g} s from the optimum"
        return f"{self.setting._told()}, {self.tau_s:.1f} s a round{proved}"

    def _table(self) -> Table:
        columns = {"cut layer": lambda n: f"{self.cuts[n]}"}
        return by_device(len(self.cuts), columns | shares(self.b_hz, self.server_flop_per_s))

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>{html(self._table())}"


@dataclass(frozen=True, kw_only=True)
class DeviceCompression:
    """A compression for every device; what `optimize_device_compression` returns.

    Attributes
    ----------
    cut : int
        Cut layer, the same for all.
    settings : tuple of Setting, [devices]
        Compression of every device.
    tau_s : float
        Delay in seconds of a round after the first, over the mean links.
    bound_s : float
        No choice of compressions and bandwidths at any cut is faster than this, in seconds.
    b_hz : numpy.ndarray of float64, [devices]
        Bandwidths in Hz; read-only.

    Examples
    --------
    >>> import sft
    >>> surface = sft.Accuracy(terms=[sft.Term(0, 0, 0.9), sft.Term(1, 0, 0.02)])
    >>> devices = sft.Device.many(2, clock_hz=[5e8, 1.5e9])
    >>> best = sft.optimize_device_compression(
    ...     sft.System(total_hz=30e6, devices=devices),
    ...     sft.Compression(accuracy=surface, accuracy_min=0.85),
    ... )
    >>> best.settings[0].keep < best.settings[1].keep
    True

    """

    __module__ = "sft"

    cut: int
    settings: tuple[Setting, ...]
    tau_s: float
    bound_s: float
    b_hz: npt.NDArray[np.float64] = field(compare=False)

    def summary(self) -> str:
        """Return compression and bandwidths as a table of text.

        Returns
        -------
        str

        Examples
        --------
        >>> import sft
        >>> surface = sft.Accuracy(terms=[sft.Term(0, 0, 0.9), sft.Term(1, 0, 0.02)])
        >>> wanted = sft.Compression(accuracy=surface, accuracy_min=0.85)
        >>> system = sft.System(total_hz=30e6, devices=[{}])
        >>> best = sft.optimize_device_compression(system, wanted)
        >>> print(best.summary().splitlines()[2])
        device   keep  levels  accuracy  of the bits  bandwidth, MHz

        """
        return f"{self._title()}\n\n{text(self._table())}"

    def _title(self) -> str:
        gap = self.tau_s - self.bound_s
        return f"cut layer {self.cut}, {self.tau_s:.1f} s a round, {gap:.2g} s above the bound"

    def _table(self) -> Table:
        columns = {
            "keep": lambda n: f"{self.settings[n].keep:.3g}",
            "levels": lambda n: f"{self.settings[n].levels}",
            "accuracy": lambda n: f"{self.settings[n].accuracy:.1%}",
            "of the bits": lambda n: f"{self.settings[n].beta:.1%}",
        }
        return by_device(len(self.settings), columns | shares(self.b_hz, None))

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>{html(self._table())}"


@overload
def optimize_device_cuts(
    system: AnySystem, compression: LevelsCompression = PAPER
) -> DeviceCuts[Setting]: ...
@overload
def optimize_device_cuts(
    system: AnySystem, compression: StepCompression
) -> DeviceCuts[StepSetting]: ...
@overload
def optimize_device_cuts(system: AnySystem, compression: Mapping[str, Any]) -> DeviceCuts[Any]: ...
def optimize_device_cuts(system: AnySystem, compression: AnyCompression = PAPER) -> DeviceCuts[Any]:
    """Choose a cut layer for every device, with compression and bandwidths.

    Solves the joint problem (27) with a cut layer of its own for each device: exactly with
    the server models 'per_device' and 'even'; with 'optimal_share', where the problem is
    hard in general, to the gap between `DeviceCuts.tau_s` and `DeviceCuts.bound_s`.

    Parameters
    ----------
    system, compression
        As `optimize` takes them. The server model 'sequential' is refused: there one
        device's cut delays all others.

    Returns
    -------
    DeviceCuts

    Raises
    ------
    SolverError, ValueError, TypeError, OSError
        As `optimize`.

    Examples
    --------
    >>> import sft
    >>> server = sft.Server(model="even")
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(2), server=server)
    >>> sft.optimize_device_cuts(system).tau_s <= sft.optimize(system).tau_s
    True

    """
    answer = _sft._optimize_device_cuts(encode_system(system), encode_compression(compression))
    return DeviceCuts(setting=found(answer.pop("setting"), compression), **answer)


def optimize_device_compression(
    system: AnySystem,
    compression: Compression | Mapping[str, Any],
    weights: npt.ArrayLike | None = None,
) -> DeviceCompression:
    """Choose a compression for every device, with a common cut layer and bandwidths.

    Solves the joint problem (27) where the mean accuracy over the devices must be reached,
    to a proved gap; never slower than `optimize`.

    Parameters
    ----------
    system : System, dict or path
        As `optimize` takes it; the server model 'optimal_share' is refused.
    compression : Compression or dict
        What compression may do and must leave; over kept fraction and bits.
    weights : array_like of float, [devices], optional
        Weight of every device in the mean accuracy, at least 0; its samples without it.

    Returns
    -------
    DeviceCompression

    Raises
    ------
    SolverError, ValueError, TypeError, OSError
        As `optimize`.

    Examples
    --------
    >>> import sft
    >>> surface = sft.Accuracy(terms=[sft.Term(0, 0, 0.9), sft.Term(1, 0, 0.02)])
    >>> wanted = sft.Compression(accuracy=surface, accuracy_min=0.85)
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(3, clock_hz=[5e8, 1e9, 2e9]))
    >>> best = sft.optimize_device_compression(system, wanted)
    >>> best.bound_s <= best.tau_s < sft.optimize(system, wanted).tau_s
    True

    """
    problem = encode_compression(compression)
    answer = _sft._optimize_device_compression(encode_system(system), problem, weights)
    settings = tuple(Setting(**setting) for setting in json.loads(answer.pop("settings")))
    return DeviceCompression(settings=settings, **answer)
