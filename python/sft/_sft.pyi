from typing import Final, Literal, SupportsIndex, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

__all__ = [
    "Codec",
    "CodecError",
    "Solution",
    "__version__",
    "allocate_bandwidth",
    "allocate_even",
    "allocate_random",
    "decode",
]

__version__: Final[str]

class CodecError(ValueError):
    kind: Literal[
        "non_finite",
        "truncated",
        "trailing_bytes",
        "corrupt",
        "checksum",
        "unsupported_version",
        "too_large",
        "other",
    ]

@final
class Codec:
    @staticmethod
    def paper(
        *,
        keep: float = 0.2,
        levels: SupportsIndex = 8,
        range: Literal["tensor", "row"] = "tensor",
    ) -> Codec: ...
    @staticmethod
    def raw() -> Codec: ...
    def encode(self, x: npt.NDArray[np.float32], seed: SupportsIndex = 0) -> bytes: ...
    @property
    def keep(self) -> float: ...
    @property
    def levels(self) -> int | None: ...
    @property
    def range(self) -> Literal["tensor", "row"] | None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

def decode(
    frame: Buffer, *, max_elements: SupportsIndex | None = None
) -> npt.NDArray[np.float32]: ...

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

def allocate_bandwidth(
    a_s: npt.ArrayLike,
    c_bits_per_bps_hz: npt.ArrayLike,
    total_hz: float,
    cap_hz: npt.ArrayLike | None = None,
) -> Solution: ...
def allocate_even(
    a_s: npt.ArrayLike,
    c_bits_per_bps_hz: npt.ArrayLike,
    total_hz: float,
    cap_hz: npt.ArrayLike | None = None,
) -> Solution: ...
def allocate_random(
    a_s: npt.ArrayLike,
    c_bits_per_bps_hz: npt.ArrayLike,
    total_hz: float,
    cap_hz: npt.ArrayLike | None = None,
    *,
    seed: SupportsIndex = 0,
) -> Solution: ...
