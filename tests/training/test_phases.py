"""Phases that wrap one another: what goes over, when one ends, and exact resume across their borders."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from mobileface.data.faceset import split_identities
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from mobileface.factory import find_plan_arch
from mobileface.losses.forward import Forward
from mobileface.training import checkpoint, loop
from mobileface.training.plan import parse_plan
from mobileface.training.sources import open_faces
from tests.training.runs import assert_same_tensors, rows, stop_at

MakeData = Callable[..., dict[str, Any]]

LADDER: list[dict[str, Any]] = [
    {"name": "two", "images": 48, "add": [{"kind": "classification", "margin": "combined"}, "intra"]},
    {
        "name": "three",
        "images": 32,
        "batch": 8,
        "sampler": {"kind": "pk", "images": 4},
        "add": [
            {"kind": "classification", "negatives": "curricular", "margin": "adaface", "balance": {"beta": 0.9}},
            {"kind": "triplet", "mining": "batch_hard"},
            "inter",
            "centre",
        ],
        "drop": ["intra"],
    },
]


@pytest.fixture(scope="module")
def ladder(shared_faces: Path, make_plan_data: MakeData) -> dict[str, Any]:
    """Three phases of 18, 12 and 4 steps."""
    data = make_plan_data(shared_faces, phase={"name": "one"})
    data["phases"] += LADDER
    return data


def train(data: dict[str, Any], run: Path) -> dict[str, Any]:
    plan = parse_plan(data, "x")
    run.mkdir(exist_ok=True, parents=True)
    return loop.train(plan, find_plan_arch(plan), run, open_faces(plan), None, Console(quiet=True), workers=0)


@pytest.fixture(scope="module")
def whole(ladder: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(ladder, run)
    return run


def test_every_phase_leaves_its_best_weights_and_its_row(whole: Path, ladder: dict[str, Any]) -> None:
    facts = checkpoint.load(whole / "model.safetensors")[1]
    assert [phase["name"] for phase in facts["phases"]] == ["one", "two", "three"]
    assert [phase["images"] for phase in facts["phases"]] == [72, 48, 32]
    assert facts["images_seen"] == 152
    validations = rows(whole, "validation")
    borders = [0, 72, 120, 152]
    for number, phase in enumerate(facts["phases"]):
        own = [v for v in validations if borders[number] < v["images"] <= borders[number + 1]]
        best = max(own, key=lambda row: (row["auc"], row["images"]))
        assert (phase["best_at"], phase["held_out_auc"]) == (best["images"], best["auc"])
        embedder = open_embedder(loop.phase_folder(whole, number, phase["name"]))
        assert embedder.dim == 32
    last, result = (load_file(p / "model.safetensors") for p in (whole / "phases" / "3-three", whole))
    assert all(torch.equal(last[name], result[name]) for name in result)
    assert [row["images"] for row in rows(whole, "step")] == [*range(4, 121, 4), *range(128, 153, 8)]
    kinds = [set(row["terms"]) for row in rows(whole, "step")]
    assert kinds[0] == {"classification"}
    assert kinds[18] == {"classification", "intra"}
    assert kinds[-1] == {"classification", "triplet", "inter", "centre"}


def test_network_and_centres_start_from_the_best_weights_of_the_phase_before(
    ladder: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    best: list[dict[str, torch.Tensor]] = []
    end, go_on = loop._end_phase, loop._next_phase

    def ended(trainer: Any) -> Any:
        best.append(checkpoint.load(trainer.best)[0])
        return end(trainer)

    def went_on(trainer: Any, *rest: Any) -> None:
        go_on(trainer, *rest)
        begun.append({k: v.clone() for k, v in checkpoint.load(trainer.last)[0].items()})
        assert trainer.optimizer.state == {}

    monkeypatch.setattr(loop, "_end_phase", ended)
    monkeypatch.setattr(loop, "_next_phase", went_on)
    train(ladder, tmp_path / "run")
    for before, after in zip(best, begun, strict=False):
        for name in before:
            if name.startswith("network.") or name == "terms.classification.centres":
                assert torch.equal(before[name], after[name]), name
    assert float(begun[1]["terms.classification.margin.statistics.mean"]) == 20  # AdaFace's is new in phase three


@pytest.mark.parametrize(
    "step", [19, 31, *(pytest.param(step, marks=pytest.mark.slow) for step in (5, 18, 24, 30, 33))]
)
def test_resume_is_exact_across_borders(
    step: int, ladder: dict[str, Any], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(step, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            train(ladder, tmp_path / "run")
    train(ladder, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("moment", ["next", "save"])
def test_a_phase_border_that_was_cut_off_is_gone_over_again(
    moment: str, ladder: dict[str, Any], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind the end of a phase, or when the next one's first checkpoint is to be written."""

    class Killed(BaseException):
        pass

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "next":
            patch.setattr(loop, "_next_phase", die)
        else:
            go_on = loop._next_phase

            def half(*args: Any) -> None:
                patch.setattr(loop, "save", die)
                go_on(*args)

            patch.setattr(loop, "_next_phase", half)
        with pytest.raises(Killed):
            train(ladder, tmp_path / "run")
    train(ladder, tmp_path / "run")
    assert_same(tmp_path / "run", whole)


def assert_same(run: Path, reference: Path) -> None:
    names = ["model", "checkpoints/best", "checkpoints/last", "phases/1-one/model", "phases/2-two/model"]
    assert_same_tensors(run, reference, *names)
    for event in ("step", "validation", "phase"):
        assert rows(run, event) == rows(reference, event)


