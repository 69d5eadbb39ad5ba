"""`sft.finetune` on texts: classes, and next tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft

TEXT_MODEL = Path(__file__).parents[2] / "sft-core" / "tests" / "fixtures" / "text" / "qwen2"


def test_a_language_model_is_tuned_from_files(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(TEXT_MODEL / name, tmp_path)
    vocabulary = {"?": 0, "yes": 5, "no": 9, "the": 40}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": model,
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    lines = [f"{word}\t{'the ' * (i % 5)}{word}\n" for i in range(24) for word in ("yes", "no")]
    for name in ("train.tsv", "test.tsv"):
        (tmp_path / name).write_text("".join(lines))
    arguments: dict[str, Any] = {
        "data": f"classify:{tmp_path / 'train.tsv'}",
        "test": f"classify:{tmp_path / 'test.tsv'}",
        "devices": 2,
        "cut": 1,
        "rank": 2,
        "lr": 0.01,
        "rounds": 6,
        "prompt": "the {text}",
        "class_words": ["no", "yes"],
    }
    run = sft.finetune(model=tmp_path, **arguments)
    assert run.rounds[-1].accuracy > 0.9
    assert run.rounds[-1].loss < run.rounds[0].loss
    with pytest.raises(ValueError, match=r"prompt must contain \{text\}"):
        sft.finetune(model=tmp_path, **arguments | {"prompt": "the"})
    with pytest.raises(FileNotFoundError, match=r"test: No such file"):
        sft.finetune(model=tmp_path, **arguments | {"test": "classify:nowhere.tsv"})


def test_a_language_model_learns_completions_and_says_them(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(TEXT_MODEL / name, tmp_path)
    vocabulary = {"?": 0, "</s>": 2, "yes": 5, "no": 9, "the": 40}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"}
    splitter = {"type": "WhitespaceSplit"}
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    end = {"id": 2, "content": "</s>", "special": True} | dict.fromkeys(flags, False)
    tokenizer = {"version": "1.0", "added_tokens": [end], "pre_tokenizer": splitter, "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    pairs = [("yes", "no"), ("no", "yes")]
    records = [
        {"prompt": f"{'the ' * (i % 5)}{word}", "completion": f" {other}"}
        for i in range(24)
        for word, other in pairs
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text(lines)
    arguments: dict[str, Any] = {
        "data": f"chat:{tmp_path / 'train.jsonl'}",
        "test": f"chat:{tmp_path / 'test.jsonl'}",
        "devices": 2,
        "cut": 1,
        "rank": 4,
        "lr": 0.02,
        "rounds": 8,
        "generate": 2,
        "max_new_tokens": 3,
        "out": tmp_path / "run",
    }
    run = sft.finetune(model=tmp_path, **arguments)
    first, last = run.rounds[0], run.rounds[-1]
    assert last.test_loss < 0.5 * first.test_loss
    assert last.perplexity == pytest.approx(np.exp(last.test_loss))
    assert "perplexity" in run.summary()
    assert [each.prompt for each in run.generated] == ["yes", "no"]
    assert [each.expected for each in run.generated] == ["no", "yes"]
    assert any(each.said for each in run.generated)
    assert sft.Run.load(tmp_path / "run" / "run.json") == (run,)
    text = {"data": f"text:{tmp_path / 'train.jsonl'}", "test": f"text:{tmp_path / 'test.jsonl'}"}
    packed = arguments | text | {"pack": True, "max_tokens": 8, "rounds": 1, "out": None}
    assert sft.finetune(model=tmp_path, **packed).rounds[0].perplexity
    with pytest.raises(ValueError, match="target_accuracy must be left out where next tokens"):
        sft.finetune(model=tmp_path, **arguments | {"target_accuracy": 0.5, "out": None})
    with pytest.raises(FileNotFoundError, match=r"data: No such file"):
        sft.finetune(model=tmp_path, **arguments | {"data": "chat:nowhere.jsonl"})
