"""The codec's conversions and errors; what it computes is tested in Rust."""

import copy
import pickle
import subprocess
import sys
import tracemalloc
from typing import Any

import ml_dtypes
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
    sft.Codec(rounding="nearest"),
    sft.Codec(sparsify="row_top_k", keep=0.3, quantize="f16"),
    sft.Codec(sparsify="threshold", threshold=0.1, quantize="none"),
    sft.Codec(sparsify="none", quantize="none"),
]


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_repr_config_and_pickle_make_an_equal_codec(codec: sft.Codec) -> None:
    x = tensor(4, 8)
    for again in (
        eval(repr(codec), {"Codec": sft.Codec}),
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


def test_the_constructor_without_arguments_is_the_activation_codec() -> None:
    assert sft.Codec() == sft.Codec.activation(keep=0.2, levels=8)
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsify": "all"}, "sparsify must be one of 'none', 'top_k', .*, got 'all'"),
        ({"quantize": "int8"}, "quantize must be one of .*, got 'int8'"),
        ({"code": "zip"}, "code must be one of 'none', 'golomb', 'context', got 'zip'"),
        ({"spacing": "odd"}, "spacing must be one of"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"non_finite": "keep"}, "non_finite must be one of 'refuse', 'saturate', got 'keep'"),
        ({"sparsify": "none", "keep": 0.2}, "keep needs sparsify 'top_k' or 'row_top_k'"),
        ({"threshold": 1.0}, "threshold needs sparsify 'threshold'"),
        ({"sparsify": "threshold"}, "threshold is missing"),
        ({"quantize": "f16", "levels": 8}, "levels needs quantize 'levels'"),
        ({"step": 1.0}, "step needs quantize 'dead_zone'"),
        ({"quantize": "dead_zone"}, "step is missing"),
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
    with pytest.raises(TypeError, match="integer"):
        sft.Codec.paper(levels=8.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_out_of_range_is_named(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed must be in 0\.\.2\*\*64, got {seed}"):
        sft.Codec.raw().encode(tensor(3), seed=seed)


@pytest.mark.parametrize("dtype", ["float64", "int16", "int32", ">f4", ">f2", "complex64"])
def test_other_dtypes_are_type_errors_with_a_remedy(dtype: str) -> None:
    x: Any = np.ones(3, dtype=dtype)
    with pytest.raises(TypeError, match=r"dtype float32, .*, got .*x\.astype\(numpy\.float32\)"):
        sft.Codec.raw().encode(x)
    sft.Codec.raw().encode(x.real.astype(np.float32))


@pytest.mark.parametrize("x", [[1.0, 2.0], 1.0, None, "x", b"abcd"])
def test_other_objects_are_type_errors_with_a_remedy(x: Any) -> None:
    message = r"NumPy array of float32, .*, got \w+: convert it with numpy\.asarray"
    with pytest.raises(TypeError, match=message):
        sft.Codec.raw().encode(x)


def unaligned() -> npt.NDArray[np.float32]:
    return np.frombuffer(bytes(13), dtype=np.uint8)[1:].view(np.float32)


@pytest.mark.parametrize(
    "x",
    [
        tensor(4, 6).T,
        np.asfortranarray(tensor(4, 6)),
        tensor(12)[::2],
        tensor(12)[::-1],
        tensor(4, 6)[:, :3],
        unaligned(),
    ],
)
def test_arrays_out_of_order_are_value_errors_with_a_remedy(x: npt.NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match=r"x must be C-contiguous .*numpy\.require"):
        sft.Codec.raw().encode(x)
    y = sft.decode(sft.Codec.raw().encode(np.require(x, requirements=["C", "A"])))
    np.testing.assert_array_equal(x, y)


def test_contiguous_views_are_read_in_place() -> None:
    x = tensor(6, 4)
    x.flags.writeable = False
    y = sft.decode(sft.Codec.raw().encode(x[2:4]))
    np.testing.assert_array_equal(x[2:4], y)


@pytest.mark.parametrize("dims", [0, 9])
def test_number_of_dimensions_is_checked(dims: int) -> None:
    with pytest.raises(ValueError, match=f"dimensions.*{dims}") as raised:
        sft.Codec.raw().encode(np.ones((1,) * dims, dtype=np.float32))
    assert not isinstance(raised.value, sft.CodecError)


def test_non_finite_elements_have_a_kind() -> None:
    x = np.array([[1.0, 2.0], [np.inf, 3.0]], dtype=np.float32)
    with pytest.raises(sft.CodecError, match="element 2 is inf") as raised:
        sft.Codec.paper().encode(x)
    assert raised.value.kind == "non_finite"


FRAME = sft.Codec.paper().encode(tensor(8, 8))


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b"", "truncated"),
        (FRAME[:-1], "truncated"),
        (FRAME + b"\0", "trailing_bytes"),
        (b"PNG!" + FRAME[4:], "corrupt"),
        (FRAME[:4] + b"\xff" + FRAME[5:], "unsupported_version"),
        (FRAME[:-1] + bytes([FRAME[-1] ^ 1]), "checksum"),
    ],
)
def test_bad_frames_have_a_kind(frame: bytes, kind: str) -> None:
    with pytest.raises(sft.CodecError) as raised:
        sft.decode(frame)
    assert raised.value.kind == kind
    assert str(raised.value)


