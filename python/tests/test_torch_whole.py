"""What only a whole model has is refused by its halves."""

import inspect
from typing import Any

import pytest
import torch
import transformers
from split_models import CASES, IDS, TEXT, build
from torch import Tensor, nn

import sft.torch as st

RECORDED = ("output_hidden_states", "output_attentions")


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize("name", ["cache", "past_key_values", "use_cache", *RECORDED])
def test_what_only_a_whole_model_has_is_refused(name: str, peft: bool) -> None:
    model: Any = build(CASES["PEFT on LLaMA" if peft else "LLaMA"])
    device_model, server_model = st.split(model, after="model.layers.1")
    with pytest.raises(ValueError, match=f"{name} is for whole models: .*put the cut in by attach"):
        device_model(input_ids=IDS, **{name: True})
    inner = model.get_base_model() if peft else model
    unasked: dict[str, Any] = {name: False if name == "use_cache" else None}
    if name not in RECORDED and name not in inspect.signature(inner.forward).parameters:
        unasked = {}  # the name of another version of Transformers
    assert server_model(device_model(input_ids=IDS, **unasked)).logits.shape == (2, 7, 50)
    if name in RECORDED:
        inner.set_attn_implementation("eager")  # the others return no attention
        setattr(inner.config, name, True)
        with pytest.raises(ValueError, match=f"{name} is for whole models"):
            device_model(input_ids=IDS)
        device_model(input_ids=IDS, **{name: False})


@pytest.mark.parametrize("name", ["LLaMA", "GPT-2", "BERT", "PEFT on LLaMA"])
def test_a_cache_is_refused_by_any_name_and_in_any_place(name: str) -> None:
    model: Any = build(CASES[name])
    device_model, _ = st.split(model, after=CASES[name].point)
    cache = transformers.DynamicCache()
    with pytest.raises(ValueError, match="another is for whole models: a cache has keys"):
        device_model(input_ids=IDS, another=cache)
    if "BERT" in name or "PEFT" in name:
        return
    order = list(inspect.signature(model.forward).parameters)
    declared = next(p for p in order if p in ("cache", "past_key_values"))
    before = order[: order.index(declared)]
    with pytest.raises(ValueError, match=f"{declared} is for whole models: a cache has keys"):
        device_model(*[IDS if p == "input_ids" else None for p in before], cache)


def test_router_logits_are_recorded_of_all_layers() -> None:
    sizes: dict[str, Any] = {**TEXT, "num_key_value_heads": 1, "num_local_experts": 2}
    model: Any = transformers.MixtralForCausalLM(transformers.MixtralConfig(**sizes))
    model.bfloat16()  # PyTorch 2.10 follows the experts in no other type
    device_model, server_model = st.split(model, after="model.layers.1")
    message = "output_router_logits is for whole models: what the layers before the cut give"
    with pytest.raises(ValueError, match=message):
        device_model(input_ids=IDS, output_router_logits=True)
    assert torch.equal(server_model(device_model(input_ids=IDS)).logits, model(IDS).logits)
    model.config.output_router_logits = True
    with pytest.raises(ValueError, match=message):
        device_model(input_ids=IDS)


class PastCache:
    """A cache that is not of Transformers."""


def test_a_cache_is_what_the_signature_declares_as_one() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, cache: float = 1.0, seen: PastCache | None = None) -> Tensor:
            out: Tensor = self.last(self.first(x) * cache)
            return out

    model, x = Caching(), torch.randn(3, 4)
    device_model, server_model = st.split(model, after="first")
    assert torch.equal(server_model(device_model(x, cache=2.0)), model(x, 2.0))
    assert torch.equal(server_model(device_model(x, 2.0, None)), model(x, 2.0))
    with pytest.raises(ValueError, match="seen is for whole models: a cache has keys"):
        device_model(x, 2.0, PastCache())
    with pytest.raises(ValueError, match="seen is for whole models: a cache has keys"):
        device_model(x, seen=[])
