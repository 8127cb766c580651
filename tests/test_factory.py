"""The main flow, from a recipe to a report, in small: done once, done twice, killed in between."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file, save_file

from mobileface import factory
from mobileface.data.faceset import FaceSet
from mobileface.embedders.opening import open_embedder
from mobileface.errors import CheckFailed, InputError
from mobileface.files import write_json
from mobileface.models import build
from mobileface.report.ladder import percent_and_deviation
from mobileface.training import checkpoint, loop, sources
from mobileface.training.sources import open_faces
from mobileface.zoo import find_arch

pytestmark = pytest.mark.usefixtures("no_workers")
MakeFolder = Callable[..., Path]
MakeData = Callable[..., dict[str, Any]]
QUIET = Console(quiet=True)
SYNTHETIC = {"identities": 8, "images": 4, "held_out": 4, "pairs": 20, "seed": 2}
KILLED_RUN = Path(__file__).parent / "training" / "killed_run.py"
EVERY_FILE = {
    "arch.json", "card.json", "checkpoints/best.safetensors", "checkpoints/last.safetensors",
    "evaluation/held_out.json", "evaluation/held_out.worst.json", "log.jsonl", "model.safetensors", "plan.yaml",
    "report.html",
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path, make_plan_data: MakeData) -> Path:
    """Synthetic faces to train on and to judge on."""
    data = make_plan_data(tmp_path / "none", phase={"images": 48}, evaluate=["held_out.bin"], budget="lfrc-light")
    data["data"] = {"synthetic": SYNTHETIC, "train": [{"rec": "train.rec"}], "validate": {"identities": 0.3}}
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def files(run: Path) -> dict[str, int]:
    """Every file that is not hidden nor TensorBoard's: name -> time of its last change."""
    found = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    return {
        name: path.stat().st_mtime_ns
        for name, path in found.items()
        if not Path(name).name.startswith((".", "events.out"))
    }


def make(recipe: Path, run: Path, *overrides: str, data: Path | None = None) -> Path:
    return factory.make(recipe, data, run, list(overrides), QUIET)


def test_from_a_recipe_to_a_report_and_nothing_twice(
    recipe: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert make(recipe, run) == run / "report.html"
    before = files(run)
    assert set(before) == EVERY_FILE
    card = json.loads((run / "card.json").read_text())
    assert (card["name"], card["arch"]["name"], card["teacher"]) == ("toy", "micro", None)
    assert card["budget"]["fits"] is True
    assert (card["data"]["images"], card["data"]["identities"]) == (32, 8)
    assert card["training"]["images_seen"] == 48
    judged = json.loads((run / "evaluation" / "held_out.json").read_text())
    assert card["results"] == [{key: judged[key] for key in ("set", "accuracy", "std", "model")}]
    assert "held_out" in (run / "report.html").read_text()
    drawn = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert drawn

    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(factory, "evaluate", lambda *_: pytest.fail("judged again"))
    monkeypatch.setattr(sources, "write_synthetic", lambda *_, **__: pytest.fail("drawn again"))
    make(recipe, run)
    after = files(run)
    assert {name for name in after if after[name] != before.get(name)} <= {"card.json", "report.html"}
    assert json.loads((run / "card.json").read_text()) == card
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()} == drawn


