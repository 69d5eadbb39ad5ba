"""Texts: what a run writes, read by real PEFT and Transformers, and folders of PEFT's read by a run."""

import json
from pathlib import Path
from typing import Any

import pytest

import sft

peft = pytest.importorskip("peft", reason="peft is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")

FIXTURES = Path(__file__).parents[2] / "sft-core" / "tests" / "fixtures" / "text"
WORDS = ["yes", "no", "the", "far", "near", "tree", "house", "river"]
TEXTS = ["yes the tree", "no far river the near house", "the", "far far no", "yes river"]
LABELS = ["a", "b", "c", "b", "a"]

pytestmark = [
    pytest.mark.skipif(
        int(transformers.__version__.split(".")[0]) < 5, reason="needs transformers 5"
    ),
    pytest.mark.filterwarnings("ignore"),
]


def folder(path: Path, family: str) -> Path:
    """Copy a fixture's model, with a tokenizer of words whose padding is no word."""
    for name in ("config.json", "model.safetensors"):
        (path / name).write_bytes((FIXTURES / family / name).read_bytes())
    vocabulary = {"[PAD]": 1, "[UNK]": 0} | {word: i + 3 for i, word in enumerate(WORDS)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    rows = zip(LABELS, TEXTS, strict=True)
    (path / "train.tsv").write_text("".join(f"{label}\t{text}\n" for label, text in rows))
    return path


def run(path: Path, **settings: Any) -> sft.Run:
    data = f"classify:{path / 'train.tsv'}"
    defaults: dict[str, Any] = {
        "rounds": 2,
        "cut": 1,
        "devices": 1,
        "rank": 3,
        "alpha": 7.0,
        "lr": 0.05,
        "scheme": "sft-raw",
    }
    return sft.finetune(model=path, data=data, test=data, **defaults | settings)


def loss_of(path: Path, adapters: Path, targets: str) -> float:
    """Return the loss of a folder's adapters: that of a first step, which hardly moves."""
    tuned = run(path, adapters=adapters, targets=targets, rounds=1, lr=1e-12)
    return tuned.rounds[0].loss


def logits_of(model: Any, tokenizer: Any) -> Any:
    inputs = tokenizer(TEXTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        return model.eval()(**inputs).logits


def loss(logits: Any) -> float:
    classes = torch.tensor([sorted(set(LABELS)).index(label) for label in LABELS])
    return float(torch.nn.functional.cross_entropy(logits, classes))


def base(path: Path, pad: int = 1) -> Any:
    auto = transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(path, num_labels=3, ignore_mismatched_sizes=True)
    model.config.pad_token_id = pad
    return model


FAMILIES = {
    "llama": "q_proj,gate_proj,down_proj",
    "qwen3": "all-linear",
    "gemma3": "k_proj,o_proj",
    "gpt2": "c_attn,mlp.c_proj",
    "bert": "query,attention.output.dense",
    "roberta": "query,intermediate.dense",
    "distilbert": "q_lin,lin2",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_and_transformers_give_the_logits_of_a_run(family: str, tmp_path: Path) -> None:
    path, targets = folder(tmp_path, family), FAMILIES[family]
    run(path, targets=targets, out=tmp_path / "run", merged=True)
    adapters, merged = tmp_path / "run" / "adapters", tmp_path / "run" / "merged"
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
    tuned = peft.PeftModel.from_pretrained(base(path), adapters)
    parts = [value for name, value in tuned.named_parameters() if "lora_B" in name]
    assert parts
    assert all(value.abs().max() > 0 for value in parts)
    by_peft = logits_of(tuned, tokenizer)
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(merged)
    assert whole.config.id2label == {i: f"LABEL_{i}" for i in range(3)}
    assert (logits_of(whole, tokenizer) - by_peft).abs().max() < 1e-4 * by_peft.abs().max()
    assert loss_of(path, adapters, targets) == pytest.approx(loss(by_peft), rel=1e-4)


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "gpt2"])
def test_a_tuned_language_model_is_one_in_transformers(family: str, tmp_path: Path) -> None:
    path = folder(tmp_path, family)
    settings = json.loads((path / "tokenizer_config.json").read_text()) | {"eos_token": "[PAD]"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    (path / "lines.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    data = f"text:{path / 'lines.txt'}"
    more: dict[str, Any] = {
        "devices": 1,
        "rank": 3,
        "lr": 0.05,
        "scheme": "sft-raw",
        "merged": True,
    }
    run = sft.finetune(model=path, data=data, test=data, cut=1, rounds=2, out=path / "run", **more)
    adapters, merged = path / "run" / "adapters", path / "run" / "merged"
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(merged)
    auto = transformers.AutoModelForCausalLM
    tuned = peft.PeftModel.from_pretrained(auto.from_pretrained(path), adapters)
    whole = auto.from_pretrained(merged)
    losses, count = torch.zeros(2), 0
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt", return_token_type_ids=False)["input_ids"]
        ids = torch.cat((ids, torch.tensor([[tokenizer.eos_token_id]])), 1)
        tokens = ids.shape[1] - 1
        with torch.no_grad():
            both = [model.eval()(ids, labels=ids).loss for model in (tuned, whole)]
        losses, count = losses + tokens * torch.stack(both), count + tokens
    expected = run.rounds[-1].test_loss
    assert (losses / count).tolist() == pytest.approx([expected, expected], rel=1e-4)


SAVED = {"roberta": ["classifier"], "distilbert": ["pre_classifier", "classifier"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_starts_from_what_peft_saved(family: str, tmp_path: Path) -> None:
    path, targets = folder(tmp_path, family), FAMILIES[family]
    head = "classifier" if family == "bert" else "score"
    config = peft.LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets if targets == "all-linear" else targets.split(","),
        modules_to_save=SAVED.get(family, [head]),
    )
    torch.manual_seed(1)
    tuned = peft.get_peft_model(base(path), config)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3)
    tuned.save_pretrained(tmp_path / "theirs")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    wanted = loss(logits_of(tuned, tokenizer))
    assert loss_of(path, tmp_path / "theirs", targets) == pytest.approx(wanted, rel=1e-4)


def test_devices_with_ranks_of_their_own(tmp_path: Path) -> None:
    path = folder(tmp_path, "qwen3")
    apart: dict[str, Any] = {"devices": 2, "device_ranks": [1, 3], "out": tmp_path / "run"}
    with pytest.raises(ValueError, match="aggregation must be product where ranks differ"):
        run(path, **apart)
    run(path, **apart, aggregation="product")
    config = json.loads((tmp_path / "run" / "adapters" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 7.0)
    tuned = peft.PeftModel.from_pretrained(base(path), tmp_path / "run" / "adapters")
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    wanted = loss(logits_of(tuned, tokenizer))
    assert loss_of(path, tmp_path / "run" / "adapters", "all-linear") == pytest.approx(
        wanted, rel=1e-4
    )