def test_patience_ends_a_phase(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    """A rate of nothing: the score never rises after the first validation."""
    phase = {"images": 400, "patience": 3, "optimizer": {"lr": 1e-12}, "schedule": {"kind": "constant"}}
    data = make_plan_data(shared_faces, phase=phase, checkpoint={"every_images": 20})
    data["phases"].append({"name": "more", "images": 8, "patience": 0})
    facts = train(data, tmp_path / "run")
    validations = [row for row in rows(tmp_path / "run", "validation") if row["images"] <= facts["phases"][0]["images"]]
    assert facts["phases"][0]["images"] < 400
    assert len(validations) * 20 == facts["phases"][0]["images"]
    scores = [row["auc"] for row in validations]
    best = max(scores)
    assert len(scores) - 1 - scores.index(best) >= 3
    assert facts["images_seen"] == facts["phases"][0]["images"] + 8


def test_accumulated_parts_give_the_gradient_of_their_mean(
    shared_faces: Path, make_plan_data: MakeData, tmp_path: Path
) -> None:
    """One SGD step without momentum or decay moves the weights by minus the rate times the mean of two gradients."""
    rate = 0.01
    phase = {
        "images": 8, "batch": 8, "accumulate": 2, "schedule": {"kind": "constant"},
        "optimizer": {"kind": "sgd", "lr": rate, "momentum": 0, "weight_decay": 0},
    }  # fmt: skip
    plan = parse_plan(make_plan_data(shared_faces, phase=phase, data={"validate": {"identities": 0}}), "x")
    faces = open_faces(plan)
    trainer, _ = loop.prepare(plan, find_plan_arch(plan), tmp_path / "run", faces, None, print)
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    parts = list(loop.batches(trainer.stream, 0, 8, 8, 0, 4))
    losses, sums = [], {name: torch.zeros_like(p) for name, p in before.items()}
    for part in parts:
        embeddings = trainer.network(part.images.permute(0, 3, 1, 2).float())
        values, _ = trainer.terms["classification"](Forward({"clean": embeddings}, trainer.classes[part.index]))
        values.mean().backward()
        losses.append(float(values.detach().mean()))
        for name, parameter in trainer.network.named_parameters():
            assert parameter.grad is not None
            sums[name] += parameter.grad
            parameter.grad = None
        trainer.terms.zero_grad(set_to_none=True)
    row = loop.step(trainer, parts, rate)
    assert row["loss"] == pytest.approx(sum(losses) / 2, rel=1e-5)
    for name, parameter in trainer.network.named_parameters():
        wanted = before[name] - rate * sums[name] / 2
        torch.testing.assert_close(parameter.detach(), wanted, atol=1e-5, rtol=1e-4)


def test_a_later_phase_that_cannot_train_is_refused_before_the_first(
    shared_faces: Path, make_plan_data: MakeData, tmp_path: Path
) -> None:
    magface = {"kind": "magface", "norm_low": 50, "norm_high": 20}
    score = {"kind": "adaface", "quality": "score"}
    later: list[tuple[dict[str, Any], str]] = [
        ({"sampler": {"kind": "pk", "images": 4}, "batch": 16}, "sampler pk: found 3 labelled identities"),
        ({"batch": 64}, "18 training images are fewer than one batch of 64"),
        ({"add": [{"kind": "classification", "margin": magface}]}, "MagFace's norms are 50 to 20"),
        ({"add": [{"kind": "classification", "margin": score}]}, "phase later: a margin reads scores"),
    ]
    for number, (phase, wanted) in enumerate(later):
        data = make_plan_data(shared_faces)
        data["phases"].append({"name": "later", **phase})
        with pytest.raises(InputError, match=wanted):
            train(data, tmp_path / f"run-{number}")
        assert not (tmp_path / f"run-{number}" / "checkpoints").exists()


def test_identities_of_the_long_tail_are_left_out(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    data = make_plan_data(shared_faces, data={"min_images": 7, "validate": {"identities": 0}})
    with pytest.raises(InputError, match=r"data\.min_images 7 leaves 0 of 5 identities"):
        train(data, tmp_path / "run")
    plan = parse_plan(make_plan_data(shared_faces, data={"min_images": 6}), "x")
    assert split_identities(open_faces(plan), 0.4, 5, 6).long_tail == 0


def test_patience_wants_a_score(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    data = make_plan_data(shared_faces, phase={"patience": 2, "name": "a"}, data={"validate": {"identities": 0}})
    with pytest.raises(InputError, match=r"phase a: patience needs a score, and nobody is held out"):
        train(data, tmp_path / "run")


def test_parts_of_a_batch_do_not_cut_an_identity(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    phase = {"batch": 12, "accumulate": 2, "sampler": {"kind": "pk", "images": 4}}
    with pytest.raises(InputError, match=r"sampler pk: batch is 12; wanted a multiple of 8 \(2 parts x 4 images"):
        train(make_plan_data(shared_faces, phase=phase), tmp_path / "run")


def test_a_sampler_that_cannot_draw_says_so(shared_faces: Path, make_plan_data: MakeData, tmp_path: Path) -> None:
    phase = {"batch": 16, "sampler": {"kind": "pk", "images": 4}}
    with pytest.raises(InputError, match=r"sampler pk: found 3 labelled identities; wanted at least 4"):
        train(make_plan_data(shared_faces, phase=phase), tmp_path / "run")