def test_the_same_recipe_gives_the_same_network(recipe: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        factory.train_recipe(recipe, None, tmp_path / name, [], QUIET)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    factory.train_recipe(recipe, None, tmp_path / "other", ["seed=4"], QUIET)
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_the_run_folder_is_named_by_the_plan(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert factory.train_recipe(recipe, None, None, ["name=mine"], QUIET) == Path("runs/mine")
    assert (tmp_path / "runs" / "mine" / "model.safetensors").exists()


def test_over_budget_is_found_before_anything_is_spent(recipe: Path, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(CheckFailed, match=r"micro is over budget custom: .* allowed 16-d"):
        factory.train_recipe(recipe, None, tmp_path / "run", ["budget={max_dim: 16}"], QUIET)
    assert not (tmp_path / "run").exists()
    assert not cache.exists()


@pytest.mark.parametrize(
    ("override", "wanted"),
    [("evaluate=[nowhere.bin]", "nowhere.bin: not found"), ("evaluate=[lwf]", "did you mean 'lfw'")],
)
def test_what_is_missing_at_the_end_is_told_at_the_beginning(
    recipe: Path, tmp_path: Path, override: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train", lambda *_: pytest.fail("trained"))
    with pytest.raises(InputError, match=wanted):
        make(recipe, tmp_path / "run", override)


def test_a_run_as_the_teacher_of_the_next(
    recipe: Path, tmp_path: Path, make_folder: MakeFolder, make_plan_data: MakeData, cache: Path
) -> None:
    """A run folder teaches; a second student takes the teacher's embeddings from the cache."""
    faces = make_folder(tmp_path / "data" / "faces", identities=4, images=4)
    first = make_plan_data(faces, phase={"images": 16}, data={"validate": {"identities": 0}})
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(first))
    factory.train_recipe(tmp_path / "first.yaml", None, tmp_path / "data" / "teacher", [], QUIET)
    taught = {**first, "teacher": {"model": "teacher"}, "name": "taught"}
    taught["phases"] = [{**first["phases"][0], "terms": ["distillation"]}]
    (tmp_path / "taught.yaml").write_text(yaml.safe_dump(taught))
    factory.train_recipe(tmp_path / "taught.yaml", None, tmp_path / "student", [], QUIET)
    card = json.loads((tmp_path / "student" / "card.json").read_text())
    assert card["teacher"]["sha256"] == open_embedder(tmp_path / "data" / "teacher").sha256
    kept = list(cache.glob("teachers/*"))
    assert len(kept) == 1
    stamp = kept[0].stat().st_mtime_ns
    factory.train_recipe(tmp_path / "taught.yaml", None, tmp_path / "again", [], QUIET)
    assert [path.stat().st_mtime_ns for path in cache.glob("teachers/*")] == [stamp]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("student", "again"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_wider_student_is_taught_online_and_keeps_its_own_width(
    tmp_path: Path, make_folder: MakeFolder, make_plan_data: MakeData, cache: Path
) -> None:
    """By a run folder and by an ONNX file, with and without the class centres that its targets give."""
    pytest.importorskip("onnxruntime")
    from tests.embedders.test_onnx import mean_of, write

    faces = make_folder(tmp_path / "data" / "faces", identities=4, images=4)
    teacher = build(find_arch("micro"))
    write_json(tmp_path / "data" / "run" / "arch.json", find_arch("micro").to_dict())
    save_file(teacher.state_dict(), tmp_path / "data" / "run" / "model.safetensors")
    write(tmp_path / "data" / "mean.onnx", mean_of())
    contract = {"scale": 255, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.5, 0.5]}
    terms = ["distillation", "relational_distillation"]
    for name, model in (("run", {"model": "run"}), ("onnx", {"model": "mean.onnx", "contract": contract})):
        for cached, own in ((0, terms), (1, [*terms, "logit_distillation"])):
            phase = {"images": 8, "terms": own}
            plan = make_plan_data(faces, phase=phase, arch="tiny", data={"validate": {"identities": 0}})
            plan |= {"teacher": {**model, "online": True}}
            (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
            before = len(list(cache.glob("teachers/*")))
            run = factory.train_recipe(tmp_path / "plan.yaml", None, tmp_path / f"{name}-{cached}", [], QUIET)
            assert len(list(cache.glob("teachers/*"))) == before + cached
            assert open_embedder(run).dim == 64
            assert load_file(run / "model.safetensors").keys() == build(find_arch("tiny")).state_dict().keys()
            assert json.loads((run / "card.json").read_text())["teacher"]["path"] == model["model"]


def test_other_data_does_not_go_on_with_the_same_run(
    tmp_path: Path, make_folder: MakeFolder, make_plan_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = make_folder(tmp_path / "faces", identities=4, images=4)
    data = make_plan_data(faces, data={"validate": {"identities": 0}})
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(data))
    step = loop.step

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            factory.train_recipe(tmp_path / "toy.yaml", None, tmp_path / "run", [], QUIET)
    saved = (tmp_path / "run" / "checkpoints" / "last.safetensors").read_bytes()
    image = faces / "person-0" / "face-0.jpg"
    image.rename(faces / "person-0" / "renamed.jpg")
    with pytest.raises(InputError, match="was begun with other training images, another teacher"):
        factory.train_recipe(tmp_path / "toy.yaml", None, tmp_path / "run", [], QUIET)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").read_bytes() == saved
    (faces / "person-0" / "renamed.jpg").rename(image)
    factory.train_recipe(tmp_path / "toy.yaml", None, tmp_path / "run", [], QUIET)
    assert checkpoint.load(tmp_path / "run" / "model.safetensors")[1]["images_seen"] == 72


def test_a_rec_and_a_folder_together(recipe: Path, tmp_path: Path, make_folder: MakeFolder) -> None:
    from mobileface.data.pack import pack

    folder = make_folder(tmp_path / "data" / "faces", identities=3, images=2)
    pack(str(folder), tmp_path / "data" / "faces.rec", tmp_path)
    sources = "data={train: [{rec: faces.rec}, {folder: faces}], validate: {identities: 0}}"
    plan = factory.load_plan(recipe, tmp_path / "data", [sources])
    faces = open_faces(plan)
    assert isinstance(faces, FaceSet)
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert [bytes(faces.read(i)) for i in range(6)] == [bytes(faces.read(i + 6)) for i in range(6)]


@pytest.mark.slow
def test_with_an_export(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = tmp_path / "run"
    make(recipe, run, "export.formats=[onnx]")
    exported = json.loads((run / "export" / "onnx.json").read_text())
    assert exported["parity"]["passed"] is True
    results = [json.loads((run / "evaluation" / name).read_text()) for name in ("held_out.json", "held_out.onnx.json")]
    assert abs(results[0]["accuracy"] - results[1]["accuracy"]) <= 0.001
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    one, two = open_embedder(run)(images), open_embedder(run / "export" / exported["file"])(images)
    np.testing.assert_allclose(two, one, atol=1e-4 * np.abs(one).max())
    card = json.loads((run / "card.json").read_text())
    assert [row["set"] for row in card["results"]] == ["held_out", "held_out"]


# 48 images: checkpoints at 24 and 48. What is renamed, in order: index of the .rec, arch, plan, [best, last] twice,
# model, card, result, worst pairs, card, report
MOMENTS = [*(f"replace:{number}" for number in range(1, 15)), "replaced:2", "replaced:8", "replaced:10", "fsync:4"]


@pytest.mark.slow
def test_killed_at_any_moment(recipe: Path, tmp_path: Path) -> None:
    """Each child makes everything and is killed on the way; the same command then ends in the same run."""
    moments = ["never:0", *MOMENTS, *(f"cpu:{random.uniform(0.02, 0.98):.3f}" for _ in range(5))]
    runs = [tmp_path / f"{i}-{moment.replace(':', '-')}" for i, moment in enumerate(moments)]
    arguments = [text for run, moment in zip(runs, moments, strict=True) for text in (str(run), moment)]
    command = [sys.executable, str(KILLED_RUN), str(recipe), "make", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    statuses = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert statuses[0] == 0, done.stderr
    assert statuses.count(signal.SIGKILL) >= len(MOMENTS) - 2, done.stdout  # a moment may lie behind the last rename
    assert set(statuses) <= {0, signal.SIGKILL, signal.SIGPROF}
    for run in runs[1:]:
        make(recipe, run)
        assert set(files(run)) == EVERY_FILE
        one, two = load_file(run / "model.safetensors"), load_file(runs[0] / "model.safetensors")
        assert all(torch.equal(one[key], two[key]) for key in two)
        judged = [json.loads((folder / "evaluation" / "held_out.json").read_text()) for folder in (run, runs[0])]
        differ = {key for key in judged[0] if judged[0][key] != judged[1][key]}
        assert differ <= {"model", "model_sha256", "seconds"}  # the folder's name; the file also tells the time spent
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [row["images"] for row in rows if row["event"] == "step"] == list(range(4, 49, 4))


def test_a_ladder_is_judged_phase_by_phase(recipe: Path, tmp_path: Path, cache: Path) -> None:
    data = yaml.safe_load(recipe.read_text())
    data["phases"][0]["name"] = "first"
    wrap = {"kind": "classification", "margin": "combined", "negatives": "support_vector", "balance": {"beta": 0.9}}
    data["phases"].append({"name": "second", "images": 24, "add": [wrap, "triplet"], "sampler": {"kind": "pk"}})
    data["phases"][1] |= {"batch": 8}
    recipe.write_text(yaml.safe_dump(data))
    run = tmp_path / "run"
    page = make(recipe, run).read_text()
    phases = json.loads((run / "card.json").read_text())["training"]["phases"]
    assert [phase["losses"] for phase in phases] == [
        ["arcface"],
        ["combined", "support_vector", "class-balanced", "semi_hard triplet", "pk batches"],
    ]
    for folder, phase in zip(("1-first", "2-second"), phases, strict=True):
        kept = json.loads((run / "phases" / folder / "evaluation" / "held_out.json").read_text())
        assert phase["results"] == [{key: kept[key] for key in ("set", "accuracy", "std")}]
        assert percent_and_deviation(kept) in page
    assert phases[1]["results"][0]["accuracy"] == json.loads((run / "card.json").read_text())["results"][0]["accuracy"]
    assert "arcface → combined" in page
    before = files(run)
    make(recipe, run)
    assert {name for name, when in files(run).items() if before[name] != when} <= {"card.json", "report.html"}


def test_blends_are_taught_and_trained_on(
    tmp_path: Path, cache: Path, make_folder: MakeFolder, make_plan_data: MakeData
) -> None:
    """A run teaches a second one, on blends of the people that are not held out."""
    folder = make_folder(tmp_path / "data" / "faces")
    first = tmp_path / "teacher.yaml"
    first.write_text(yaml.safe_dump(make_plan_data(folder, phase={"images": 16})))
    factory.train_recipe(first, None, tmp_path / "data" / "teacher", [], QUIET)
    taught = make_plan_data(folder, phase={"terms": ["distillation"]}, teacher={"model": "teacher", "blends": 40})
    second = tmp_path / "student.yaml"
    second.write_text(yaml.safe_dump(taught))
    run = factory.train_recipe(second, None, tmp_path / "run", [], QUIET)
    card = json.loads((run / "card.json").read_text())
    assert [source["name"] for source in card["data"]["sources"]] == ["faces", "blends"]
    assert (card["data"]["images"], card["data"]["identities"]) == (70, 5)
    assert (card["training"]["train_images"], card["training"]["held_out_images"]) == (58, 12)
    assert len(list((cache / "teachers").glob("*.safetensors"))) == 2
