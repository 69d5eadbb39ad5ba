"""What the solvers are given: devices, server, model and settings as plain values."""

import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sft import _sft


@dataclass(frozen=True, kw_only=True)
class Device:
    """A mobile device; by default that of the paper's Table II with a clock of 1 GHz.

    Parameters
    ----------
    clock_hz : float, default 1e9
        Clock in Hz, positive.
    cores : int, default 256
        Number of cores, at least 1.
    flop_per_cycle : float, default 4
        FLOP per cycle and core, positive.
    samples : int, default 6250
        Local training samples, at least 1.
    snr_uplink_db, snr_downlink_db : float, default 17
        Mean signal-to-noise ratios in dB, from -300 to 300.
    cap_hz : float, optional
        Most bandwidth the device can use in Hz; no cap without it.
    memory_bytes : int, default 8 GiB
        Memory for training in bytes.

    Examples
    --------
    >>> import sft
    >>> [device.clock_hz for device in sft.Device.many(2, clock_hz=[5e8, 1.5e9], samples=100)]
    [500000000.0, 1500000000.0]

    """

    __module__ = "sft"

    clock_hz: float = 1e9
    cores: int = 256
    flop_per_cycle: float = 4.0
    samples: int = 6250
    snr_uplink_db: float = 17.0
    snr_downlink_db: float = 17.0
    cap_hz: float | None = None
    memory_bytes: int = 8192 << 20

    @classmethod
    def many(cls, count: int, **columns: npt.ArrayLike) -> "tuple[Device, ...]":
        """Make devices from one array, or one value for all, per field.

        Parameters
        ----------
        count : int
            Number of devices.
        **columns : array_like, [count] or one value
            The fields; the others have their defaults.

        Returns
        -------
        tuple of Device

        Raises
        ------
        ValueError
            If an array does not have `count` entries.
        TypeError
            If a field does not exist.

        Examples
        --------
        >>> import sft
        >>> sft.Device.many(3, samples=[10, 20, 30])[2].samples
        30

        """
        rows: dict[str, list[Any]] = {}
        for name, column in columns.items():
            array = np.asarray(column)
            if array.shape not in ((), (count,)):
                msg = f"{name} must have {count} entries, got shape {list(array.shape)}"
                raise ValueError(msg)
            rows[name] = np.broadcast_to(array, (count,)).tolist()
        return tuple(cls(**{name: row[n] for name, row in rows.items()}) for n in range(count))


