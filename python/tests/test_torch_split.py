"""Halves of real models: the same results and gradients as the whole."""

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from accelerate import hooks  # type: ignore[import-untyped]
from split_models import (
    CASES,
    IDS,
    LABELS,
    MASK,
    RAW,
    Case,
    assert_equal,
    build,
    every_case,
    gradients,
    images,
    loss_of,
    sequential,
    timm_vit,
    train_whole,
)
from torch import Tensor, nn

import sft
import sft.torch as st
from sft.torch._values import NotSentError


@every_case
def test_lossless_halves_equal_the_whole_exactly(case: Case) -> None:
    model, point, inputs = build(case), case.point, case.inputs
    expected, grads = train_whole(model, inputs)
    device_model, server_model = st.split(model, after=point)
    cut = st.Cut(RAW, RAW)
    for _ in range(2):
        torch.manual_seed(1)
        h = device_model(**inputs)
        sent = h.sent if isinstance(h, st.Crossing) else ()
        assert [tuple(x.shape) for x in sent] == list(case.beside)
        assert isinstance(h, st.Crossing) == bool(case.beside)
        result = server_model(cut(h))
        loss_of(result).backward()
        if not any(isinstance(m, nn.BatchNorm2d) for m in model.modules()):
            assert type(result) is type(expected)
            assert torch.equal(loss_of(result), loss_of(expected))
            assert_equal(gradients(model), grads)
        model.zero_grad()
    raw = [x.nbytes for x in (h.hidden if isinstance(h, st.Crossing) else h, *sent)]
    assert cut.traffic.up.raw_bytes == 2 * sum(raw)
    # The hidden state as it is, what passes beside it packed.
    assert cut.traffic.up.bytes >= 2 * raw[0]
    assert cut.traffic.down.messages == 2


@every_case
def test_parameters_are_shared_and_belong_to_one_half(case: Case) -> None:
    model, point = build(case), case.point
    device_model, server_model = st.split(model, after=point)
    device, server = (dict(half.named_parameters()) for half in (device_model, server_model))
    whole = dict(model.named_parameters(remove_duplicate=False))
    assert not set(device) & set(server)
    for name, p in {**device, **server}.items():
        assert p is whole[name]
    assert {id(p) for p in whole.values()} == {id(p) for p in (*device.values(), *server.values())}
    assert not {id(p) for p in device.values()} & {id(p) for p in server.values()}
    keys = [*device_model.state_dict(), *server_model.state_dict()]
    assert sorted(keys) == sorted(model.state_dict())


@pytest.mark.parametrize("name", ["BERT, mask", "LLaMA", "GPT-2, mask"])
def test_batches_with_and_without_padding_take_turns(name: str) -> None:
    """Without padding these models drop the mask, so that it is not used behind the cut."""
    case = CASES[name]
    model = build(case).eval()
    device_model, server_model = st.split(model, after=case.point)
    for mask in (torch.ones_like(MASK), MASK, torch.ones_like(MASK), MASK):
        for ids in (IDS, IDS[:, :4], IDS[:1, :5], IDS[:, :1]):
            inputs = {"input_ids": ids, "attention_mask": mask[: len(ids), : ids.shape[1]]}
            with torch.no_grad():
                result = server_model(st.Cut(RAW)(device_model(**inputs)))
                assert torch.equal(result.logits, model(**inputs).logits)


def test_the_server_does_not_run_the_devices_modules() -> None:
    model = build(CASES["timm ViT"])
    device_model, server_model = st.split(model, after="blocks.1")
    calls: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    h = device_model(images())
    assert "blocks.1" in calls
    calls.clear()
    h = device_model(images())
    assert {"patch_embed", "blocks.0", "blocks.1"} <= set(calls)
    assert not {name for name in calls if name.startswith(("blocks.2", "head"))}
    calls.clear()
    server_model(h)
    assert {"blocks.2", "head"} <= set(calls)
    assert not {name for name in calls if name.startswith(("blocks.0", "blocks.1", "patch_embed."))}


