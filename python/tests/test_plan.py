"""Planning from Python: what goes in, what comes out; the mathematics is tested in Rust."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sft
from sft import _sft
from sft._predict import Scheme
from sft._system import encode_system

CLOCKS_HZ = np.linspace(0.5e9, 1.5e9, 8)
SYSTEM = sft.System(total_hz=30e6, devices=sft.Device.many(8, clock_hz=CLOCKS_HZ))
SURFACE = sft.Accuracy(scale="log2_keep", terms=[sft.Term(0, 0, 0.9), sft.Term(1, 0, 0.02)])
COMPRESSION = sft.Compression(accuracy=SURFACE, accuracy_min=0.85)
SCHEMES = typing.get_args(Scheme)


def test_defaults_are_those_of_the_solvers() -> None:
    minimal, ours = (
        json.loads(_sft._system(encode_system(system)))
        for system in (
            {"total_hz": 1, "devices": [{}]},
            sft.System(total_hz=1.0, devices=[sft.Device()]),
        )
    )
    assert ours == minimal


@pytest.mark.parametrize(
    ("given", "equal"),
    [
        ({"model": {}}, {"model": sft.Vit()}),
        ({"model": {"classes": 7}}, {"model": sft.Vit(classes=7)}),
        ({"model": {"preset": "vit_tiny"}}, {"model": sft.Vit(preset="vit_tiny")}),
        ({"server": {"cores": 7}}, {"server": sft.Server(cores=7)}),
        ({"training": {"batch": 7}}, {"training": sft.Training(batch=7)}),
        ({"devices": [{"samples": 7}]}, {"devices": [sft.Device(samples=7)]}),
    ],
)
def test_a_dict_has_the_defaults_of_its_dataclass(
    given: dict[str, Any], equal: dict[str, Any]
) -> None:
    least: dict[str, Any] = {"total_hz": 30e6, "devices": [sft.Device()]}
    assert sft.optimize(least | given) == sft.optimize(sft.System(**least | equal))


def test_compression_as_a_dict_has_the_defaults_of_its_dataclass() -> None:
    terms = [{"i": 0, "j": 0, "w": 0.9}, {"i": 1, "j": 0, "w": 0.02}]
    given = {"accuracy": {"terms": terms}, "accuracy_min": 0.85}
    assert sft.optimize(SYSTEM, given) == sft.optimize(SYSTEM, COMPRESSION)
    assert sft.optimize(SYSTEM, {"keep": 0.5, "bits": 2}) == sft.optimize(
        SYSTEM, sft.Setting(keep=0.5, bits=2)
    )


@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_dict_and_a_file_equal_the_dataclasses(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"system.{suffix}"
    if suffix == "json":
        path.write_text(encode_system(SYSTEM))
    else:
        devices = "".join(f"[[devices]]\nclock_hz = {clock!r}\n" for clock in CLOCKS_HZ.tolist())
        model = 'model = { preset = "vit_base", classes = 100 }'
        path.write_text(f"total_hz = 30e6\n{model}\n{devices}")
    columns: dict[str, Any] = dataclasses.asdict(SYSTEM)
    expected = sft.optimize(SYSTEM)
    for system in (path, str(path), columns, {**columns, "total_hz": np.float64(30e6)}):
        assert sft.optimize(system) == expected


def test_the_plan_is_the_best_cut_and_uses_the_band() -> None:
    plan = sft.optimize(SYSTEM)
    delays = {c.cut: c.tau_s for c in plan.cuts if c.tau_s is not None}
    assert plan.cut == min(delays, key=lambda cut: delays[cut])
    assert plan.tau_s == delays[plan.cut]
    assert plan.cuts[-1].tau_s is None
    assert plan.b_hz.sum() == pytest.approx(30e6, rel=1e-9)
    assert plan.server_flop_per_s is None
    assert plan.setting == sft.Setting(keep=0.2, bits=3, beta=plan.setting.beta)
    with pytest.raises(ValueError, match="read-only"):
        plan.b_hz[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.cut = 2  # type: ignore[misc]


def test_compression_meets_its_accuracy() -> None:
    plan = sft.optimize(SYSTEM, COMPRESSION)
    assert plan.setting.accuracy == pytest.approx(0.85, abs=1e-9)
    assert plan.setting.keep == pytest.approx(2**-2.5, rel=1e-9)
    assert plan.setting.bits == 1
    assert sft.optimize(SYSTEM, dataclasses.asdict(COMPRESSION)) == plan


def test_rates_may_be_measured() -> None:
    x = np.random.default_rng(0).standard_normal((64, 96), dtype=np.float32)
    table = sft.RateTable.measure([x], sft.Codec.activation, [0.1, 0.5, 1.0], [2, 3, 8])
    wanted = sft.Compression(
        accuracy=SURFACE, accuracy_min=0.88, keep_min=0.1, bits_max=3, rate=table
    )
    setting = sft.optimize(SYSTEM, wanted).setting
    assert setting.accuracy is not None
    assert setting.accuracy > 0.88 - 1e-9
    assert setting.beta == table.rate(setting.keep, setting.levels)


def test_the_server_is_shared_where_asked() -> None:
    shared = dataclasses.replace(SYSTEM, server=sft.Server(model="optimal_share"))
    plan = sft.optimize(shared)
    assert plan.server_flop_per_s is not None
    assert plan.server_flop_per_s.sum() == pytest.approx(3e9 * 2048 * 4, rel=1e-6)
    assert "TFLOP/s" in plan.summary()
    optimal = sft.predict(shared, plan=plan, rounds=2)
    assert optimal.round_s[1] == pytest.approx(plan.tau_s, rel=1e-9)
    even = sft.predict(shared, plan=plan, rounds=2, bandwidth="even")
    assert even.round_s[1] > optimal.round_s[1]


@pytest.mark.parametrize(
    ("constraint", "changes", "wanted"),
    [
        ("accuracy", {}, {"accuracy_min": 0.95}),
        ("memory", {"devices": [sft.Device(memory_bytes=1 << 20)]}, {}),
        ("bandwidth", {"devices": [sft.Device(cap_hz=0.0)]}, {}),
    ],
)
def test_what_cannot_be_met_is_an_error(
    constraint: str, changes: dict[str, Any], wanted: dict[str, Any]
) -> None:
    system = dataclasses.replace(SYSTEM, **changes)
    compression = {**dataclasses.asdict(COMPRESSION), **wanted}
    with pytest.raises(sft.SolverError) as caught:
        sft.optimize(system, compression)
    assert isinstance(caught.value, RuntimeError)
    assert caught.value.constraint == constraint


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"total_hz": -1.0}, ValueError, "system: total_hz is -1"),
        ({"total_hz": "wide"}, TypeError, "system.total_hz: invalid type"),
        ({"devices": []}, ValueError, "no devices"),
        ({"devices": [{"clock": 1e9}]}, ValueError, r"devices\[0\].*unknown field `clock`"),
        ({"devices": [{"clock_hz": -1.0}]}, ValueError, r"clock_hz\[0\] is -1"),
        ({"devices": [{"clock_hz": np.nan}]}, ValueError, r"devices\[0\].clock_hz must be finite"),
        ({"devices": [{"samples": 1.5}]}, TypeError, r"devices\[0\].samples: .* a whole number"),
        ({"devices": iter([])}, TypeError, "system.devices must consist of .*got list_iterator"),
        ({"server": {"model": "best"}}, ValueError, "server.model.*unknown variant `best`"),
        ({"model": {"preset": "vit_huge"}}, ValueError, "model.preset: .*one of `vit_tiny`"),
        ({"model": {"clases": 7}}, ValueError, "model.clases: .*one of `preset`"),
        ({"model": {"blocks": 7}}, ValueError, "model: missing field `width`|`heads`"),
    ],
)
def test_bad_fields_are_named(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sft.optimize(dataclasses.replace(SYSTEM, **changes))


@pytest.mark.parametrize(
    ("compression", "error", "message"),
    [
        (
            [0.2, 3],
            TypeError,
            "compression must be a Compression, a StepCompression, a Setting or a dict, got list",
        ),
        ({"keep": 0.2, "bit": 3}, ValueError, "compression: unknown field `bit`, expected one of"),
        ({"keep": 0.2}, TypeError, "missing .* 'bits'"),
        ({"accuracy_min": 0.8}, ValueError, "compression: missing field `accuracy`"),
        (sft.Setting(keep=2, bits=3), ValueError, "keep must be .*, got 2"),
        (sft.Setting(keep=0.2, bits=0), ValueError, r"bits must be .* in 1\.\.=32, got 0"),
        (sft.Setting(keep="x", bits=0), ValueError, "keep must be a number"),  # type: ignore[arg-type]
    ],
)
def test_bad_compressions_are_named(compression: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sft.optimize(SYSTEM, compression)


def test_other_objects_are_type_errors() -> None:
    with pytest.raises(TypeError, match="system must be a System, a dict or the path"):
        sft.optimize(3)  # type: ignore[call-overload]
    with pytest.raises(FileNotFoundError):
        sft.optimize("no.toml")
    with pytest.raises(ValueError, match="clock_hz must have 3 entries"):
        sft.Device.many(3, clock_hz=[1.0, 2.0])
    with pytest.raises(TypeError, match="clock"):
        sft.Device.many(3, clock=1.0)


def test_coded_adapters_take_their_bits() -> None:
    bits = {"adapter_uplink_bits_per_parameter": 1.5, "adapter_downlink_bits_per_parameter": 2}
    coded = dataclasses.replace(SYSTEM, training=bits)
    few, all_ = (sft.predict(system, cut=5, rounds=2).payloads for system in (coded, SYSTEM))
    np.testing.assert_allclose(few.adapter_bits, all_.adapter_bits * 1.5 / 32, rtol=1e-12)
    np.testing.assert_allclose(few.broadcast_bits[1], all_.broadcast_bits[1] / 16, rtol=1e-12)
    assert few.broadcast_bits[0].tolist() == all_.broadcast_bits[0].tolist(), "the whole model"
    negative = dataclasses.replace(SYSTEM, training={"adapter_uplink_bits_per_parameter": -1})
    with pytest.raises(ValueError, match="adapter_uplink_bits_per_parameter"):
        sft.predict(negative, cut=5)


def test_a_frozen_half_runs_forward_alone() -> None:
    frozen = dataclasses.replace(SYSTEM, training=sft.Training(device_adapters="none"))
    half, lora = (sft.predict(system, cut=5, rounds=2) for system in (frozen, SYSTEM))
    assert half.payloads.uplink_bits.tolist() == lora.payloads.uplink_bits.tolist()
    for nothing in (
        half.payloads.downlink_bits,
        half.payloads.adapter_bits,
        half.payloads.broadcast_bits[1],
        half.phases.device_backward_s,
    ):
        assert not nothing.any()
    assert half.memory.total_bytes < lora.memory.total_bytes / 2
    assert half.total_s < lora.total_s
    assert sft.optimize(frozen).tau_s < sft.optimize(SYSTEM).tau_s
    wrong = dataclasses.replace(SYSTEM, training={"device_adapters": "some"})
    with pytest.raises(ValueError, match="device_adapters"):
        sft.predict(wrong, cut=5)


def test_checkpointing_and_mapped_blocks_take_less_memory() -> None:
    def predicted(**training: Any) -> Any:
        system = dataclasses.replace(SYSTEM, training=sft.Training(**training))
        return sft.predict(system, cut=5, rounds=2)

    kept, again = predicted(), predicted(gradient_checkpointing=True)
    assert again.memory.activation_bytes < kept.memory.activation_bytes / 3
    assert (again.phases.device_backward_s > kept.phases.device_backward_s).all()
    mapped = predicted(mapped_blocks=True)
    assert mapped.memory.model_bytes < kept.memory.model_bytes / 2
    assert mapped.total_s == kept.total_s


def test_labels_on_the_device_cost_a_hop_and_the_head() -> None:
    training = sft.Training(labels="device", bits_per_feature=4.0)
    below, above = (
        sft.predict(system, cut=5, rounds=2)
        for system in (dataclasses.replace(SYSTEM, training=training), SYSTEM)
    )
    up = below.payloads.uplink_bits - above.payloads.uplink_bits
    down = below.payloads.downlink_bits - above.payloads.downlink_bits
    assert (up > 0).all()
    np.testing.assert_allclose(up, down, rtol=1e-9)
    assert (below.payloads.adapter_bits > above.payloads.adapter_bits).all()
    assert below.memory.total_bytes > above.memory.total_bytes
    wrong = dataclasses.replace(SYSTEM, training={"labels": "client"})
    with pytest.raises(ValueError, match="labels"):
        sft.predict(wrong, cut=5)


@pytest.mark.parametrize("model", ["sequential", "per_device", "even", "optimal_share"])
@pytest.mark.parametrize("flops", ["paper", "exact"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_and_variant_is_predicted(scheme: Any, flops: Any, model: Any) -> None:
    system = dataclasses.replace(
        SYSTEM, server=sft.Server(model=model), training=sft.Training(flops=flops)
    )
    prediction = sft.predict(system, scheme, cut=5, rounds=3, fading_seed=1)
    phases = prediction.phases
    names = [f.name for f in dataclasses.fields(phases) if f.name != "total_s"]
    total_s = sum(getattr(phases, name) for name in names)
    np.testing.assert_allclose(total_s, phases.total_s, rtol=1e-12)
    whole = phases.total_s.sum(axis=1) if scheme == "sl" else phases.total_s.max(axis=1)
    np.testing.assert_allclose(prediction.round_s, whole, rtol=1e-12)
    assert prediction.total_s == prediction.round_s.sum()
    assert prediction.b_hz.shape == prediction.payloads.uplink_bits.shape == (3, 8)
    assert (prediction.server_flop_per_s is not None) == (
        model == "optimal_share" and scheme != "sl"
    )
    assert (phases.uplink_s > 0).all() == (not scheme.startswith("fl"))
    assert scheme in prediction.summary()
    assert "<table>" in prediction._repr_html_()


def test_table_three_of_the_paper() -> None:
    """Rows that the cost model meets exactly, in MiB."""
    system = dataclasses.replace(
        SYSTEM, model=sft.Vit(classes=200), training=sft.Training(fl_head="adapters")
    )
    split, lora, full = (
        sft.predict(system, scheme, cut=5, rounds=1).memory
        for scheme in typing.get_args(Scheme)
        if scheme in ("sft", "fl-lora", "fl-full")
    )
    mib = [memory.model_bytes / 2**20 for memory in (split, lora, full)]
    assert mib == pytest.approx([141.19, 337.03, 327.88], abs=0.01)
    assert split.input_bytes / 2**20 == 36.75


def test_bandwidths_may_be_given() -> None:
    plan = sft.optimize(SYSTEM)
    given = sft.predict(SYSTEM, plan=plan, rounds=2, bandwidth=plan.b_hz)
    assert given.round_s[1] == pytest.approx(plan.tau_s, rel=1e-9)
    assert given.b_hz.tolist() == [plan.b_hz.tolist()] * 2
    assert sft.predict(SYSTEM, plan=plan, rounds=2, bandwidth="even").round_s[1] > plan.tau_s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "fl"}, "scheme must be one of 'sft'"),
        ({"cut": None}, "cut must be given for 'sft'"),
        ({"cut": 12}, "cut is 12"),
        ({"beta": 0.0}, "beta is 0"),
        ({"rounds": 0}, "rounds is empty"),
        ({"bandwidth": [1.0]}, "b_hz has 1 entries, expected 8"),
        ({"bandwidth": "most"}, "bandwidth must be 'optimal', 'even' or numbers in Hz, got 'most'"),
        ({"bandwidth": [[1.0]]}, "bandwidth must have one dimension"),
        ({"cut": -1}, r"cut must be in 1\.\.blocks, got -1"),
        ({"cut": "5"}, "cut must be a whole number, got 5"),
        ({"rounds": 2.5}, "rounds must be a whole number, got 2.5"),
        ({"fading_seed": -1}, r"fading_seed must be in 0\.\.2\*\*64, got -1"),
        ({"plan": {"cut": 5}}, "plan must be a Plan, got dict"),
    ],
)
def test_bad_arguments_of_predict_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        sft.predict(SYSTEM, **{"cut": 5, "rounds": 2} | arguments)


def test_a_fit_returns_what_it_was_made_of() -> None:
    keep, bits = map(np.ravel, np.meshgrid([0.05, 0.1, 0.2, 0.5, 1.0], [1, 2, 3, 4, 8]))
    fit = sft.fit_accuracy(keep, bits, SURFACE(keep, bits))
    np.testing.assert_allclose(fit.accuracy(keep, bits), SURFACE(keep, bits), atol=1e-9)
    assert fit.residuals.shape == keep.shape
    assert fit.max_error == pytest.approx(np.abs(fit.residuals).max())
    assert fit.rmse == pytest.approx(np.sqrt((fit.residuals**2).mean()))
    assert fit.warnings == ()
    wanted = sft.Compression(accuracy=fit.accuracy, accuracy_min=0.85, keep_min=0.05)
    assert sft.optimize(SYSTEM, wanted).setting.keep == pytest.approx(2**-2.5, rel=1e-6)


def test_a_surface_that_falls_warns() -> None:
    keep, bits = map(np.ravel, np.meshgrid([0.05, 0.1, 0.2, 0.5, 1.0], [1, 2, 3, 4, 8]))
    fit = sft.fit_accuracy(keep, bits, 0.9 - 0.01 * bits, scale="keep")
    (warning,) = fit.warnings
    assert (warning.axis, round(warning.change, 6)) == ("bits", -0.01)


def test_bad_points_are_named() -> None:
    with pytest.raises(ValueError, match="accuracy has 1 entries, expected 2"):
        sft.fit_accuracy([0.1, 0.2], [1, 2], [0.5])
    with pytest.raises(ValueError, match="points"):
        sft.fit_accuracy([0.1] * 12, [1] * 12, [0.5] * 12)
    with pytest.raises(TypeError, match="keep must be a sequence of numbers"):
        sft.fit_accuracy("x", [1], [0.5])
    with pytest.raises(ValueError, match="scale"):
        sft.fit_accuracy([0.1], [1], [0.5], scale="log")  # type: ignore[arg-type]
