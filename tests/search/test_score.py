"""Scores: short trainings are run folders, judged, ended, taken up again; zero-cost ones read one batch of the plan."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from mobileface.files import sha256
from mobileface.models import build
from mobileface.training import loop, teaching
from mobileface.training.plan import Plan, parse_plan, read_plan
from mobileface.zoo import ZOO
from search.score import BATCH, KINDS, SEEDS, TRAINED, Score, ShortTraining, first_images, open_score
from search.zero_cost import SEEING, ZERO_COST, grad_norm
from tests.training.runs import QUIET, assert_same_tensors, rows

MakePlan = Callable[..., Plan]
OTHER = dataclasses.replace(ZOO["micro"], name="other", stem=12)
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


class Hopeless(Exception):
    """What a search raises."""


def nobody(images: int, auc: float) -> None:
    raise AssertionError("judged")


@pytest.fixture(autouse=True)
def _in_this_process(no_workers: None) -> None:
    """Trainings read their images themselves."""


@pytest.fixture
def plan(shared_faces: Path, make_plan: MakePlan) -> Plan:
    """Three validations, behind 24, 48 and 72 images; the best is not the last."""
    return make_plan(shared_faces, budget="lfrc-light")


@pytest.fixture
def score(plan: Plan) -> Score:
    return open_score("train", plan, QUIET)


def validations(run: Path) -> list[tuple[int, float]]:
    return [(row["images"], row["auc"]) for row in rows(run, "validation")]


def test_a_short_training_is_that_of_the_plan(plan: Plan, score: Score, tmp_path: Path) -> None:
    """The number is the log's, the run folder one as `mobileface train` leaves it, and opens as an embedder."""
    heard: list[tuple[int, float]] = []
    run, other = tmp_path / "run", tmp_path / "loop"
    found = score(OTHER, run, lambda images, auc: heard.append((images, auc)))
    assert heard == validations(run)
    assert [images for images, _ in heard] == [24, 48, 72]
    assert found == max(auc for _, auc in heard)
    assert isinstance(score, ShortTraining)
    other.mkdir()
    loop.train(plan, OTHER, other, score.faces, None, QUIET, workers=0)
    assert_same_tensors(run, other, "model")
    assert open_embedder(run)(np.zeros((1, 112, 112, 3), np.uint8)).shape == (1, 32)
    kept = read_plan(run / "plan.yaml")
    assert (kept.arch["stem"], kept.budget) == (12, None)  # type: ignore[index]
    assert not list((run / "checkpoints").iterdir())


