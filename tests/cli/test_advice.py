"""Whoever does what each error says arrives at a training that runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mobileface.cli import main
from tests.cli.output import Captured, one_line

MakeData = Callable[..., dict[str, Any]]
MakeFolder = Callable[..., Path]


@pytest.fixture
def begin(tmp_path: Path, make_plan_data: MakeData) -> Callable[..., Callable[[], int]]:
    """`begin(folder, plan)`: a command that trains by a plan that may be changed between its calls."""

    def begun(folder: Path, plan: dict[str, Any]) -> Callable[[], int]:
        plan |= make_plan_data(folder, phase={"images": 8, **plan.pop("phase", {})}, data=plan.pop("data", {}))

        def train() -> int:
            (tmp_path / "advice.yaml").write_text(yaml.safe_dump(plan))
            return main(["train", str(tmp_path / "advice.yaml"), "--out", str(tmp_path / "run")])

        return train

    return begun


def test_images_of_nobody_in_particular(
    begin: Callable[..., Callable[[], int]], trained: Path, tmp_path: Path, make_folder: MakeFolder, capsys: Captured
) -> None:
    """Loose images, then a folder without labels, then a teacher: five errors, each of which says what is next."""
    faces = make_folder(tmp_path / "set", 1, 6) / "person-0"
    plan: dict[str, Any] = {"phase": {"batch": 32, "patience": 1}, "data": {"validate": {"identities": 0.02}}}
    train = begin(faces, plan)
    assert train() == 2
    assert "one folder, in a recipe with labelled: false" in one_line(capsys, "6 directly in the folder")
    plan["data"] |= {"root": str(tmp_path), "train": [{"folder": "set", "labelled": False}]}
    assert train() == 2
    said = one_line(capsys, "none of 6 training images has a label")
    assert "data.validate.identities: 0 and" in said
    plan["data"]["validate"]["identities"] = 0
    assert train() == 2
    assert "wanted patience: 0" in one_line(capsys, "nobody is held out")
    plan["phases"][0]["patience"] = 0
    assert train() == 2
    assert "wanted batch: 6 or less" in one_line(capsys, "6 training images are fewer than one batch of 32")
    plan["phases"][0]["batch"] = 4
    assert train() == 2
    assert "terms: [distillation] and teacher: {model: FILE}" in one_line(capsys, "classification needs two identities")
    plan["phases"][0]["terms"] = ["distillation"]
    assert train() == 2
    assert "wanted" not in one_line(capsys, "a distillation term needs a teacher: {model: FILE}")
    plan["teacher"] = {"model": str(trained)}
    assert train() == 0
    assert "no held-out identities to compare" in capsys.readouterr().out


def test_two_people_with_labels(
    begin: Callable[..., Callable[[], int]], tmp_path: Path, make_folder: MakeFolder, capsys: Captured
) -> None:
    plan: dict[str, Any] = {}
    train = begin(make_folder(tmp_path / "set", 2, 4), plan)
    assert train() == 2
    said = one_line(capsys, "2 of 2 identities have two images or more; wanted four, two to hold out and two to train")
    assert "data.validate.identities: 0, which turns validation off" in said
    plan["data"]["validate"]["identities"] = 0
    assert train() == 0


def test_too_large_a_share_is_held_out(
    begin: Callable[..., Callable[[], int]], shared_faces: Path, capsys: Captured
) -> None:
    plan: dict[str, Any] = {"data": {"validate": {"identities": 0.9}}}
    train = begin(shared_faces, plan)
    assert train() == 2
    most = re.search(r"wanted at most (0\.\d+), or 0, which", one_line(capsys, "holds out 4 of 5 identities"))
    assert most is not None
    plan["data"]["validate"]["identities"] = float(most[1])
    assert train() == 0
    assert "validation: 3 people held out, 18 images, 153 pairs" in capsys.readouterr().out


def test_blends_and_other_images_without_a_label(
    begin: Callable[..., Callable[[], int]], shared_faces: Path, capsys: Captured
) -> None:
    sources = [{"folder": shared_faces.name}, {"folder": shared_faces.name, "labelled": False}]
    plan: dict[str, Any] = {"data": {"train": sources}}
    train = begin(shared_faces, plan)
    assert train() == 2
    assert "wanted sampler: class_uniform or pk" in one_line(capsys, "30 training images have no label")
    plan["phases"][0]["sampler"] = "class_uniform"
    assert train() == 0
