"""`train` and `make`: a run and its second training, and what is refused before anything is spent."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mobileface.cli import main
from mobileface.training import checkpoint
from tests.cli.output import Captured, one_line

MakeData = Callable[..., dict[str, Any]]


def test_a_training_and_a_second_one_in_its_folder(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    run = tmp_path / "run"
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.endswith(f"run: {run}\n")
    weights = (run / "model.safetensors").stat().st_mtime_ns
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    assert (run / "model.safetensors").stat().st_mtime_ns == weights
    said = capsys.readouterr().out
    assert f"{run}: this training is done, 16 images; to train anew give another --out" in said
    assert "start: " in said
    assert main(["train", str(recipe), "--out", str(run), "--set", "phases.0.optimizer.lr=0.5"]) == 2
    one_line(capsys, str(run), "another plan", "phases.0.optimizer.lr=0.05 there", "phases.0.optimizer.lr=0.5 here")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["--set", "budget={max_flops: 1e5}"], 1, ["micro is over budget custom", "allowed 0.1 M"]),
        (["--set", "budget=lfrc-lite"], 2, ["lfrc-lite", "did you mean 'lfrc-light'?"]),
        (["--set", "arch=mikro"], 2, ["'mikro'", "did you mean 'micro'?"]),
        (["--set", "arch={stem: 8, stages: [{hiden: 16, width: 8}]}"], 2, ["'hiden'", "did you mean 'hidden'?"]),
        (["--set", "phases.0.optimiser.lr=1"], 2, ["'phases.0.optimiser'", "did you mean 'optimizer'?"]),
        (["--set", "phases.7.batch=1"], 2, ["'7' is no place in a list of 1"]),
        (["--set", "data.train.0.folder=empty"], 2, ["empty: holds no image"]),
        (["--set", "data.train=[{rec: no.rec}]"], 2, ["no.rec"]),
        (["--set", "data.train.0.labelled=false"], 2, ["none of 30 training images", "labelled: false"]),
        (["--set", "data.min_images=50"], 2, ["data.min_images 50 leaves 0 of 5 identities"]),
        (["--set", "phases.0.batch=100"], 2, ["18 training images are fewer than one batch of 100"]),
        (["--set", "data.validate.identities=0.9"], 2, ["holds out 4 of 5 identities", "wanted at most 0.6, or 0"]),
        (["--data", "nowhere"], 2, ["nowhere/faces: is not a folder"]),
    ],
)
def test_what_is_refused_before_anything_is_spent(
    recipe: Path, tmp_path: Path, capsys: Captured, arguments: list[str], code: int, wanted: list[str]
) -> None:
    if "data.train.0.folder=empty" in arguments:
        (tmp_path / "empty").mkdir()
        arguments = [*arguments, "--data", str(tmp_path)]
    for command in ("train", "make"):
        assert main([command, str(recipe), "--out", str(tmp_path / "run"), *arguments]) == code
        assert "Traceback" not in one_line(capsys, *wanted)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 0  # the folder was not spoilt


def test_a_folder_that_holds_other_things(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert main(["train", str(recipe), "--out", str(tmp_path / "mine")]) == 2
    one_line(capsys, "mine: is not empty and holds no plan.yaml")
    assert main(["train", str(recipe), "--out", str(tmp_path / "mine" / "thesis.tex")]) == 2
    one_line(capsys, "thesis.tex")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


def test_a_training_that_is_not_finite(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    changes = ["phases.0.optimizer.lr=1e37", "phases.0.schedule.kind=constant", "checkpoint.every_images=4"]
    sets = [text for change in changes for text in ("--set", change)]
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), *sets]) == 3
    one_line(capsys, "not finite")
    for kept in (tmp_path / "run").glob("checkpoints/*"):
        checkpoint.load(kept)
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_foreign_teacher_without_its_contract(
    trained: Path, shared_faces: Path, make_plan_data: MakeData, tmp_path: Path, capsys: Captured
) -> None:
    """An export whose metadata was taken out."""
    onnx = pytest.importorskip("onnx")
    shutil.copytree(trained, tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--to", "onnx"]) == 0
    foreign = onnx.load(next((tmp_path / "run").glob("export/*.onnx")))
    foreign.ClearField("metadata_props")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    taught = make_plan_data(shared_faces, phase={"terms": ["distillation"]})
    taught["teacher"] = {"model": str(tmp_path / "foreign.onnx")}
    (tmp_path / "taught.yaml").write_text(yaml.safe_dump(taught))
    capsys.readouterr()
    assert main(["train", str(tmp_path / "taught.yaml"), "--out", str(tmp_path / "taught")]) == 2
    one_line(capsys, "foreign.onnx: does not say", "wanted --scale, --mean and --std, in a recipe teacher.contract")
