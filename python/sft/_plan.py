"""Planning a deployment: cut layer, compression, bandwidth, and what they cost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._system import Accuracy, AnySystem, Term, encode, encode_system, plain

Scheme = Literal["sft", "sft-raw", "sl", "fl-lora", "fl-full"]


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
class Plan:
    """A chosen cut layer, compression and allocation; what `optimize` returns.

    Attributes
    ----------
    cut : int
        Cut layer: blocks on the device.
    setting : Setting
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
    setting: Setting
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
        >>> plan = sft.optimize({"total_hz": 30e6, "model": sft.Vit(), "devices": [{}, {}]})
        >>> print(plan.summary().splitlines()[0])
        cut layer 1, keep 0.2, 8 levels, 4.8 % of the bits, 137.0 s a round

        """
        return "\n\n".join([self._title(), *(_text(table) for table in self._tables())])

    def _title(self) -> str:
        s = self.setting
        accuracy = "" if s.accuracy is None else f", accuracy {s.accuracy:.1%}"
        return (
            f"cut layer {self.cut}, keep {s.keep:.3g}, {s.levels} levels{accuracy}, "
            f"{100 * (s.beta or 1):.1f} % of the bits, {self.tau_s:.1f} s a round"
        )

    def _tables(self) -> "list[list[list[str]]]":
        cuts = [["cut layer", "device memory, MiB", "delay of a round, s"]]
        cuts += [
            [
                f"{c.cut}{' *' * (c.cut == self.cut)}",
                f"{c.memory_bytes / 2**20:.1f}",
                "does not fit" if c.tau_s is None else f"{c.tau_s:.2f}",
            ]
            for c in self.cuts
        ]
        shares = self.server_flop_per_s
        devices = [["device", "bandwidth, MHz"] + ["server, TFLOP/s"] * (shares is not None)]
        for n in range(min(len(self.b_hz), 16)):
            row = [str(n), f"{self.b_hz[n] / 1e6:.3f}"]
            devices.append(row + ([] if shares is None else [f"{shares[n] / 1e12:.3f}"]))
        if len(self.b_hz) > len(devices) - 1:
            devices.append([f"{len(self.b_hz)} in all", *[""] * (len(devices[0]) - 1)])
        return [cuts, devices]

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>" + "".join(map(_html, self._tables()))


def optimize(
    system: AnySystem, compression: Compression | Setting | Mapping[str, Any] | None = None
) -> Plan:
    """Choose cut layer, compression and bandwidths for the least delay of a round, exactly.

    Solves the paper's joint problem (27) for the mean links: the delay of the slowest
    device, under accuracy, device memory and the band. With the server model
    'optimal_share' the server is shared along with the band.

    Parameters
    ----------
    system : System, dict or path
        Model, training, server, devices and band; a path names a TOML or JSON file.
    compression : Compression or Setting or dict, optional
        What compression may do and must leave, or a fixed one; by default the paper's
        own, ``Setting(keep=0.2, bits=3)``.

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
    given = Setting(keep=0.2, bits=3) if compression is None else compression
    problem = _pinned(given) if isinstance(given, Setting) else _compression(given)
    answer = _sft._optimize(encode_system(system), encode(problem))
    setting = Setting(**json.loads(answer.pop("setting")))
    if isinstance(given, Setting):
        setting = replace(setting, accuracy=given.accuracy)
    cuts = tuple(CutDelay(*cut) for cut in answer.pop("cuts"))
    return Plan(setting=setting, cuts=cuts, **answer)


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


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory that training takes on a device, in bytes, by the rows of the paper's Table III.

    Attributes
    ----------
    input_bytes : float
        One mini-batch of images.
    model_bytes : float
        Weights and adapters.
    optimizer_bytes : float
        Optimizer state of the trained parameters.
    gradient_bytes : float
        Their gradients; 0 unless they are counted.
    activation_bytes : float
        Activations kept for the backward pass.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=[sft.Device()])
    >>> memory = sft.predict(system, cut=5, rounds=1).memory
    >>> memory.activation_bytes > memory.model_bytes, memory.total_bytes < 8 << 30
    (True, True)

    """

    __module__ = "sft"

    input_bytes: float
    model_bytes: float
    optimizer_bytes: float
    gradient_bytes: float
    activation_bytes: float

    @property
    def total_bytes(self) -> float:
        """The sum of all rows."""
        return float(
            self.input_bytes
            + self.model_bytes
            + self.optimizer_bytes
            + self.gradient_bytes
            + self.activation_bytes
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Phases:
    """Delay of every phase in seconds, [rounds, devices] each; read-only.

    Attributes
    ----------
    broadcast_s : numpy.ndarray of float64
        Model or adapters to the device (11).
    device_forward_s, device_backward_s : numpy.ndarray of float64
        Passes on the device (12), (16).
    uplink_s, downlink_s : numpy.ndarray of float64
        Activations up (13), gradients down (15).
    server_s : numpy.ndarray of float64
        The server's work (14), with the wait for it.
    adapter_upload_s : numpy.ndarray of float64
        Trained parameters up (17).
    total_s : numpy.ndarray of float64
        All phases of the device (18).

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(8))
    >>> phases = sft.predict(system, cut=5, rounds=2).phases
    >>> phases.total_s.shape
    (2, 8)
    >>> bool((phases.broadcast_s[0] > phases.broadcast_s[1]).all())
    True

    """

    __module__ = "sft"

    broadcast_s: npt.NDArray[np.float64]
    device_forward_s: npt.NDArray[np.float64]
    uplink_s: npt.NDArray[np.float64]
    server_s: npt.NDArray[np.float64]
    downlink_s: npt.NDArray[np.float64]
    device_backward_s: npt.NDArray[np.float64]
    adapter_upload_s: npt.NDArray[np.float64]
    total_s: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Payloads:
    """Bits on the air, [rounds, devices] each; read-only.

    Attributes
    ----------
    broadcast_bits : numpy.ndarray of float64
        Model (in round 1) or adapters to the device.
    uplink_bits, downlink_bits : numpy.ndarray of float64
        Activations up, gradients down, compressed.
    adapter_bits : numpy.ndarray of float64
        Trained parameters up.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=[sft.Device()])
    >>> raw, compressed = (sft.predict(system, s, cut=5).payloads for s in ("sft-raw", "sft"))
    >>> bool(raw.uplink_bits[0, 0] > 20 * compressed.uplink_bits[0, 0])
    True

    """

    __module__ = "sft"

    broadcast_bits: npt.NDArray[np.float64]
    uplink_bits: npt.NDArray[np.float64]
    downlink_bits: npt.NDArray[np.float64]
    adapter_bits: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A training as the cost model sees it; what `predict` returns.

    Attributes
    ----------
    scheme : str
        The scheme.
    round_s : numpy.ndarray of float64, [rounds]
        Delay of every round in seconds.
    memory : Memory
        Memory of a device.
    phases : Phases
        Delay of every phase.
    payloads : Payloads
        Bits on the air.
    b_hz : numpy.ndarray of float64, [rounds, devices]
        Bandwidths in Hz.
    server_flop_per_s : numpy.ndarray of float64, [rounds, devices], or None
        Shares of the server in FLOP/s, with the server model 'optimal_share'.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(8))
    >>> prediction = sft.predict(system, cut=5, rounds=2)
    >>> prediction.scheme, prediction.round_s.shape, prediction.b_hz.shape
    ('sft', (2,), (2, 8))
    >>> bool(prediction.total_s == prediction.round_s.sum())
    True

    """

    __module__ = "sft"

    scheme: Scheme
    round_s: npt.NDArray[np.float64]
    memory: Memory
    phases: Phases
    payloads: Payloads
    b_hz: npt.NDArray[np.float64]
    server_flop_per_s: npt.NDArray[np.float64] | None

    @property
    def total_s(self) -> float:
        """Delay of the whole training in seconds (20)."""
        return float(self.round_s.sum())

    def summary(self) -> str:
        """Return delay, memory and traffic as a table of text.

        Returns
        -------
        str

        Examples
        --------
        >>> import sft
        >>> system = sft.System(total_hz=30e6, devices=[{}])
        >>> sft.predict(system, "fl-lora", rounds=2).summary().splitlines()[0].split()
        ['fl-lora', '2', 'rounds']

        """
        return _text(self._table())

    def _table(self) -> "list[list[str]]":
        slowest = int(np.argmax(self.phases.total_s[-1]))
        phases = {
            name.removesuffix("_s"): getattr(self.phases, name)[-1, slowest]
            for name in self.phases.__dataclass_fields__
            if name != "total_s"
        }
        rows = [[self.scheme, f"{len(self.round_s)} rounds"]]
        rows.append(["whole training, s", f"{self.total_s:.1f}"])
        rows.append(["last round, s", f"{self.round_s[-1]:.2f}"])
        rows += [[f"  {name}, slowest device", f"{s:.2f}"] for name, s in phases.items()]
        rows.append(["device memory, MiB", f"{self.memory.total_bytes / 2**20:.1f}"])
        p = self.payloads
        for name, bits in [
            ("up, MB", p.uplink_bits + p.adapter_bits),
            ("down, MB", p.downlink_bits + p.broadcast_bits),
        ]:
            rows.append([name, f"{bits.sum() / 8e6:.1f}"])
        return rows

    def _repr_html_(self) -> str:
        return _html(self._table())


