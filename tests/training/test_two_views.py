"""Clean and degraded views: how they are made, what reads them, and trainings with QGFace and the octuplet loss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mobileface.data.augment import apply, generator
from mobileface.data.degrade import at_side
from mobileface.data.loading import AUGMENT_STREAM, DEGRADE_STREAM, Batch, batches, stream_seed
from mobileface.data.synthetic import write_synthetic
from mobileface.errors import InputError
from mobileface.factory import find_plan_arch
from mobileface.files import write_json
from mobileface.losses.contrastive import Contrastive
from mobileface.losses.momentum import MomentumEncoder
from mobileface.statistics import end_step
from mobileface.training import loop
from mobileface.training.plan import parse_plan
from mobileface.training.plan_views import steps
from mobileface.training.sources import open_faces
from mobileface.training.trainer import Trainer, prepare
from mobileface.training.views import embed

MakeData = Callable[..., dict[str, Any]]
QUIET = Console(quiet=True)
OCTUPLET = {
    "images": 48,
    "batch": 8,
    "sampler": {"kind": "pk", "images": 2},
    "views": {"clean": ["flip", "brightness"], "degraded": "octuplet"},
    "terms": [{"kind": "octuplet", "margin": 0.5, "relative": True}],
}
QGFACE = {
    "images": 72,
    "batch": 8,
    "views": {"clean": ["flip"], "degraded": "qgface"},
    "terms": [
        {
            "kind": "classification",
            "margin": "adaface",
            "scale": 16,
            "views": ["clean", "degraded"],
            "threshold": 0.45,
        },
        {"kind": "contrastive", "threshold": 0.55, "scale": 16, "size": 12},
    ],
}


@pytest.fixture(scope="module")
def people(make_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people: five to train on where two in five are held out."""
    return make_folder(tmp_path_factory.mktemp("people") / "faces", identities=8)


