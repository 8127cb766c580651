"""TinyFace and SCface: who looks for whom, read from the files' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobileface.data.faces import UNLABELLED
from mobileface.data.image_files import ImageFiles
from mobileface.data.scface import read_scface
from mobileface.data.tinyface import PLACES, read_tinyface
from mobileface.errors import InputError
from tests.face_sets import paint, write_tinyface

RED, BLUE = (100, 0, 0), (0, 0, 100)


def test_tinyface_by_hand(tmp_path: Path) -> None:
    one = read_tinyface(write_tinyface(tmp_path, {"12_1": RED, "7_1": BLUE}, {"7_3": BLUE}, {"x": RED, "99_1": RED}))
    (search,) = one.searches
    names = [Path(key).stem for key in one.files.keys]
    assert [names[i] for i in search.probes] == ["12_1", "7_1"]
    assert [names[i] for i in search.galleries[0]] == ["7_3", "99_1", "x"]
    assert one.identity.tolist() == [12, 7, 7, UNLABELLED, UNLABELLED]  # a distractor's number says nothing
    assert one.counts == {"probes": 2, "gallery": 1, "distractors": 2}
    assert one.files.crop(0)[5, 5].tolist() == [228, 128, 128]


@pytest.mark.parametrize("place", PLACES)
def test_tinyface_lies_in_one_of_several_places(tmp_path: Path, place: str) -> None:
    folder = write_tinyface(tmp_path / "made", {"1_1": RED}, {"1_2": RED}, {})
    (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / "Testing_Set").rename(tmp_path / "set" / place)
    assert read_tinyface(tmp_path / "set").counts == {"probes": 1, "gallery": 1, "distractors": 0}


def test_tinyface_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no Probe folder, wanted Testing_Set/"):
        read_tinyface(tmp_path)
    write_tinyface(tmp_path, {"1_1": RED}, {}, {})
    with pytest.raises(InputError, match="Gallery_Match: holds no image"):
        read_tinyface(tmp_path)
    write_tinyface(tmp_path, {}, {"ann_1": RED}, {})
    with pytest.raises(InputError, match=r"ann_1\.jpg: wanted a name that begins with the person's number"):
        read_tinyface(tmp_path)


def test_scface_by_hand(tmp_path: Path) -> None:
    """Infrared cameras and mugshots, and other files, are left out; a distance nobody has makes no search."""
    for name in (
        "mug/001_frontal",
        "mug/002_frontal",
        "mug/003_frontal",
        "d1/001_cam1_1",
        "d1/002_cam5_1",
        "d3/002_cam2_3",
    ):
        paint(tmp_path / f"{name}.jpg", RED)
    for name in ("ir/001_cam6_1", "ir/001_cam7_2", "ir/001_cam8", "mug/001_L1", "readme_frontal"):
        paint(tmp_path / f"{name}.jpg", BLUE)
    (tmp_path / "mug/004_frontal.txt").write_text("")
    one = read_scface(tmp_path)
    assert [search.name for search in one.searches] == ["d1, 4.2 m", "d3, 1.0 m"]
    stems = np.array([Path(key).stem for key in one.files.keys])
    assert stems[one.searches[0].probes].tolist() == ["001_cam1_1", "002_cam5_1"]
    assert stems[one.searches[1].probes].tolist() == ["002_cam2_3"]
    for search in one.searches:
        assert stems[search.galleries[0]].tolist() == ["001_frontal", "002_frontal", "003_frontal"]
    assert [stem[:3] for stem in stems] == [f"{who + 1:03d}" for who in one.identity]
    assert one.counts == {"mugshots": 3, "d1": 2, "d2": 0, "d3": 1}


def test_scface_with_a_name_twice(tmp_path: Path) -> None:
    for name in ("a/001_frontal.jpg", "b/001_frontal.png", "001_cam1_1.jpg"):
        paint(tmp_path / name, RED)
    with pytest.raises(InputError, match=r"b/001_frontal\.png: .*a/001_frontal\.jpg has the same name"):
        read_scface(tmp_path)


def test_scface_without_one_kind(tmp_path: Path) -> None:
    paint(tmp_path / "001_frontal.jpg", RED)
    with pytest.raises(InputError, match="holds 1 mugshots and 0 camera images"):
        read_scface(tmp_path)


def test_a_crop_of_another_size_is_named(tmp_path: Path) -> None:
    folder = write_tinyface(tmp_path, {"1_1": RED}, {"1_2": RED}, {})
    paint(folder / "Testing_Set/Probe/1_1.jpg", RED, side=20)
    with pytest.raises(InputError, match=r"Probe/1_1\.jpg: is 20x20 px, wanted an aligned crop of 112x112"):
        read_tinyface(folder).files.crop(0)


def test_the_hash_is_of_names_sizes_and_lists(tmp_path: Path) -> None:
    one = read_tinyface(write_tinyface(tmp_path, {"1_1": RED}, {"1_2": RED}, {}))
    before = one.files.fingerprint(one.identity)
    assert before == one.files.fingerprint(one.identity.copy())
    assert before != one.files.fingerprint(one.identity + 1)
    first, second = np.array([1, 2]), np.array([3])
    assert one.files.fingerprint(first, second) != one.files.fingerprint(np.array([1]), np.array([2, 3]))
    turned = ImageFiles(one.files.folder, one.files.keys[::-1])  # the lists hold indices of another order
    assert turned.fingerprint(first) != one.files.fingerprint(first)
    (tmp_path / "Testing_Set/Probe/1_1.jpg").write_bytes(b"x")
    assert before != one.files.fingerprint(one.identity)
