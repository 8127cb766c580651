"""The teacher's targets: the right numbers, computed once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from mobileface.embedders.contract import InputContract
from mobileface.errors import InputError
from mobileface.training import checkpoint, teaching
from mobileface.training.teaching import labels_told_apart, teacher_targets


class Means:
    """An embedder that can be computed by hand: the channel means of the left and the right half."""

    path, dim, sha256, contract, libraries = Path("means.onnx"), 6, "0" * 64, InputContract(), ()

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.images += len(images)
        halves = (images[:, :, :56], images[:, :, 56:])
        return np.concatenate([half.mean(axis=(1, 2), dtype=np.float64) for half in halves], 1).astype(np.float32) - 99


def by_hand(faces: FaceSet) -> NDArray[np.float64]:
    rows = []
    for i in range(len(faces)):
        image = decode(faces.read(i), faces.key(i))
        both = Means()(image[None])[0].astype(np.float64) + Means()(image[None, :, ::-1])[0]
        rows.append(both / np.sqrt((both**2).sum()))
    return np.array(rows)


def test_targets_are_the_normalised_sum_of_crop_and_flip(shared_faces: Path, cache: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    targets = teacher_targets(Means(), faces, cache)
    np.testing.assert_allclose(targets, by_hand(faces), atol=1e-6)


def test_they_are_computed_once_and_for_each_teacher(shared_faces: Path, cache: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    first, second, other = Means(), Means(), Means()
    targets = teacher_targets(first, faces, cache)
    assert first.images == 2 * len(faces)
    np.testing.assert_array_equal(teacher_targets(second, faces, cache), targets)
    assert second.images == 0
    other.sha256 = "1" * 64
    teacher_targets(other, faces, cache)
    assert other.images == 2 * len(faces)


def test_another_contract_is_another_teacher(shared_faces: Path, cache: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    teacher_targets(Means(), faces, cache)
    other = Means()
    other.contract = InputContract(color="bgr")
    teacher_targets(other, faces, cache)
    assert other.images == 2 * len(faces)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage", None], ids=["empty", "garbage", "other"])
def test_a_damaged_cache_is_made_anew(shared_faces: Path, cache: Path, damage: bytes | None) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    targets = teacher_targets(Means(), faces, cache)
    (file,) = (cache / "teachers").iterdir()
    if damage is None:
        checkpoint.save(file, {"targets": torch.zeros(2, 6)}, {})  # sound, but of other data
    else:
        file.write_bytes(damage)
    again = Means()
    np.testing.assert_array_equal(teacher_targets(again, faces, cache), targets)
    assert again.images == 2 * len(faces)


def test_every_kind_of_damage_is_found(shared_faces: Path, cache: Path) -> None:
    """One byte in the header, and one in the numbers."""
    faces = FaceSet([FolderFaces(shared_faces)])
    targets = teacher_targets(Means(), faces, cache)
    (file,) = (cache / "teachers").iterdir()
    whole = file.read_bytes()
    for place in (3, 9, 40, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        again = Means()
        np.testing.assert_array_equal(teacher_targets(again, faces, cache), targets)
        assert again.images == 2 * len(faces)
        np.testing.assert_array_equal(checkpoint.load(file)[0]["targets"].numpy(), targets)  # mended


def test_a_bad_image_gets_no_target_and_stops_nothing(tmp_path: Path, make_folder, cache: Path) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder(tmp_path / "faces", 2, 3)
    (folder / "person-0" / "face-1.jpg").write_bytes(b"not an image")
    targets = teacher_targets(Means(), FaceSet([FolderFaces(folder)]), cache)
    lengths = np.linalg.norm(targets, axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 1, 1, 1, 1], atol=1e-6)


def test_a_teacher_without_a_direction_is_refused(shared_faces: Path, cache: Path) -> None:
    class Zeros(Means):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.zeros((len(images), 6), np.float32)

    with pytest.raises(InputError, match="without a length"):
        teacher_targets(Zeros(), FaceSet([FolderFaces(shared_faces)]), cache)
    assert not list(cache.glob("teachers/*"))


def test_a_contract_without_the_flip_is_kept_to(shared_faces: Path, cache: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    teacher = Means()
    teacher.contract = InputContract(flip="none")
    targets = teacher_targets(teacher, faces, cache)
    assert teacher.images == len(faces)
    once = Means()(decode(faces.read(1), faces.key(1))[None])[0].astype(np.float64)
    np.testing.assert_allclose(targets[1], once / np.sqrt((once**2).sum()), atol=1e-6)


class Stopped(Means):
    """Ctrl-C after `most` images and their flips."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.images >= 2 * self.most:
            raise KeyboardInterrupt
        return super().__call__(images)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches in their order: with a second thread reading ahead, an interrupt may come in an earlier batch's turn."""
    monkeypatch.setattr(teaching, "ThreadPoolExecutor", lambda _: ThreadPoolExecutor(1))


