"""The settings of a cut, and the random streams that they name."""

from typing import Any

import numpy as np
import pytest
import torch

import sft
import sft.torch as st

RAW = sft.Codec.raw()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda cut: cut("h"), TypeError, "h must be a torch.Tensor, got str"),
        (lambda cut: cut(torch.ones(3).double()), TypeError, r"torch.float64.*h\.float\(\)"),
        (lambda cut: cut.encode(torch.ones(3).int()), TypeError, "h must be float32"),
        (lambda cut: cut.encode_gradient(None), TypeError, "grad must be a torch.Tensor, got None"),
        (
            lambda cut: cut(torch.ones(2, 2).to_sparse()),
            TypeError,
            r"h must be dense.*to_dense\(\)",
        ),
        (lambda cut: cut.decode(5), TypeError, "message must be bytes, .*got int"),
        (lambda cut: cut.decode_gradient(None), TypeError, "reply must be bytes, .*got NoneType"),
        (lambda cut: type(cut)(seed="x"), TypeError, "seed must be a whole number, got str"),
        (lambda cut: cut.decode(b"SFTZ"), sft.CodecError, "."),
        (lambda cut: cut.decode_gradient(b""), sft.CodecError, "."),
        (
            lambda cut: type(cut)(activation="zip"),
            ValueError,
            'codec "zip": expected raw, dead-zone:STEP',
        ),
        (
            lambda cut: type(cut)(gradient=0.2),
            TypeError,
            "gradient must be a sft.Codec, a Transform or text such as",
        ),
        (lambda cut: type(cut)(seed=True), TypeError, "seed must be a whole number, got bool"),
        (lambda cut: type(cut)(seed=2.0), TypeError, "seed must be a whole number, got float"),
        (lambda cut: type(cut)(rank="0"), TypeError, "rank must be a whole number, got str"),
        (lambda cut: type(cut)(rank=-1), ValueError, r"rank must be in 0\.\.2\*\*64, got -1"),
        (lambda cut: setattr(cut, "seed", -1), ValueError, r"seed must be in 0\.\.2\*\*64, got -1"),
        (lambda cut: setattr(cut, "activation", 2), TypeError, "activation must be a sft.Codec"),
        (lambda cut: setattr(cut, "gradient", None), TypeError, "gradient must be a sft.Codec"),
        (lambda cut: type(cut)(compress_eval="no"), TypeError, "compress_eval must be True or"),
        (lambda cut: type(cut)(error_feedback=1), TypeError, "error_feedback must be True or"),
        (lambda cut: st.Cut(seed=-1), ValueError, r"seed must be in 0\.\.2\*\*64, got -1"),
        (lambda cut: cut(torch.tensor(1.0)), ValueError, "dimensions"),
    ],
)
def test_errors_name_the_argument(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(st.Cut())


def test_numbers_of_numpy_are_seeds() -> None:
    assert repr(st.Cut(seed=np.int64(3), rank=np.uint8(1))) == repr(st.Cut(seed=3, rank=1))  # type: ignore[arg-type]


def test_no_two_messages_draw_the_same_noise() -> None:
    """Of sixteen devices with one seed, and of one device with sixteen seeds, both ways."""
    codec, h = sft.Codec.paper(keep=1.0, levels=2), torch.randn(16, 16)
    drawn = set()
    cuts = [st.Cut(codec, codec, rank=rank) for rank in range(16)]
    cuts += [st.Cut(codec, codec, seed=seed) for seed in range(1, 16)]
    for cut in cuts:
        for _ in range(4):
            drawn |= {cut.encode(h), cut.encode_gradient(h)}
    assert len(drawn) == len(cuts) * 4 * 2
    assert st.Cut(codec).encode(h) == st.Cut(codec, rank=0).encode(h)


def test_the_rank_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    h, cut = torch.randn(16, 16), st.Cut(sft.Codec.paper(keep=1.0, levels=2))
    expected = st.Cut(cut.activation, rank=3).encode(h)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    assert cut.encode(h) == expected


def test_a_cut_without_codecs_has_the_defaults() -> None:
    cut = st.Cut()
    assert cut.activation == sft.Codec.default_activation() == sft.Codec()
    assert cut.gradient == sft.Codec.default_gradient()
    assert st.Cut("raw", "gradient:0.2:8").gradient == sft.Codec.gradient()


def test_repr_names_the_settings() -> None:
    text = repr(st.Cut(RAW, compress_eval=True, seed=4))
    assert "activation=raw" in text
    assert "seed=4" in text
    assert "compress_eval=True" in text
