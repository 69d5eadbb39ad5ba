"""PyTorch's sides of train_peers.rs: the same split LoRA step, on the same numbers.

    python benches/train_peers.py VARIANT SHAPE

VARIANT is `transformers` (Transformers' ViT with PEFT's adapters), `lean` (a module written by hand
for this step), `compiled` (the same through torch.compile) or `versions`. SHAPE is the JSON of
`Shape` in src/shapes.rs. For each line of standard input, a number of steps, one line of JSON tells
their times and losses and the resident set.
"""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The numbers of tensors in src/shapes.rs.
ADAPTERS, HEAD, IMAGES = 1_000_000, 2_000_000, 3_000_000
# A block's parameters in the order of `VitConfig::parameters`, by Transformers' names.
BLOCK = (
    "layernorm_before",
    "layernorm_after",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.o_proj",
    "mlp.fc1",
    "mlp.fc2",
)


@dataclass(frozen=True)
class Shape:
    """A model, its cut and its mini-batch; see src/shapes.rs."""

    name: str
    config: dict[str, Any]
    batch: int
    rank: int
    cut: int
    classes: int

    @property
    def tokens(self) -> int:
        """Tokens of a sample."""
        patches: int = self.config["image_size"] // self.config["patch_size"]
        return patches**2 + 1


@dataclass(frozen=True)
class Halves:
    """A model in two halves, and the parameters that each trains."""

    device: Callable[[Tensor], Tensor]
    server: Callable[[Tensor], Tensor]
    device_parameters: list[nn.Parameter]
    server_parameters: list[nn.Parameter]


def values(tensor: int, shape: tuple[int, ...], mean: float, deviation: float) -> Tensor:
    """Return the numbers of a tensor, as src/shapes.rs computes them."""
    start = np.uint64(tensor << 32)
    key = np.arange(math.prod(shape), dtype=np.uint64) + start
    width = np.float32(math.sqrt(12.0) * deviation)
    uniform = (hashed(key) >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    numbers = np.float32(mean) + width * (uniform - np.float32(0.5))
    return torch.from_numpy(numbers).view(shape)


def hashed(key: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return SplitMix64's finaliser of every key."""
    x = key + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@torch.no_grad()
def fill(parameter: Tensor, number: int, mean: float = 0.0, deviation: float = 0.02) -> None:
    """Give a parameter its numbers."""
    parameter.copy_(values(number, tuple(parameter.shape), mean, deviation))


def fill_blocks(blocks: nn.ModuleList, name: Callable[[str], str]) -> int:
    """Fill the frozen parameters of all blocks; return the number of the next tensor."""
    number = 4
    for block in blocks:
        for path in BLOCK:
            part: Any = block.get_submodule(name(path))
            fill(part.weight, number, mean=1.0 if "norm" in path else 0.0)
            fill(part.bias, number + 1)
            number += 2
    return number


def transformers_and_peft(shape: Shape) -> Halves:
    """Split Transformers' ViT, adapted by PEFT, at the hidden state."""
    from peft import LoraConfig, get_peft_model
    from transformers import ViTConfig, ViTForImageClassification

    more: dict[str, Any] = {"num_labels": shape.classes, "attn_implementation": "sdpa"}
    config = ViTConfig(**shape.config, **more)
    model: Any = ViTForImageClassification(config)
    embeddings = model.vit.embeddings
    fill(embeddings.cls_token, 0)
    fill(embeddings.position_embeddings, 1)
    fill(embeddings.patch_embeddings.projection.weight, 2)
    fill(embeddings.patch_embeddings.projection.bias, 3)
    last = fill_blocks(model.vit.layers, lambda path: path)
    fill(model.vit.layernorm.weight, last, mean=1.0)
    fill(model.vit.layernorm.bias, last + 1)
    fill(model.classifier.weight, HEAD)
    nn.init.zeros_(model.classifier.bias)
    targets = [path.rsplit(".")[-1] for path in BLOCK[2:]]
    lora = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.rank,
        target_modules=targets,
        modules_to_save=["classifier"],
    )
    adapted: Any = get_peft_model(model, lora).base_model.model
    vit, classifier = adapted.vit, adapted.classifier
    for block, layer in enumerate(vit.layers):
        for place, path in enumerate(BLOCK[2:]):
            a = layer.get_submodule(path).lora_A["default"].weight
            fill(a, ADAPTERS + 6 * block + place, deviation=1 / shape.rank)
    adapted.train()

    def device(images: Tensor) -> Tensor:
        hidden: Tensor = vit.embeddings(images)
        for layer in vit.layers[: shape.cut]:
            hidden = layer(hidden, None)
        return hidden

    def server(hidden: Tensor) -> Tensor:
        for layer in vit.layers[shape.cut :]:
            hidden = layer(hidden, None)
        logits: Tensor = classifier(vit.layernorm(hidden)[:, 0])
        return logits

    low, high = nn.ModuleList(vit.layers[: shape.cut]), nn.ModuleList(vit.layers[shape.cut :])
    return Halves(device, server, trained(low), trained(high) + trained(classifier))


class Adapted(nn.Module):
    """A frozen linear layer with an adapter of scale 1."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(outputs), requires_grad=False)
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Add the adapter's output in place: nothing needs the frozen layer's alone."""
        return F.linear(x, self.weight, self.bias).add_(F.linear(F.linear(x, self.a), self.b))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, mlp = shape.config["hidden_size"], shape.config["intermediate_size"]
        eps = shape.config["layer_norm_eps"]
        self.heads = shape.config["num_attention_heads"]
        self.layernorm_before = nn.LayerNorm(width, eps)
        self.layernorm_after = nn.LayerNorm(width, eps)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            Adapted(width, width, shape.rank) for _ in range(4)
        )
        self.fc1 = Adapted(width, mlp, shape.rank)
        self.fc2 = Adapted(mlp, width, shape.rank)
        for norm in (self.layernorm_before, self.layernorm_after):
            norm.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the hidden state behind the block."""
        batch, tokens, width = x.shape
        normed = self.layernorm_before(x)
        q, k, v = (
            project(normed).view(batch, tokens, self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        context = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.o_proj(context.reshape(batch, tokens, width))
        hidden: Tensor = self.fc1(self.layernorm_after(x))
        y: Tensor = x + self.fc2(F.gelu(hidden))
        return y


class DeviceHalf(nn.Module):
    """The embedding and the first blocks."""

    def __init__(self, shape: Shape, blocks: nn.ModuleList) -> None:
        super().__init__()
        config, width = shape.config, shape.config["hidden_size"]
        patch = config["patch_size"]
        self.projection = nn.Conv2d(config["num_channels"], width, patch, patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, shape.tokens, width))
        for number, parameter in enumerate(
            (self.class_token, self.positions, self.projection.weight, self.projection.bias)
        ):
            assert parameter is not None
            fill(parameter.requires_grad_(False), number)
        self.blocks = blocks

    def forward(self, images: Tensor) -> Tensor:
        """Return the hidden state at the cut."""
        patches = self.projection(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(len(images), -1, -1), patches), 1)
        hidden = tokens + self.positions
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class ServerHalf(nn.Module):
    """The other blocks and the head."""

    def __init__(self, shape: Shape, blocks: nn.ModuleList, number: int) -> None:
        super().__init__()
        width = shape.config["hidden_size"]
        self.blocks = blocks
        self.norm = nn.LayerNorm(width, shape.config["layer_norm_eps"]).requires_grad_(False)
        fill(self.norm.weight, number, mean=1.0)
        fill(self.norm.bias, number + 1)
        self.head = nn.Linear(width, shape.classes)
        fill(self.head.weight, HEAD)
        nn.init.zeros_(self.head.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits; the last layer normalisation is needed for the class token alone."""
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.head(self.norm(hidden[:, 0]))
        return logits


