"""Compression and bandwidth allocation for split fine-tuning over wireless links.

`Codec` and `decode` compress the activations and gradients that cross the cut
of a split model, and `sft.torch` puts them into a PyTorch loop; `allocate_bandwidth` shares a band among devices so that the
slowest one finishes as early as possible.

Examples
--------
>>> import numpy as np
>>> import sft
>>> activation = np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32)
>>> frame = sft.Codec.activation(keep=0.2, levels=8).encode(activation, seed=1)
>>> sft.decode(frame).shape
(64, 128)

"""

from sft._sft import (
    Choice,
    Codec,
    CodecError,
    ErrorFeedback,
    Info,
    Measure,
    RateTable,
    Solution,
    __version__,
    allocate_bandwidth,
    allocate_even,
    allocate_random,
    decode,
    inspect,
    measure,
)

__all__ = [
    "Choice",
    "Codec",
    "CodecError",
    "ErrorFeedback",
    "Info",
    "Measure",
    "RateTable",
    "Solution",
    "__version__",
    "allocate_bandwidth",
    "allocate_even",
    "allocate_random",
    "decode",
    "inspect",
    "measure",
]