@pytest.mark.usefixtures("one_by_one")
def test_what_was_embedded_before_an_interrupt_is_kept(
    shared_faces: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    whole = teacher_targets(Means(), faces, cache / "whole")
    monkeypatch.setattr(teaching, "PART", 8)
    monkeypatch.setattr(teaching, "BATCH", 4)
    assert len(faces) > 16

    with pytest.raises(KeyboardInterrupt):
        teacher_targets(Stopped(8), faces, cache)  # in the second part
    again = Means()
    np.testing.assert_allclose(teacher_targets(again, faces, cache), whole, atol=1e-6)
    assert again.images == 2 * (len(faces) - 8)


@pytest.mark.usefixtures("one_by_one")
def test_an_interrupted_part_goes_on_where_it_was(
    shared_faces: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, and then to its end; nothing but the whole part is left in the cache."""
    faces = FaceSet([FolderFaces(shared_faces)])
    whole = teacher_targets(Means(), faces, cache / "whole")
    monkeypatch.setattr(teaching, "BATCH", 4)
    kept = []
    for most in (8, 4):
        with pytest.raises(KeyboardInterrupt):
            teacher_targets(Stopped(most), faces, cache)
        (begun,) = (cache / "teachers").iterdir()
        kept.append(len(checkpoint.load(begun)[0]["targets"]))
    assert kept == [8, 12]
    assert len(faces) > 12
    seen: list[int] = []
    again = Means()
    np.testing.assert_allclose(teacher_targets(again, faces, cache, seen.append), whole, atol=1e-6)
    assert again.images == 2 * (len(faces) - kept[1])
    assert seen[-1] == len(faces)
    assert [path.suffixes for path in (cache / "teachers").iterdir()] == [[".safetensors"]]


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize("rows", [torch.ones(99, 6), torch.ones(4, 5), torch.ones(24), torch.ones(4, 6).half()])
def test_what_another_program_left_beside_a_part_is_not_taken(
    shared_faces: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, rows: torch.Tensor
) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    monkeypatch.setattr(teaching, "BATCH", 4)
    with pytest.raises(KeyboardInterrupt):
        teacher_targets(Stopped(8), faces, cache)
    (begun,) = (cache / "teachers").iterdir()
    checkpoint.save(begun, {"targets": rows}, {})
    again = Means()
    np.testing.assert_allclose(teacher_targets(again, faces, cache), by_hand(faces), atol=1e-6)
    assert again.images == 2 * len(faces)


def by_pairs(cosines: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """AUC as the share of (genuine, impostor) pairs in order, by looking at all of them."""
    pairs = [(i, j) for i in range(len(labels)) for j in range(i)]
    genuine = [cosines[i, j] for i, j in pairs if labels[i] == labels[j]]
    impostor = [cosines[i, j] for i, j in pairs if labels[i] != labels[j]]
    wins = [1.0 if g > i else 0.5 if g == i else 0.0 for g in genuine for i in impostor]
    return sum(wins) / len(wins)


def test_whether_a_teacher_tells_the_labels_apart() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 5)
    targets = (rng.normal(size=(6, 8))[labels] + rng.normal(size=(30, 8))).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    wanted = by_pairs((targets.astype(np.float64) @ targets.T.astype(np.float64)), labels)
    assert 0.6 < wanted < 0.99
    assert labels_told_apart(targets, labels) == pytest.approx(wanted, abs=1e-12)
    # images without a label or a target say nothing
    more = np.concatenate([targets, targets[:3], np.zeros((2, 8), np.float32)])
    assert labels_told_apart(more, np.r_[labels, -1, -1, -1, 0, 1]) == pytest.approx(wanted, abs=1e-12)
    assert labels_told_apart(targets, np.full(30, -1)) is None
    assert labels_told_apart(targets[:3], np.arange(3)) is None
    assert labels_told_apart(targets[:3], np.zeros(3, np.int64)) is None


def test_of_many_images_some_whole_identities_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "COMPARED", 10)
    labels = np.tile(np.arange(50), 5)
    targets = np.eye(50, dtype=np.float32)[labels]
    assert labels_told_apart(targets, labels) == 1.0  # ten images at random would hardly hold two of a person