def predict(
    system: AnySystem,
    scheme: Scheme = "sft",
    *,
    plan: Plan | None = None,
    cut: int | None = None,
    beta: float | None = None,
    rounds: int = 20,
    bandwidth: npt.ArrayLike | Literal["optimal", "even"] = "optimal",
    fading_seed: int | None = None,
) -> Prediction:
    """Predict delay, memory and payloads of a whole training by the cost model.

    Parameters
    ----------
    system : System, dict or path
        As `optimize` takes it; `Server.model` and `Training.flops` choose the variant.
    scheme : {'sft', 'sft-raw', 'sl', 'fl-lora', 'fl-full'}, default 'sft'
        Split fine-tuning with and without compression, sequential split learning
        (uncompressed, each device with the whole band), federated learning with LoRA
        and of all parameters.
    plan : Plan, optional
        Where cut layer and compression come from.
    cut : int, optional
        Cut layer, without a plan needed by the split schemes.
    beta : float, optional
        Compressed bits over raw bits, above 0 and at most 1, for 'sft'; without it and
        without a plan that of the paper's setting, ``Setting(keep=0.2, bits=3)``.
    rounds : int, default 20
        Number of rounds. In the first the model is broadcast, later adapters only.
    bandwidth : 'optimal', 'even' or array_like of float [devices], default 'optimal'
        The exact solution in every round, the same for all, or these in Hz.
    fading_seed : int, optional
        Rayleigh draws of every round's links; without it the mean links.

    Returns
    -------
    Prediction

    Raises
    ------
    ValueError, TypeError
        If an argument or a field is out of its range or of another type.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(8))
    >>> split = sft.predict(system, cut=5, rounds=2)
    >>> split.phases.uplink_s.shape, int(split.round_s.argmax())
    ((2, 8), 0)
    >>> split.total_s < sft.predict(system, "sft-raw", cut=5, rounds=2).total_s
    True

    """
    if scheme not in ("sft", "sft-raw", "sl", "fl-lora", "fl-full"):
        msg = f"scheme must be 'sft', 'sft-raw', 'sl', 'fl-lora' or 'fl-full', got {scheme!r}"
        raise ValueError(msg)
    forecast = {
        "scheme": scheme.replace("-", "_"),
        "beta": 1.0,
        "sequential": scheme == "sl",
        "rounds": rounds,
        "fading": None if fading_seed is None else {"seed": fading_seed},
        "allocation": bandwidth if isinstance(bandwidth, str) else {"given": plain(bandwidth)},
    }
    if scheme in ("sft", "sft-raw", "sl"):
        cut = plan.cut if cut is None and plan is not None else cut
        if cut is None:
            msg = f"cut must be given for {scheme!r} without a plan"
            raise ValueError(msg)
        forecast["scheme"] = {"split": {"cut": cut}}
    if scheme == "sft":
        if beta is None:
            beta = plan.setting.beta if plan is not None else _sft._beta(0.2, 3)
        forecast["beta"] = beta
    answer = _sft._predict(encode_system(system), encode(forecast))
    return Prediction(
        scheme=scheme,
        memory=Memory(**json.loads(answer.pop("memory"))),
        phases=Phases(**answer.pop("phases")),
        payloads=Payloads(**answer.pop("payloads")),
        **answer,
    )


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


def _text(table: Sequence[Sequence[str]]) -> str:
    """Return rows with columns of one width, the first to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if k else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )
    return "\n".join(line.rstrip() for line in lines)


def _html(table: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

    head, *body = table
    rows = "".join(row(cells, "td") for cells in body)
    return f"<table><thead>{row(head, 'th')}</thead><tbody>{rows}</tbody></table>"