def test_training_and_evaluation_follow_the_halves() -> None:
    model = build(CASES["timm ViT"])
    device_model, server_model = st.split(model, after="blocks.1")
    device_model.eval()
    server_model.eval()
    assert not any(m.training for name, m in model.named_modules() if "blocks." in name)
    x = images()
    with torch.no_grad():
        first = server_model(device_model(x))
        assert torch.equal(first, server_model(device_model(x)))
        model.eval()
        assert torch.equal(first, model(x))


def test_two_optimizers_train_the_model() -> None:
    torch.manual_seed(0)
    model = build(CASES["HF ViT"])
    device_model, server_model = st.split(model, after="vit.layers.1")
    cut = st.Cut(sft.Codec.activation(keep=0.5, levels=8), sft.Codec.gradient(keep=0.2, levels=8))
    optimizers = [
        torch.optim.AdamW(half.parameters(), 3e-3) for half in (device_model, server_model)
    ]
    x, y = torch.randn(16, 3, 16, 16), torch.arange(16) % 2
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(server_model(cut(device_model(x))).logits, y)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert cut.traffic.up.messages == cut.traffic.down.messages == 20
    assert cut.traffic.ratio > 4


def test_lora_of_peft_trains_through_the_cut() -> None:
    torch.manual_seed(0)
    model = build(CASES["PEFT on timm ViT"])
    reference = copy.deepcopy(model)
    device_model, server_model = st.split(model, after="blocks.1")
    for half in (device_model, server_model):
        names = [name for name, p in half.named_parameters() if p.requires_grad]
        assert names
        assert all("lora_" in name for name in names)
    trained = [p for p in model.parameters() if p.requires_grad]
    twins = [p for p in reference.parameters() if p.requires_grad]
    optimizers = [torch.optim.SGD(params, 0.05, momentum=0.9) for params in (trained, twins)]
    halves = nn.Sequential(device_model, st.Cut(RAW, RAW), server_model)
    for step in range(3):
        for whole in (halves, reference):
            torch.manual_seed(step)
            nn.functional.cross_entropy(whole(images()), LABELS).backward()
        for a, b in zip(trained, twins, strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert torch.equal(a.grad, b.grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(trained, twins, strict=True))


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model: Any = build(CASES["HF ViT"])
    _, grads = train_whole(model, {"pixel_values": images()})
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": False})
    device_model, server_model = st.split(model, after="vit.layers.1")
    torch.manual_seed(1)
    loss_of(server_model(st.Cut(RAW, RAW)(device_model(pixel_values=images())))).backward()
    assert_equal(gradients(model), grads)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["BERT, mask", "HF ViT", "timm ViT", "PEFT on LLaMA"])
def test_autocast_through_halves_equals_the_whole(name: str, dtype: torch.dtype) -> None:
    """Also with gradients that accumulate over two batches in one autocast."""
    case = CASES[name]
    model = build(case).eval()
    twin = copy.deepcopy(model)
    device_model, server_model = st.split(model, after=case.point)
    cut = st.Cut(RAW, RAW)
    with torch.autocast("cpu", dtype):
        for _ in range(2):
            result = server_model(cut(device_model(**case.inputs)))
            loss_of(result).backward()
    with torch.autocast("cpu", dtype):
        for _ in range(2):
            expected = twin(**case.inputs)
            loss_of(expected).backward()
    assert torch.equal(loss_of(result), loss_of(expected))
    assert_equal(gradients(model), gradients(twin))


@pytest.mark.parametrize("point", ["blocks.0", "blocks.1", "blocks.2"])
def test_a_half_may_have_another_cut_inside(point: str) -> None:
    model = build(CASES["timm ViT"])
    inner, outer = st.Cut(), st.Cut()
    st.attach(model, after=point, cut=inner)
    device_model, server_model = st.split(model, after="blocks.1")
    for _ in range(2):
        loss_of(server_model(outer(device_model(images())))).backward()
    assert inner.traffic.up.messages == inner.traffic.down.messages == 2
    assert outer.traffic.up.messages == outer.traffic.down.messages == 2