@dataclass(frozen=True, kw_only=True)
class Server:
    """The edge server; by default 3 GHz with 2048 cores of 4 FLOP per cycle.

    Parameters
    ----------
    clock_hz : float, default 3e9
        Clock in Hz, positive.
    cores : int, default 2048
        Number of cores, at least 1.
    flop_per_cycle : float, default 4
        FLOP per cycle and core, positive.
    model : {'sequential', 'per_device', 'even', 'optimal_share'}, default 'sequential'
        How devices share it: one after the other, a server of full speed for each,
        the same fixed share, or shares chosen together with the bandwidths.

    Examples
    --------
    >>> import sft
    >>> sft.Server(model="optimal_share").clock_hz
    3000000000.0

    """

    __module__ = "sft"

    clock_hz: float = 3e9
    cores: int = 2048
    flop_per_cycle: float = 4.0
    model: Literal["sequential", "per_device", "even", "optimal_share"] = "sequential"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Training settings that enter cost formulas; by default those of the paper's Table II.

    Parameters
    ----------
    batch : int, default 64
        Samples in a mini-batch.
    local_epochs : int, default 1
        Passes over the local data in a round.
    bytes_per_number : float, default 4
        Bytes of a weight, an activation and an adapter's number.
    adapter_uplink_bits_per_parameter, adapter_downlink_bits_per_parameter : float, optional
        Bits of an adapter's parameter in a split device's update, and in what it gets at the
        start of every round but the first; by default as many as a number has.
    bits_per_feature : float, optional
        Bits of a feature, and of its gradient, where these cross (``labels="device"``); by default
        as many as a number has.
    optimizer_bytes_per_parameter : float, default 4
        0 for plain SGD, 4 with momentum, 8 for Adam.
    activation_bytes, attention_bytes : float, default 72 and 4
        Bytes kept per element of an activation and of an attention matrix, for each
        block; calibrated on the paper's Table III.
    gradient_checkpointing : bool, default False
        Whether blocks that are trained keep their input alone for the backward pass, which
        computes a block's forward pass again, on the device and on the server.
    mapped_blocks : bool, default False
        Whether a split device leaves the frozen weights of its blocks in a mapped file: of these
        it holds one block's at a time, and a copy of that with the adapters added.
    count_gradients : bool, default False
        Whether device memory counts the gradients of trained parameters.
    flops : {'paper', 'exact'}, default 'paper'
        How FLOPs are counted: as printed, or what the computation needs.
    fl_head : {'full', 'adapters'}, default 'full'
        What federated LoRA trains outside the blocks, and of the head a split device that has it.
    device_adapters : {'lora', 'none'}, default 'lora'
        What split training trains on a device: an adapter on every block, or nothing: the device
        runs forward alone, no gradients come down, and no adapters cross.
    labels : {'server', 'device'}, default 'server'
        Where split training has labels, head and loss. With 'device' the features that the head
        reads come down, and their gradient goes up: the U-shape.
    frozen_blocks : int, default 0
        With ``device_adapters="none"`` the blocks from the first on that have no adapters anywhere,
        the deepest cut of devices that differ in theirs: the server runs those of a device with a
        shallower cut forward alone. Below the number of blocks; 0 for as many as the cut.
    literal_single_batch : bool, default False
        Takes the paper's (18) at its word: one mini-batch in a round.

    Examples
    --------
    >>> import sft
    >>> sft.Training(flops="exact").batch
    64

    """

    __module__ = "sft"

    batch: int = 64
    local_epochs: int = 1
    bytes_per_number: float = 4.0
    adapter_uplink_bits_per_parameter: float | None = None
    adapter_downlink_bits_per_parameter: float | None = None
    bits_per_feature: float | None = None
    optimizer_bytes_per_parameter: float = 4.0
    activation_bytes: float = 72.0
    attention_bytes: float = 4.0
    gradient_checkpointing: bool = False
    mapped_blocks: bool = False
    count_gradients: bool = False
    flops: Literal["paper", "exact"] = "paper"
    fl_head: Literal["full", "adapters"] = "full"
    device_adapters: Literal["lora", "none"] = "lora"
    labels: Literal["server", "device"] = "server"
    frozen_blocks: int = 0
    literal_single_batch: bool = False


@dataclass(frozen=True, kw_only=True)
class Vit:
    """A vision transformer by its name, at 224x224 pixels with patches of 16.

    Parameters
    ----------
    preset : {'vit_tiny', 'vit_small', 'vit_base', 'vit_large'}, default 'vit_base'
        Its size.
    classes : int, default 100
        Classes of the head.
    lora_rank : int, default 16
        Rank of the adapters.
    qkv : {'fused', 'separate'}, default 'fused'
        Whether query, key and value are one linear layer or three.

    Examples
    --------
    >>> import sft
    >>> sft.Vit(classes=10).preset
    'vit_base'

    """

    __module__ = "sft"

    preset: Literal["vit_tiny", "vit_small", "vit_base", "vit_large"] = "vit_base"
    classes: int = 100
    lora_rank: int = 16
    qkv: Literal["fused", "separate"] = "fused"


@dataclass(frozen=True, kw_only=True)
class System:
    """A model, its training settings, a server, and devices that share one band.

    Wherever a system is asked for, a dict of the same keys or the path of a TOML or
    JSON file that holds them will do as well.

    Parameters
    ----------
    total_hz : float
        The whole band in Hz.
    devices : sequence of Device or dict
        The devices.
    model : Vit or dict, default ViT-Base
        A `Vit`, or a dict of its fields or of those of any transformer: `blocks`,
        `width`, `mlp_width`, `heads`, `tokens`, `patch`, `channels`, `image`; or
        `blocks`, `tokens`, `width`, `heads` and `counts` of one whose parts are
        counted elsewhere.
    training : Training or dict
        How it is trained.
    server : Server or dict
        The server.

    Examples
    --------
    >>> import sft
    >>> system = sft.System(total_hz=30e6, devices=sft.Device.many(8, clock_hz=1e9))
    >>> len(system.devices)
    8

    """

    __module__ = "sft"

    total_hz: float
    devices: Sequence[Device | Mapping[str, Any]]
    model: Vit | Mapping[str, Any] = field(default_factory=Vit)
    training: Training | Mapping[str, Any] = field(default_factory=Training)
    server: Server | Mapping[str, Any] = field(default_factory=Server)


AnySystem = System | Mapping[str, Any] | str | os.PathLike[str]


@dataclass(frozen=True)
class Term:
    """One term ``w * x**i * bits**j`` of an accuracy surface.

    Attributes
    ----------
    i, j : int
        Powers; at most 3 together.
    w : float
        Weight.

    Examples
    --------
    >>> import sft
    >>> terms = [sft.Term(i=0, j=0, w=0.8), sft.Term(i=1, j=0, w=0.05)]
    >>> round(sft.Accuracy(terms=terms)(keep=0.5, bits=3), 9)
    0.75

    """

    __module__ = "sft"

    i: int
    j: int
    w: float


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracy as a cubic of the kept fraction and the bits of a level.

    Parameters
    ----------
    terms : sequence of Term or dict
        The terms.
    scale : {'log2_keep', 'keep'}, default 'log2_keep'
        What ``x`` is: ``log2(keep)`` or ``keep``.

    Examples
    --------
    >>> import sft
    >>> surface = sft.Accuracy(scale="keep", terms=[sft.Term(0, 0, 0.5), sft.Term(1, 1, 0.1)])
    >>> surface(0.25, 2)
    0.55
    >>> surface([0.25, 0.5], 2)
    array([0.55, 0.6 ])

    """

    __module__ = "sft"

    terms: Sequence[Term | Mapping[str, Any]]
    scale: Literal["log2_keep", "keep"] = "log2_keep"

    def __call__(self, keep: npt.ArrayLike, bits: npt.ArrayLike) -> Any:
        """Tell the accuracy, a fraction.

        Parameters
        ----------
        keep : array_like of float
            Kept fractions, above 0 and at most 1.
        bits : array_like of float
            Bits of a level, broadcast with `keep`.

        Returns
        -------
        float or numpy.ndarray of float64
            An array of the broadcast shape, or a number for two numbers.

        Examples
        --------
        >>> import sft
        >>> surface = sft.Accuracy(scale="keep", terms=[sft.Term(0, 0, 0.5), sft.Term(1, 0, 0.25)])
        >>> surface([[0.5], [1.0]], [1, 2, 3]).shape
        (2, 3)

        """
        k, b = np.broadcast_arrays(np.asarray(keep, float), np.asarray(bits, float))
        values = _sft._accuracy(encode(self, "accuracy"), k.ravel(), b.ravel())
        return values.reshape(k.shape) if k.shape else values.item()


