"""The training images that are watched: drawn once, with labels, clean ones of procedural faces."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobileface.data.faceset import FaceSet, Split, split_identities
from mobileface.data.folder import FolderFaces
from mobileface.data.images import encode
from mobileface.data.recordio import RecordFaces
from mobileface.data.synthetic import sample, write_synthetic
from mobileface.errors import InputError
from mobileface.training.watch import poor_pictures, watch_sample

MakeFolder = Callable[..., Path]


def test_the_sample_is_drawn_once_and_has_labels(
    tmp_path: Path, make_folder: MakeFolder, caplog: pytest.LogCaptureFixture
) -> None:
    top = make_folder(tmp_path / "faces")
    (make_folder(tmp_path / "others", 2, 2) / "person-0" / "face-0.jpg").write_bytes(b"bad")
    faces = FaceSet([FolderFaces(top), FolderFaces(tmp_path / "others", labelled=False)])
    split = split_identities(faces, 0.4, 0)
    found, skipped = watch_sample(faces, split, 8, 3)
    again, _ = watch_sample(faces, split, 8, 3)
    other, _ = watch_sample(faces, split, 8, 4)
    assert found is not None
    assert again is not None
    assert other is not None
    assert found.images.shape == (8, 112, 112, 3)
    assert (found.classes >= 0).all()
    assert np.array_equal(found.images, again.images)
    assert not np.array_equal(found.images, other.images)
    assert skipped == []
    assert caplog.messages == []
    everything, _ = watch_sample(faces, split, 1000, 3)
    assert everything is not None
    assert len(everything.images) == 18  # of the three people who train
    assert caplog.messages == ["watch: 18 images, not 1000: the training set holds no more clean ones"]
    assert watch_sample(faces, split, 0, 3) == (None, [])


def test_without_any_label_bad_images_are_named(tmp_path: Path, make_folder: MakeFolder) -> None:
    top = make_folder(tmp_path / "faces", 2, 2)
    (top / "person-1" / "face-0.jpg").write_bytes(b"bad")
    faces = FaceSet([FolderFaces(top, labelled=False)])
    found, skipped = watch_sample(faces, split_identities(faces, 0, 0), 10, 0)
    assert found is not None
    assert found.classes.tolist() == [-1] * 3
    assert skipped == ["faces/person-1/face-0.jpg: does not decode as an image"]
    for path in top.glob("*/*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(InputError, match="none of the 4 training images can be used; wanted clean ones to watch"):
        watch_sample(faces, split_identities(faces, 0, 0), 10, 0)


@pytest.fixture(scope="module")
def procedural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("procedural")
    write_synthetic(folder, identities=4, images=10, held_out=2, pairs=20, seed=1)
    return folder


def test_of_procedural_faces_clean_ones_are_watched(procedural: Path) -> None:
    faces = FaceSet([RecordFaces(procedural / "train.rec")])
    poor = set()
    for identity in range(4):
        for index in range(10):
            _, factors = sample(1, identity, index)
            if factors.blur_px or factors.occlusion or factors.resolution_px < 112:
                poor.add(f"train.rec:{identity * 10 + index + 1}")
    assert 5 < len(poor) < 35
    assert poor_pictures(faces.sources[0]) == poor
    found, _ = watch_sample(faces, split_identities(faces, 0, 0), 40, 0)
    assert found is not None
    assert len(found.images) == 40 - len(poor)


def test_a_poor_picture_is_one_of_its_own_source(procedural: Path, tmp_path: Path) -> None:
    """Another folder's train.rec has the same keys; without a table its pictures all count as clean."""
    for name in ("train.rec", "train.idx"):
        shutil.copy(procedural / name, tmp_path / name)
    one, other = RecordFaces(procedural / "train.rec"), RecordFaces(tmp_path / "train.rec")
    poor = len(poor_pictures(one))
    for sources in ([one, other], [other, one]):
        faces = FaceSet(sources)
        found, _ = watch_sample(faces, split_identities(faces, 0, 0), 80, 0)
        assert found is not None
        assert len(found.images) == 80 - poor


class Endless:
    """A million labelled images, all the same."""

    name, labels = "endless", np.zeros(1_000_000, np.int64)
    image = encode(np.full((112, 112, 3), 90, np.uint8))

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        return self.image

    def key(self, i: int) -> str:
        return str(i)

    def fingerprint(self) -> str:
        return ""


def test_a_few_of_a_million_images_take_no_list_of_all() -> None:
    """A permutation has 8 MB; as a list of numbers 40."""
    faces = FaceSet([Endless()])
    split = Split(np.arange(len(faces)), np.arange(0), faces.labels, 1)
    tracemalloc.start()
    found, _ = watch_sample(faces, split, 3, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None
    assert peak < 30e6


HEAD = b"file,key,blur_px,resolution_px,occlusion\n"


@pytest.mark.parametrize(
    "content",
    [
        b"file,key\na,1\n",
        HEAD + b"a,1\n",
        HEAD + b"train.rec,1,x,112,0\n",
        HEAD + b"a" * 200_000 + b"\n",
        HEAD + b"\xff,1,0,112,0\n",
    ],
    ids=["columns", "short", "word", "long", "bytes"],
)
def test_a_factors_table_that_is_none(content: bytes, procedural: Path, tmp_path: Path) -> None:
    for file in procedural.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "factors.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"factors\.csv: is no table of factors \(.*\); wanted the one of") as error:
        poor_pictures(RecordFaces(tmp_path / "train.rec"))
    assert "\n" not in str(error.value)


def test_a_factors_table_that_is_too_large(procedural: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mobileface.training.watch.MAX_FACTORS_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        poor_pictures(RecordFaces(procedural / "train.rec"))