def test_a_hidden_state_may_be_detached() -> None:
    model = build(CASES["timm ViT"]).eval()
    device_model, server_model = st.split(model, after="blocks.0")
    h = device_model(images())
    assert isinstance(h, Tensor)
    z = h.detach().requires_grad_()
    loss_of(server_model(z)).backward()
    h.backward(z.grad)
    found = gradients(model)
    assert_equal(found, train_whole(model, {"x": images()})[1])
    with pytest.raises(ValueError, match="h tells nothing about the device's inputs"):
        st.split(model, after="blocks.0")[1](z)
    with pytest.raises(TypeError, match="h must be what device_model or Cut returned, got list"):
        server_model([z])


def test_a_crossing_behaves_as_its_hidden_state() -> None:
    model = build(CASES["BERT, mask"])
    h: Any = st.split(model, after="bert.encoder.layer.0")[0](input_ids=IDS, attention_mask=MASK)
    assert (h.shape, h.dtype, h.device) == (h.hidden.shape, torch.float32, h.hidden.device)
    z = h.detach().requires_grad_()
    assert (z.requires_grad, z.grad) == (True, None)
    z.backward(torch.ones(2, 7, 32))
    assert torch.equal(z.grad, torch.ones(2, 7, 32))


def test_halves_can_be_copied_and_pickled() -> None:
    model = build(CASES["BERT, mask"]).eval()
    halves = st.split(model, after="bert.encoder.layer.1")
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    expected = model(**inputs).logits
    for again in (copy.deepcopy(halves), pickle.loads(pickle.dumps(halves))):
        device_model, server_model = again
        assert torch.equal(server_model(device_model(**inputs)).logits, expected)
        assert next(device_model.parameters()) is not next(halves[0].parameters())


class Deciding(nn.Module):
    """Reads a value before the cut and registers its modules out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.first = nn.Linear(4, 4)
        self.body = nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        sign = 1 if scale.sum() > 0 else -1
        out: Tensor = self.head(self.body(self.first(x)) * sign)
        return out


def test_decisions_by_value_are_taken_on_the_device() -> None:
    model, x = Deciding(), torch.randn(3, 4)
    device_model, server_model = st.split(model, after="body")
    for scale in (torch.ones(2), -torch.ones(2)):
        with pytest.warns(UserWarning, match="head is used on the other side of the cut"):
            h = device_model(x, scale)
        assert isinstance(h, Tensor)
        assert torch.equal(server_model(h), model(x, scale))


def test_a_module_that_is_called_again_is_cut_the_first_time() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(self.layer(x).relu())
            return out

    model, x = Twice(), torch.randn(3, 4)
    device_model, server_model = st.split(model, after="layer")
    h = device_model(x)
    assert torch.equal(h, model.layer(x))
    assert torch.equal(server_model(h), model(x))


@pytest.mark.parametrize("name", ["blocks.9", "", "blocks.1.", "head.0"])
def test_unknown_points_list_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"after must name .* there are .*blocks\.0 to blocks\.2"):
        st.split(timm_vit(), after=name)


def test_wrong_types_are_named() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got str"):
        st.split("model", after="0")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="after must be the name of a module, got int"):
        st.split(sequential(), after=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model must be a whole model, got a half"):
        st.split(st.split(sequential(), after="1")[1], after="3")


def test_a_forward_that_misses_the_cut_is_an_error() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    device_model, _ = st.split(Skipping(), after="unused")
    with pytest.raises(RuntimeError, match="the forward did not pass through unused"):
        device_model(torch.ones(1, 2))


def test_tied_parameters_are_stepped_once() -> None:
    """The embedding of GPT-2 is its head: of both halves, but of one optimizer."""
    torch.manual_seed(0)
    model = build(CASES["GPT-2"]).eval()
    reference = copy.deepcopy(model)
    halves = st.split(model, after="transformer.h.1")
    names = {"transformer.wte.weight": "lm_head.weight"}
    assert [half.shared for half in halves] == [names, names]
    optimizers = [torch.optim.SGD(half.parameters(), 0.1) for half in halves]
    whole = torch.optim.SGD(reference.parameters(), 0.1)
    for _ in range(2):
        loss_of(halves[1](halves[0](input_ids=IDS))).backward()
        loss_of(reference(input_ids=IDS)).backward()
        for optimizer in (*optimizers, whole):
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_calls_of_equal_shape_keep_their_plans() -> None:
    model, x = Deciding(), torch.randn(3, 4)
    device_model, server_model = st.split(model, after="body")
    scales = (torch.ones(2), -torch.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hidden = [device_model(x, scale) for scale in scales]
        expected = [model(x, scale) for scale in scales]
    for h, result in zip(hidden, expected, strict=True):
        assert torch.equal(server_model(h), result)
        assert torch.equal(server_model(h.detach()), result)
        with pytest.raises(ValueError, match="does not tell which of the calls"):
            server_model(h * 1)
        assert torch.equal(server_model(st.Cut(RAW)(h)), result)


class Auxiliary(nn.Module):
    """Keeps a loss as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        self.loss = y.square().mean()
        return y


