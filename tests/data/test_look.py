"""The sheet of augmented crops: what stands where, and the command that draws it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from mobileface.cli import main
from mobileface.data.augment import OPERATIONS, Step, apply, generator
from mobileface.data.blends import BlendedFaces
from mobileface.data.degrade import at_side
from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from mobileface.data.look import DRAWS, look, of_training
from mobileface.data.sheet import LINE
from mobileface.errors import InputError

MakeFolder = Callable[..., Path]
MakeData = Callable[..., dict[str, Any]]
STEPS: list[Step] = [("flip", 0.5, {}), ("brightness", 0.1, {"strength": 0.3}), ("cutout", 0.5, {"most": 0.4})]


def cell(sheet: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    top = row * (112 + 2 * LINE) + LINE
    return sheet[top : top + 112, column * 112 : (column + 1) * 112]


def test_a_row_shows_the_crop_each_step_alone_and_draws_of_all(shared_faces: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    sheet = look(faces, np.arange(30), STEPS, seed=3, images=4)
    assert sheet.shape == (4 * (112 + 2 * LINE), (1 + 3 + DRAWS) * 112, 3)
    for row, i in enumerate((0, 9, 19, 29)):  # spread over the 30 images
        crop = decode(faces.read(i), faces.key(i))
        np.testing.assert_array_equal(cell(sheet, row, 0), crop)
        for column, (name, _, strength) in enumerate(STEPS, 1):
            wanted = OPERATIONS[name](crop, generator(3, i), **strength)
            np.testing.assert_array_equal(cell(sheet, row, column), wanted)
            assert not np.array_equal(wanted, crop)  # whatever its probability
        for draw in range(DRAWS):
            wanted = apply(crop, STEPS, generator(3, i * DRAWS + draw))
            np.testing.assert_array_equal(cell(sheet, row, 4 + draw), wanted)


def test_the_degraded_view_is_made_of_the_draws(shared_faces: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    poor: list[Step] = [("resolution", 1.0, {"sides": [7], "per": "batch"})]
    sheet = look(faces, np.arange(30), STEPS, seed=3, images=2, degraded=poor)
    assert sheet.shape[1] == (1 + 3 + 1 + 2 * DRAWS) * 112
    for draw in range(DRAWS):
        np.testing.assert_array_equal(cell(sheet, 0, 5 + DRAWS + draw), at_side(cell(sheet, 0, 5 + draw), 7))


def test_bad_images_are_left_out(tmp_path: Path, make_folder: MakeFolder) -> None:
    folder = make_folder(tmp_path / "set", identities=1, images=3)
    (folder / "person-0" / "face-0.jpg").write_bytes(b"bad")
    faces = FaceSet([FolderFaces(folder)])
    sheet = look(faces, np.arange(3), [], 0, 10)
    assert len(sheet) == 2 * (112 + 2 * LINE)
    np.testing.assert_array_equal(cell(sheet, 0, 0), decode(faces.read(1), "x"))
    for number in (1, 2):
        (folder / "person-0" / f"face-{number}.jpg").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"^none of the images .* the last: set/person-0/face-2\.jpg: does not decode"):
        look(faces, np.arange(3), [], 0, 10)


def test_crops_are_of_the_training_split(tmp_path: Path, make_folder: MakeFolder) -> None:
    """Nobody who is held out, nobody of the long tail, no blend; images without a label do train."""
    folder = make_folder(tmp_path / "set")
    (folder / "person-0" / "face-5.jpg").unlink()
    loose = FolderFaces(make_folder(tmp_path / "loose", identities=1, images=2), labelled=False)
    given = FaceSet([FolderFaces(folder), loose])
    out = set(split_identities(given, 0.5, 7, min_images=6).held_out.tolist())
    assert len(out) == 12  # two people of the four with six images
    faces = FaceSet([*given.sources, BlendedFaces(given, np.arange(29), 50, 7)])
    chosen = of_training(faces, 0.5, 7, 6)
    assert chosen.tolist() == [i for i in range(5, 31) if i not in out]
    sheet = look(faces, chosen, [], 0, 200)
    assert len(sheet) == 14 * (112 + 2 * LINE)
    for row, i in enumerate(chosen.tolist()):
        np.testing.assert_array_equal(cell(sheet, row, 0), decode(given.read(i), given.key(i)))


def test_the_command_draws_a_recipe(
    shared_faces: Path, make_plan_data: MakeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "toy.yaml", tmp_path / "sheet.png"
    recipe.write_text(yaml.safe_dump(make_plan_data(shared_faces)))
    view = "phases.0.views.clean=[crop_paste, {kind: photometric, p: 1}]"
    command = ["data", "look", str(recipe), "--images", "3", "--set", view]
    assert main([*command, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    found = cv2.imread(str(out), cv2.IMREAD_COLOR_RGB)
    steps: list[Step] = [
        ("crop_paste", 0.2, {"least": 0.2, "ratio": 4 / 3}),
        ("photometric", 1.0, {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}),
    ]
    faces = FaceSet([FolderFaces(shared_faces)])
    train = split_identities(faces, 0.4, 5).train
    assert len(train) == 18
    np.testing.assert_array_equal(found, look(faces, train, steps, 5, 3))
    assert main([*command, "--out", str(tmp_path / "sheet.gif")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'sheet.gif'}: wanted --out FILE.png\n"
    assert main([*command, "--out", str(out), "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere/faces: is not a folder" in capsys.readouterr().err


def test_procedural_faces_are_written_first(make_plan_data: MakeData, tmp_path: Path, cache: Path) -> None:
    data = make_plan_data(tmp_path)
    synthetic = {"identities": 4, "images": 2, "held_out": 2, "pairs": 20}
    data["data"] = {"train": [{"rec": "train.rec"}], "synthetic": synthetic}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(data))
    assert main(["data", "look", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "sheet.png")]) == 0
    assert list(cache.glob("synthetic/*/train.rec"))
    found = cv2.imread(str(tmp_path / "sheet.png"))
    assert found is not None
    assert len(found) == 4 * (112 + 2 * LINE)