def test_what_is_done_is_not_trained_again(score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first: list[int] = []
    second: list[int] = []
    found = score(OTHER, tmp_path, lambda images, auc: first.append(images))
    monkeypatch.setattr(loop, "step", nobody)
    assert score(OTHER, tmp_path, lambda images, auc: second.append(images)) == found
    assert first == second == [24, 48, 72]


def test_what_was_ended_goes_on_and_tells_all_again(score: Score, tmp_path: Path) -> None:
    heard: list[int] = []

    def judged(images: int, auc: float) -> None:
        heard.append(images)
        if heard == [24, 48]:
            raise Hopeless

    with pytest.raises(Hopeless):
        score(OTHER, tmp_path / "run", judged)
    found = score(OTHER, tmp_path / "run", judged)
    assert heard == [24, 48, 24, 48, 72]
    assert found == score(OTHER, tmp_path / "whole", lambda images, auc: None)
    assert_same_tensors(tmp_path / "run", tmp_path / "whole", "model")
    assert [row["images"] for row in rows(tmp_path / "run", "step")] == list(range(4, 73, 4))


def test_a_validation_is_told_once_though_a_kill_made_it_twice(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the log's row of the second validation and its checkpoint."""
    with monkeypatch.context() as patch:
        calls: list[Path] = []
        original = loop.checkpoint.save

        def killed(path: Path, *args: Any) -> None:
            calls.append(path)
            if [call.stem for call in calls].count("last") == 2:
                raise Hopeless
            original(path, *args)

        patch.setattr(loop.checkpoint, "save", killed)
        with pytest.raises(Hopeless):
            score(OTHER, tmp_path, lambda images, auc: None)
    assert [images for images, _ in validations(tmp_path)] == [24, 48]
    heard: list[tuple[int, float]] = []
    score(OTHER, tmp_path, lambda images, auc: heard.append((images, auc)))
    assert heard == validations(tmp_path)
    assert [images for images, _ in heard] == [24, 48, 72]


def test_a_folder_of_another_network_or_plan_is_refused(plan: Plan, score: Score, tmp_path: Path) -> None:
    score(OTHER, tmp_path, lambda images, auc: None)
    before = sha256(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds a run of another plan"):
        score(ZOO["micro"], tmp_path, nobody)
    with pytest.raises(InputError, match="seed=5 there, seed=6 here"):
        open_score("train", plan.model_copy(update={"seed": 6}), QUIET)(OTHER, tmp_path, nobody)
    assert sha256(tmp_path / "model.safetensors") == before


def test_it_goes_on_wherever_the_data_lie_now(plan: Plan, score: Score, tmp_path: Path) -> None:
    """And whatever is to be done with the winner: a search ignores both."""
    with pytest.raises(Hopeless):
        score(OTHER, tmp_path, _ends_at(48))
    moved = plan.model_copy(update={"data": plan.data.model_copy(update={"root": "/elsewhere"}), "evaluate": ["lfw"]})
    again = open_score("train", plan, QUIET)
    assert isinstance(again, ShortTraining)
    again.plan = moved  # its faces are open
    heard: list[int] = []
    again(OTHER, tmp_path, lambda images, auc: heard.append(images))
    assert heard == [24, 48, 72]
    assert read_plan(tmp_path / "plan.yaml").data.root == "."


def _ends_at(last: int) -> Callable[[int, float], None]:
    def judged(images: int, auc: float) -> None:
        if images == last:
            raise Hopeless

    return judged


@pytest.fixture
def taught(plan: Plan, score: Score, shared_faces: Path, make_plan: MakePlan, tmp_path: Path) -> Plan:
    """A plan whose teacher is a network that `plan` has trained."""
    score(ZOO["micro"], tmp_path / "teacher", lambda images, auc: None)
    return make_plan(shared_faces, phase={"terms": ["distillation"]}, teacher={"model": str(tmp_path / "teacher")})


def test_the_teacher_embeds_once_for_all_networks(
    taught: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[int, float]] = []
    score = open_score("distill", taught, QUIET)
    monkeypatch.setattr(teaching, "_embed", nobody)  # from here on
    assert isinstance(score, ShortTraining)
    for arch in (ZOO["micro"], OTHER):
        run, other = tmp_path / arch.name, tmp_path / "loop"
        heard.clear()
        assert score(arch, run, lambda *row: heard.append(row)) == max(auc for _, auc in validations(run))
        assert heard == validations(run)
        assert {"distillation"} == rows(run, "step")[0]["terms"].keys()
    other.mkdir()
    loop.train(taught, arch, other, score.faces, score.targets, QUIET, workers=0)
    assert_same_tensors(run, other, "model")
    again = open_score("distill", taught, QUIET)  # another process of the search: from the cache
    assert isinstance(again, ShortTraining)
    assert np.array_equal(again.targets, score.targets)  # type: ignore[arg-type]


def test_what_a_plan_cannot_do_is_refused_at_once(
    plan: Plan, taught: Plan, shared_faces: Path, make_plan: MakePlan, tmp_path: Path
) -> None:
    blind = make_plan(shared_faces, data={"validate": {"identities": 0}})
    begun = make_plan(shared_faces, arch=None, start=str(tmp_path / "teacher"))
    for kind, given, text in (
        ("trian", plan, r"no score is called 'trian' \(did you mean 'train'\?\); known: train, distill, synflow"),
        ("train", blind, "score train: toy holds nobody out; wanted data.validate.identities above 0"),
        ("train", begun, "score train: toy has start: .*; wanted arch"),
        ("train", taught, "score train: toy has a teacher; wanted a recipe with no teacher"),
        ("distill", plan, "score distill: toy has no teacher; wanted a recipe with a teacher"),
    ):
        with pytest.raises(InputError, match=f"^{text}"):
            open_score(kind, given, QUIET)


@pytest.mark.parametrize("kind", ZERO_COST)
def test_a_zero_cost_score_is_the_mean_over_seeds(kind: str, plan: Plan, tmp_path: Path) -> None:
    one, two = (open_score(kind, plan, QUIET)(OTHER, tmp_path / "none", nobody) for _ in range(2))
    assert one == two
    assert math.isfinite(one)
    assert not (tmp_path / "none").exists()
    images, labels = first_images(plan, open_score("train", plan, QUIET).faces)  # type: ignore[attr-defined]
    seeds = range(5, 5 + SEEDS)
    each = [ZERO_COST[kind](build(OTHER, s), images, labels, torch.Generator().manual_seed(s)) for s in seeds]
    assert len(each) == 3
    assert one == pytest.approx(sum(each) / 3, rel=1e-12)


def test_a_score_that_looks_at_no_image_wants_none(make_plan: MakePlan, tmp_path: Path) -> None:
    away = make_plan(tmp_path / "away" / "faces")
    for kind in ZERO_COST:
        if kind in SEEING:
            with pytest.raises(InputError, match="faces: is not a folder"):
                open_score(kind, away, QUIET)
        else:
            assert math.isfinite(open_score(kind, away, QUIET)(OTHER, tmp_path / "none", nobody))


def test_the_images_of_a_zero_cost_score(make_folder: Callable[..., Path], make_plan: MakePlan, tmp_path: Path) -> None:
    """Of training people alone, the bad ones left out, others for another seed."""
    folder = make_folder(tmp_path / "faces", identities=15, images=8)
    bad = folder / "person-3" / "face-4.jpg"
    bad.write_bytes(b"bad")
    plan = make_plan(folder)
    score = open_score("train", plan, QUIET)
    assert isinstance(score, ShortTraining)
    images, labels = first_images(plan, score.faces)
    assert images.shape == (BATCH, 3, 112, 112)
    assert images.dtype == torch.float32
    assert 0 <= int(labels.min()) <= int(labels.max()) < 9  # six of fifteen are held out
    assert len(labels.unique()) > 4
    assert not torch.equal(first_images(plan.model_copy(update={"seed": 6}), score.faces)[0], images)
    assert math.isfinite(grad_norm(build(OTHER), images, labels, torch.Generator()))
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(InputError, match=r"^toy: 0 training images with a label can be read; wanted two or more$"):
        first_images(plan, score.faces)


def test_there_are_kinds() -> None:
    assert (*TRAINED, *ZERO_COST) == KINDS
    assert len(KINDS) == len(set(KINDS)) == 7


@pytest.mark.parametrize(("recipe", "kind", "rungs"), [("search-small", "train", 2), ("search-distill", "distill", 4)])
def test_the_shipped_recipes_have_rungs_and_differ_in_the_teacher(recipe: str, kind: str, rungs: int) -> None:
    plan = read_plan(RECIPES / f"{recipe}.yaml")
    assert (plan.teacher is not None) == (kind == "distill")
    assert plan.phases[0].images // plan.checkpoint.every_images == rungs
    assert parse_plan(plan.model_dump(by_alias=True), "x").data == read_plan(RECIPES / "search-small.yaml").data
