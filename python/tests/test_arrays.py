"""NumPy arrays in: types, layouts and halves, and what is refused."""

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
