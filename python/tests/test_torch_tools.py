"""The cut among the tools of PyTorch and its libraries: savers, copies, compilers, transforms."""

import copy
import io
import pickle
from collections import namedtuple
from pathlib import Path
from typing import Any

import accelerate  # type: ignore[import-untyped]
import pytest
import safetensors.torch
import torch
import transformers
from split_models import IDS, MASK, RAW, gpt2
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import sft
import sft.torch as st

NOISY = sft.Codec.paper(keep=0.5, levels=2)
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def attached(**settings: Any) -> tuple[nn.Sequential, st.Cut]:
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 2))
    cut = st.Cut(RAW, RAW, **settings)
    st.attach(model, after="1", cut=cut)
    return model, cut


def inside() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), st.Cut(), nn.Linear(8, 2))


def test_savers_and_averages_find_tensors_alone(tmp_path: Path) -> None:
    net = inside()
    assert [v.numpy().dtype.kind for v in net.state_dict().values()] == ["f"] * 4
    net.load_state_dict(nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.Linear(8, 2)).state_dict())
    safetensors.torch.save_model(net, str(tmp_path / "net.safetensors"))
    safetensors.torch.load_model(inside(), tmp_path / "net.safetensors")
    ModelEmaV3(net).update(net)
    accelerator = accelerate.Accelerator(cpu=True)
    accelerator.prepare(net)
    accelerator.save_state(str(tmp_path))
    accelerator.load_state(str(tmp_path))


def test_a_trainer_of_transformers_saves_checkpoints(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = inside()

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    rows = [{"x": x, "labels": torch.tensor(0)} for x in X]
    args = transformers.TrainingArguments(
        str(tmp_path), max_steps=2, save_steps=1, use_cpu=True, report_to=[], disable_tqdm=True
    )
    model = Model()
    transformers.Trainer(model, args, train_dataset=rows).train()
    assert (tmp_path / "checkpoint-2" / "model.safetensors").exists()
    assert st.cuts(model)["net.1"].traffic.up.messages == 2


def test_copies_have_cuts_of_their_own() -> None:
    model, cut = attached()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
        torch.optim.swa_utils.AveragedModel(model).module,
    ]
    for number, again in enumerate(copies):
        assert torch.equal(again(X), model(X))
        assert st.cuts(again)["1"].traffic.up.messages == 1
        assert cut.traffic.up.messages == number + 1


def test_compiled_models_notice_a_cut_that_comes_and_goes() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 2))
    compiled: Any = torch.compile(model, backend="eager")
    compiled(X)
    cut = st.Cut(RAW, RAW)
    for whole in (model, compiled):
        handle = st.attach(whole, after="1", cut=cut)
        compiled(X).sum().backward()
        assert cut.reset_traffic().down.messages == 1
        handle.remove()
        compiled(X)
        assert cut.traffic.messages == 0
    torch.compiler.reset()


def test_wrappers_do_not_hide_names() -> None:
    blocks: Any = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.GELU()), backend="eager")
    model = nn.DataParallel(nn.Sequential(blocks, nn.Linear(8, 2)))
    cut = st.Cut(RAW, RAW)
    st.attach(model, after="0.1", cut=cut)
    model(X)
    assert cut.traffic.up.messages == 1
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    ("transform", "name"),
    [
        (lambda model: torch.func.vmap(model)(X[:, None]), "torch.vmap"),
        (lambda model: torch.func.jvp(model, (X,), (X,)), "forward-mode"),
        (lambda model: torch.jit.trace(model, X), "torch.jit.trace"),
        (lambda model: torch.export.export(model, (X,)), "torch.export"),
        (
            lambda model: (
                torch.autograd.grad(model(X).sum(), model[0].weight, create_graph=True)[0]
                .sum()
                .backward()
            ),
            "create_graph",
        ),
    ],
)
def test_transforms_that_cannot_work_name_the_cut(transform: Any, name: str) -> None:
    model, cut = attached()
    halves = nn.Sequential(model[0], model[1], cut, model[2])
    for each in (model, halves):
        with pytest.raises(RuntimeError, match=f"a Cut cannot be under .*{name}"):
            transform(each)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripts_name_the_cut() -> None:
    model, cut = attached()
    for each in (model, nn.Sequential(nn.Linear(8, 8), cut)):
        with pytest.raises((AttributeError, RuntimeError), match=r"under torch\.jit\.script"):
            torch.jit.script(each)


