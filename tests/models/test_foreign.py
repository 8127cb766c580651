"""Public state dicts in our networks: the same embeddings of the same faces, at narrow widths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.arch import Arch, IResNet, SEMobileFaceNet, Stage
from mobileface.errors import InputError
from mobileface.models.build import network
from mobileface.models.foreign import Kind, Names, convert, misfit, slots
from mobileface.releases import ADAFACE, ARCFACE, MOBILEFACENET
from tests.models.publics import AdaFace, ArcFace, MobileFaceNet, scrambled
from tests.strategies import archs, examples, iresnets

DEPTHS, WIDTHS, DIM = (1, 2, 1, 3), (4, 6, 6, 8), 12
ROWS = ((16, 8, 1), (16, 8, 4), (32, 16, 1), (32, 16, 6), (64, 16, 1), (32, 16, 2))  # y1 by eight
STAGES = tuple(Stage(hidden, width, depth, 2 if depth == 1 else 1, se=False) for hidden, width, depth in ROWS)
PLAIN = {"shortcut": "subsample", "dropout": 0.4, "last_norm": "plain"}
PUBLICS: dict[str, tuple[Kind, Callable[[], nn.Module]]] = {
    "arcface": (Kind(IResNet("a", DEPTHS, WIDTHS, DIM), ARCFACE, "rgb"), lambda: ArcFace(DEPTHS, WIDTHS, DIM)),
    "mxnet": (
        Kind(IResNet("m", DEPTHS, WIDTHS, DIM, dropout=0.4, eps=2e-5), ARCFACE, "rgb", 128.0),
        lambda: ArcFace(DEPTHS, WIDTHS, DIM, 2e-5),
    ),
    "adaface": (Kind(IResNet("b", DEPTHS, WIDTHS, DIM, **PLAIN), ADAFACE, "bgr"), lambda: AdaFace(DEPTHS, WIDTHS, DIM)),
    "y1": (
        Kind(SEMobileFaceNet("y", 8, STAGES, 64, DIM, stem_depthwise=True), MOBILEFACENET, "bgr"),
        lambda: MobileFaceNet(DIM, narrow=8),
    ),
}


def faces(count: int = 3) -> Tensor:
    """(B, 3, 112, 112) uint8 values, RGB, not grey at the borders."""
    return torch.randint(0, 256, (count, 3, 112, 112), generator=torch.Generator().manual_seed(4)).double()


def fed(pixels: Tensor, kind: Kind) -> Tensor:
    """What the public network is fed, by its own formulas."""
    ordered = pixels[:, [2, 1, 0]] if kind.color == "bgr" else pixels
    return (ordered - 127.5) * 0.0078125 if kind.std == 128 else (ordered / 255 - 0.5) / 0.5


def raw(answer: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    return answer[0] * answer[1] if isinstance(answer, tuple) else answer


def ours(kind: Kind, state: dict[str, Tensor]) -> nn.Module:
    """Our network with a public state dict, in float64 and eval mode."""
    assert not any(misfit(kind, state))
    arch, converted = convert(kind, state, "test")
    net = network(arch)
    net.load_state_dict(converted)
    return net.double().eval()


def close(found: Tensor, wanted: Tensor, relative: float) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= relative * float(wanted.abs().max())


# -- the function


@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("name", PUBLICS)
def test_the_same_embeddings_and_gradients_of_the_pixels(name: str, color: str) -> None:
    kind, make = PUBLICS[name]
    kind, public = replace(kind, color=color), scrambled(make())
    net = ours(kind, public.state_dict())
    public.double()
    answers = []
    for answer in (net, lambda pixels: raw(public(fed(pixels, kind)))):
        pixels = faces().requires_grad_()
        embeddings = answer(pixels)
        (embeddings * torch.linspace(-1, 1, DIM)).sum().backward()
        answers.append((embeddings.detach(), pixels.grad))
    exact = 1e-12 if kind.std == 127.5 else 1e-6  # a factor of 255 / 256 is rounded into float32 weights
    close(answers[0][0], answers[1][0], exact)
    close(answers[0][1], answers[1][1], exact)  # type: ignore[arg-type]
    other = network(net.arch).double().eval()  # type: ignore[arg-type]
    assert (other(faces()) - answers[1][0]).abs().max() > 0.1  # other weights do show


def test_other_colours_and_factors_show() -> None:
    """So that a fold that does nothing would not pass the test above."""
    kind, make = PUBLICS["arcface"]
    state = scrambled(make()).state_dict()
    with torch.inference_mode():
        right = ours(kind, state)(faces())
        for wrong in (replace(kind, color="bgr"), replace(kind, std=128.0)):
            apart = (ours(wrong, state)(faces()) - right).abs().max() / right.abs().max()
            assert apart > 1e-4


def test_the_weight_of_the_last_batch_norm_is_kept_whatever_it_is() -> None:
    kind, make = PUBLICS["arcface"]
    public = scrambled(make())
    assert isinstance(public.features, nn.BatchNorm1d)
    with torch.no_grad():
        public.features.weight.copy_(torch.linspace(-1, 2, DIM))
    net = ours(kind, public.state_dict())
    with torch.inference_mode():
        close(net(faces()), public.double()(fed(faces(), kind)), 1e-12)
    weight = net.get_parameter("head.bn.weight")
    assert not weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_it_is(dtype: torch.dtype) -> None:
    kind, make = PUBLICS["adaface"]
    halved = scrambled(make()).to(dtype).state_dict()
    net = ours(kind, halved)
    public = make().eval()
    public.load_state_dict(halved)
    with torch.inference_mode():
        close(net(faces()), raw(public.double()(fed(faces(), kind))), 1e-12)


def test_the_width_of_the_embedding_is_read_from_the_file() -> None:
    kind = PUBLICS["y1"][0]
    arch, state = convert(kind, scrambled(MobileFaceNet(20, narrow=8)).state_dict(), "test")
    assert (arch.embedding_dim, kind.arch.embedding_dim) == (20, DIM)
    assert state["embedding.conv.weight"].shape == (20, 64, 1, 1)


def test_counters_may_be_missing_and_are_kept_where_they_are() -> None:
    kind, make = PUBLICS["arcface"]
    state = scrambled(make()).state_dict()
    converted = convert(kind, state, "test")[1]
    assert converted["norm.bn.num_batches_tracked"] == 7
    bare = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(bare) < len(state)
    assert not any(misfit(kind, bare))
    without = convert(kind, bare, "test")[1]
    assert without.keys() == converted.keys()
    assert without["norm.bn.num_batches_tracked"] == 0
    assert torch.equal(without["head.bn.running_var"], converted["head.bn.running_var"])


def test_what_is_converted_is_a_copy() -> None:
    kind, make = PUBLICS["adaface"]
    state = scrambled(make()).state_dict()
    tied = {**state, "body.0.res_layer.0.bias": state["body.0.res_layer.0.weight"].expand(4)}
    converted = convert(kind, tied, "test")[1]
    pointers = [tensor.data_ptr() for tensor in converted.values()]
    assert len(set(pointers)) == len(pointers)
    assert not set(pointers) & {tensor.data_ptr() for tensor in tied.values()}
    assert all(tensor.is_contiguous() for tensor in converted.values())


# -- what does not fit


def test_missing_unexpected_and_misshapen_tensors_are_named() -> None:
    kind, make = PUBLICS["y1"]
    state = scrambled(make()).state_dict()
    del state["conv_4.model.5.project.bn.weight"], state["conv1.bn.num_batches_tracked"]
    state["prob.weight"] = torch.zeros(2)
    state["conv1.conv.weight"] = torch.zeros(8, 1, 3, 3)
    state["linear.weight"] = state["linear.weight"][:, :, None, None]  # as ours has it
    assert misfit(kind, state) == (
        ["conv_4.model.5.project.bn.weight"],
        ["prob.weight"],
        ["conv1.conv.weight", "linear.weight"],
    )


@pytest.mark.parametrize("shape", [(), (0, 392), (9000, 392), (12, 392, 1)])
def test_a_width_that_is_none_is_a_misfit(shape: tuple[int, ...]) -> None:
    kind, make = PUBLICS["arcface"]
    state = make().state_dict()
    state["fc.weight"] = torch.empty(shape, device="meta")
    assert "fc.weight" in misfit(kind, state).misshapen


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("conv1.weight", float("nan"), "'conv1.weight' holds a NaN or an infinity, wanted finite weights"),
        ("features.running_mean", float("inf"), "'features.running_mean' holds a NaN or an infinity"),
        ("layer3.0.bn2.running_var", -1e-3, "'layer3.0.bn2.running_var' holds a negative variance"),
    ],
)
def test_values_that_no_training_gives(name: str, value: float, wanted: str) -> None:
    kind, make = PUBLICS["arcface"]
    state = scrambled(make()).state_dict()
    state[name].view(-1)[-1] = value
    with pytest.raises(InputError, match=rf"^file\.pth: {wanted}"):
        convert(kind, state, "file.pth")


@pytest.mark.parametrize(
    ("name", "dtype", "wanted"),
    [
        ("fc.bias", torch.float64, "float32, float16 or bfloat16"),
        ("fc.bias", torch.int64, "float32, float16 or bfloat16"),
        ("bn1.num_batches_tracked", torch.float32, "int64"),
    ],
)
def test_types_that_would_be_rounded(name: str, dtype: torch.dtype, wanted: str) -> None:
    kind, make = PUBLICS["arcface"]
    state = make().state_dict()
    state[name] = state[name].to(dtype)
    with pytest.raises(InputError, match=rf"^x: '{name}' is of type {dtype}, wanted {wanted}$"):
        convert(kind, state, "x")


# -- shapes


def identity(arch: Arch) -> Names:
    """Names that are ours."""
    blocks = list(arch.walk())
    whole = [f"{block.prefix}.{layer.name}" for block in blocks if block.first is None for layer in block.layers]
    unit = [layer.name for block in blocks if block.first is not None for layer in block.layers]
    stages = {block.prefix for block in blocks if block.first is not None}
    places = tuple(f"stages.{s}.{{unit}}." for s in range(len(stages)))
    return Names({name: name for name in whole}, places, {name: name for name in unit}, "")


@examples(25)
@given(st.one_of(archs(), iresnets()))
def test_tensors_are_those_of_the_built_network(arch: Arch) -> None:
    built = {name: tuple(tensor.shape) for name, tensor in network(arch).state_dict().items()}
    found = slots(arch, identity(arch))
    assert {there: slot.shape for there, slot in found.items()} == built
    assert all(there == slot.name and slot.shape == slot.there for there, slot in found.items())
