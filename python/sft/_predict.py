"""What a training costs by the model: memory, payloads and delays."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sft import _sft
from sft._compression import PAPER
from sft._plan import Plan
from sft._system import AnySystem, encode_system
from sft._tables import Table, html, text

Array = npt.NDArray[np.float64]
Scheme = Literal["sft", "sft-raw", "sl", "fl-lora", "fl-full"]


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

    broadcast_s: Array
    device_forward_s: Array
    uplink_s: Array
    server_s: Array
    downlink_s: Array
    device_backward_s: Array
    adapter_upload_s: Array
    total_s: Array


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

    broadcast_bits: Array
    uplink_bits: Array
    downlink_bits: Array
    adapter_bits: Array


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
    round_s: Array
    memory: Memory
    phases: Phases
    payloads: Payloads
    b_hz: Array
    server_flop_per_s: Array | None

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
        return text(self._table())

    def _table(self) -> Table:
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
        return html(self._table())


def predict(
    system: AnySystem,
    scheme: Scheme = "sft",
    *,
    plan: Plan[Any] | None = None,
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
        Number of rounds, times the devices at most 10 million. In the first the model is
        broadcast, later adapters only.
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
    if plan is not None and not isinstance(plan, Plan):
        msg = f"plan must be a Plan, got {type(plan).__name__}"
        raise TypeError(msg)
    if cut is None and plan is not None:
        cut = plan.cut
    if scheme != "sft":
        beta = 1.0
    elif beta is None:
        beta = plan.setting.beta if plan is not None else _sft._beta(PAPER.keep, PAPER.bits)
    answer = _sft._predict(
        encode_system(system),
        scheme,
        cut=cut,
        beta=beta,
        rounds=rounds,
        bandwidth=bandwidth,
        fading_seed=fading_seed,
    )
    return Prediction(
        scheme=scheme,
        memory=Memory(**json.loads(answer.pop("memory"))),
        phases=Phases(**answer.pop("phases")),
        payloads=Payloads(**answer.pop("payloads")),
        **answer,
    )