def test_symbolic_traces_keep_the_cut_or_name_it() -> None:
    model, cut = attached()
    traced = torch.fx.symbolic_trace(model)
    traced(X)
    assert cut.traffic.up.messages == 1
    own = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 2))
    st.attach(own, after="0", cut=cut)
    for whole in (own, inside()):
        with pytest.raises(RuntimeError, match=r"a Cut cannot be under torch\.fx"):
            torch.fx.symbolic_trace(whole)


def test_fullgraph_says_why_not() -> None:
    compiled: Any = torch.compile(attached()[0], backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="what crosses a cut is encoded to bytes"):
        compiled(X)
    torch.compiler.reset()


def test_gradients_of_torch_func_cross() -> None:
    model, cut = attached()
    parameters: dict[str, Tensor] = dict(model.named_parameters())

    def loss(p: dict[str, Tensor]) -> Tensor:
        total: Tensor = torch.func.functional_call(model, p, (X,)).square().sum()
        return total

    found = torch.func.grad(loss)(parameters)
    model(X).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad)
    assert cut.traffic.down.messages == 2


@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpointed_cut_is_crossed_once(use_reentrant: bool, error_feedback: bool) -> None:
    """The same as without checkpoints: noise, residual, counters, and gradients behind the cut."""
    weight = torch.randn(8, 8, generator=torch.Generator().manual_seed(1))
    results = []
    for checkpointed in (False, True):
        cut = st.Cut(NOISY, NOISY, error_feedback=error_feedback)
        w = weight.clone().requires_grad_()

        def segment(h: Tensor, cut: st.Cut = cut, w: Tensor = w) -> Tensor:
            total: Tensor = (cut(h) @ w).square().sum()
            return total

        h = X.clone().requires_grad_()
        for _ in range(3):
            # Two segments in one graph: backward comes to the second first.
            if checkpointed:
                both = [checkpoint(segment, h * k, use_reentrant=use_reentrant) for k in (1, 2)]
            else:
                both = [segment(h * k) for k in (1, 2)]
            (both[0] + both[1]).backward()
        results.append((w.grad, h.grad, cut.state()))
    (w0, h0, state0), (w1, h1, state1) = results
    torch.testing.assert_close(w0, w1)  # added up in another order
    torch.testing.assert_close(h0, h1, rtol=0, atol=0)
    torch.testing.assert_close(state0.pop("feedback"), state1.pop("feedback"), rtol=0, atol=0)
    assert state0 == state1


def test_any_container_may_be_at_an_attached_point() -> None:
    pair = namedtuple("pair", ["number", "nothing"])

    class Returning(nn.Module):
        def __init__(self, make: Any) -> None:
            super().__init__()
            self.make = make

        def forward(self, x: Tensor) -> Any:
            return self.make(x)

    for make in (
        lambda x: pair(x, None),
        lambda x: (torch.arange(3), x),
        lambda x: [x],
        lambda x: {"x": x},
        lambda x: transformers.modeling_outputs.BaseModelOutput(last_hidden_state=x),
    ):
        model, cut = nn.Sequential(Returning(make)), st.Cut(NOISY)
        st.attach(model, after="0", cut=cut)
        result = model(X)
        assert type(result) is type(make(X))
        values = result.values() if hasattr(result, "values") else result
        floats = [x for x in values if isinstance(x, Tensor) and x.is_floating_point()]
        assert torch.equal(floats[0], st.Cut(NOISY)(X))
        assert cut.traffic.up.messages == 1
    model = nn.Sequential(Returning(lambda x: x.long()))
    st.attach(model, after="0", cut=st.Cut())
    with pytest.raises(TypeError, match="0 must return a tensor of floating-point numbers"):
        model(X)


def test_an_attached_cut_in_evaluation_says_that_it_counts_nothing() -> None:
    model, cut = attached()
    model.eval()
    with pytest.warns(UserWarning, match="1 is in evaluation: its cut passes everything through"):
        model(X)
    model(X)
    model.train()
    model(X)
    assert cut.traffic.up.messages == 1
    model.eval()
    model(X)
    quiet, counting = attached(compress_eval=True)
    quiet.eval()(X)
    assert counting.traffic.up.messages == 1


@pytest.mark.parametrize("compress_eval", [False, True])
def test_to_generate_is_evaluation(compress_eval: bool) -> None:
    model: Any = gpt2().train()
    cut = st.Cut(compress_eval=compress_eval)
    st.attach(model, after="transformer.h.1", cut=cut)
    model.generate(IDS, attention_mask=torch.ones_like(MASK), max_new_tokens=3, do_sample=False)
    assert (cut.traffic.up.messages > 0) == compress_eval
    cut.reset_traffic()
    with torch.no_grad():
        model(IDS)
    assert cut.traffic.up.messages == 1