def plain(value: Any, *at: str | int) -> Any:
    """Return the value as JSON has it: dicts, lists, numbers; errors name the place."""
    if value is None or type(value) in (str, int, bool):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(getattr(value, name), *at, name) for name in _names(type(value))}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, *at, str(key)) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"{_place(at)} must be finite, got {value}"
        raise ValueError(msg)
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, Sequence):
        return [plain(item, *at, n) for n, item in enumerate(value)]
    kind = type(value).__name__
    msg = f"{_place(at)} must consist of numbers, strings, sequences and dicts, got {kind}"
    raise TypeError(msg)


@functools.cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind))


def _place(at: Sequence[str | int]) -> str:
    """Name a place by its path, as in ``system.devices[0].clock_hz``."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in at)
    return "".join(steps).removeprefix(".")


def encode(value: Any, at: str) -> str:
    """Return the argument named `at` as JSON."""
    return json.dumps(plain(value, at))


def encode_system(system: AnySystem) -> str:
    """Return a system as JSON, read from a file if it is a path."""
    if not isinstance(system, str | os.PathLike):
        if not isinstance(system, System | Mapping):
            kind = type(system).__name__
            msg = f"system must be a System, a dict or the path of a file, got {kind}"
            raise TypeError(msg)
        return encode(system, "system")
    path = Path(system)
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".toml":
        return text
    import tomllib

    return encode(tomllib.loads(text), "system")
