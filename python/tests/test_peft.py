"""The folders of the Rust tests, read by real PEFT: the same logits."""

from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parents[2] / "sft-core" / "tests" / "fixtures"

peft = pytest.importorskip("peft", reason="peft is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")


def saved(folder: str) -> Any:
    return safetensors.load_file(FIXTURES / folder / "adapter_model.safetensors")


# transformers 5 names its modules as `peft_saved` does; make_peft.py wrote `peft` itself. Those
# called outer have adapters on the patch embedding and the head. The frozen head under the saved
# one is new: real PEFT finds it in the folder.
@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) < 5, reason="needs transformers 5")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("folder", "classes"),
    [
        ("peft_saved", 5),
        ("peft_saved_outer", 5),
        ("peft_saved_frozen", 5),
        ("peft", 7),
        ("peft_outer", 7),
    ],
)
def test_real_peft_gives_the_logits_of_the_rust_model(folder: str, classes: int) -> None:
    model = transformers.ViTForImageClassification.from_pretrained(
        FIXTURES / "hugging_face", num_labels=classes, ignore_mismatched_sizes=True
    )
    tuned = peft.PeftModel.from_pretrained(model, FIXTURES / folder).eval()
    images = safetensors.load_file(FIXTURES / "hugging_face" / "expected.safetensors")["images"]
    expected = safetensors.load_file(FIXTURES / folder / "expected.safetensors")["logits"]
    with torch.no_grad():
        logits = tuned(images).logits
        bare = tuned.get_base_model()
    assert (logits - expected).abs().max().item() < 1e-5
    adapters = [p for name, p in bare.named_parameters() if "lora_B" in name]
    assert adapters
    assert len(adapters) == sum("lora_B" in name for name in saved(folder))
    assert all(parameter.abs().max() > 0 for parameter in adapters)
