"""The trainer from Python: data in, rounds out, Ctrl-C."""

import _thread
import copy
import dataclasses
import inspect
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft
from sft import _sft

DATA = Path(__file__).parents[2] / "examples" / "data"
RESULTS = DATA.parent / "results"
MODEL = DATA / "digits_vit" / "model.safetensors"


def digits() -> dict[str, Any]:
    records = np.fromfile(DATA / "digits.bin", np.uint8).reshape(-1, 65)
    images, labels = records[:, 1:].reshape(-1, 8, 8), records[:, 0]
    test = np.arange(len(records)) % 5 == 4
    return {
        "data": (images[~test], labels[~test]),
        "test": (images[test], labels[test]),
        "full": 16,
    }


def few(count: int = 64) -> dict[str, Any]:
    all_digits = digits()
    for name in ("data", "test"):
        images, labels = all_digits[name]
        all_digits[name] = images[:count], labels[:count]
    return all_digits | {"devices": 2, "rounds": 2, "progress": False}


def far(label: int) -> Any:
    """Images of which one has a label that is no class."""
    images, labels = few()["data"]
    labels = labels.astype(np.int64)
    labels[7] = label
    return images, labels


def test_rounds_equal_those_of_the_committed_run() -> None:
    """The program's own, bytes and accuracy: same data, defaults and seed."""
    run = sft.finetune(model=MODEL, **digits(), rounds=2, progress=False)
    committed, *_ = sft.Run.load(RESULTS / "run.json")
    for ours, theirs in zip(run.rounds, committed.rounds, strict=False):
        assert ours.bytes == theirs.bytes
        assert ours.accuracy == theirs.accuracy
        assert ours.delay_s == pytest.approx(theirs.delay_s, rel=1e-12)
    assert run.device_memory_bytes == committed.device_memory_bytes
    assert run.accuracy[-1] > 0.8


def test_adapters_cross_as_the_codec_says() -> None:
    def adapters(codec: Any) -> list[int]:
        run = sft.finetune(model=MODEL, adapter_codec=codec, **few())
        assert run.settings["adapter_codec"] == ("raw" if codec is None else str(codec))
        return [one.adapter_bytes_up + one.adapter_bytes_down for one in run.rounds]

    raw, coded = adapters(None), adapters(sft.Codec.default_adapter())
    assert raw[0] == raw[1] > 10 * coded[1] > 0
    assert coded[0] > 2 * coded[1], "the whole, then differences"
    assert adapters("unbiased:2") == coded
    assert adapters("error:0.001")[1] > 2 * coded[1]
    with pytest.raises(ValueError, match=r"adapter_codec .*zip"):
        sft.finetune(model=MODEL, adapter_codec="zip", **few())
    with pytest.raises((ValueError, TypeError), match="adapter_codec"):
        sft.finetune(model=MODEL, adapter_codec=3, **few())  # type: ignore[arg-type]


def test_progress_is_told_and_a_run_survives_its_file(tmp_path: Path) -> None:
    told: list[sft.Round] = []
    arguments = few() | {"progress": told.append, "out": tmp_path}
    raw: dict[str, Any] = {"activation": None, "gradient": None, "adapter_codec": None}
    run = sft.finetune(model=MODEL, **raw, **arguments)
    assert tuple(told) == run.rounds
    assert sft.Run.load(tmp_path / "run.json") == (run,)
    assert json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())["r"] == 8
    same = sft.finetune(model=MODEL, scheme="sft-raw", **few())
    assert same.accuracy.tolist() == run.accuracy.tolist()
    assert "acc" in run.summary()
    assert "<table>" in run._repr_html_()
    more = sft.finetune(model=MODEL, adapters=tmp_path / "adapters", **few())
    assert more.rounds[0].loss < run.rounds[0].loss


def test_float_images_are_taken_as_they_are() -> None:
    """The model is for 8 x 8 pixels normalised by 0.5: the same numbers, the same run."""
    arguments = few()
    expected = sft.finetune(model=MODEL, **arguments)
    for name in ("data", "test"):
        images, labels = arguments[name]
        scale, shift = np.float32(1) / (np.float32(16) * np.float32(0.5)), np.float32(1)
        arguments[name] = images.astype(np.float32) * scale - shift, labels.tolist()
    run = sft.finetune(model=MODEL, **arguments)
    assert [r.bytes for r in run.rounds] == [r.bytes for r in expected.rounds]
    assert run.accuracy.tolist() == expected.accuracy.tolist()