def lean(shape: Shape) -> Halves:
    """Build the module written by hand."""
    blocks = nn.ModuleList(Block(shape) for _ in range(shape.config["num_hidden_layers"]))
    last = fill_blocks(blocks, lambda path: path.rsplit(".")[-1])
    for block, module in enumerate(blocks):
        for place, path in enumerate(BLOCK[2:]):
            a: Any = module.get_submodule(path.rsplit(".")[-1])
            fill(a.a, ADAPTERS + 6 * block + place, deviation=1 / shape.rank)
    device = DeviceHalf(shape, blocks[: shape.cut])
    server = ServerHalf(shape, blocks[shape.cut :], last)
    return Halves(device, server, trained(device), trained(server))


def compiled(shape: Shape) -> Halves:
    """Compile both halves of the module written by hand."""
    halves = lean(shape)
    return Halves(
        torch.compile(halves.device),
        torch.compile(halves.server),
        halves.device_parameters,
        halves.server_parameters,
    )


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def step_of(shape: Shape, halves: Halves) -> Callable[[], float]:
    """Return the split step on the shape's images."""
    side = shape.config["image_size"]
    images = values(IMAGES, (shape.batch, shape.config["num_channels"], side, side), 0.0, 1.0)
    labels = torch.tensor([37 * i % shape.classes for i in range(shape.batch)])
    return split_step(halves, images, labels)


def split_step(halves: Halves, inputs: Tensor, labels: Tensor) -> Callable[[], float]:
    """Return the split step; gradients live from backward to update only."""
    device_sgd, server_sgd = (
        torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
        for parameters in (halves.device_parameters, halves.server_parameters)
    )

    def step() -> float:
        hidden = halves.device(inputs)
        received = hidden.detach().requires_grad_()
        loss = F.cross_entropy(halves.server(received), labels)
        loss.backward()
        server_sgd.step()
        server_sgd.zero_grad(set_to_none=True)
        hidden.backward(received.grad)
        device_sgd.step()
        device_sgd.zero_grad(set_to_none=True)
        return loss.item()

    return step


def resident() -> tuple[int, int]:
    """Return the resident set now and at most, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    now, peak = (1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    return now, peak


def answer(step: Callable[[], float]) -> None:
    """Answer each line of standard input with that many steps; as `answer` in src/train/peer.rs."""
    before, start_peak = resident()
    Path("/proc/self/clear_refs").write_text("5")
    for line in sys.stdin:
        wall_s, cpu_s, losses = [], [], []
        for _ in range(int(line)):
            wall, cpu = time.perf_counter(), time.process_time()
            losses.append(step())
            wall_s.append(time.perf_counter() - wall)
            cpu_s.append(time.process_time() - cpu)
        _, steps = resident()
        memory = {"before": before, "steps": steps, "process": max(steps, start_peak)}
        turn = {"wall_s": wall_s, "cpu_s": cpu_s, "losses": losses, "memory": memory}
        print(json.dumps(turn), flush=True)


def versions() -> str:
    """Name what this runs on."""
    import peft
    import transformers

    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, peft {peft.__version__}"
    )


VARIANTS = {"transformers": transformers_and_peft, "lean": lean, "compiled": compiled}

if __name__ == "__main__":
    if sys.argv[1] == "versions":
        print(versions())
        sys.exit()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    shape = Shape(**json.loads(sys.argv[2]))
    answer(step_of(shape, VARIANTS[sys.argv[1]](shape)))
