"""Zero-cost scores against slow, obvious computations; what must not matter to them, and dead networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.arch import SEMobileFaceNet, Stage
from mobileface.losses.classifier import Classifier
from mobileface.losses.forward import Forward
from mobileface.losses.margins import Softmax
from mobileface.models import build
from mobileface.models.network import Network
from mobileface.zoo import ZOO
from search.cost import cost
from search.zero_cost import SCALE, ZERO_COST, flops, grad_norm, naswot, params, synflow
from tests.strategies import archs, examples

MICRO = ZOO["micro"]
assert isinstance(MICRO, SEMobileFaceNet)
HARD = dataclasses.replace(MICRO, name="hard", activation="hard_swish")
# no residual, no SE: every path goes through every layer
CHAIN = SEMobileFaceNet("chain", 4, (Stage(6, 5, 1, 2, se=False), Stage(7, 3, 1, 2, se=False)), 8, 6)
LEAKY = dataclasses.replace(CHAIN, name="leaky", activation="leaky_relu")
MEASURED = ("synflow", "naswot", "grad_norm")
IMAGES = torch.randint(0, 256, (6, 3, 112, 112), generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.tensor([0, 2, 1, 0, 3, 3])


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [part for part in network.modules() if isinstance(part, nn.Conv2d)]


def white_output(network: Network) -> float:
    """Sum of the outputs for an image of ones, all parameters as they are."""
    with torch.no_grad():
        return float(network.eval()(torch.full((1, 3, 112, 112), 255.0, dtype=torch.float64)).sum())


def positive(arch: SEMobileFaceNet) -> Network:
    network = build(arch).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.abs())
    return network


@pytest.mark.parametrize("arch", [MICRO, HARD], ids=lambda arch: arch.name)
def test_synflow_is_how_the_output_answers_to_each_layer_made_larger(arch: SEMobileFaceNet) -> None:
    """Sum of w dR/dw over a layer = dR/ds where all its weights are times s: central differences."""
    network, total, step = positive(arch), 0.0, 1e-6
    for part in convolutions(network):
        whole = part.weight.detach().clone()
        ends = []
        for s in (1 - step, 1 + step):
            part.weight.data = whole * s
            ends.append(white_output(network))
        part.weight.data = whole
        total += (ends[1] - ends[0]) / (2 * step)
    assert synflow(build(arch), IMAGES, LABELS, drawn()) == pytest.approx(math.log(total), rel=1e-7)


@pytest.mark.parametrize("arch", [CHAIN, LEAKY], ids=lambda arch: arch.name)
def test_synflow_is_conserved_along_a_chain(arch: SEMobileFaceNet) -> None:
    """Tanaka et al. 2020, theorem 2: every layer of a chain has the sum R."""
    network = positive(arch)
    wanted = len(convolutions(network)) * white_output(network)
    assert synflow(build(arch), IMAGES, LABELS, drawn()) == pytest.approx(math.log(wanted), rel=1e-9)


def test_synflow_reads_neither_images_nor_labels_nor_signs() -> None:
    network, other = build(MICRO), build(MICRO)
    with torch.no_grad():
        for part in convolutions(other):
            part.weight.mul_(-1)
    assert synflow(network, IMAGES, LABELS, drawn(1)) == synflow(other, IMAGES[:2] * 0, LABELS[:2] * 0, drawn(2))


def test_synflow_does_not_overflow_where_float32_does() -> None:
    deep = dataclasses.replace(CHAIN, name="deep", stages=(*[Stage(8, 8, 1, 2)] * 3, Stage(128, 64, 30, 2)))  # 4x4
    with torch.no_grad():
        network = positive(deep).float().eval()
        assert not network(torch.full((1, 3, 112, 112), 255.0)).isfinite().all()
    assert math.isfinite(synflow(build(deep), IMAGES, LABELS, drawn()))


class Toy(nn.Sequential):
    """Two activations, one behind a batch norm."""

    def __init__(self, act: Callable[[], nn.Module]) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), act(), nn.Conv2d(4, 2, 2), act())
        self.double()


def determinant(rows: list[list[int]]) -> Fraction:
    """Exact, by elimination."""
    left, found = [[Fraction(value) for value in row] for row in rows], Fraction(1)
    while left:
        row = next((row for row in left if row[0]), None)
        if row is None:
            return Fraction(0)
        found *= row[0] * (-1) ** left.index(row)
        left.remove(row)
        left = [[b - a * other[0] / row[0] for a, b in zip(row[1:], other[1:], strict=True)] for other in left]
    return found


@pytest.mark.parametrize("act", [nn.PReLU, lambda: nn.LeakyReLU(0.25), nn.Hardswish, nn.ReLU])
def test_naswot_counts_units_that_agree(act: Callable[[], nn.Module]) -> None:
    network = Toy(act)
    images = torch.randn(5, 3, 6, 6, generator=drawn(), dtype=torch.float64)
    hidden = network[0](images)
    mean, variance = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), unbiased=False, keepdim=True)
    hidden = (hidden - mean) / (variance + 1e-5).sqrt()
    codes = torch.cat([hidden.flatten(1), network[3](act().double()(hidden)).flatten(1)], 1) > 0
    kernel = [[sum(a == b for a, b in zip(one, two, strict=True)) for two in codes.tolist()] for one in codes.tolist()]
    assert kernel[0][0] == 4 * 16 + 2 * 9
    wanted = math.log(abs(determinant(kernel)))
    assert naswot(network, images, LABELS, drawn()) == pytest.approx(wanted, rel=1e-12)


def test_naswot_of_images_in_another_order_is_the_same() -> None:
    network = build(MICRO).double()
    one, two = (naswot(network, images, LABELS, drawn()) for images in (IMAGES, IMAGES.flip(0)))
    assert one == pytest.approx(two, rel=1e-12)


def test_grad_norm_is_that_of_the_classifier() -> None:
    """Our own classifier, which streams over its classes, with the same centres."""
    network = build(MICRO).double()
    classifier = Classifier(4, 32, Softmax(), SCALE).double()
    classifier.centres.data = F.normalize(torch.randn(4, 32, generator=drawn(7))).double()
    twin = build(MICRO).double().train()
    values, _ = classifier(Forward({"clean": twin(IMAGES)}, LABELS))
    values.mean().backward()
    wanted = sum(math.sqrt(float((part.weight.grad**2).sum())) for part in convolutions(twin))  # type: ignore[operator]
    assert grad_norm(network, IMAGES, LABELS, drawn(7)) == pytest.approx(wanted, rel=1e-6)


@given(arch=archs(max_stages=3, max_depth=2))
@examples(5)
def test_the_controls_are_the_cost(arch: SEMobileFaceNet) -> None:
    network = build(arch)
    assert flops(network, IMAGES, LABELS, drawn()) == cost(arch).flops_lfrc
    assert params(network, IMAGES, LABELS, drawn()) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ZERO_COST)
def test_the_same_twice_and_the_network_is_left_alone(name: str) -> None:
    network = build(MICRO)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    one, two = (ZERO_COST[name](network, IMAGES.float(), LABELS, drawn()) for _ in range(2))
    assert math.isfinite(one)
    assert one == two
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training


def kill_stem(network: Network) -> None:
    convolutions(network)[0].weight.data.zero_()


@pytest.mark.parametrize("name", MEASURED)
def test_a_dead_network_scores_lowest(name: str) -> None:
    def score(network: Network, images: Tensor = IMAGES) -> float:
        return ZERO_COST[name](network, images.float(), LABELS, drawn())

    dead = build(MICRO)
    kill_stem(dead)
    assert score(dead) < min(score(build(MICRO, seed)) for seed in range(3))


def test_there_are_scores_to_test() -> None:
    assert {*MEASURED, "flops", "params"} == ZERO_COST.keys()