def test_patch_embedding_and_head_take_adapters(tmp_path: Path) -> None:
    run = sft.finetune(
        model=MODEL,
        **few() | {"targets": ["q_proj", "projection", "classifier"], "out": tmp_path, "rounds": 1},
    )
    assert len(run.rounds) == 1
    config = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "projection", "classifier"]
    assert config["modules_to_save"] is None


def test_devices_may_train_nothing(tmp_path: Path) -> None:
    arguments = few() | {"device_adapters": "none", "cut": 4, "out": tmp_path}
    run = sft.finetune(model=MODEL, **arguments)
    assert run.settings["device_adapters"] == "none"
    crossed = [(r.adapter_bytes_up, r.adapter_bytes_down) for r in run.rounds]
    assert crossed == [(0, 0), (0, 0)]
    assert run.rounds[1].bytes_down == 0 < run.rounds[1].bytes_up
    lora = sft.finetune(model=MODEL, **few(), cut=4)
    assert run.device_memory_bytes < lora.device_memory_bytes / 2
    assert run.rounds[1].delay_s < lora.rounds[1].delay_s
    config = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert {name.split(".")[2] for name in config["target_modules"]} == {"4", "5"}
    more = few() | {"adapters": tmp_path / "adapters"}
    again = sft.finetune(model=MODEL, **more, device_adapters="none", cut=4)
    assert again.rounds[0].loss < run.rounds[0].loss
    with pytest.raises(OSError, match="have blocks without adapters 4, this run has 0"):
        sft.finetune(model=MODEL, **more)
    with pytest.raises(ValueError, match="device_adapters must be lora where no scheme splits"):
        sft.finetune(model=MODEL, scheme="fl-lora", device_adapters="none", **few())
    with pytest.raises(ValueError, match="device_adapters must be lora or none"):
        sft.finetune(model=MODEL, device_adapters="some", **few())  # type: ignore[arg-type]


def test_labels_may_stay_on_the_devices(tmp_path: Path) -> None:
    arguments = few() | {"labels": "device", "out": tmp_path, "evaluate_through_cut": True}
    run = sft.finetune(model=MODEL, **arguments)
    assert run.settings["labels"] == "device"
    assert run.settings["features"] == str(sft.Codec.default_features())
    server = sft.finetune(model=MODEL, **few())
    crossed = [[r.bytes_down for r in one.rounds] for one in (run, server)]
    assert all(a > b for a, b in zip(*crossed, strict=True)), "features come down too"
    assert run.rounds[0].adapter_bytes_up > server.rounds[0].adapter_bytes_up, (
        "and the head goes up"
    )
    assert run.device_memory_bytes > server.device_memory_bytes
    raw = {"activation": None, "gradient": None, "features": None, "adapter_codec": None}
    below, above = (
        sft.finetune(model=MODEL, labels=labels, **few() | raw) for labels in ("device", "server")
    )
    np.testing.assert_allclose(
        [r.loss for r in below.rounds], [r.loss for r in above.rounds], rtol=1e-4
    )
    for scheme in ("fl-lora", "fl-full"):
        with pytest.raises(ValueError, match="labels must be server where no scheme splits"):
            sft.finetune(model=MODEL, scheme=scheme, labels="device", **few())
    with pytest.raises(ValueError, match="labels must be server or device"):
        sft.finetune(model=MODEL, labels="client", **few())  # type: ignore[arg-type]


def test_accuracy_is_measured_through_the_cut() -> None:
    run = sft.finetune(model=MODEL, scheme="sft-raw", evaluate_through_cut=True, **few())
    assert run.accuracy_through_cut.tolist() == run.accuracy.tolist(), "nothing is lost there"
    np.testing.assert_allclose(run.test_loss_through_cut, run.test_loss, rtol=1e-5)
    assert "through the cut" in run.summary()
    plain = sft.finetune(model=MODEL, scheme="sft-raw", **few())
    assert np.isnan(plain.accuracy_through_cut).all()
    assert np.isnan(plain.test_loss_through_cut).all()
    assert plain.test_loss.tolist() == run.test_loss.tolist()
    assert plain.rounds[0].accuracy_through_cut is None
    assert "through the cut" not in plain.summary()
    with pytest.raises(ValueError, match="evaluate_through_cut must be off where no scheme splits"):
        sft.finetune(model=MODEL, scheme="fl-lora", evaluate_through_cut=True, **few())


