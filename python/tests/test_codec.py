"""The codec's conversions and errors; what it computes is tested in Rust."""

import copy
import inspect
import json
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import sft


def tensor(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("range_", ["tensor", "row"])
def test_paper_round_trip_keeps_the_largest(range_: Any) -> None:
    x = tensor(4, 8, 16)
    frame = sft.Codec.paper(keep=0.25, levels=256, range=range_).encode(x, seed=1)
    y = sft.decode(frame)
    assert type(frame) is bytes
    assert y.shape == x.shape
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert y.flags.writeable
    kept = y != 0
    assert kept.sum() == x.size // 4
    assert np.abs(x[kept]).min() >= np.abs(x[~kept]).max()
    # A kept element is off by less than one of the 255 steps of the range.
    assert np.abs(x - y)[kept].max() < np.abs(x).max() / 255


@pytest.mark.parametrize("shape", [(1,), (0,), (3, 0, 5), (2, 3), (1, 2, 1, 2, 1, 2, 1, 3)])
def test_raw_round_trip_is_exact(shape: tuple[int, ...]) -> None:
    x = tensor(*shape)
    x.ravel()[:1] = np.nan
    y = sft.decode(sft.Codec.raw().encode(x))
    assert y.shape == shape
    assert x.tobytes() == y.tobytes()


def test_seed_decides_the_bytes() -> None:
    x, codec = tensor(64, 64), sft.Codec.paper()
    assert codec.encode(x, 5) == codec.encode(x, seed=np.int64(5))
    assert codec.encode(x, 5) != codec.encode(x, 6)
    assert codec.encode(x) == codec.encode(x, seed=0)
    codec.encode(x, seed=2**64 - 1)


def test_settings_that_are_none() -> None:
    codec = sft.Codec.paper()
    assert (codec.keep, codec.levels, codec.range) == (0.2, 8, "tensor")
    assert sft.Codec.gradient().range == "row"
    for codec in (sft.Codec.raw(), sft.Codec.dead_zone(1.0)):
        assert (codec.keep, codec.levels, codec.range) == (1.0, None, None)


CODECS = [
    sft.Codec.raw(),
    sft.Codec.paper(keep=1.0),
    sft.Codec.paper(),
    sft.Codec.paper(keep=0.3),
    sft.Codec.paper(levels=9),
    sft.Codec.paper(keep=0.125, levels=3, range="row"),
    sft.Codec.activation(),
    sft.Codec.activation(range="row"),
    sft.Codec.gradient(),
    sft.Codec.gradient(range="tensor"),
    sft.Codec.gradient(non_finite="saturate"),
    sft.Codec.dead_zone(1.5),
    sft.Codec.dead_zone(step=0.01, non_finite="saturate"),
    sft.Codec(quantize="levels", rounding="nearest"),
    sft.Codec(sparsify="row_top_k", keep=0.3, quantize="f16"),
    sft.Codec(sparsify="threshold", threshold=0.1, quantize="none"),
    sft.Codec(sparsify="none", quantize="none"),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_repr_config_and_pickle_make_an_equal_codec(codec: sft.Codec) -> None:
    x = tensor(4, 8)
    for again in (
        eval(repr(codec), {"Codec": sft.Codec}),
        sft.Codec(str(codec)),
        sft.Codec(**codec.config),
        pickle.loads(pickle.dumps(codec)),
        copy.deepcopy(codec),
    ):
        assert again == codec
        assert hash(again) == hash(codec)
        assert again.config == codec.config
        assert again.encode(x, 3) == codec.encode(x, 3)


def test_codecs_differ_by_every_setting() -> None:
    assert len(set(CODECS)) == len(CODECS)
    assert sft.Codec.raw() != "Codec.raw()"


def test_what_is_given_no_codec_uses_that_of_its_kind() -> None:
    assert sft.Codec() == sft.Codec.default_activation() == sft.Codec.for_error(0.01)
    assert sft.Codec.default_gradient() == sft.Codec.unbiased(1)
    assert sft.Codec.default_adapter() == sft.Codec.unbiased(2)
    defaults = inspect.signature(sft.finetune).parameters
    trainer = json.loads(sft._sft._run_defaults())
    assert trainer["activation"] == trainer["gradient"] == "transform"
    assert defaults["activation"].default == trainer["activation"]
    assert defaults["gradient"].default == trainer["gradient"]


def test_config_tells_every_choice() -> None:
    assert sft.Codec.activation().config == {
        "sparsify": "top_k",
        "keep": 0.2,
        "quantize": "levels",
        "levels": 8,
        "spacing": "log",
        "rounding": "stochastic",
        "range": "tensor",
        "code": "context",
        "non_finite": "refuse",
    }


def test_a_codec_is_written_in_one_way() -> None:
    for text in ("raw", "dead-zone:1.25", "gradient:0.2:8", "paper:0.2:8,range=row", "f16,keep=1"):
        codec = sft.Codec(text)
        assert str(codec) == text
        assert repr(codec) == f"Codec('{text}')"
    x = tensor(4, 8)
    assert sft.measure("dead-zone:1", x) == sft.measure(sft.Codec.dead_zone(1), x)
    with pytest.raises(ValueError, match='codec "zip": expected raw, dead-zone:STEP, '):
        sft.Codec("zip")
    with pytest.raises(ValueError, match=r"step must be in 0\.001\.\.=1000, got 0"):
        sft.measure("dead-zone:0", x)
    with pytest.raises(ValueError, match="either as text, got 'raw', or by its choices"):
        sft.Codec("raw", keep=0.5)
    with pytest.raises(TypeError, match=r"sft\.Codec or text such as 'dead-zone:1\.25', got int"):
        sft.measure(3, x)  # type: ignore[arg-type]


def test_a_known_shape_is_the_only_limit() -> None:
    frame = sft.Codec().encode(np.zeros((17_000, 1000), np.float32))
    with pytest.raises(sft.CodecError, match="an expected shape or a limit") as raised:
        sft.decode(frame)
    assert raised.value.kind == "too_large"
    assert not sft.decode(frame, shape=(17_000, 1000)).any()
    with pytest.raises(sft.CodecError, match=r"\[1000, 17000\] is expected") as raised:
        sft.decode(frame, shape=[1000, 17_000])
    assert raised.value.kind == "other_shape"
    with pytest.raises(ValueError, match="exclude each other"):
        sft.decode(frame, shape=(1,), max_elements=1)


def test_finite_halves_stay_finite() -> None:
    x = np.concatenate([np.full(100, 60000), np.full(3, 65504), np.ones(1000)]).astype(np.float16)
    y = sft.decode(sft.Codec().encode(x))
    assert y.dtype == np.float16
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsify": "all"}, "sparsify must be one of 'none', 'top_k', .*, got 'all'"),
        ({"quantize": "int8"}, "quantize must be one of .*, got 'int8'"),
        ({"code": "zip"}, "code must be one of 'none', 'golomb', 'context', got 'zip'"),
        ({"quantize": "levels", "spacing": "odd"}, "spacing must be one of"),
        ({"quantize": "levels", "rounding": "up"}, "rounding must be one of"),
        ({"non_finite": "keep"}, "non_finite must be one of 'refuse', 'saturate', got 'keep'"),
        ({"sparsify": "none", "keep": 0.2}, "keep needs sparsify 'top_k' or 'row_top_k'"),
        ({"threshold": 1.0}, "threshold needs sparsify 'threshold'"),
        ({"sparsify": "threshold"}, "threshold is missing"),
        ({"quantize": "f16", "levels": 8}, "levels needs quantize 'levels'"),
        ({"quantize": "levels", "step": 1.0}, "step needs quantize 'dead_zone'"),
        ({"quantize": "dead_zone", "step": 0.0}, "step must be in"),
        ({"code": "golomb"}, "code golomb needs linearly spaced levels"),
        ({"code": "none"}, "code none needs sparsify none and quantize none"),
    ],
)
def test_bad_choices_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        sft.Codec(**settings)
    assert not isinstance(raised.value, sft.CodecError)


