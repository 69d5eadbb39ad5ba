"""Compression and bandwidth allocation for split fine-tuning over wireless links.

`Codec` and `decode` compress the activations and gradients that cross the cut
of a split model, and `sft.torch` puts them into a PyTorch loop. `optimize`
chooses cut layer, compression and bandwidths, `predict` tells what they cost,
and `finetune` runs the reference trainer, whose runs `sft.plot` draws; `serve` and `join` do with
devices on a network, by links that `listen` and `connect` make.

Examples
--------
>>> import numpy as np
>>> import sft
>>> activation = np.random.default_rng(0).standard_normal((64, 128), dtype=np.float32)
>>> frame = sft.Codec.activation(keep=0.2, levels=8).encode(activation, seed=1)
>>> sft.decode(frame).shape
(64, 128)

"""

from sft._compression import Compression, Setting
from sft._fit import Fit, NotMonotone, fit_accuracy
from sft._network import join, serve
from sft._per_device import (
    DeviceCompression,
    DeviceCuts,
    optimize_device_compression,
    optimize_device_cuts,
)
from sft._plan import CutDelay, Plan, optimize
from sft._predict import Memory, Payloads, Phases, Prediction, predict
from sft._run import Generated, Interrupted, Round, Run
from sft._sft import (
    Basis,
    Choice,
    Codec,
    CodecError,
    ErrorFeedback,
    Info,
    InternalError,
    Link,
    LinkCounts,
    Listener,
    Measure,
    RateTable,
    Solution,
    SolverError,
    TransformDecoder,
    TransformEncoder,
    TwoPoolSolution,
    __version__,
    allocate_bandwidth,
    allocate_two_pools,
    connect,
    decode,
    inspect,
    listen,
    make_certificates,
    measure,
)
from sft._steps import StepCompression, StepCurve, StepFit, StepSetting, fit_steps
from sft._system import (
    Accuracy,
    Device,
    Server,
    System,
    Term,
    Training,
    Vit,
)
from sft._train import finetune
from sft._two_timescale import TwoTimescale, two_timescale

__all__ = [
    "Accuracy",
    "Basis",
    "Choice",
    "Codec",
    "CodecError",
    "Compression",
    "CutDelay",
    "Device",
    "DeviceCompression",
    "DeviceCuts",
    "ErrorFeedback",
    "Fit",
    "Generated",
    "Info",
    "InternalError",
    "Interrupted",
    "Link",
    "LinkCounts",
    "Listener",
    "Measure",
    "Memory",
    "NotMonotone",
    "Payloads",
    "Phases",
    "Plan",
    "Prediction",
    "RateTable",
    "Round",
    "Run",
    "Server",
    "Setting",
    "Solution",
    "SolverError",
    "StepCompression",
    "StepCurve",
    "StepFit",
    "StepSetting",
    "System",
    "Term",
    "Training",
    "TransformDecoder",
    "TransformEncoder",
    "TwoPoolSolution",
    "TwoTimescale",
    "Vit",
    "__version__",
    "allocate_bandwidth",
    "allocate_two_pools",
    "connect",
    "decode",
    "finetune",
    "fit_accuracy",
    "fit_steps",
    "inspect",
    "join",
    "listen",
    "make_certificates",
    "measure",
    "optimize",
    "optimize_device_compression",
    "optimize_device_cuts",
    "predict",
    "serve",
    "two_timescale",
]
