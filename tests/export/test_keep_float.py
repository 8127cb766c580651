"""What each layer costs in int8, and the choice of what stays float: measured, and what is broken is found."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from export.keep_float import choose
from mobileface.arch import SEMobileFaceNet, Stage
from mobileface.errors import InputError
from mobileface.models.fuse import fuse
from mobileface.models.quantised import Int8Network, int8_points

SE_NANO = SEMobileFaceNet("se-nano", 4, (Stage(8, 4, 1, 2), Stage(8, 4, 1, 1, se=True)), 8, 8)


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    """Smooth, unlike noise: the same range of brightness in each half."""
    coarse = np.random.default_rng(1).integers(0, 256, (16, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(28, 1).repeat(28, 2)


@pytest.fixture
def network(make: Callable[..., nn.Module]) -> nn.Module:
    return make(SE_NANO)


def cosines(network: nn.Module, crops: NDArray[np.uint8], keep: frozenset[str]) -> torch.Tensor:
    """Of the odd crops, with ranges of the even ones, in the plain way: all computed anew."""
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    int8 = Int8Network(network, keep)
    int8.observe(pixels[::2])
    with torch.no_grad():
        return torch.cosine_similarity(int8(pixels[1::2]).double(), fuse(network)(pixels[1::2]).double())


def broken(network: nn.Module, name: str = "stages.0.0") -> nn.Module:
    """The same function, but one channel between expansion and depthwise convolution is 3000 times as large."""
    expand, depthwise = (network.get_submodule(f"{name}.{part}") for part in ("expand.bn", "depthwise.conv"))
    assert isinstance(expand, nn.BatchNorm2d)
    assert isinstance(depthwise, nn.Conv2d)
    with torch.no_grad():
        expand.weight[1] *= 3000
        expand.bias[1] *= 3000
        depthwise.weight[1] /= 3000
    return network


def test_each_layer_alone_is_what_the_whole_network_says(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    rows = choose(network, crops, 0.0)[1].layers
    fused = fuse(network)
    layers = [name for name, part in fused.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert [row.name for row in rows] == layers
    points = frozenset(int8_points(fused))
    for row in rows:
        lost = 1 - cosines(network, crops, points - {row.name})
        assert row.mean == pytest.approx(float(lost.mean()), abs=1e-7)
        assert row.worst == pytest.approx(float(lost.max()), abs=1e-7)
        assert row.weights == fused.get_submodule(row.name).get_parameter("weight").numel()
    assert min(row.worst for row in rows) > 1e-7
    kinds = {row.name: row.kind for row in rows}
    assert kinds["stem.conv"] == "first conv"
    assert kinds["embedding.conv"] == "last linear"
    assert kinds["gdc.conv"] == "GDC"
    se = [f"stages.{n}.0.se.{layer}" for n in (0, 1) for layer in ("reduce", "expand")]
    assert [name for name, kind in kinds.items() if kind == "SE"] == se
    assert [name for name, kind in kinds.items() if kind == "depthwise"] == [
        f"stages.{n}.0.depthwise.conv" for n in (0, 1)
    ]
    assert kinds["head.conv"] == "other"


def test_nothing_stays_float_where_int8_is_good_enough(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    keep, report = choose(network, crops, 0.5)
    whole = cosines(network, crops, frozenset())
    assert keep == frozenset()
    assert report.kept == ()
    assert report.reached
    assert report.found == report.all_int8 == pytest.approx((float(whole.mean()), float(whole.min())), abs=1e-7)


def test_a_broken_range_is_found_first(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    before = float(cosines(network, crops, frozenset()).mean())
    network = broken(network)
    lost = float(cosines(network, crops, frozenset()).mean())
    assert lost < before - 0.01
    worst = sorted(choose(network, crops, 0.0)[1].layers, key=lambda row: -row.mean)[:2]
    assert {row.name for row in worst} == {"stages.0.0.expand.conv", "stages.0.0.depthwise.conv"}
    wanted = lost + 0.8 * (before - lost)
    keep, report = choose(network, crops, wanted)
    assert [kept.name for kept in report.kept] == ["stages.0.0"]
    assert keep == {name for name in int8_points(fuse(network)) if name.startswith("stages.0.0.")}
    found = cosines(network, crops, keep)
    assert report.reached
    assert report.found == pytest.approx((float(found.mean()), float(found.min())), abs=1e-7)
    assert report.found[0] >= wanted
    assert report.kept[0].without == pytest.approx(lost, abs=1e-7)
    assert 0 < report.kept[0].work < 0.5


def test_what_is_kept_is_needed(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    before = float(cosines(network, crops, frozenset()).mean())
    wanted = 1 - (1 - before) / 2
    keep, report = choose(network, crops, wanted)
    assert report.reached
    assert float(cosines(network, crops, keep).mean()) >= wanted
    assert max(kept.without for kept in report.kept) < wanted
    assert keep <= set(int8_points(fuse(network)))


def test_what_cannot_be_reached_is_said(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    keep, report = choose(network, crops, 1.0)
    assert keep
    assert not report.reached
    assert report.found[0] > report.all_int8[0]


def test_the_report_is_plain_data(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    report = choose(broken(network), crops, 0.99)[1]
    data = json.loads(json.dumps(report.to_dict()))
    assert data["reached"] is report.reached
    assert data["crops"] == 8
    assert [row["name"] for row in data["layers"]] == [row.name for row in report.layers]
    assert before.keys() == network.state_dict().keys()


def test_too_few_crops_are_refused(network: nn.Module, crops: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="calibration: 8 crops"):
        choose(network, crops[:8], 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iresnet-micro", "lgaf-micro"])
def test_other_families_can_be_searched(make: Callable[..., nn.Module], crops: NDArray[np.uint8], name: str) -> None:
    from mobileface.zoo import ZOO

    network = make(ZOO[name])
    whole = float(cosines(network, crops, frozenset()).mean())
    keep, report = choose(network, crops, whole + 1e-5)
    assert report.reached
    assert report.found[0] == pytest.approx(float(cosines(network, crops, keep).mean()), abs=1e-6)
