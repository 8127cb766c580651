"""Held-out identities: who is drawn, and the score against a slow one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.folder import FolderFaces
from mobileface.training import validation


class Corners(nn.Module):
    """(B, 3, 112, 112) -> (B, 12): the means of four corners; batch norm off in eval."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.modes.append(self.training)
        return nn.functional.adaptive_avg_pool2d(pixels - 128, 2).flatten(1)


def held(folder: Path) -> validation.HeldOut:
    faces = FaceSet([FolderFaces(folder)])
    found, skipped = validation.held_out(faces, split_identities(faces, 0.6, 0).held_out, 0)
    assert skipped == []
    assert found is not None
    return found


def test_all_pairs_of_the_held_out_images(shared_faces: Path) -> None:
    found = held(shared_faces)
    assert found.images.shape == (18, 112, 112, 3)  # three people of five, six images each
    assert len(found.first) == 18 * 17 // 2
    assert found.same.sum() == 3 * 15
    assert (found.first < found.second).all()


def test_auc_and_eer_against_counting(shared_faces: Path) -> None:
    found = held(shared_faces)
    network = Corners().train()
    score = validation.validate(network, found, torch.device("cpu"))
    units = nn.functional.normalize(network.double()(found.images.permute(0, 3, 1, 2).double())).numpy()
    cosines = np.array([units[a] @ units[b] for a, b in zip(found.first, found.second, strict=True)])
    genuine, impostor = cosines[found.same], cosines[~found.same]
    wins = sum((g > i) + 0.5 * (g == i) for g in genuine for i in impostor)
    assert abs(score["auc"] - wins / (len(genuine) * len(impostor))) < 2e-3  # float32 may swap near ties
    assert 0 <= score["eer"] <= 0.5


def test_it_judges_in_eval_mode_and_gives_the_mode_back(shared_faces: Path) -> None:
    network = Corners().train()
    validation.validate(network, held(shared_faces), torch.device("cpu"))
    assert network.modes
    assert not any(network.modes)
    assert network.training


def test_who_judges_and_what_came_of_it_are_said(shared_faces: Path) -> None:
    found = held(shared_faces)
    assert found.described() == "validation: 3 people held out, 18 images, 153 pairs (45 of one person)"
    poor = replace(found, sides=[7, 112])
    assert poor.described().endswith("(45 of one person), one image of each at 7, 112 px")
    score = validation.validate(Corners(), poor, torch.device("cpu"))
    each = [score["auc_at_7"], score["auc_at_112"]]
    assert validation.in_words(score) == (
        f"held-out AUC {np.mean(each):.4f} (7 px {each[0]:.4f}, 112 px {each[1]:.4f}), EER {score['eer']:.4f}"
    )
    assert validation.in_words({"auc": 0.5, "eer": 0.25}) == "held-out AUC 0.5000, EER 0.2500"


def test_nothing_to_compare(shared_faces: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    assert validation.held_out(faces, np.zeros(0, np.int64), 0) == (None, [])
    assert validation.held_out(faces, np.array([0, 1]), 0)[0] is None  # one person: no impostor
    assert validation.held_out(faces, np.array([0, 29]), 0)[0] is None  # two people: no genuine pair


def test_a_bad_image_is_left_out(tmp_path: Path, make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder(tmp_path / "faces", 2, 3)
    (folder / "person-0" / "face-1.jpg").write_bytes(b"not an image")
    found, skipped = validation.held_out(FaceSet([FolderFaces(folder)]), np.arange(6), 0)
    assert found is not None
    assert len(found.images) == 5
    assert skipped == ["faces/person-0/face-1.jpg: does not decode as an image"]


def test_the_number_of_images_is_bounded(shared_faces: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(validation, "MAX_IMAGES", 10)
    faces = FaceSet([FolderFaces(shared_faces)])
    first, _ = validation.held_out(faces, np.arange(30), 1)
    again, _ = validation.held_out(faces, np.arange(30), 1)
    assert first is not None
    assert again is not None
    assert len(first.images) == 10
    assert torch.equal(first.images, again.images)
