"""The digits and the small pre-trained vision transformer of the examples, in PyTorch."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ViTForImageClassification

DATA = Path(__file__).parent / "data"
CLASSES = 10
GRID = (4, 4)
"""Tokens of an image, behind the class token."""


def load() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return images ``[N, 1, 8, 8]`` and labels ``[N]`` for training and for the test."""
    records = np.fromfile(DATA / "digits.bin", np.uint8).reshape(-1, 65)
    images = torch.from_numpy(records[:, 1:]).view(-1, 1, 8, 8) / 16
    images, labels = (images - 0.5) / 0.5, torch.from_numpy(records[:, 0]).long()
    test = torch.arange(len(labels)) % 5 == 4
    return (images[~test], labels[~test]), (images[test], labels[test])


def base_model(seed: int = 1) -> ViTForImageClassification:
    """Return the transformer that was pre-trained on turned digits, with a new head."""
    torch.manual_seed(seed)
    model = ViTForImageClassification.from_pretrained(
        DATA / "digits_vit", num_labels=CLASSES, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    head: Any = model.classifier
    torch.nn.init.normal_(head.weight, std=0.02)
    torch.nn.init.zeros_(head.bias)
    return model
