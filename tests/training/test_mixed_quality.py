"""Trainings with QGFace and the octuplet loss: what they learn from, and that they go on exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mobileface.data.synthetic import write_synthetic
from mobileface.errors import InputError
from mobileface.factory import find_plan_arch
from mobileface.files import write_json
from mobileface.losses.contrastive import Contrastive
from mobileface.losses.momentum import MomentumEncoder
from mobileface.training import loop
from mobileface.training.plan import parse_plan
from mobileface.training.sources import open_faces
from mobileface.training.trainer import Trainer, prepare
from mobileface.training.views import embed
from tests.training.mixed import OCTUPLET, QGFACE, loaded
from tests.training.runs import assert_same_tensors, breaking_off, rows, train

MakeData = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    "queue", ["proxy", *(pytest.param(queue, marks=pytest.mark.slow) for queue in ("momentum", "batch", "octuplet"))]
)
def test_a_training_that_is_stopped_goes_on_exactly(
    people: Path, make_plan_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queue: str
) -> None:
    phase = OCTUPLET
    if queue != "octuplet":
        classification, contrastive = QGFACE["terms"]
        phase = {**QGFACE, "terms": [classification, {**contrastive, "queue": queue}]}
    data = make_plan_data(people, phase=phase)
    train(parse_plan(data, "x"), tmp_path / "whole")
    with breaking_off(5, monkeypatch):
        train(parse_plan(data, "x"), tmp_path / "stopped")
    train(parse_plan(data, "x"), tmp_path / "stopped")
    assert_same_tensors(tmp_path / "stopped", tmp_path / "whole", "checkpoints/last")
    if queue == "proxy":
        last = load_file(tmp_path / "whole" / "checkpoints/last.safetensors")
        held = last["terms.contrastive.queue.labels"]
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
    train(parse_plan(first, "x"), people.parent / "begin")
    plan = parse_plan(first, "x")
    write_json(people.parent / "begin" / "arch.json", find_plan_arch(plan).to_dict())
    data = make_plan_data(people, phase={**OCTUPLET, "optimizer": {"lr": 1e-3, **optimizer}}, start="begin")
    del data["arch"]
    before = load_file(people.parent / "begin" / "model.safetensors")
    plan = parse_plan(data, "x")
    (tmp_path / "run").mkdir()
    trainer = prepare(plan, find_plan_arch(plan), tmp_path / "run", open_faces(plan), None, lambda text: None)[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.network.state_dict().items())
    train(parse_plan(data, "x"), tmp_path / "tuned")
    after = load_file(tmp_path / "tuned" / "checkpoints" / "last.safetensors")
    assert any(not torch.equal(after[f"network.{name}"], before[name]) for name in before)


def begun(people: Path, make_plan_data: MakeData, lr: float) -> dict[str, Any]:
    """A plan of octuplets that begins with the run folder `begin`, beside the people, which is made."""
    first = make_plan_data(people, phase={"images": 16})
    train(parse_plan(first, "x"), people.parent / "begin")
    write_json(people.parent / "begin" / "arch.json", find_plan_arch(parse_plan(first, "x")).to_dict())
    phase = {**OCTUPLET, "images": 16, "optimizer": {"kind": "sgd", "lr": lr}}
    data = make_plan_data(people, phase=phase, start="begin", data={"validate": {"identities": 0.4}})
    return {key: value for key, value in data.items() if key != "arch"}


def test_what_it_begins_with_is_judged_and_stays_the_best_if_it_is(
    people: Path, make_plan_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = parse_plan(begun(people, make_plan_data, 1e-6), "x")
    before = load_file(people.parent / "begin" / "model.safetensors")
    scores = iter([0.9, 0.8])  # the training harms
    monkeypatch.setattr(loop, "validate", lambda *args: {"auc": next(scores), "eer": 0.5})
    facts = train(plan, tmp_path / "run")
    judged = rows(tmp_path / "run", "validation")
    assert [(row["images"], row["auc"]) for row in judged] == [(0, 0.9), (16, 0.8)]
    assert (facts["best_at"], facts["held_out_auc"]) == (0, 0.9)
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_another_start_under_the_same_name_is_refused_on_resume(
    people: Path, make_plan_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = parse_plan(begun(people, make_plan_data, 1e-6), "x")
    with breaking_off(1, monkeypatch):  # the start has been judged
        train(plan, tmp_path / "run")
    again = parse_plan(make_plan_data(people, phase={"images": 16}, seed=6), "x")
    shutil.rmtree(people.parent / "begin")
    train(again, people.parent / "begin")
    write_json(people.parent / "begin" / "arch.json", find_plan_arch(again).to_dict())
    with pytest.raises(InputError, match="was begun with other training images, another teacher or another start"):
        train(plan, tmp_path / "run")


def test_held_out_people_are_judged_at_each_side(people: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    data = make_plan_data(people, phase=OCTUPLET, data={"validate": {"identities": 0.4, "sides": [7, 28, 112]}})
    train(parse_plan(data, "x"), tmp_path / "run")
    judged = rows(tmp_path / "run", "validation")
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
    before = train(parse_plan(begin, "x"), tmp_path / "data" / "begin")["held_out_auc"]
    write_json(tmp_path / "data" / "begin" / "arch.json", find_plan_arch(parse_plan(begin, "x")).to_dict())
    tuned = {**OCTUPLET, "images": 1600, "batch": 32, "optimizer": {"kind": "adamw", "lr": 1e-3}}
    data["phases"], data["start"] = [{**data["phases"][0], **tuned}], "begin"
    del data["arch"]
    assert train(parse_plan(data, "x"), tmp_path / "tuned")["held_out_auc"] > before + 0.05


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"views": {"clean": []}}, "terms: octuplet reads the degraded view; wanted views.degraded"),
        ({"sampler": "plain"}, "terms: octuplet wants two or more images of an identity"),
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
    train(parse_plan(data, "x"), tmp_path / "run")
    assert begun == [True]


def test_identities_with_one_image_are_no_octuplets(people: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "faces"
    shutil.copytree(people, folder)
    for path in sorted((folder / "person-3").iterdir())[1:]:
        path.unlink()
    data = make_plan_data(folder, phase=OCTUPLET, data={"validate": {"identities": 0}})
    with pytest.raises(InputError, match=r"octuplet: 1 identities have fewer .*; wanted data\.min_images: 2"):
        train(parse_plan(data, "x"), tmp_path / "run")


def test_a_queue_of_another_kind_is_not_taken_over(people: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    """A phase with a momentum queue, then one with a proxy queue: that begins empty."""
    classification, contrastive = QGFACE["terms"]
    phases = [
        {**QGFACE, "name": q, "terms": [classification, {**contrastive, "queue": q}]} for q in ("momentum", "proxy")
    ]
    data = make_plan_data(people, phase=phases[0])
    data["phases"].append({**phases[1], "images": 8})
    train(parse_plan(data, "x"), tmp_path / "run")
    last = load_file(tmp_path / "run/checkpoints/last.safetensors")
    labels, proxies = (last[f"terms.contrastive.queue.{name}"] for name in ("labels", "proxies"))
    assert (proxies.any(1) == (labels >= 0)).all()
