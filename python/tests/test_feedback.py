"""Error feedback: its state as plain data."""

import copy
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import sft

X = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)
CODEC = sft.Codec.paper(keep=0.1, levels=2)


def send(feedback: sft.ErrorFeedback, seed: int) -> npt.NDArray[np.float32]:
    return sft.decode(feedback.encode(X, seed))


def residual(feedback: sft.ErrorFeedback) -> npt.NDArray[np.float32]:
    assert feedback.residual is not None
    return feedback.residual


def test_nothing_is_lost_but_the_remainder() -> None:
    feedback = sft.ErrorFeedback(CODEC)
    assert feedback.residual is None
    received = sum(send(feedback, seed) for seed in range(30))
    np.testing.assert_allclose(received + residual(feedback), 30 * X, atol=1e-4)


def test_a_restored_state_goes_on_as_the_original() -> None:
    feedback = sft.ErrorFeedback(CODEC)
    send(feedback, 0)
    copies = [
        sft.ErrorFeedback(str(feedback.codec), feedback.residual),
        pickle.loads(pickle.dumps(feedback)),
        copy.deepcopy(feedback),
    ]
    expected = send(feedback, 1)
    for again in copies:
        np.testing.assert_array_equal(send(again, 1), expected)
        np.testing.assert_array_equal(residual(again), residual(feedback))


def test_the_residual_is_a_copy() -> None:
    feedback = sft.ErrorFeedback(CODEC, np.zeros(2, np.float32))
    residual(feedback)[0] = 1
    assert not residual(feedback).any()
    assert repr(feedback) == "ErrorFeedback('paper:0.1:2')"


def test_a_refused_tensor_leaves_it_as_it_was() -> None:
    feedback = sft.ErrorFeedback(CODEC)
    send(feedback, 0)
    before, bad = residual(feedback), X.copy()
    bad[0, 0] = np.nan
    with pytest.raises(sft.CodecError, match="element 0 is NaN"):
        feedback.encode(bad)
    np.testing.assert_array_equal(residual(feedback), before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_frames_have_the_type_of_the_tensor(dtype: Any) -> None:
    feedback = sft.ErrorFeedback(CODEC)
    assert sft.decode(feedback.encode(X.astype(dtype))).dtype == dtype
    feedback.encode(X.view(np.uint16), dtype="bf16")
    assert residual(feedback).shape == (4, 16)


def test_other_types_and_values_are_refused() -> None:
    with pytest.raises(TypeError, match="must be a NumPy array"):
        sft.ErrorFeedback(CODEC).encode([1.0])  # type: ignore[arg-type]
    with pytest.raises(sft.CodecError, match="residual 1 is NaN"):
        sft.ErrorFeedback(CODEC, np.array([0, np.nan], np.float32))
    with pytest.raises(TypeError, match=r"sft\.Codec or text"):
        sft.ErrorFeedback((4, 8))  # type: ignore[arg-type]
