"""The codec in a PyTorch loop: a model in two halves and the cut between them.

`split` makes a device half and a server half of any model, `Cut` compresses what passes between
them, forward and backward, and counts it; `attach` puts a cut into a whole model. `serve` and
`connect` train halves in processes of their own.

Examples
--------
>>> import sft
>>> import torch
>>> import sft.torch as st
>>> model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.GELU(), torch.nn.Linear(64, 2))
>>> device_model, server_model = st.split(model, after="1")
>>> cut = st.Cut(
...     activation=sft.Codec.activation(keep=0.2, levels=8),
...     gradient=sft.Codec.gradient(keep=0.2, levels=8),
... )
>>> x, y = torch.randn(32, 8), torch.randint(2, (32,))
>>> loss = torch.nn.functional.cross_entropy(server_model(cut(device_model(x))), y)
>>> loss.backward()
>>> cut.traffic.ratio > 5
True

"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    message = "sft.torch needs PyTorch: pip install 'sft[torch]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from sft.torch._attach import attach, cuts
from sft.torch._connect import ServerLink, connect
from sft.torch._crossing import CallPlan, Crossing
from sft.torch._cut import Cut
from sft.torch._halves import DeviceHalf, ServerHalf
from sft.torch._serve import Served, serve
from sft.torch._split import split
from sft.torch._traffic import Direction, Traffic
from sft.torch._transform import Transform

__all__ = [
    "CallPlan",
    "Crossing",
    "Cut",
    "DeviceHalf",
    "Direction",
    "Served",
    "ServerHalf",
    "ServerLink",
    "Traffic",
    "Transform",
    "attach",
    "connect",
    "cuts",
    "serve",
    "split",
]
