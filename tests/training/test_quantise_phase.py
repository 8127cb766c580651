"""A phase in int8: it brings int8 nearer to the float network, and its result is a network as any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from mobileface.data.images import decode
from mobileface.embedders.network import NetworkEmbedder, load_network
from mobileface.errors import InputError
from mobileface.factory import find_plan_arch, open_faces
from mobileface.models.fuse import fuse
from mobileface.models.quantised import Int8Network
from mobileface.training import loop
from mobileface.training.plan import parse_plan
from tests.export.conftest import lively
from tests.training.runs import QUIET, assert_same_tensors, breaking_off
from tests.training.test_ranks import run_ranks

MakeData = Callable[..., dict[str, Any]]
PHASE: dict[str, Any] = {
    "name": "int8",
    "images": 192,
    "batch": 8,
    "quantise": "int8",
    "optimizer": {"kind": "adamw", "lr": 1e-4, "weight_decay": 0},
    "schedule": {"kind": "cosine"},
    "views": {"clean": ["flip"]},
    "terms": ["distillation"],
}


def distorted() -> nn.Module:
    """Channels of very different sizes, so that int8 takes the digits of the small ones."""
    network, generator = lively(), torch.Generator().manual_seed(1)
    for name, part in network.named_modules():
        if isinstance(part, nn.BatchNorm2d) and "expand" in name:
            part.weight.data *= 10 ** (2 * torch.rand(part.num_features, generator=generator) - 1)
    return network


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "run"
    folder.mkdir()
    network = distorted()
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "arch.json").write_text(json.dumps(network.arch.to_dict()))  # type: ignore[union-attr, operator]
    return folder


@pytest.fixture(scope="module")
def data(shared_faces: Path, make_plan_data: MakeData, start: Path) -> dict[str, Any]:
    teacher = {"model": str(start), "online": True}
    made = make_plan_data(shared_faces, phase=PHASE, teacher=teacher, start=str(start))
    del made["arch"]
    made["data"]["validate"] = {"identities": 0}
    return made


def train(data: dict[str, Any], run: Path, start: Path) -> dict[str, Any]:
    plan = parse_plan(data, "x")
    run.mkdir(exist_ok=True)
    teacher = NetworkEmbedder(load_network(start), start, "1" * 64)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), None, QUIET, 0, teacher)


@pytest.fixture(scope="module")
def trained(data: dict[str, Any], start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(data, run, start)
    shutil.copy(start / "arch.json", run)
    return run


def images(faces: Path) -> NDArray[np.uint8]:
    return np.stack([decode(path.read_bytes(), path.name) for path in sorted(faces.rglob("*.jpg"))])


def test_int8_comes_nearer_to_the_float_network(trained: Path, start: Path, shared_faces: Path) -> None:
    pixels = torch.from_numpy(images(shared_faces)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        wanted = fuse(load_network(start))(pixels)
        lost = []
        for folder in (start, trained):
            int8 = Int8Network(load_network(folder))
            int8.observe(pixels)
            lost.append(float(1 - torch.cosine_similarity(int8(pixels), wanted).mean()))
    assert lost[0] > 1e-3  # or there would be nothing to learn
    assert lost[1] < 0.9 * lost[0]


def test_the_result_has_the_names_and_the_statistics_of_the_start(trained: Path, start: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (start, trained))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    still = {name for name in before if "running" in name or "num_batches" in name}
    assert still
    assert changed == before.keys() - still


def test_ranges_are_in_the_checkpoint(trained: Path) -> None:
    bounds = load_file(trained / "checkpoints" / "last.safetensors")["terms.ranges.bounds"]
    assert (bounds[..., 0] <= 0).all()
    assert (bounds[..., 1] >= 0).all()
    assert bounds.flatten(1).any(1).all()


def test_a_resumed_phase_ends_with_the_same_bits(
    data: dict[str, Any], trained: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with breaking_off(8, monkeypatch):
        train(data, tmp_path / "run", start)
    train(data, tmp_path / "run", start)
    assert_same_tensors(tmp_path / "run", trained, "model", "checkpoints/last")


def test_it_can_follow_a_phase_in_float(data: dict[str, Any], start: Path, tmp_path: Path) -> None:
    plain = {key: value for key, value in PHASE.items() if key != "quantise"}
    both = {**data, "phases": [{**plain, "name": "float", "images": 24}, {**PHASE, "images": 24}]}
    both["phases"].append({"name": "again", "images": 16})  # in int8 as the phase before it, with ranges of its own
    facts = train(both, tmp_path / "run", start)
    assert [phase["name"] for phase in facts["phases"]] == ["float", "int8", "again"]
    one, two = (load_file(tmp_path / "run" / "phases" / n / "model.safetensors") for n in ("1-float", "2-int8"))
    norms = [name for name in one if name.endswith("running_mean")]
    assert all(torch.equal(one[name], two[name]) for name in norms)
    assert not all(torch.equal(one[name], load_file(start / "model.safetensors")[name]) for name in norms)


def test_recomputed_activations_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="phase int8: quantise goes with activation_checkpointing: false alone"):
        parse_plan({**data, "activation_checkpointing": True}, "x")


@pytest.mark.slow
def test_two_ranks_train_the_same_weights(data: dict[str, Any], start: Path, tmp_path: Path) -> None:
    """To rounding: a hundredth of the way that they moved, at the most."""
    short = {**PHASE, "images": 32, "accumulate": 2, "optimizer": {"kind": "sgd", "lr": 1e-3}}
    file = tmp_path / "plan.yaml"
    file.write_text(json.dumps({**data, "phases": [short]}))
    runs = [tmp_path / f"run-{ranks}" for ranks in (1, 2)]
    for ranks, run in enumerate(runs, start=1):
        done = run_ranks(ranks, file, run)
        assert done.returncode == 0, done.stderr
    one, two, before = (load_file(folder / "model.safetensors") for folder in (*runs, start))
    moved = sum(float((one[name] - before[name]).square().sum()) for name in before if "num_" not in name)
    apart = sum(float((one[name] - two[name]).square().sum()) for name in before if "num_" not in name)
    assert moved > 0
    assert apart**0.5 < 0.01 * moved**0.5
