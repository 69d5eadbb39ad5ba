"""Models that are cut in the tests, and what it is compared by."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import peft
import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

import sft

RAW = sft.Codec.raw()


IDS = torch.randint(1, 50, (2, 7), generator=torch.Generator().manual_seed(0))


MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])


LABELS = torch.tensor([0, 1])


SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}


TEXT: dict[str, Any] = {**SIZES, "intermediate_size": 64, "vocab_size": 50}


def images(size: int = 16) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def timm_vit() -> nn.Module:
    model: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, depth=3, num_classes=4, drop_rate=0.1
    )
    return model


def hf_vit() -> nn.Module:
    sizes: dict[str, Any] = {**SIZES, "image_size": 16, "patch_size": 4}
    config = transformers.ViTConfig(**sizes, intermediate_size=64, hidden_dropout_prob=0.1)
    return transformers.ViTForImageClassification(config)


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**TEXT))


def gpt2(kind: Any = transformers.GPT2LMHeadModel) -> nn.Module:
    special: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=2, vocab_size=50, **special)
    model: nn.Module = kind(config)
    return model


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**TEXT, num_key_value_heads=1)
    return transformers.LlamaForCausalLM(config)


def with_lora(model: nn.Module, targets: str | list[str]) -> nn.Module:
    config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
    wrapped: nn.Module = peft.get_peft_model(model, config)
    return wrapped


def resnet() -> nn.Module:
    model: nn.Module = timm.create_model("resnet18", num_classes=4)
    return model


def sequential() -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(768, 16), nn.Dropout(), nn.ReLU(), nn.Linear(16, 2))
    return nn.Sequential(*layers)


class Case(NamedTuple):
    """A model, its cut, its inputs, and the shapes of what passes unchanged."""

    build: Callable[[], nn.Module]
    point: str
    inputs: dict[str, Any]
    beside: Sequence[tuple[int, ...]] = ()


TOKENS = {"input_ids": IDS}


MASKED = {"input_ids": IDS, "attention_mask": MASK}


CASES = {
    "sequential": Case(sequential, "1", {"input": images()}),
    "sequential, before a ReLU": Case(sequential, "2", {"input": images()}),
    "timm ViT": Case(timm_vit, "blocks.1", {"x": images()}),
    "HF ViT": Case(hf_vit, "vit.layers.1", {"pixel_values": images()}),
    "HF ViT, loss": Case(
        hf_vit, "vit.layers.0", {"pixel_values": images(), "labels": LABELS}, [(2,)]
    ),
    "BERT": Case(bert, "bert.encoder.layer.1", TOKENS),
    "BERT, mask": Case(
        bert, "bert.encoder.layer.1", {**MASKED, "token_type_ids": 1 - MASK}, [(2, 7)]
    ),
    "GPT-2": Case(gpt2, "transformer.h.1", TOKENS),
    "GPT-2, mask": Case(gpt2, "transformer.h.0", {**MASKED, "use_cache": False}, [(2, 7)]),
    "GPT-2, pooled at the last token": Case(
        lambda: gpt2(transformers.GPT2ForSequenceClassification),
        "transformer.h.0",
        MASKED,
        [(2, 7), (2, 7)],
    ),
    "LLaMA": Case(llama, "model.layers.1", {**MASKED, "labels": IDS}, [(2, 7), (2, 7)]),
    "LLaMA, positions": Case(
        llama, "model.layers.0", {**TOKENS, "position_ids": torch.arange(7)[None] * 2}, [(1, 7)]
    ),
    "PEFT on timm ViT": Case(
        lambda: with_lora(timm_vit(), ["qkv", "proj", "fc1", "fc2"]), "blocks.1", {"x": images()}
    ),
    "PEFT on BERT": Case(
        lambda: with_lora(bert(), ["query", "value"]), "bert.encoder.layer.0", MASKED, [(2, 7)]
    ),
    "PEFT on LLaMA": Case(
        lambda: with_lora(llama(), "all-linear"), "model.layers.1", MASKED, [(2, 7)]
    ),
    "convolutions": Case(resnet, "layer2", {"x": images(64)}),
    "inside a residual": Case(resnet, "layer2.0.conv1", {"x": images(64)}, [(2, 64, 16, 16)]),
}


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def build(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build()


def loss_of(result: Any) -> Tensor:
    loss = getattr(result, "loss", None)
    if loss is not None:
        return loss  # type: ignore[no-any-return]
    logits: Tensor = getattr(result, "logits", result)
    return logits.square().mean()


def gradients(model: nn.Module) -> list[Tensor | None]:
    found = [p.grad for p in model.parameters()]
    model.zero_grad()
    return found


def assert_equal(left: list[Tensor | None], right: list[Tensor | None]) -> None:
    assert any(grad is not None for grad in left)
    for a, b in zip(left, right, strict=True):
        assert (a is None and b is None) or (a is not None and b is not None and a.equal(b))


def train_whole(model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, list[Tensor | None]]:
    """Run and differentiate a copy of a model, with the random numbers of seed 1."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    result = model(**inputs)
    loss_of(result).backward()
    return result, gradients(model)
