"""PyTorch's side of train_peers.rs for text models: the same split LoRA step on the same files.

    python benches/text_peers.py SHAPE

SHAPE is the JSON of `TextShape` in src/train/text.rs; the model is a GGUF file or a Hugging Face
folder. Lines on standard input are answered as by train_peers.py.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from train_peers import ADAPTERS, HEAD, Halves, answer, fill, split_step, trained
from transformers import AutoModel, PreTrainedModel

# The adapted linears of a block in the order of the adapter vector.
DECODER = (
    *(f"self_attn.{part}_proj" for part in ("q", "k", "v", "o")),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
)
ENCODER = (
    *(f"attention.self.{part}" for part in ("query", "key", "value")),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def base_model(path: Path) -> PreTrainedModel:
    """Read a model without a head."""
    if path.is_dir():
        model: PreTrainedModel = AutoModel.from_pretrained(path, dtype=torch.float32)
        return model
    model = AutoModel.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model


def halves(shape: dict[str, Any], mask: Tensor) -> Halves:
    """Split the model, adapted by PEFT, at the hidden state."""
    base = base_model(Path(shape["model"]))
    decoder = hasattr(base, "layers")
    paths = DECODER if decoder else ENCODER
    # By their whole paths: a pooler has a dense layer too.
    root = "layers" if decoder else "encoder.layer"
    targets = rf"{root}\.\d+\.({'|'.join(path.replace('.', chr(92) + '.') for path in paths)})"
    rank = shape["rank"]
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets)
    model: Any = get_peft_model(base, lora).base_model.model
    layers = model.layers if decoder else model.encoder.layer
    for block, layer in enumerate(layers):
        for place, path in enumerate(paths):
            a = layer.get_submodule(path).lora_A["default"].weight
            fill(a, ADAPTERS + len(paths) * block + place, deviation=1 / rank)
    # Without dropout, as our side.
    model.eval()
    head = new_head(shape["classes"], base, decoder)
    device, server = (decoder_halves if decoder else encoder_halves)(
        model, head, shape["cut"], mask
    )
    low, high = nn.ModuleList(layers[: shape["cut"]]), nn.ModuleList(layers[shape["cut"] :])
    return Halves(device, server, trained(low), trained(high) + (trained(head) if head else []))


def new_head(classes: int, base: Any, decoder: bool) -> nn.Linear | None:
    """Return a head for classes; none where the model's own tells the next tokens."""
    if classes == 0:
        return None
    head = nn.Linear(base.config.hidden_size, classes, bias=not decoder)
    fill(head.weight, HEAD)
    if not decoder:
        nn.init.zeros_(head.bias)
    return head


def decoder_halves(model: Any, head: nn.Linear | None, cut: int, mask: Tensor) -> tuple[Any, Any]:
    """Halves of a decoder on samples of one length, read at their last token."""
    assert bool(mask.all()), "samples of one length"
    positions = torch.arange(mask.shape[1])[None]

    def run(hidden: Tensor, layers: Any) -> Tensor:
        turns = model.rotary_emb(hidden, position_ids=positions)
        for layer in layers:
            hidden = layer(hidden, position_embeddings=turns, position_ids=positions)
        return hidden

    def device(ids: Tensor) -> Tensor:
        return run(model.embed_tokens(ids), model.layers[:cut])

    def server(hidden: Tensor) -> Tensor:
        hidden = run(hidden, model.layers[cut:])
        if head is None:
            # The head of these models is the embedding.
            logits: Tensor = F.linear(model.norm(hidden), model.embed_tokens.weight).flatten(0, 1)
            return logits
        logits = head(model.norm(hidden[:, -1]))
        return logits

    return device, server


def encoder_halves(model: Any, head: nn.Linear | None, cut: int, mask: Tensor) -> tuple[Any, Any]:
    """Halves of an encoder, read at the first token behind its pooler."""
    assert head is not None, "an encoder tells no next tokens"
    visible = None if bool(mask.all()) else mask[:, None, None].bool()

    def run(hidden: Tensor, layers: Any) -> Tensor:
        for layer in layers:
            hidden = layer(hidden, visible)
        return hidden

    def device(ids: Tensor) -> Tensor:
        return run(model.embeddings(ids), model.encoder.layer[:cut])

    def server(hidden: Tensor) -> Tensor:
        logits: Tensor = head(model.pooler(run(hidden, model.encoder.layer[cut:])))
        return logits

    return device, server


def main() -> None:
    """Answer with steps of the shape named on the command line."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    shape = json.loads(sys.argv[1])
    samples = [torch.tensor(ids) for ids in shape["samples"]]
    ids = nn.utils.rnn.pad_sequence(samples, batch_first=True)
    lengths = torch.tensor([len(sample) for sample in samples])
    mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()
    if shape["classes"] == 0:
        ids, mask, labels = ids[:, :-1], mask[:, 1:], ids[:, 1:].flatten()
    else:
        labels = torch.arange(len(samples)) % shape["classes"]
    answer(split_step(halves(shape, mask), ids, labels))


if __name__ == "__main__":
    main()