@pytest.fixture
def make_trainer(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> Callable[..., Trainer]:
    """`make_trainer(phase, **changes)`: prepared, nobody held out."""

    def made(phase: dict[str, Any], **changes: Any) -> Trainer:
        data = make_plan_data(shared_faces, phase=phase, data={"validate": {"identities": 0}}, **changes)
        plan = parse_plan(data, "x")
        (tmp_path / "run").mkdir(exist_ok=True)
        return prepare(plan, find_plan_arch(plan), tmp_path / "run", open_faces(plan), None, lambda text: None)[0]

    return made


# -- the loader


def loaded(trainer: Trainer, count: int = 16, micro: int | None = None) -> list[Batch]:
    return list(batches(trainer.stream, 0, count, trainer.phase.batch, 0, micro))


def test_the_degraded_view_is_made_of_the_clean_one(make_trainer: Callable[..., Trainer]) -> None:
    phase = {**QGFACE, "views": {"clean": ["flip", {"kind": "brightness", "p": 1}], "degraded": "qgface"}}
    trainer = make_trainer(phase)
    position = 0
    for batch in loaded(trainer):
        (degraded,) = batch.degraded
        assert degraded.shape == batch.images.shape
        for row, clean in enumerate(batch.images.numpy()):
            rng = generator(stream_seed(5, 0, DEGRADE_STREAM), position)
            wanted = apply(clean, steps(trainer.phase.views.degraded or ()), rng)
            np.testing.assert_array_equal(degraded[row].numpy(), wanted)
            position += 1


def test_the_clean_view_is_the_same_with_a_degraded_one_beside_it(make_trainer: Callable[..., Trainer]) -> None:
    alone = make_trainer({**QGFACE, "views": {"clean": ["flip", "cutout"]}, "terms": ["classification"]})
    both = make_trainer({**QGFACE, "views": {"clean": ["flip", "cutout"], "degraded": "qgface"}})
    for one, two in zip(loaded(alone), loaded(both), strict=True):
        assert torch.equal(one.images, two.images)
        assert one.degraded == ()
    assert stream_seed(5, 0, AUGMENT_STREAM) == both.stream.augment_seed


@pytest.mark.parametrize("micro", [8, 2])
def test_one_resolution_for_each_batch(make_trainer: Callable[..., Trainer], micro: int) -> None:
    """However a batch is cut, all its images have one side; batches differ."""
    trainer = make_trainer(OCTUPLET)
    drawn: dict[int, set[int]] = {}
    for number, batch in enumerate(loaded(trainer, 160, micro)):
        for clean, poor in zip(batch.images.numpy(), batch.degraded[0].numpy(), strict=True):
            (side,) = [s for s in (7, 14, 28) if np.array_equal(at_side(clean, s), poor)]
            drawn.setdefault(number * micro // 8, set()).add(side)
    assert all(len(sides) == 1 for sides in drawn.values())
    assert set.union(*drawn.values()) == {7, 14, 28}


def test_a_side_for_each_image(make_trainer: Callable[..., Trainer]) -> None:
    views = {"clean": [], "degraded": [{"kind": "resolution", "sides": [7, 56], "per": "image"}]}
    batch = loaded(make_trainer({**OCTUPLET, "views": views}), 8)[0]
    found = {
        np.array_equal(at_side(c, 7), d) for c, d in zip(batch.images.numpy(), batch.degraded[0].numpy(), strict=True)
    }
    assert found == {True, False}


def test_pairs_stand_side_by_side(make_trainer: Callable[..., Trainer]) -> None:
    """Every batch holds each of its identities exactly twice, in two different images."""
    trainer = make_trainer(OCTUPLET)
    for batch in loaded(trainer, 48):
        labels = trainer.classes[batch.index].tolist()
        assert all(labels.count(label) == 2 for label in labels)
        assert len(set(batch.index.tolist())) == len(labels)


# -- what is embedded


def test_views_go_through_the_network_in_one_pass(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(OCTUPLET)
    seen: list[tuple[int, ...]] = []
    network = trainer.network
    trainer.forward = lambda pixels: (seen.append(tuple(pixels.shape)), network(pixels))[1]
    batch = loaded(trainer)[0]
    network.eval()
    forward, raw = embed(trainer, batch, 0)
    assert seen == [(16, 3, 112, 112)]
    for view, images in (("clean", batch.images), ("degraded", batch.degraded[0])):
        wanted = network(images.permute(0, 3, 1, 2).float())
        torch.testing.assert_close(forward.embeddings[view], wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(torch.cat(list(forward.embeddings.values())), raw)


def test_a_momentum_encoder_follows_the_network() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    encoder = MomentumEncoder(network, 0.9)
    assert all(not p.requires_grad for p in encoder.parameters())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for p in network.parameters():
            p += 1
    network(torch.randn(4, 2))
    end_step(encoder)
    after = network.state_dict()
    for name, tensor in encoder.copy.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.9 * before[name] + 0.1 * after[name])
        else:
            assert tensor.item() == after[name].item() == 1


# -- trainings


def train(data: dict[str, Any], run: Path) -> dict[str, Any]:
    plan = parse_plan(data, "x")
    run.mkdir(exist_ok=True, parents=True)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), None, QUIET, workers=0)


@pytest.mark.parametrize("queue", ["proxy", "momentum", "batch", "octuplet"])
def test_a_training_that_is_stopped_goes_on_exactly(
    people: Path, make_plan_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    phase = OCTUPLET
    if queue != "octuplet":
        classification, contrastive = QGFACE["terms"]
        phase = {**QGFACE, "terms": [classification, {**contrastive, "queue": queue}]}
    data = make_plan_data(people, phase=phase)
    train(data, tmp_path / "whole")
    step, calls = loop.step, 0

    def stopped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(loop, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "stopped")
    monkeypatch.setattr(loop, "step", step)
    train(data, tmp_path / "stopped")
    whole, again = (load_file(tmp_path / name / "checkpoints/last.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == again.keys()
    assert [name for name in whole if not torch.equal(whole[name], again[name])] == []
    if queue == "proxy":
        held = whole["terms.contrastive.queue.labels"]
        assert len(held) == 12
        assert (held >= 0).all()


def test_the_partition_divides_what_is_learned_how(make_trainer: Callable[..., Trainer]) -> None:
    """The classifier counts samples of both views above its threshold, the contrast pairs at or below its own."""
    trainer = make_trainer(QGFACE)
    classification, contrastive = trainer.terms["classification"], trainer.terms["contrastive"]
    assert isinstance(contrastive, Contrastive)
    for term in (classification, contrastive):
        term.gate.statistics.mean.fill_(6.0)
        term.gate.statistics.std.fill_(1.0)
    forward, _ = embed(trainer, loaded(trainer)[0], 0)
    norms = {view: rows.detach().norm(dim=1).tolist() for view, rows in forward.embeddings.items()}

    def indicator(norm: float) -> float:
        return (max(-1.0, min(1.0, (norm - 6.0) / 1.001 / 3)) + 1) / 2

    weights = classification(forward)[1].tolist()
    assert weights == [float(indicator(norm) > 0.45) for view in ("clean", "degraded") for norm in norms[view]]
    pairs = zip(norms["clean"], norms["degraded"], strict=True)
    assert contrastive(forward)[1].tolist() == [float(min(map(indicator, pair)) <= 0.55) for pair in pairs]


@pytest.mark.parametrize("optimizer", [{"kind": "adagrad", "lr": 0.05}, {"kind": "sgd", "lr": 1e-3}, {"kind": "adamw"}])
def test_fine_tuning_begins_with_the_weights_of_a_run(
    people: Path, make_plan_data: MakeData, tmp_path: Path, optimizer: dict[str, Any]
) -> None:
    first = make_plan_data(people, phase={"images": 16})
    train(first, people.parent / "begin")
    plan = parse_plan(first, "x")
    write_json(people.parent / "begin" / "arch.json", find_plan_arch(plan).to_dict())
    data = make_plan_data(people, phase={**OCTUPLET, "optimizer": {"lr": 1e-3, **optimizer}}, start="begin")
    del data["arch"]
    before = load_file(people.parent / "begin" / "model.safetensors")
    plan = parse_plan(data, "x")
    (tmp_path / "run").mkdir()
    trainer = prepare(plan, find_plan_arch(plan), tmp_path / "run", open_faces(plan), None, lambda text: None)[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())
    train(data, tmp_path / "tuned")
    after = load_file(tmp_path / "tuned" / "model.safetensors")
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_held_out_people_are_judged_at_each_side(people: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    data = make_plan_data(people, phase=OCTUPLET, data={"validate": {"identities": 0.4, "sides": [7, 28, 112]}})
    train(data, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    judged = [row for row in rows if row["event"] == "validation"]
    assert judged
    for row in judged:
        assert row["auc"] == pytest.approx(np.mean([row[f"auc_at_{side}"] for side in (7, 28, 112)]))


@pytest.mark.slow
def test_octuplets_bring_poor_images_nearer_to_good_ones(make_plan_data: MakeData, tmp_path: Path) -> None:
    """Synthetic faces, people held out, 7 px against 112: fine-tuning raises the AUC by 0.05 and more."""
    write_synthetic(tmp_path / "data", 40, 16, 2, 20, 3)
    data = make_plan_data(tmp_path / "data" / "train.rec", data={"train": [{"rec": "train.rec"}]})
    data["data"]["validate"] = {"identities": 0.3, "sides": [7]}
    data["checkpoint"] = {"every_images": 10_000}
    first = {"images": 3200, "batch": 32, "optimizer": {"kind": "adamw", "lr": 4e-3}, "views": {"clean": ["flip"]}}
    begin = {**data, "phases": [{**data["phases"][0], **first}]}
    before = train(begin, tmp_path / "data" / "begin")["held_out_auc"]
    write_json(tmp_path / "data" / "begin" / "arch.json", find_plan_arch(parse_plan(begin, "x")).to_dict())
    tuned = {**OCTUPLET, "images": 1600, "batch": 32, "optimizer": {"kind": "adamw", "lr": 1e-3}}
    data["phases"], data["start"] = [{**data["phases"][0], **tuned}], "begin"
    del data["arch"]
    assert train(data, tmp_path / "tuned")["held_out_auc"] > before + 0.05


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"views": {"clean": []}}, "terms: octuplet reads the degraded view; wanted views.degraded"),
        ({"sampler": "plain"}, "terms: octuplet wants two images of each identity"),
        ({"terms": ["classification"]}, "views.degraded: no term reads that view"),
        ({"terms": ["contrastive"]}, "terms: contrastive reads the centres of a classification term"),
        ({"views": {"clean": [], "degraded": "blurry"}}, "'blurry' is no set of steps here; wanted a list, or one of"),
        ({"terms": [{"kind": "octuplet", "relative": True, "normalised": True}]}, "relative multiplies by the norms"),
        ({"terms": [{"kind": "octuplet", "terms": ["hhh", "hhh"]}]}, "hhh, hhh: each may stand once"),
        ({"views": {"clean": [], "degraded": [{"kind": "jpeg", "least": 80}]}}, "least 80 is above most 75"),
    ],
)
def test_plans_that_contradict_themselves(
    people: Path, make_plan_data: MakeData, changes: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(InputError, match=wanted):
        parse_plan(make_plan_data(people, phase={**OCTUPLET, **changes}), "x")


def test_arch_or_start(people: Path, make_plan_data: MakeData) -> None:
    data = make_plan_data(people, start="begin")
    with pytest.raises(InputError, match="give one of arch, or start"):
        parse_plan(data, "x")


def test_a_momentum_encoder_begins_as_the_best_weights_of_the_phase_before(
    people: Path, make_plan_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classification, contrastive = QGFACE["terms"]
    data = make_plan_data(people, phase={"name": "one", "images": 48})
    data["phases"].append({**QGFACE, "name": "two", "terms": [classification, {**contrastive, "queue": "momentum"}]})
    go_on, begun = loop._next_phase, []

    def went_on(trainer: Trainer, *rest: Any) -> None:
        go_on(trainer, *rest)
        term = trainer.terms["contrastive"]
        assert isinstance(term, Contrastive)
        assert isinstance(term.encoder, MomentumEncoder)
        network = trainer.network.state_dict()
        begun.append(all(torch.equal(t, network[name]) for name, t in term.encoder.copy.state_dict().items()))

    monkeypatch.setattr(loop, "_next_phase", went_on)
    train(data, tmp_path / "run")
    assert begun == [True]


def test_identities_with_one_image_are_no_octuplets(people: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "faces"
    shutil.copytree(people, folder)
    for path in sorted((folder / "person-3").iterdir())[1:]:
        path.unlink()
    data = make_plan_data(folder, phase=OCTUPLET, data={"validate": {"identities": 0}})
    with pytest.raises(InputError, match=r"octuplet: 1 identities have fewer .*; wanted data\.min_images: 2"):
        train(data, tmp_path / "run")


def test_a_queue_of_another_kind_is_not_taken_over(people: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    """A phase with a momentum queue, then one with a proxy queue: that begins empty."""
    classification, contrastive = QGFACE["terms"]
    phases = [
        {**QGFACE, "name": q, "terms": [classification, {**contrastive, "queue": q}]} for q in ("momentum", "proxy")
    ]
    data = make_plan_data(people, phase=phases[0])
    data["phases"].append({**phases[1], "images": 8})
    train(data, tmp_path / "run")
    last = load_file(tmp_path / "run/checkpoints/last.safetensors")
    labels, proxies = (last[f"terms.contrastive.queue.{name}"] for name in ("labels", "proxies"))
    assert (proxies.any(1) == (labels >= 0)).all()
