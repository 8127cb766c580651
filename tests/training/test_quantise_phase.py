"""A phase in int8: it brings int8 nearer to the float network, and its result is a network as any other."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mobileface.data.images import decode
from mobileface.data.loading import Batch
from mobileface.embedders.network import NetworkEmbedder, load_network
from mobileface.errors import InputError
from mobileface.factory import find_plan_arch
from mobileface.models.fuse import fuse
from mobileface.models.quantised import Int8Network
from mobileface.training import checkpoint, loop
from mobileface.training.plan import parse_plan
from mobileface.training.sources import open_faces
from mobileface.training.trainer import Trainer, prepare
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


# terms that read a second view and have a momentum encoder
POOR: dict[str, Any] = {"terms": ["distillation", {"kind": "contrastive", "queue": "momentum", "size": 16}]}


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
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), None, QUIET, 0, teacher_of(start))


def teacher_of(start: Path) -> NetworkEmbedder:
    return NetworkEmbedder(load_network(start), start, "1" * 64)


def begun(
    data: dict[str, Any], run: Path, start: Path, say: Callable[[str], None] = lambda text: None, **phase: Any
) -> tuple[Trainer, dict[str, Any]]:
    """Prepared for the phase with changes; nothing is trained."""
    plan = parse_plan({**data, "phases": [{**PHASE, **phase}]}, "x")
    run.mkdir(exist_ok=True)
    return prepare(plan, find_plan_arch(plan), run, open_faces(plan), None, say, teacher_of(start))


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


def unequal(network: nn.Module, pixels: Tensor) -> float:
    """The widest channel of a layer over its median one."""
    found: list[Tensor] = []
    fused = fuse(network)
    layer = fused.get_submodule("stages.1.0.expand.conv")
    layer.register_forward_hook(lambda part, args, output: found.append(output.abs().amax((0, 2, 3))))
    fused(pixels)
    return float(found[0].max() / found[0].median())


def test_it_begins_with_the_function_of_the_start_and_equal_channels(
    data: dict[str, Any], start: Path, shared_faces: Path, tmp_path: Path
) -> None:
    trainer, facts = begun(data, tmp_path / "run", start)
    network, before = trainer.network.eval(), load_network(start)
    pixels = torch.from_numpy(images(shared_faces)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        torch.testing.assert_close(network(pixels), before(pixels), rtol=1e-4, atol=1e-4)
        assert unequal(network, pixels) < 1.2 < 3 < unequal(before, pixels)
    assert facts["int8_phases"] == ["int8"]


def test_ranges_are_those_of_the_first_images_in_all_views(
    data: dict[str, Any], start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strong = {"kind": "brightness", "p": 1, "strength": 0.9}
    with caplog.at_level(logging.WARNING):
        trainer, _ = begun(data, tmp_path / "run", start, views={"clean": [strong], "degraded": ["resolution"]}, **POOR)
    assert trainer.int8 is not None
    assert caplog.messages == []  # nobody asked to watch anything
    batch = trainer.stream.__getitems__(list(range(64)))
    assert isinstance(batch, Batch)
    assert len(batch.degraded) == 1
    wanted, clean = Int8Network(trainer.network), Int8Network(trainer.network)
    wanted.observe(torch.cat([batch.images, *batch.degraded]).permute(0, 3, 1, 2).float())
    clean.observe(batch.images.permute(0, 3, 1, 2).float())
    torch.testing.assert_close(trainer.int8.ranges.bounds, wanted.ranges.bounds, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(wanted.ranges.bounds, clean.ranges.bounds, rtol=1e-3)


def test_bad_images_among_the_first_are_noted(data: dict[str, Any], folder: Path, start: Path, tmp_path: Path) -> None:
    sources = {**data["data"], "root": str(folder.parent), "train": [{"folder": folder.name}]}
    trainer, _ = begun({**data, "data": sources}, tmp_path / "run", start)
    assert [text.split(":")[0] for text in trainer.state.skipped] == [f"{folder.name}/person-3/face-4.jpg"]


def test_that_it_is_not_compiled_is_said(data: dict[str, Any], start: Path, tmp_path: Path) -> None:
    said: list[str] = []
    _, facts = begun({**data, "compile": "auto"}, tmp_path / "run", start, said.append)
    assert "quantise: phase int8 is trained without torch.compile" in said
    assert not facts["compile"]


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
    seen: list[int] = []
    monkeypatch.setattr(Int8Network, "observe", lambda self, pixels: seen.append(len(pixels)))
    train(data, tmp_path / "run", start)
    assert not seen  # the checkpoint has the ranges
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


def test_equal_channels_are_in_the_network_and_in_its_momentum_encoder_behind_a_phase_in_float(
    data: dict[str, Any], start: Path, shared_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = {"clean": ["flip"], "degraded": ["resolution"]}
    phase = {**PHASE, "images": 24, "views": views, **POOR}
    both = {**data, "phases": [{**phase, "name": "float", "quantise": "off"}, phase]}
    with breaking_off(4, monkeypatch):  # the first step of the second phase
        train(both, tmp_path / "run", start)
    tensors, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")
    now, encoder = (checkpoint.part(tensors, prefix) for prefix in ("network.", "terms.contrastive.encoder.copy."))
    shutil.copy(start / "arch.json", tmp_path / "run" / "phases" / "1-float")
    before = load_network(tmp_path / "run" / "phases" / "1-float")
    changed = {name for name, tensor in before.state_dict().items() if not torch.equal(tensor, now[name])}
    assert "stages.1.0.expand.bn.weight" in changed
    pixels = torch.from_numpy(images(shared_faces)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        wanted = before(pixels)
        before.load_state_dict(now)
        torch.testing.assert_close(before(pixels), wanted, rtol=1e-4, atol=1e-4)
    assert encoder.keys() == now.keys()
    assert [name for name in now if not torch.equal(now[name], encoder[name])] == []


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