@pytest.mark.parametrize("inside", [False, True])
def test_what_a_module_keeps_does_not_pass_the_cut(inside: bool) -> None:
    class Model(nn.Module):
        def __init__(self, uses: str) -> None:
            super().__init__()
            self.first = nn.Sequential(Auxiliary()) if inside else Auxiliary()
            self.cut, self.last, self.uses = nn.Linear(4, 4), nn.Linear(4, 2), uses

        def forward(self, x: Tensor) -> Tensor:
            kept = getattr(self.first, "0") if inside else self.first
            out: Tensor = self.last(self.cut(self.first(x))).sum() + getattr(kept, self.uses).sum()
            return out

    x = torch.randn(3, 4)
    constant = Model("scale")
    device_model, server_model = st.split(constant, after="cut")
    assert torch.equal(server_model(device_model(x)), constant(x))
    device_model, _ = st.split(Model("loss"), after="cut")
    for _ in range(2):
        with pytest.raises(NotSentError, match=r"uses first\..*loss, which a module keeps"):
            device_model(x)


def test_gradient_checkpointing_of_timm_gives_the_same_gradients() -> None:
    """It computes both sides of the cut again in one segment."""
    model: Any = build(CASES["timm ViT"])
    _, grads = train_whole(model, {"x": images()})
    model.set_grad_checkpointing()
    device_model, server_model = st.split(model, after="blocks.1")
    torch.manual_seed(1)
    loss_of(server_model(st.Cut(RAW, RAW)(device_model(images())))).backward()
    assert_equal(gradients(model), grads)


def test_hooks_of_accelerate_run_in_the_halves() -> None:
    model = build(CASES["HF ViT"]).eval()
    expected = model(images()).logits
    hooks.add_hook_to_module(model, hooks.ModelHook())
    device_model, server_model = st.split(model, after="vit.layers.1")
    assert torch.equal(server_model(device_model(pixel_values=images())).logits, expected)


def test_models_that_are_wrapped() -> None:
    model = build(CASES["timm ViT"]).eval()
    x = images()
    expected = model(x)
    compiled: Any = torch.compile(model, backend="eager")
    device_model, server_model = st.split(compiled, after="blocks.1")
    assert torch.equal(server_model(device_model(x)), expected)
    setattr(model, "blocks", torch.compile(model.get_submodule("blocks"), backend="eager"))  # noqa: B010
    device_model, server_model = st.split(model, after="blocks.1")
    assert torch.equal(server_model(device_model(x)), expected)
    with pytest.raises(TypeError, match=r"split model\.module, and wrap the halves"):
        st.split(nn.DataParallel(model), after="blocks.1")
    torch.compiler.reset()
