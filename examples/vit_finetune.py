"""Split LoRA fine-tuning over several devices in PyTorch: the job of `vit_finetune.rs`.

The device half and the server half of a vision transformer carry LoRA adapters of PEFT; what
crosses the cut is compressed. After each round adapters and head are averaged (Algorithm 1).

    python examples/vit_finetune.py             # needs torch, transformers and peft
"""

import argparse
import json
from typing import Any

import digits
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import sft.torch as st

State = dict[str, Tensor]


def wrap(model: nn.Module, rank: int) -> nn.Module:
    """Put LoRA on every linear layer of the blocks; the head is trained in full."""
    linears = r".*layers\.\d+\..*\.(q_proj|k_proj|v_proj|o_proj|fc1|fc2)"
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=linears, modules_to_save=["classifier"]
    )
    wrapped: nn.Module = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_A" in name:
            nn.init.normal_(parameter, std=1 / rank)
    return wrapped


def trained(model: nn.Module) -> State:
    """Copy what fine-tuning changes."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def restore(model: nn.Module, state: State) -> None:
    """Put back what `trained` copied."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(state[name])


def average(states: list[tuple[State, int]]) -> State:
    """Average by the number of samples (7-8)."""
    total = sum(samples for _, samples in states)
    names = states[0][0]
    return {n: sum((s[n] * (k / total) for s, k in states), torch.zeros(())) for n in names}


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Test accuracy of the whole model, the codec off."""
    model.eval()
    hits = model(images).logits.argmax(-1) == labels
    model.train()
    return float(hits.float().mean())


def finetune(
    *,
    rounds: int = 8,
    devices: int = 8,
    batch: int = 16,
    rank: int = 8,
    raw: bool = False,
    seed: int = 1,
) -> dict[str, Any]:
    """Run Algorithm 1 and return the accuracy after each round, and the traffic."""
    (images, labels), test = digits.load()
    model = wrap(digits.base_model(seed), rank)
    device_model, server_model = st.split(model, after="vit.layers.1")
    cuts = [
        st.Cut("raw", "raw") if raw else st.Cut.of_tokens(grid=digits.GRID, seed=seed, rank=n)
        for n in range(devices)
    ]
    shards = torch.randperm(len(labels)).chunk(devices)
    shared, accuracies = trained(model), []
    for number in range(rounds):
        states = []
        for cut, shard in zip(cuts, shards, strict=True):
            cut.bases = cuts[0].bases  # learnt once by the server, sent once to each device
            restore(model, shared)
            rate = 3e-3 * 0.998**number
            opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], rate)
            for local in shard[torch.randperm(len(shard))].split(batch):
                h = cut(device_model(images[local]), samples=local)
                logits = server_model(h).logits
                nn.functional.cross_entropy(logits, labels[local]).backward()
                opt.step()
                opt.zero_grad()
            states.append((trained(model), len(shard)))
        shared = average(states)
        restore(model, shared)
        accuracies.append(accuracy(model, *test))
    up, down = (sum(getattr(c.traffic, way).bytes for c in cuts) for way in ("up", "down"))
    whole = sum(c.traffic.up.raw_bytes + c.traffic.down.raw_bytes for c in cuts)
    ratio = whole / (up + down)
    return {"accuracy": accuracies, "up_bytes": up, "down_bytes": down, "ratio": ratio}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8, help="rounds [T]")
    parser.add_argument("--raw", action="store_true", help="compress nothing")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random")
    print(json.dumps(finetune(**vars(parser.parse_args()))))
