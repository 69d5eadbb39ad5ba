import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, Self, SupportsIndex, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

__all__ = [
    "Basis",
    "Choice",
    "Codec",
    "CodecError",
    "ErrorFeedback",
    "Info",
    "InternalError",
    "Link",
    "LinkCounts",
    "Listener",
    "Measure",
    "RateTable",
    "Solution",
    "SolverError",
    "TransformDecoder",
    "TransformEncoder",
    "TwoPoolSolution",
    "__version__",
    "_accuracy",
    "_beta",
    "_finetune",
    "_fit",
    "_fit_steps",
    "_join",
    "_optimize",
    "_optimize_device_compression",
    "_optimize_device_cuts",
    "_panic",
    "_predict",
    "_run_defaults",
    "_serve",
    "_start_candle",
    "_step_values",
    "_system",
    "_two_timescale",
    "_write_run",
    "allocate_bandwidth",
    "allocate_two_pools",
    "connect",
    "decode",
    "inspect",
    "listen",
    "make_certificates",
    "measure",
]

__version__: Final[str]

class CodecError(ValueError):
    kind: Literal[
        "unknown_plan",
        "non_finite",
        "truncated",
        "trailing_bytes",
        "corrupt",
        "checksum",
        "unsupported_version",
        "too_large",
        "other_shape",
        "lost_reference",
        "other",
    ]

@final
class Codec:
    def __new__(
        cls,
        text: str | None = None,
        /,
        *,
        sparsify: Literal["none", "top_k", "row_top_k", "threshold"] | None = None,
        keep: float | None = None,
        threshold: float | None = None,
        quantize: Literal["dead_zone", "error", "unbiased", "levels", "f16", "none"] | None = None,
        levels: SupportsIndex | None = None,
        spacing: Literal["log", "linear"] | None = None,
        rounding: Literal["stochastic", "nearest"] | None = None,
        range: Literal["tensor", "row"] | None = None,
        step: float | None = None,
        relative_mse: float | None = None,
        of: Literal["bulk", "all"] | None = None,
        code: Literal["context", "golomb", "none"] | None = None,
        non_finite: Literal["refuse", "saturate"] | None = None,
    ) -> Codec: ...
    @staticmethod
    def default_activation() -> Codec: ...
    @staticmethod
    def default_gradient() -> Codec: ...
    @staticmethod
    def default_adapter() -> Codec: ...
    @staticmethod
    def default_features() -> Codec: ...
    @staticmethod
    def vit_activation() -> Codec: ...
    @staticmethod
    def vit_gradient() -> Codec: ...
    @staticmethod
    def paper(
        *,
        keep: float = 0.2,
        levels: SupportsIndex = 8,
        range: Literal["tensor", "row"] = "tensor",
        non_finite: Literal["refuse", "saturate"] = "refuse",
    ) -> Codec: ...
    @staticmethod
    def activation(
        *,
        keep: float = 0.2,
        levels: SupportsIndex = 8,
        range: Literal["tensor", "row"] = "tensor",
        non_finite: Literal["refuse", "saturate"] = "refuse",
    ) -> Codec: ...
    @staticmethod
    def gradient(
        *,
        keep: float = 0.2,
        levels: SupportsIndex = 8,
        range: Literal["row", "tensor"] = "row",
        non_finite: Literal["refuse", "saturate"] = "refuse",
    ) -> Codec: ...
    @staticmethod
    def dead_zone(
        step: float, *, non_finite: Literal["refuse", "saturate"] = "refuse"
    ) -> Codec: ...
    @staticmethod
    def unbiased(step: float, *, non_finite: Literal["refuse", "saturate"] = "refuse") -> Codec: ...
    @staticmethod
    def for_error(
        relative_mse: float,
        *,
        of: Literal["bulk", "all"] = "bulk",
        non_finite: Literal["refuse", "saturate"] = "refuse",
    ) -> Codec: ...
    @staticmethod
    def dead_zone_for_bits(sample: npt.NDArray[Any], bits: float) -> Codec: ...
    @staticmethod
    def top_k_for_error(
        codec: Callable[..., Codec], sample: npt.NDArray[Any], relative_mse: float
    ) -> Codec: ...
    @staticmethod
    def top_k_for_bits(
        codec: Callable[..., Codec], sample: npt.NDArray[Any], bits: float
    ) -> Codec: ...
    @staticmethod
    def raw() -> Codec: ...
    def encode(
        self,
        x: npt.NDArray[Any],
        seed: SupportsIndex = 0,
        *,
        dtype: Literal["f16", "bf16"] | None = None,
    ) -> bytes: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def keep(self) -> float: ...
    @property
    def levels(self) -> int | None: ...
    @property
    def range(self) -> Literal["tensor", "row"] | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[str]: ...

# The type of the elements is that of the tensor that was encoded.
def decode(
    frame: Buffer,
    *,
    shape: Sequence[int] | None = None,
    max_elements: SupportsIndex | None = None,
) -> npt.NDArray[Any]: ...

