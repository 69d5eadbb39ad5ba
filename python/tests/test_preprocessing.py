"""A merged model in transformers sees the images that its accuracy was measured on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

SIDE = 16


def wide_images(folder: Path) -> None:
    """Write images twice as wide as high whose class is at their outer ends, beside noise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 40)):
        for label in range(2):
            (folder / part / f"class{label}").mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (30, 60, 3), dtype=np.uint8)
                ends = np.r_[0:12, 48:60]
                pixels[:, ends] = pixels[:, ends] // 2 + 90 * label
                Image.fromarray(pixels).save(folder / part / f"class{label}" / f"{i}.png")


@pytest.mark.parametrize(
    "processor",
    [
        None,
        {"size": {"height": SIDE, "width": SIDE}, "resample": 2},
        {"size": SIDE, "resample": 3},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 20},
            "resample": 3,
            "crop_size": {"height": SIDE, "width": SIDE},
        },
    ],
)
def test_a_merged_model_reaches_its_accuracy_in_transformers(
    tmp_path: Path, processor: dict[str, Any] | None
) -> None:
    wide_images(tmp_path / "data")
    torch.manual_seed(1)
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=SIDE,
        patch_size=4,
        num_labels=2,
    )
    base = tmp_path / "base"
    transformers.ViTForImageClassification(config).save_pretrained(base)
    if processor is not None:
        values = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.1]}
        kind = processor.get("image_processor_type", "ViTImageProcessor")
        getattr(transformers, kind)(**values | processor).save_pretrained(base)
    run = sft.finetune(
        model=base / "model.safetensors",
        data=f"folder:{tmp_path / 'data'}",
        scheme="fl-full",
        devices=2,
        rounds=2,
        out=tmp_path / "out",
        merged=True,
        progress=False,
    )
    merged = tmp_path / "out" / "merged"
    model = transformers.ViTForImageClassification.from_pretrained(merged).eval()
    prepare = transformers.AutoImageProcessor.from_pretrained(merged)
    right = []
    for label in range(2):
        for file in sorted((tmp_path / "data" / "test" / f"class{label}").iterdir()):
            with torch.no_grad():
                logits = model(**prepare(Image.open(file), return_tensors="pt")).logits
            right.append(int(logits.argmax()) == label)
    # One image may lie so close to the border that a level of rounding decides.
    assert abs(np.mean(right) - run.accuracy[-1]) <= 1 / len(right) + 1e-9
