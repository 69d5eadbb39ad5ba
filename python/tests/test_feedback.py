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
    y = sft.decode(CODEC.encode(feedback.add(X), seed))
    feedback.keep(y)
    return y


def test_nothing_is_lost_but_the_remainder() -> None:
    feedback = sft.ErrorFeedback(X.shape)
    received = sum(send(feedback, seed) for seed in range(30))
    np.testing.assert_allclose(received + feedback.residual, 30 * X, atol=1e-4)


def test_a_restored_state_goes_on_as_the_original() -> None:
    feedback = sft.ErrorFeedback(X.shape)
    send(feedback, 0)
    copies = [
        sft.ErrorFeedback(feedback.shape, feedback.residual),
        pickle.loads(pickle.dumps(feedback)),
        copy.deepcopy(feedback),
    ]
    expected = send(feedback, 1)
    for again in copies:
        np.testing.assert_array_equal(send(again, 1), expected)
        np.testing.assert_array_equal(again.residual, feedback.residual)


def test_the_residual_is_a_copy() -> None:
    feedback = sft.ErrorFeedback((2,))
    feedback.residual[0] = 1
    assert not feedback.residual.any()
    assert repr(feedback) == "ErrorFeedback(shape=(2,))"


def test_other_shapes_and_values_are_refused() -> None:
    feedback = sft.ErrorFeedback((4, 8))
    for call in (feedback.add, feedback.keep):
        with pytest.raises(ValueError, match=r"shape must be \[4, 8\], got \[8, 4\]"):
            call(X.reshape(8, 4))
        with pytest.raises(TypeError, match="must be a NumPy array"):
            call([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \[3\] has 3 elements, but data has 32"):
        sft.ErrorFeedback((3,), X)
    with pytest.raises(sft.CodecError, match="residual 1 is NaN"):
        sft.ErrorFeedback((2,), np.array([0, np.nan], np.float32))
    with pytest.raises(ValueError, match="shape must have 1 to 8 dimensions"):
        sft.ErrorFeedback(())


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((2, -1), ValueError, r"shape must be in 0..2\*\*64, got -1"),
        ((2, 1.5), TypeError, "shape must be a whole number, got 1.5"),
        (2, TypeError, "not iterable"),
    ],
)
def test_shapes_are_checked(shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sft.ErrorFeedback(shape)