def test_threads_and_checkpointing_change_nothing() -> None:
    one = sft.finetune(model=MODEL, threads=1, **few())
    for other in ({"threads": 2}, {"gradient_checkpointing": True}):
        run = sft.finetune(model=MODEL, **few(), **other)
        assert [r.loss for r in run.rounds] == [r.loss for r in one.rounds]


def test_ctrl_c_keeps_the_finished_rounds(tmp_path: Path) -> None:
    def interrupt(done: sft.Round) -> None:
        if done.round == 2:
            _thread.interrupt_main()

    arguments = few() | {"rounds": 10_000, "progress": interrupt, "out": tmp_path}
    with pytest.raises(sft.Interrupted) as caught:
        sft.finetune(model=MODEL, **arguments)
    assert isinstance(caught.value, KeyboardInterrupt)
    run = caught.value.run
    assert 2 <= len(run.rounds) < 10_000
    assert sft.Run.load(tmp_path / "run.json") == (run,)
    assert (tmp_path / "adapters" / "adapter_model.safetensors").exists()


def tuned(folder: Path) -> bytes:
    return (folder / "adapters" / "adapter_model.safetensors").read_bytes()


def without_clock(run: sft.Run) -> list[sft.Round]:
    return [dataclasses.replace(r, wall_s=0.0) for r in run.rounds]


@pytest.mark.parametrize("scheme", ["sft", "fl-lora"])
def test_a_run_that_goes_on_equals_one_that_never_stopped(tmp_path: Path, scheme: Any) -> None:
    settings: dict[str, Any] = few() | {"scheme": scheme, "lora_dropout": 0.1, "augment": True}
    straight, parts = tmp_path / "straight", tmp_path / "parts"
    whole = sft.finetune(model=MODEL, out=straight, **settings | {"rounds": 5})
    assert not list(straight.glob("checkpoint*"))
    sft.finetune(model=MODEL, out=parts, checkpoint_every=2, **settings | {"rounds": 3})
    told: list[sft.Round] = []
    more = settings | {"rounds": 5, "threads": 1, "progress": told.append}
    run = sft.finetune(model=MODEL, resume=parts, **more)
    assert without_clock(run) == without_clock(whole)
    assert tuned(parts) == tuned(straight)
    assert [r.round for r in told] == [4, 5]
    assert sft.Run.load(parts / "run.json") == (run,)
    done = sft.finetune(model=MODEL, resume=parts, out=tmp_path / "new", **settings)
    assert without_clock(done) == without_clock(whole)[:3]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    def interrupt(done: sft.Round) -> None:
        _thread.interrupt_main()

    arguments = few() | {"rounds": 10_000, "progress": interrupt}
    with pytest.raises(sft.Interrupted) as caught:
        sft.finetune(model=MODEL, out=tmp_path / "parts", **arguments)
    rounds = len(caught.value.run.rounds) + 1
    run = sft.finetune(model=MODEL, resume=tmp_path / "parts", **few() | {"rounds": rounds})
    straight = sft.finetune(
        model=MODEL, out=tmp_path / "straight", **few() | {"rounds": rounds, "threads": 2}
    )
    assert without_clock(run) == without_clock(straight)
    assert tuned(tmp_path / "parts") == tuned(tmp_path / "straight")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr": 0.01},
            "resume .*checkpoint-sft.safetensors: .* its lr is 0.003, this run's is 0.01",
        ),
        ({"activation": sft.Codec.raw()}, "its activation is .transform:0.3., this run's is .raw"),
        ({"seed": 2}, "its seed is 1, this run's is 2"),
        ({"augment": True}, "its augment is false, this run's is true"),
        ({"data": few(63)["data"]}, "it is of another training data: "),
        ({"test": few(63)["test"]}, "it is of another test data: "),
        ({"full": 17}, "it is of another test data: "),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    sft.finetune(model=MODEL, out=tmp_path, checkpoint_every=1, **few())
    with pytest.raises(OSError, match=message):
        sft.finetune(model=MODEL, resume=tmp_path, **few() | changes)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    sft.finetune(model=MODEL, out=tmp_path, checkpoint_every=1, **few())
    path = tmp_path / "checkpoint-sft.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"resume .*: not a complete checkpoint"):
        sft.finetune(model=MODEL, resume=tmp_path, **few())


