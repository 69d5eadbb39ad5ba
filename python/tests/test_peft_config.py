"""PEFT's settings, every one of them: the logits of real PEFT, or an error that names the setting.

A folder goes the way of a user: `sft.finetune` starts from it, here with a learning rate that moves
nothing, and what it merges is compared with what PEFT loads from the same folder.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft

peft = pytest.importorskip("peft", reason="peft is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

BASE = Path(__file__).parents[2] / "sft-core" / "tests" / "fixtures" / "hugging_face"
CLASSES, DEPTH, RANK, ALPHA = 7, 2, 4, 6
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]

pytestmark = [
    pytest.mark.skipif(
        int(transformers.__version__.split(".")[0]) < 5, reason="needs transformers 5"
    ),
    pytest.mark.filterwarnings("ignore"),
]

# What must give PEFT's logits: values of a setting, with what else it needs.
HONOURED: list[tuple[str, Any, dict[str, Any]]] = [
    ("task_type", "FEATURE_EXTRACTION", {}),
    ("auto_mapping", {"parent_library": "elsewhere"}, {}),
    ("peft_version", "0.1.0", {}),
    ("base_model_name_or_path", "elsewhere", {}),
    ("revision", "main", {}),
    ("inference_mode", True, {}),
    ("r", 2, {}),
    ("lora_alpha", 11, {}),
    ("lora_dropout", 0.3, {}),
    ("target_modules", ["q_proj", "fc2"], {}),
    ("target_modules", "all-linear", {}),
    ("target_modules", r".*\.(q_proj|fc2)", {}),
    ("target_modules", [*LINEARS, "projection", "classifier"], {"modules_to_save": None}),
    ("exclude_modules", ["fc1", "k_proj"], {}),
    ("exclude_modules", r".*\.fc1", {}),
    ("modules_to_save", None, {}),
    ("bias", "none", {}),
    ("init_lora_weights", True, {}),
    ("init_lora_weights", False, {}),
    ("init_lora_weights", "gaussian", {}),
    ("init_lora_weights", "orthogonal", {}),
    ("init_lora_weights", "eva", {}),
    ("layers_to_transform", list(range(DEPTH)), {}),
    ("layers_pattern", "layers", {"layers_to_transform": list(range(DEPTH))}),
    ("megatron_core", "elsewhere", {}),
    ("qalora_group_size", 32, {}),
]
# And what must be refused; PEFT cannot make all of them for this model.
REFUSED: list[tuple[str, Any]] = [
    ("peft_type", "IA3"),
    ("r", "4"),
    ("r", 4.0),
    ("r", -4),
    ("r", True),
    ("r", None),
    ("lora_alpha", "6"),
    ("lora_alpha", None),
    ("lora_dropout", "0.1"),
    ("fan_in_fan_out", True),
    ("bias", "all"),
    ("bias", "lora_only"),
    ("bias", True),
    ("use_rslora", True),
    ("init_lora_weights", "pissa"),
    ("init_lora_weights", "pissa_niter_16"),
    ("init_lora_weights", "olora"),
    ("init_lora_weights", "OLoRA"),
    ("init_lora_weights", "corda"),
    ("init_lora_weights", "loftq"),
    ("init_lora_weights", "lora_ga"),
    ("init_lora_weights", "what comes next"),
    ("init_lora_weights", 1),
    ("layers_to_transform", [0]),
    ("layers_to_transform", 0),
    ("target_modules", ["q_proj"]),
    ("exclude_modules", ["q_proj"]),
    ("rank_pattern", {"q_proj": 2}),
    ("alpha_pattern", {"q_proj": 2}),
    ("alpha_pattern", {f"layers.{i}.q_proj": i for i in range(100)}),
    ("megatron_config", {"hidden_size": 24}),
    ("trainable_token_indices", [1]),
    ("trainable_token_indices", {"embed_tokens": [0]}),
    ("use_dora", True),
    ("use_dora", 1),
    ("use_dora", "true"),
    ("velora_config", {"rank": 1}),
    ("alora_invocation_tokens", [1, 2]),
    ("use_qalora", True),
    ("monteclora_config", {"num_samples": 8}),
    ("layer_replication", [[0, 2], [1, 2]]),
    ("lora_bias", True),
    ("target_parameters", ["experts.down_proj"]),
    ("use_bdlora", {"nblocks": 2}),
    ("arrow_config", {"top_k": 3}),
    ("kasa_config", {"beta": 0.1}),
    ("ensure_weight_tying", True),
    ("use_what_comes_next", True),
    ("next_config", {"size": 1}),
    ("next_size", 16),
]
# Settings of initial values, which the tensors replace; without `init_lora_weights` PEFT ignores them.
INERT = ["eva_config", "corda_config", "lora_ga_config", "loftq_config", "runtime_config"]


def adapted(folder: Path, **settings: Any) -> Any:
    """Have PEFT write a folder with random A and B, and load the model from it again."""
    torch.manual_seed(1)
    base = transformers.ViTForImageClassification.from_pretrained
    defaults = {"r": RANK, "lora_alpha": ALPHA, "target_modules": LINEARS}
    defaults["modules_to_save"] = ["classifier"]
    tuned = peft.get_peft_model(base(BASE), peft.LoraConfig(**defaults | settings))
    tuned.save_pretrained(folder / "initial")
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    tuned.save_pretrained(folder)
    return peft.PeftModel.from_pretrained(base(BASE), folder).eval()


def merged(folder: Path, **arguments: Any) -> Any:
    """Return the model that `sft` makes of the folder."""
    generator = np.random.default_rng(1)
    images = generator.standard_normal((2 * CLASSES, 12, 12, 3), np.float32)
    data = (images, np.arange(2 * CLASSES) % CLASSES)
    settings = json.loads((folder / "adapter_config.json").read_text())
    defaults = {"alpha": settings["lora_alpha"], "rank": settings["r"]}
    sft.finetune(
        model=BASE / "model.safetensors",
        adapters=folder,
        data=data,
        test=data,
        **defaults | arguments,
        cut=1,
        lr=1e-12,
        adapter_codec=None,
        rounds=1,
        devices=1,
        merged=True,
        out=folder / "out",
        progress=False,
    )
    return transformers.ViTForImageClassification.from_pretrained(folder / "out" / "merged").eval()


def difference(ours: Any, theirs: Any) -> float:
    images = safetensors.load_file(BASE / "expected.safetensors")["images"]
    with torch.no_grad():
        return float((ours(images).logits - theirs.get_base_model()(images).logits).abs().max())


def known(name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(peft.LoraConfig)}


def test_every_setting_of_peft_is_tried() -> None:
    tried = {name for name, *_ in [*HONOURED, *REFUSED]} | {*INERT}
    assert {field.name for field in dataclasses.fields(peft.LoraConfig)} <= tried


@pytest.mark.parametrize(("name", "value", "others"), HONOURED)
def test_a_setting_gives_the_logits_of_peft(
    tmp_path: Path, name: str, value: Any, others: dict[str, Any]
) -> None:
    if not known(name):
        pytest.skip(f"this PEFT has no {name}")
    theirs = adapted(tmp_path, **{name: value}, **others)
    targets = {
        layer.split(".")[-1] for layer, part in theirs.named_modules() if hasattr(part, "lora_A")
    }
    assert difference(merged(tmp_path, targets=sorted(targets)), theirs) < 1e-5


@pytest.mark.parametrize("layers", [[1], 1])
def test_the_first_blocks_may_have_no_adapters(tmp_path: Path, layers: Any) -> None:
    theirs = adapted(tmp_path, layers_to_transform=layers)
    assert difference(merged(tmp_path, device_adapters="none"), theirs) < 1e-5


@pytest.mark.parametrize("name", INERT)
def test_settings_of_initial_values_change_nothing(tmp_path: Path, name: str) -> None:
    theirs = adapted(tmp_path)
    edit(tmp_path, name, {"rho": 2.0})
    assert difference(merged(tmp_path), theirs) < 1e-5


def edit(folder: Path, name: str, value: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("plain")
    adapted(folder)
    return folder


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_would_compute_something_else_is_refused_by_name(
    plain: Path, name: str, value: Any
) -> None:
    path = plain / "adapter_config.json"
    before = path.read_text()
    edit(plain, name, value)
    try:
        with pytest.raises(OSError, match=rf"adapter_config.json: .*\b{name}\b") as caught:
            merged(plain, alpha=ALPHA, rank=RANK)
    finally:
        path.write_text(before)
    if name not in ("target_modules", "exclude_modules"):
        assert json.dumps(value, separators=(",", ":"), sort_keys=True)[:100] in str(caught.value)
    assert len(str(caught.value)) < 800
    assert not (plain / "out").exists()


@pytest.mark.parametrize("initial", ["pissa", "olora"])
def test_changed_frozen_weights_are_refused_until_peft_converts_them(
    tmp_path: Path, initial: str
) -> None:
    """PEFT changes the frozen weights again as it loads such a folder; it converts adapters alone."""
    kept, converted = tmp_path / "kept", tmp_path / "converted"
    theirs = adapted(kept, init_lora_weights=initial, modules_to_save=None)
    with pytest.raises(OSError, match=f'init_lora_weights must be .*, got "{initial}"'):
        merged(kept)
    theirs.save_pretrained(
        converted, path_initial_model_for_weight_conversion=str(kept / "initial")
    )
    assert difference(merged(converted), theirs) < 1e-4