def test_saturation_is_an_option() -> None:
    x = np.array([[np.nan, 2.0, np.inf]], dtype=np.float32)
    y = sft.decode(sft.Codec.activation(keep=1, non_finite="saturate").encode(x))
    assert y[0, 0] == 0
    assert y[0, 2] == np.finfo(np.float32).max


def test_codec_is_frozen() -> None:
    codec: Any = sft.Codec.paper()
    with pytest.raises(AttributeError):
        codec.keep = 0.5
    with pytest.raises(AttributeError):
        codec.other = 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.0}, r"keep must be in \(0, 1\], got 0"),
        ({"keep": float("nan")}, r"keep must be in \(0, 1\], got NaN"),
        ({"levels": 1}, r"levels must be in 2\.\.=256, got 1"),
        ({"levels": -1}, r"levels must be in 2\.\.=256, got -1"),
        ({"levels": 2**70}, r"levels must be in 2\.\.=256, got 1180591620717411303424"),
        ({"range": "column"}, "range must be one of 'tensor', 'row', got 'column'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        sft.Codec.paper(**settings)
    assert not isinstance(raised.value, sft.CodecError)


def test_settings_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        sft.Codec.paper(0.2, 8)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"levels must be a whole number, got 8\.0"):
        sft.Codec.paper(levels=8.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must be in 0\.\.2\*\*64, got {seed}"):
        sft.Codec.raw().encode(tensor(3), seed=seed)


def test_measure_is_encode_and_decode() -> None:
    x, codec = tensor(32, 32), sft.Codec.activation()
    measured, frame = sft.measure(codec, x, seed=5), codec.encode(x, seed=5)
    error = np.square(x - sft.decode(frame), dtype=np.float64).sum()
    assert measured.bytes == len(frame)
    assert measured.bits_per_element == 8 * len(frame) / x.size
    assert measured.relative_mse == pytest.approx(error / np.square(x, dtype=np.float64).sum())
    assert repr(measured).startswith(f"Measure(bytes={len(frame)}, ")
    with pytest.raises(TypeError, match="Codec"):
        sft.measure(4, x)  # type: ignore[arg-type]


def test_searches_meet_what_is_wanted() -> None:
    x = tensor(64, 64)
    for wanted in (0.05, 0.3):
        for of in ("bulk", "all"):
            codec = sft.Codec.for_error(wanted, of=of)
            assert codec == sft.Codec(**codec.config) == sft.Codec(str(codec))
            assert sft.measure(codec, x).relative_mse == pytest.approx(wanted, rel=0.1)
    assert sft.measure(sft.Codec.dead_zone_for_bits(x, 1.0), x).bits_per_element <= 1.0
    for make in (sft.Codec.activation, sft.Codec.gradient):
        codec = sft.Codec.top_k_for_error(make, x[:16], 0.1)
        assert codec == make(keep=codec.keep, levels=codec.levels or 0)
        assert sft.measure(codec, x[:16]).relative_mse <= 0.1
        codec = sft.Codec.top_k_for_bits(make, x[:16], 2.0)
        assert sft.measure(codec, x[:16]).bits_per_element <= 2.0

    def fail(*, keep: float, levels: int) -> sft.Codec:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sft.Codec.top_k_for_bits(fail, x, 2.0)
    for wrong in (0.0, 1e-30, 0.8, float("nan")):
        with pytest.raises(ValueError, match=r"relative_mse must be in 0\.000001\.\.=0\.75, got"):
            sft.Codec.for_error(wrong)
    with pytest.raises(ValueError, match="of must be one of 'bulk', 'all', got 'some'"):
        sft.Codec.for_error(0.1, of="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step is missing"):
        sft.Codec(quantize="unbiased")
    with pytest.raises(ValueError, match="of needs quantize 'error'"):
        sft.Codec(quantize="dead_zone", step=1.0, of="all")
    with pytest.raises(ValueError, match="bits must be positive, got -1"):
        sft.Codec.dead_zone_for_bits(x, -1.0)
    with pytest.raises(TypeError, match="sample must be a NumPy array"):
        sft.Codec.dead_zone_for_bits([1.0], 1.0)  # type: ignore[arg-type]