def test_a_bar_without_tqdm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sft\[progress\]'"):
        sft.finetune(model=MODEL, **few() | {"progress": True})
    assert len(sft.finetune(model=MODEL, **few() | {"progress": None}).rounds) == 2


def test_an_error_of_the_callback_ends_the_run() -> None:
    def fail(done: sft.Round) -> None:
        raise LookupError(done.round)

    with pytest.raises(LookupError):
        sft.finetune(model=MODEL, **few() | {"rounds": 10_000, "progress": fail})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cut": 9}, ValueError, "cut must be in 1"),
        ({"scheme": "fl"}, ValueError, "scheme expected sft"),
        ({"rounds": 0}, ValueError, "rounds must be at least 1"),
        ({"rounds": 10**9}, ValueError, "rounds must be at most 1000000, got"),
        ({"batch": 10**9}, ValueError, "batch must be at most 1000000, got"),
        ({"rank": 10**9}, ValueError, "rank must be at most 65536, got"),
        ({"rank": 65536}, ValueError, "rank must be at most 64, the model's width, got 65536"),
        ({"threads": 10**6}, ValueError, "threads must be at most 1024, got"),
        ({"seed": 2**64}, ValueError, "seed"),
        (
            {"data": (np.zeros((9, 0, 0), np.uint8), np.arange(9))},
            ValueError,
            r"data must have images \[n, h, h, c\] of no size 0",
        ),
        ({"data": far(10**9)}, ValueError, "labels must be below 32768 for 64 training samples"),
        (
            {"data": far(2**40)},
            ValueError,
            r"data must have one label in 0..2\*\*32 .*, got 1099511627776 for image 7",
        ),
        (
            {"data": (np.zeros((2, 8, 8), np.uint8), [0.5, 1.5])},
            ValueError,
            r"data must have one label .*, got float64 of shape \[2\]",
        ),
        ({"test": far(10**6)}, ValueError, "labels must be below 32768 for 64 training samples"),
        (
            {"targets": ["q_proj", "pos"]},
            ValueError,
            'targets must be all-linear or some of q_proj, .*, got "pos"',
        ),
        ({"targets": []}, ValueError, 'targets expected names of modules .*, got ""'),
        ({"rounds": -1}, ValueError, "rounds must be an integer of at least 0, got -1"),
        ({"rounds": 1.5}, ValueError, "rounds must be an integer of at least 0, got 1.5"),
        (
            {"rounds": 1 << 80},
            ValueError,
            r"rounds must be in -2\*\*63..2\*\*64 at the most, got 12089",
        ),
        ({"rounds": None}, ValueError, "rounds must be an integer of at least 0, got null"),
        ({"full": 300}, ValueError, r"full must be in 0\.\.=255, got 300"),
        ({"activation": 0.5}, ValueError, "activation must be text, got 0.5"),
        ({"activation": object()}, TypeError, "activation is of a wrong type, got <object"),
        ({"activation": "paper:0:4"}, ValueError, "activation .*keep must be in .*, got 0"),
        ({"targets": "qv"}, ValueError, 'got "qv"'),
        ({"fading": True}, ValueError, "fading must be .*none.*rayleigh.*, got true"),
        ({"optimizer": "adam"}, ValueError, 'optimizer must be .*sgd.*adamw, got "adam"'),
        ({"schedule": "linear"}, ValueError, 'schedule must be .*cosine, got "linear"'),
        ({"scheme": "sft,sl"}, ValueError, "scheme must be one, got 2"),
        ({"backend": "cuda"}, ValueError, "backend cannot be used by this build"),
        ({"bandwidth_hz": 0}, ValueError, "bandwidth_hz must be finite and positive, got 0"),
        ({"snr_db": np.nan}, ValueError, "snr_db must be finite, got NaN"),
        ({"partition": "even"}, ValueError, "partition expected iid"),
        ({"data": 3}, TypeError, "data must be"),
        ({"data": (np.zeros((2, 8, 4)), [0, 1])}, ValueError, r"images \[n, h, h, c\]"),
        ({"data": (np.zeros((2, 8, 8)), [0, 1])}, TypeError, "uint8 or float32"),
        ({"data": (np.zeros((2, 8, 8), np.uint8), [0, -1])}, ValueError, "one label"),
        *(
            ({name: (np.zeros(shape, np.uint8), [0] * shape[0])}, ValueError, f"{name} .* size 0")
            for name in ("data", "test")
            for shape in ((4, 0, 0, 3), (4, 8, 8, 0), (0, 8, 8, 1))
        ),
        (
            {"data": (np.zeros((2, 8, 8, 3), np.uint8), [0, 1])},
            ValueError,
            "images of uint8 must have the 1 channels of the model, got 3",
        ),
        ({"full": 0}, ValueError, "full must be at least 1, got 0"),
        ({"test": None}, ValueError, "test must be arrays"),
        ({"data": "folder:nowhere"}, ValueError, "test must not be arrays"),
        ({"data": "mnist:here", "test": None}, ValueError, "data must be cifar100:DIR"),
        (
            {"data": "folder:nowhere", "test": None},
            FileNotFoundError,
            "data: No such file .*nowhere",
        ),
        ({"prompt": "{text}?"}, ValueError, "prompt must be left out for images"),
        ({"class_words": ["a"]}, ValueError, "class_words must be left out for images"),
        ({"pack": True}, ValueError, "pack must be left out for images"),
        ({"generate": 1}, ValueError, "generate must be left out for images"),
        ({"model": "no.safetensors"}, FileNotFoundError, "model: No such file .*'no.safetensors'"),
        ({"model": 3}, (OSError, ValueError), "model"),
        ({"model": __file__}, OSError, "model .*test_train.py: not a complete safetensors file"),
        ({"model": DATA}, OSError, "model .*data/model.safetensors: No such file"),
        ({"adapters": "nowhere"}, FileNotFoundError, "adapters: No such file .*'nowhere'"),
        ({"adapters": DATA}, OSError, "adapters .*data/adapter_config.json: No such file"),
        ({"out": __file__}, OSError, "out .*test_train.py: File exists"),
        ({"resume": "nowhere"}, FileNotFoundError, "resume: No such file .*checkpoint-sft.safe"),
        ({"checkpoint_every": 2}, ValueError, "out must be given with checkpoint_every"),
        ({"checkpoint_every": 0, "out": "x"}, ValueError, "checkpoint_every must be at least 1"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        sft.finetune(**{"model": MODEL} | few() | arguments)


def test_defaults_are_those_of_rust() -> None:
    defaults = json.loads(sft._sft._run_defaults())
    # Rust runs schemes beside each other, a call here runs one.
    assert defaults.pop("scheme")[0] == "sft"
    ours = {name: p.default for name, p in inspect.signature(sft.finetune).parameters.items()}
    assert (ours.pop("scheme"), ours.pop("full"), ours.pop("progress")) == ("sft", 255, None)
    assert ours.keys() == defaults.keys()
    for name in ("model", "data"):
        assert ours.pop(name) is inspect.Parameter.empty
        assert defaults.pop(name) is None
    assert {name: str(v) if isinstance(v, sft.Codec) else v for name, v in ours.items()} == defaults


def test_a_folder_keeps_one_run(tmp_path: Path) -> None:
    sft.finetune(model=MODEL, out=tmp_path, **few())
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(OSError, match=r"out .*run.json: .* its lr is 0.003, this run's is 0.01"):
        sft.finetune(model=MODEL, out=tmp_path, lr=0.01, **few())
    assert (tmp_path / "run.json").read_bytes() == before
    sft.finetune(model=MODEL, out=tmp_path, **few())


def test_a_folder_knows_its_run_by_contents_and_not_by_paths(tmp_path: Path) -> None:
    model, out = tmp_path / "moved" / MODEL.name, tmp_path / "out"
    shutil.copytree(MODEL.parent, model.parent)
    run = sft.finetune(model=MODEL, out=out, **few())
    assert sft.Run.load(out / "run.json")[0].contents == run.contents
    assert sorted(run.contents) == ["model", "test data", "training data"]
    again = sft.finetune(model=model, out=out, **few())
    assert without_clock(again) == without_clock(run)
    assert again.contents == run.contents
    before = (out / "run.json").read_bytes()
    weights = bytearray(model.read_bytes())
    weights[-4] ^= 1
    model.write_bytes(weights)
    changed = few()
    changed["data"][0][0, 0, 0] ^= 1
    for arguments, what in [((model, few()), "model"), ((MODEL, changed), "training data")]:
        with pytest.raises(
            OSError, match=rf"out .*run.json: it is of another {what}: its contents"
        ):
            sft.finetune(model=arguments[0], out=out, **arguments[1])
    assert (out / "run.json").read_bytes() == before


def test_weights_that_are_not_finite_are_not_a_diverged_training(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    tensors = safetensors.load_file(MODEL)
    name = "vit.encoder.layer.3.output.dense.weight"
    tensors[name][5, 7] = np.nan
    model = tmp_path / MODEL.name
    safetensors.save_file(tensors, model)
    shutil.copy(MODEL.parent / "config.json", tmp_path)
    with pytest.raises(ValueError, match=rf"model must hold finite weights, got .* in {name}"):
        sft.finetune(model=model, **few())
    start = tmp_path / "start"
    sft.finetune(model=MODEL, out=start, **few())
    file = start / "adapters" / "adapter_model.safetensors"
    adapters = safetensors.load_file(file)
    next(iter(adapters.values())).flat[0] = np.inf
    safetensors.save_file(adapters, file)
    with pytest.raises(OSError, match=r"adapters .*: the adapters hold a value that is not finite"):
        sft.finetune(model=MODEL, adapters=start / "adapters", **few())


def test_a_field_of_another_kind_is_named(tmp_path: Path) -> None:
    shutil.copy(MODEL, tmp_path)
    config = json.loads((MODEL.parent / "config.json").read_text())
    for name, value in [("image_size", [8, 8]), ("layer_norm_eps", "x"), ("hidden_size", 1e30)]:
        (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
        with pytest.raises(OSError, match=rf"config.json: {name}: invalid type"):
            sft.finetune(model=tmp_path / MODEL.name, **few())


def test_an_interrupted_run_can_be_copied_and_pickled() -> None:
    run = sft.Run(scheme="sft", rounds=(), device_memory_bytes=0.0)
    error = sft.Interrupted(run)
    for again in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert (again.run, str(again)) == (run, str(error))


def test_a_run_saved_by_hand_is_known_again(tmp_path: Path) -> None:
    run = sft.finetune(model=MODEL, **few())
    run.save(tmp_path / "run.json")
    again = sft.finetune(model=MODEL, out=tmp_path, **few())
    assert without_clock(again) == without_clock(run)


def test_the_tuned_model_and_names_are_arguments(tmp_path: Path) -> None:
    arguments = few() | {"out": tmp_path, "merged": True, "peft_names": "transformers4"}
    sft.finetune(model=MODEL, **arguments)
    assert (tmp_path / "merged" / "model.safetensors").exists()
    weights = (tmp_path / "adapters" / "adapter_model.safetensors").read_bytes()
    assert b"vit.encoder.layer.0.attention.attention.query" in weights


def test_finetune_leaves_the_environment_as_it_was() -> None:
    before = dict(os.environ)
    sft.finetune(model=MODEL, **few())
    assert dict(os.environ) == before


def test_a_panic_is_an_internal_error() -> None:
    """Raised on a thread of its own, as the trainer's would be."""
    assert issubclass(sft.InternalError, RuntimeError)
    with pytest.raises(sft.InternalError) as caught:
        _sft._panic()
    assert str(caught.value) == "a panic on purpose: this is a bug in sft, please report it"
    assert sft.InternalError.__module__ == "sft"


def test_moved_weights_go_on_and_changed_ones_do_not(tmp_path: Path) -> None:
    model = tmp_path / "moved" / MODEL.name
    shutil.copytree(MODEL.parent, model.parent)
    sft.finetune(model=MODEL, out=tmp_path / "parts", checkpoint_every=1, **few())
    more = few() | {"rounds": 3}
    whole = sft.finetune(model=MODEL, **more)
    resume: dict[str, Any] = {"resume": tmp_path / "parts", "out": tmp_path / "rest"}
    run = sft.finetune(model=model, **more, **resume)
    assert without_clock(run) == without_clock(whole)
    weights = bytearray(model.read_bytes())
    weights[-4] ^= 1
    model.write_bytes(weights)
    with pytest.raises(OSError, match=r"resume .*: it is of another model: its contents have"):
        sft.finetune(model=model, **more, **resume)


def test_a_run_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    run = sft.finetune(model=MODEL, **few())
    run.save(path)
    before = path.read_bytes()
    broken = dataclasses.replace(run, device_memory_bytes=float("nan"))
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