def test_codec_error_survives_pickling_and_copying() -> None:
    with pytest.raises(sft.CodecError) as raised:
        sft.decode(b"")
    for again in (pickle.loads(pickle.dumps(raised.value)), copy.copy(raised.value)):
        assert type(again) is sft.CodecError
        assert (again.kind, str(again)) == ("truncated", str(raised.value))


def test_max_elements_bounds_the_result() -> None:
    assert sft.decode(FRAME, max_elements=64).size == 64
    with pytest.raises(sft.CodecError, match="limit of 63") as raised:
        sft.decode(FRAME, max_elements=63)
    assert raised.value.kind == "too_large"
    with pytest.raises(ValueError, match=r"max_elements must be in .*, got -1"):
        sft.decode(FRAME, max_elements=-1)


@pytest.mark.parametrize(
    "frame",
    [
        bytearray(FRAME),
        memoryview(FRAME),
        memoryview(b"".join(bytes([byte, 0]) for byte in FRAME))[::2],
        np.frombuffer(FRAME, dtype=np.uint8),
    ],
)
def test_every_buffer_of_bytes_is_a_frame(frame: Any) -> None:
    np.testing.assert_array_equal(sft.decode(frame), sft.decode(FRAME))


@pytest.mark.parametrize("frame", ["SFTZ", 5, None, [1, 2], np.ones(3, dtype=np.float32)])
def test_other_frames_are_type_errors(frame: Any) -> None:
    with pytest.raises(TypeError, match="frame must be bytes, bytearray, memoryview"):
        sft.decode(frame)


HALVES: list[Any] = [np.float16, ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_comes_back_as_itself(dtype: Any) -> None:
    x = tensor(8, 16).astype(dtype)
    x.ravel()[:1] = np.nan
    raw = sft.Codec.raw().encode(x)
    assert sft.decode(raw).dtype == dtype
    assert sft.decode(raw).tobytes() == x.tobytes()
    assert len(raw) < 2 * x.size + 32
    x.ravel()[:1] = 0
    y = sft.decode(sft.Codec.dead_zone(0.1).encode(x))
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    assert y.flags.writeable
    np.testing.assert_allclose(x.astype(np.float32), y.astype(np.float32), atol=0.1)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_must_be_contiguous_too(dtype: Any) -> None:
    with pytest.raises(ValueError, match="x must be C-contiguous"):
        sft.Codec.raw().encode(tensor(4, 6).astype(dtype).T)


@pytest.mark.parametrize(("name", "dtype"), [("f16", HALVES[0]), ("bf16", HALVES[1])])
def test_bits_of_half_precision_are_the_same_tensor(name: Any, dtype: Any) -> None:
    x, codec = tensor(8, 16).astype(dtype), sft.Codec.gradient()
    assert codec.encode(x.view(np.uint16), dtype=name) == codec.encode(x)
    with pytest.raises(TypeError, match="x must be a NumPy array of uint16"):
        codec.encode(x, dtype=name)
    with pytest.raises(ValueError, match="x must be C-contiguous"):
        codec.encode(x.view(np.uint16).T, dtype=name)
    with pytest.raises(ValueError, match="dtype must be one of 'f16', 'bf16', got 'f32'"):
        codec.encode(x.view(np.uint16), dtype="f32")  # type: ignore[arg-type]


def test_bfloat16_without_ml_dtypes_is_float32() -> None:
    x = tensor(4, 4).astype(ml_dtypes.bfloat16)
    frame = sft.Codec.raw().encode(x)
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "import sft; y = sft.decode(sys.stdin.buffer.read())\n"
        "assert y.dtype == 'float32', y.dtype\n"
        "sys.stdout.buffer.write(y.tobytes())"
    )
    run = subprocess.run([sys.executable, "-c", code], input=frame, capture_output=True, check=True)
    assert run.stdout == x.astype(np.float32).tobytes()


