"""Residual networks and LGAF in training: what the optimizer moves, what a step and a checkpoint know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mobileface.embedders.network import load_network
from mobileface.factory import find_plan_arch
from mobileface.files import write_json
from mobileface.models import build
from mobileface.training import loop
from mobileface.training.optimizer import make_optimizer
from mobileface.training.plan_phases import Optimizer
from mobileface.training.sources import open_faces
from mobileface.zoo import ZOO
from tests.training.runs import breaking_off

MEAN = "lgf.local_quality.statistics.mean"


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_the_weight_that_stays_one_is_not_trained(kind: str) -> None:
    net = build(ZOO["iresnet-micro"])
    optimizer = make_optimizer(Optimizer(kind=kind, lr=0.1, weight_decay=0.5), net, torch.nn.ModuleDict())
    decayed, others = (group["params"] for group in optimizer.param_groups)
    trained = [p for name, p in net.named_parameters() if name != "head.bn.weight"]
    assert len(decayed) + len(others) == len(trained)
    assert {id(p) for p in (*decayed, *others)} == {id(p) for p in trained}
    assert {p.ndim for p in decayed} == {2, 4}  # linear layers and convolutions
    assert {p.ndim for p in others} == {1}
    before = {name: p.clone() for name, p in net.named_parameters()}
    pixels = torch.randint(0, 256, (4, 3, 112, 112), generator=torch.Generator().manual_seed(0)).float()
    (net(pixels) * torch.arange(32)).square().sum().backward()
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert set(before) - moved <= {"head.bn.weight", "head.linear.bias"}  # the bias has no gradient but rounding
    assert "head.bn.weight" not in moved
    assert torch.equal(net.get_parameter("head.bn.weight"), torch.ones(32))


NARROW = {"family": "lgaf", "depths": [1, 1, 2, 1], "widths": [8, 12, 16, 64], "embedding_dim": 32, "dropout": 0.4}


@pytest.mark.parametrize(
    "named", [pytest.param("lgaf-micro", marks=pytest.mark.slow), NARROW], ids=["lgaf-micro", "dropout"]
)
def test_an_lgaf_trains_and_goes_on_exactly_where_it_was_stopped(
    named: Any, tmp_path: Path, shared_faces: Path, make_plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics are in the checkpoint, and count what both micro-batches of a step have shown."""
    phase, every = {"images": 24, "accumulate": 2}, {"every_images": 8}
    plan = make_plan(shared_faces, arch=named, phase=phase, checkpoint=every)
    arch = find_plan_arch(plan)

    def train(name: str) -> Path:
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        loop.train(plan, arch, run, open_faces(plan), None, Console(quiet=True), workers=0)
        return run

    whole = train("whole")
    with breaking_off(4, monkeypatch):
        train("stopped")
    again = load_file(train("stopped") / "checkpoints" / "last.safetensors")
    once = load_file(whole / "checkpoints" / "last.safetensors")
    assert once.keys() == again.keys()
    assert [key for key in once if not torch.equal(once[key], again[key])] == []
    mean, std = once[f"network.{MEAN}"].item(), once[f"network.{MEAN.replace('mean', 'std')}"].item()
    assert 1 < mean < 30  # the norm of 32 components of variance one is near 5.7; it starts at 0
    assert 0 < std < mean
    write_json(whole / "arch.json", arch.to_dict())
    assert load_network(whole).state_dict()[MEAN].item() == load_file(whole / "model.safetensors")[MEAN].item()