@final
class Info:
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Literal["f32", "f16", "bf16"]: ...
    @property
    def code(self) -> Literal["context", "golomb", "none"]: ...
    @property
    def kept(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

def inspect(frame: Buffer) -> Info: ...

@final
class Measure:
    @property
    def bytes(self) -> int: ...
    @property
    def bits_per_element(self) -> float: ...
    @property
    def relative_mse(self) -> float: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

def measure(codec: Codec | str, x: npt.NDArray[Any], seed: SupportsIndex = 0) -> Measure: ...

@final
class ErrorFeedback:
    def __new__(
        cls, codec: Codec | str, residual: npt.NDArray[Any] | None = None
    ) -> ErrorFeedback: ...
    @property
    def codec(self) -> Codec: ...
    @property
    def residual(self) -> npt.NDArray[np.float32] | None: ...
    def encode(
        self,
        x: npt.NDArray[Any],
        seed: SupportsIndex = 0,
        *,
        dtype: Literal["f16", "bf16"] | None = None,
    ) -> bytes: ...
    def __getnewargs__(self) -> tuple[Codec, npt.NDArray[np.float32] | None]: ...

@final
class Link:
    @property
    def peer(self) -> str: ...
    @property
    def counts(self) -> LinkCounts: ...
    def send(self, message: Buffer) -> None: ...
    def receive(self, timeout: float | None = None) -> bytes | None: ...
    def set_rate(self, bit_s: float | None) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...

@final
class LinkCounts:
    @property
    def sent_bytes(self) -> int: ...
    @property
    def received_bytes(self) -> int: ...
    @property
    def received_messages(self) -> int: ...
    @property
    def receiving_bit_s(self) -> float | None: ...
    @property
    def silent_s(self) -> float: ...

@final
class Listener:
    @property
    def address(self) -> str: ...
    def accept(self, timeout: float | None = None) -> Link | None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...

def connect(
    server: str,
    certs: str | os.PathLike[str] | None = None,
    *,
    max_message_bytes: SupportsIndex = 268435456,
    silence_s: float = 1.5,
) -> Link: ...
def listen(
    address: str,
    certs: str | os.PathLike[str] | None = None,
    *,
    max_message_bytes: SupportsIndex = 268435456,
    silence_s: float = 1.5,
    max_connections: SupportsIndex = 1024,
) -> Listener: ...
def make_certificates(
    folder: str | os.PathLike[str],
    devices: SupportsIndex,
    hosts: Sequence[str] = (),
    days: SupportsIndex = 90,
) -> None: ...

@final
class Basis:
    def __new__(cls, data: Buffer) -> Basis: ...
    @staticmethod
    def of_activations(
        x: npt.NDArray[Any],
        step: float,
        *,
        grid: tuple[int, int] | None = None,
        prefix: SupportsIndex = 1,
        lengths: Iterable[SupportsIndex] | None = None,
        sensitivity: npt.NDArray[Any] | None = None,
    ) -> Basis: ...
    @staticmethod
    def of_gradients(
        x: npt.NDArray[Any],
        step: float,
        *,
        grid: tuple[int, int] | None = None,
        prefix: SupportsIndex = 1,
        lengths: Iterable[SupportsIndex] | None = None,
    ) -> Basis: ...
    def to_bytes(self) -> bytes: ...
    @property
    def name(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int] | None: ...
    @property
    def prefix(self) -> int: ...
    @property
    def cached_rows(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[bytes]: ...

@final
class TransformEncoder:
    def __new__(cls, basis: Basis, *, memory_bytes: SupportsIndex = 0) -> TransformEncoder: ...
    @property
    def basis(self) -> Basis: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def evicted(self) -> int: ...
    def reset(self) -> None: ...
    def save(self) -> bytes: ...
    def restore(self, state: Buffer) -> None: ...
    def encode(
        self,
        x: npt.NDArray[Any],
        *,
        samples: Iterable[SupportsIndex] | None = None,
        lengths: Iterable[SupportsIndex] | None = None,
        dtype: Literal["f16", "bf16"] | None = None,
    ) -> bytes: ...

@final
class TransformDecoder:
    def __new__(cls, basis: Basis, *, memory_bytes: SupportsIndex = 0) -> TransformDecoder: ...
    @property
    def basis(self) -> Basis: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def evicted(self) -> int: ...
    def reset(self) -> None: ...
    def save(self) -> bytes: ...
    def restore(self, state: Buffer) -> None: ...
    def decode(
        self,
        message: Buffer,
        shape: Sequence[SupportsIndex],
        *,
        samples: Iterable[SupportsIndex] | None = None,
        lengths: Iterable[SupportsIndex] | None = None,
    ) -> npt.NDArray[Any]: ...

@final
class RateTable:
    @staticmethod
    def measure(
        samples: Sequence[npt.NDArray[Any]],
        codec: Callable[..., Codec],
        keep: Sequence[float],
        levels: Sequence[int],
    ) -> RateTable: ...
    @staticmethod
    def from_json(text: str) -> RateTable: ...
    def to_json(self) -> str: ...
    @property
    def keeps(self) -> list[float]: ...
    @property
    def levels(self) -> list[int]: ...
    def rate(self, keep: float, levels: int) -> float | None: ...
    def relative_mse(self, keep: float, levels: int) -> float | None: ...
    def best(
        self, rate: float, accuracy: Callable[[float, int], float] | None = None
    ) -> Choice | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __reduce__(self) -> tuple[Callable[[str], RateTable], tuple[str]]: ...

@final
class Choice:
    @property
    def keep(self) -> float: ...
    @property
    def levels(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def relative_mse(self) -> float: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Solution:
    @property
    def b_hz(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]: ...
    @property
    def tau_s(self) -> float: ...
    @property
    def tau_minus_amax_s(self) -> float: ...
    @property
    def used_hz(self) -> float: ...
    @property
    def shadow_price_s_per_hz(self) -> float: ...
    @property
    def regime(
        self,
    ) -> Literal["bandwidth", "cap_or_floor", "no_demand", "infeasible", "given"]: ...
    @property
    def equality_feasible(self) -> bool: ...
    @property
    def iterations(self) -> int: ...

@final
class TwoPoolSolution:
    @property
    def shares(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]: ...
    @property
    def tau_s(self) -> float: ...
    @property
    def tau_minus_amax_s(self) -> float: ...
    @property
    def regime(
        self,
    ) -> Literal["bandwidth", "cap_or_floor", "no_demand", "infeasible"]: ...
    @property
    def iterations(self) -> int: ...

class InternalError(RuntimeError): ...

class SolverError(RuntimeError):
    constraint: Literal["accuracy", "memory", "bandwidth"]

def allocate_bandwidth(
    a_s: npt.ArrayLike,
    c_bits_per_bps_hz: npt.ArrayLike,
    total_hz: float,
    cap_hz: npt.ArrayLike | None = None,
    *,
    rule: Literal["optimal", "even", "proportional", "random"] = "optimal",
    seed: SupportsIndex = 0,
) -> Solution: ...
def allocate_two_pools(
    a_s: npt.ArrayLike,
    demands: tuple[npt.ArrayLike, npt.ArrayLike],
    totals: tuple[float, float],
    caps: tuple[npt.ArrayLike | None, npt.ArrayLike | None] | None = None,
) -> TwoPoolSolution: ...

# What the modules of sft call; systems and settings go as JSON.
def _accuracy(
    surface: str, keep: npt.ArrayLike, bits: npt.ArrayLike
) -> npt.NDArray[np.float64]: ...
def _beta(keep: float, bits: int) -> float | None: ...
def _fit(
    keep: npt.ArrayLike, bits: npt.ArrayLike, accuracy: npt.ArrayLike, scale: str
) -> tuple[str, npt.NDArray[np.float64]]: ...
def _fit_steps(
    step: npt.ArrayLike, value: npt.ArrayLike
) -> tuple[str, npt.NDArray[np.float64]]: ...
def _optimize(system: str, compression: str) -> dict[str, Any]: ...
def _optimize_device_compression(
    system: str, compression: str, weights: npt.ArrayLike | None
) -> dict[str, Any]: ...
def _optimize_device_cuts(system: str, compression: str) -> dict[str, Any]: ...
def _predict(
    system: str,
    scheme: str,
    *,
    cut: SupportsIndex | None,
    beta: float | None,
    rounds: SupportsIndex,
    bandwidth: npt.ArrayLike,
    fading_seed: SupportsIndex | None,
) -> dict[str, Any]: ...
def _step_values(curve: str, step: npt.ArrayLike) -> npt.NDArray[np.float64]: ...
def _system(system: str) -> str: ...
def _two_timescale(
    system: str,
    compression: str,
    assumption: str,
    rounds: SupportsIndex,
    fading_seed: SupportsIndex | None,
) -> dict[str, Any]: ...
def _finetune(
    config: dict[str, Any],
    arrays: tuple[tuple[Any, Any], tuple[Any, Any]] | None,
    full: SupportsIndex,
    watch: Callable[[int, int, list[str]], object],
) -> tuple[str, str, list[str], float, str, BaseException | None]: ...
def _serve(
    config: dict[str, Any],
    arrays: tuple[tuple[Any, Any], tuple[Any, Any]] | None,
    full: SupportsIndex,
    watch: Callable[[int, int, list[str]], object],
    listener: Listener,
    own: dict[str, Any],
) -> tuple[str, str, list[str], float, str, BaseException | None]: ...
def _join(
    server: str,
    certs: str | os.PathLike[str] | None,
    data: str | None,
    arrays: tuple[Any, Any] | None,
    full: SupportsIndex,
    model: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str],
    threads: SupportsIndex,
    patience_s: float,
    tell: Callable[[str], object],
) -> None: ...
def _run_defaults() -> str: ...
def _write_run(path: str | os.PathLike[str], run: str) -> None: ...
def _start_candle() -> None: ...
def _panic() -> None: ...
