"""Planning a deployment: cut layer, compression and bandwidth."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, overload

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._compression import (
    PAPER,
    AnyCompression,
    AnySetting,
    LevelsCompression,
    Setting,
    encode_compression,
    setting_of,
)
from sft._steps import StepCompression, StepSetting
from sft._system import AnySystem, encode_system
from sft._tables import Table, by_device, html, text


@dataclass(frozen=True)
class CutDelay:
    """What a cut layer takes and achieves.

    Attributes
    ----------
    cut : int
        The cut layer.
    memory_bytes : float
        Memory on every device.
    tau_s : float or None
        Least delay of a round in seconds; None if it does not fit into the memory.

    Examples
    --------
    >>> import sft
    >>> plan = sft.optimize(sft.System(total_hz=30e6, devices=[sft.Device(memory_bytes=2**30)]))
    >>> [cut.cut for cut in plan.cuts if cut.tau_s is not None]
    [1]

    """

    __module__ = "sft"

    cut: int
    memory_bytes: float
    tau_s: float | None


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[AnySetting]):
    """A chosen cut layer, compression and allocation; what `optimize` returns.

    Attributes
    ----------
    cut : int
        Cut layer: blocks on the device.
    setting : Setting or StepSetting
        Compression.
    tau_s : float
        Delay in seconds of a round after the first, over the mean links.
    b_hz : numpy.ndarray of float64, [devices]
        Bandwidths in Hz; read-only.
    server_flop_per_s : numpy.ndarray of float64, [devices], or None
        Shares of the server in FLOP/s, where these were chosen too.
    cuts : tuple of CutDelay
        What every cut layer takes and achieves with this compression.

    Examples
    --------
    >>> import sft
    >>> devices = sft.Device.many(2, clock_hz=[5e8, 1.5e9])
    >>> plan = sft.optimize(sft.System(total_hz=30e6, devices=devices))
    >>> plan.cut, plan.setting.keep, round(plan.tau_s, 1)
    (1, 0.2, 177.8)
    >>> bool(plan.b_hz[0] > plan.b_hz[1])
    True

    """

    __module__ = "sft"

    cut: int
    setting: AnySetting
    tau_s: float
    b_hz: npt.NDArray[np.float64] = field(compare=False)
    server_flop_per_s: npt.NDArray[np.float64] | None = field(compare=False)
    cuts: tuple[CutDelay, ...]

    def summary(self) -> str:
        """Return the plan as a table of text.

        Returns
        -------
        str

        Examples
        --------
        >>> import sft
        >>> plan = sft.optimize({"total_hz": 30e6, "devices": [{}, {}]})
        >>> print(plan.summary().splitlines()[0])
        cut layer 1, keep 0.2, 8 levels, 4.8% of the bits, 137.0 s a round

        """
        return "\n\n".join([self._title(), *(text(table) for table in self._tables())])

    def _title(self) -> str:
        return f"cut layer {self.cut}, {self.setting._told()}, {self.tau_s:.1f} s a round"

    def _tables(self) -> list[Table]:
        cuts = [["cut layer", "device memory, MiB", "delay of a round, s"]]
        cuts += [
            [
                f"{c.cut}{' *' * (c.cut == self.cut)}",
                f"{c.memory_bytes / 2**20:.1f}",
                "does not fit" if c.tau_s is None else f"{c.tau_s:.2f}",
            ]
            for c in self.cuts
        ]
        return [cuts, by_device(len(self.b_hz), shares(self.b_hz, self.server_flop_per_s))]

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>" + "".join(map(html, self._tables()))


@overload
def optimize(system: AnySystem, compression: LevelsCompression = PAPER) -> Plan[Setting]: ...
@overload
def optimize(system: AnySystem, compression: StepCompression) -> Plan[StepSetting]: ...
@overload
def optimize(system: AnySystem, compression: Mapping[str, Any]) -> Plan[Any]: ...
def optimize(system: AnySystem, compression: AnyCompression = PAPER) -> Plan[Any]:
    """Choose cut layer, compression and bandwidths for the least delay of a round, exactly.

    Solves the paper's joint problem (27) for the mean links: the delay of the slowest
    device, under accuracy, device memory and the band. With the server model
    'optimal_share' the server is shared along with the band.

    Parameters
    ----------
    system : System, dict or path
        Model, training, server, devices and band; a path names a TOML or JSON file.
    compression : Compression or StepCompression or Setting or dict, optional
        What compression may do and must leave, or a fixed one; by default the paper's
        own, ``Setting(keep=0.2, bits=3)``. A dict has the fields of one of them.

    Returns
    -------
    Plan

    Raises
    ------
    SolverError
        If no plan meets all constraints; its `constraint` names the first that fails.
    ValueError, TypeError
        If a field is out of its range or of another type, named by its path.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(2, clock_hz=[5e8, 1.5e9]))
    >>> plan = sft.optimize(system)
    >>> plan.cut, plan.b_hz.shape
    (1, (2,))

    """
    answer = _sft._optimize(encode_system(system), encode_compression(compression))
    return plan_of(answer, compression)


def plan_of(answer: dict[str, Any], compression: AnyCompression) -> Plan[Any]:
    """Return the plan that the solver found."""
    setting = found(answer.pop("setting"), compression)
    cuts = tuple(CutDelay(*cut) for cut in answer.pop("cuts"))
    return Plan(setting=setting, cuts=cuts, **answer)


def found(setting: str, compression: AnyCompression) -> Setting | StepSetting:
    """Return the setting that the solver chose, or was given."""
    fields = json.loads(setting)
    if "step" in fields:
        return StepSetting(**fields)
    given, chosen = setting_of(compression), Setting(**fields)
    return chosen if given is None else replace(chosen, accuracy=given.accuracy)


def shares(
    b_hz: npt.NDArray[np.float64], server_flop_per_s: npt.NDArray[np.float64] | None
) -> dict[str, Callable[[int], str]]:
    """Return the columns of a table that tell what every device gets."""
    columns: dict[str, Callable[[int], str]] = {"bandwidth, MHz": lambda n: f"{b_hz[n] / 1e6:.3f}"}
    if server_flop_per_s is not None:
        columns["server, TFLOP/s"] = lambda n: f"{server_flop_per_s[n] / 1e12:.3f}"
    return columns