@pytest.mark.parametrize("codec", [sft.Codec.raw(), sft.Codec.paper(), sft.Codec.gradient()])
def test_encoding_reads_in_place(codec: sft.Codec) -> None:
    """What `encode` allocates for Python is the frame alone."""
    for dtype in (np.float32, *HALVES):
        x = tensor(64, 64).astype(dtype)
        codec.encode(x)
        tracemalloc.start()
        frame = codec.encode(x)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < len(frame) + 4096


def test_inspect_tells_without_decoding() -> None:
    info = sft.inspect(FRAME)
    assert (info.shape, info.dtype, info.code, info.kept) == ((8, 8), "f32", "golomb", 13)
    assert 0 < info.payload_bytes < len(FRAME)
    assert info.chunks == 1
    assert info == sft.inspect(bytearray(FRAME))
    assert repr(info).startswith("Info(shape=(8, 8), dtype='f32', code='golomb', kept=13, ")
    with pytest.raises(sft.CodecError) as raised:
        sft.inspect(FRAME[:-1])
    assert raised.value.kind == "truncated"
    with pytest.raises(TypeError, match="frame must be"):
        sft.inspect("SFTZ")  # type: ignore[arg-type]


def test_measure_is_encode_and_decode() -> None:
    x, codec = tensor(32, 32), sft.Codec.activation()
    measured, frame = sft.measure(codec, x, seed=5), codec.encode(x, seed=5)
    error = np.square(x - sft.decode(frame), dtype=np.float64).sum()
    assert measured.bytes == len(frame)
    assert measured.bits_per_element == 8 * len(frame) / x.size
    assert measured.relative_mse == pytest.approx(error / np.square(x, dtype=np.float64).sum())
    assert repr(measured).startswith(f"Measure(bytes={len(frame)}, ")
    with pytest.raises(TypeError, match="Codec"):
        sft.measure("raw", x)  # type: ignore[arg-type]


def test_searches_meet_what_is_wanted() -> None:
    x = tensor(64, 64)
    for wanted in (0.05, 0.3):
        codec = sft.Codec.dead_zone_for_error(x, wanted)
        assert sft.measure(codec, x).relative_mse == pytest.approx(wanted, rel=0.02)
        assert sft.measure(codec, x).relative_mse <= wanted
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
    with pytest.raises(ValueError, match="relative_mse"):
        sft.Codec.dead_zone_for_error(x, 1e-30)
    with pytest.raises(ValueError, match="relative_mse must be positive, got 0"):
        sft.Codec.dead_zone_for_error(x, 0.0)
    with pytest.raises(ValueError, match="bits must be positive, got -1"):
        sft.Codec.dead_zone_for_bits(x, -1.0)
    with pytest.raises(TypeError, match="sample must be a NumPy array"):
        sft.Codec.dead_zone_for_bits([1.0], 1.0)  # type: ignore[arg-type]
