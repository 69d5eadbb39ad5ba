"""The paper's controller: cut layer and compression once, bandwidths in every round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, overload

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
)
from sft._plan import Plan, plan_of
from sft._steps import StepCompression, StepSetting
from sft._system import AnySystem, encode_system
from sft._tables import Table, html, text


@dataclass(frozen=True, kw_only=True)
class TwoTimescale(Generic[AnySetting]):
    """A training as the controller steers it; what `two_timescale` returns.

    Attributes
    ----------
    configuration : Plan
        What was chosen before training, for links at their mean.
    rounds_s : numpy.ndarray of float64, [rounds]
        Delay of every round in seconds, infinite where a link is dead; read-only.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(8))
    >>> run = sft.two_timescale(system, rounds=3)
    >>> run.configuration.cut, run.rounds_s.shape
    (1, (3,))
    >>> bool(abs(run.rounds_s[1] - run.configuration.tau_s) < 1e-9)
    True

    """

    __module__ = "sft"

    configuration: Plan[AnySetting]
    rounds_s: npt.NDArray[np.float64] = field(compare=False)

    @property
    def total_s(self) -> float:
        """Delay of the whole training in seconds (20)."""
        return float(self.rounds_s.sum())

    def summary(self) -> str:
        """Return the configuration and the delays as tables of text.

        Returns
        -------
        str

        Examples
        --------
        >>> import sft
        >>> run = sft.two_timescale({"total_hz": 30e6, "devices": [{}]}, rounds=3)
        >>> print(run.summary().splitlines()[-1].split()[:2])
        ['whole', 'training,']

        """
        return f"{self.configuration.summary()}\n\n{text(self._table())}"

    def _table(self) -> Table:
        later = self.rounds_s[1:] if len(self.rounds_s) > 1 else self.rounds_s
        rows = [["rounds", f"{len(self.rounds_s)}"]]
        rows.append(["first round, s", f"{self.rounds_s[0]:.2f}"])
        rows.append(["shortest later, s", f"{later.min():.2f}"])
        rows.append(["median later, s", f"{np.median(later):.2f}"])
        rows.append(["longest later, s", f"{later.max():.2f}"])
        rows.append(["whole training, s", f"{self.total_s:.1f}"])
        return rows

    def _repr_html_(self) -> str:
        return self.configuration._repr_html_() + html(self._table())


@overload
def two_timescale(
    system: AnySystem,
    compression: LevelsCompression = PAPER,
    *,
    assumption: Literal["joint", "even"] = "joint",
    rounds: int = 20,
    fading_seed: int | None = None,
) -> TwoTimescale[Setting]: ...
@overload
def two_timescale(
    system: AnySystem,
    compression: StepCompression,
    *,
    assumption: Literal["joint", "even"] = "joint",
    rounds: int = 20,
    fading_seed: int | None = None,
) -> TwoTimescale[StepSetting]: ...
@overload
def two_timescale(
    system: AnySystem,
    compression: Mapping[str, Any],
    *,
    assumption: Literal["joint", "even"] = "joint",
    rounds: int = 20,
    fading_seed: int | None = None,
) -> TwoTimescale[Any]: ...
def two_timescale(
    system: AnySystem,
    compression: AnyCompression = PAPER,
    *,
    assumption: Literal["joint", "even"] = "joint",
    rounds: int = 20,
    fading_seed: int | None = None,
) -> TwoTimescale[Any]:
    """Steer a whole training: P1 or P once, for the mean links, then P2 in every round.

    Parameters
    ----------
    system, compression
        As `optimize` takes them.
    assumption : {'joint', 'even'}, default 'joint'
        Which bandwidths the choice of cut layer and compression assumes: the optimal ones
        (P, as `optimize`), or the even split (P1).
    rounds : int, default 20
        Number of rounds, times the devices at most 10 million. In the first the model is
        broadcast, later adapters only.
    fading_seed : int, optional
        Rayleigh draws of every round's links; without it the mean links.

    Returns
    -------
    TwoTimescale

    Raises
    ------
    SolverError, ValueError, TypeError, OSError
        As `optimize`.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(8))
    >>> steered = sft.two_timescale(system, rounds=5, fading_seed=1)
    >>> even = sft.predict(system, cut=1, rounds=5, fading_seed=1, bandwidth="even")
    >>> steered.total_s < even.total_s
    True

    """
    answer = _sft._two_timescale(
        encode_system(system), encode_compression(compression), assumption, rounds, fading_seed
    )
    configuration = plan_of(answer["configuration"], compression)
    return TwoTimescale(configuration=configuration, rounds_s=answer["rounds_s"])
