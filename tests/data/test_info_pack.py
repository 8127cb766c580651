"""`data info` and `data pack`: counts by hand, packs read back by the readers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobileface.data import info
from mobileface.data.folder import FolderFaces
from mobileface.data.images import encode
from mobileface.data.info import describe, open_source, text
from mobileface.data.pack import pack
from mobileface.data.pairs import open_pairs
from mobileface.data.recordio import RecordFaces
from mobileface.data.verification_bin import read_bin, write_bin
from mobileface.errors import InputError

MakeFolder = Callable[..., Path]
PAIRS = "2\t1\nperson-0\t1\t2\nperson-0\t1\tperson-1\t2\nperson-1\t1\t2\nperson-1\t2\tperson-0\t2\n"


@pytest.fixture
def folder(tmp_path: Path, make_folder: MakeFolder) -> Path:
    """Three people with 2, 2 and 1 images."""
    top = make_folder(tmp_path / "set", identities=3, images=2)
    (top / "person-2" / "face-1.jpg").unlink()
    return top


@pytest.fixture
def pairs(tmp_path: Path, folder: Path) -> Path:
    """A list in LFW's format beside images named as it wants them."""
    for owner in ("person-0", "person-1"):
        for number in (0, 1):
            image = (folder / owner / f"face-{number}.jpg").read_bytes()
            (folder / owner / f"{owner}_000{number + 1}.jpg").write_bytes(image)
    (folder / "pairs.txt").write_text(PAIRS)
    return folder / "pairs.txt"


def test_a_folder_is_counted(folder: Path) -> None:
    assert describe(folder) == {
        "path": str(folder), "images": 5, "identities": 3, "one_image_identities": 1,
        "images_per_identity": {"least": 1, "mean": 5 / 3, "most": 2}, "bad_images": 0, "bad": [],
        "sha256": FolderFaces(folder).fingerprint(),
    }  # fmt: skip


def test_bad_images_are_counted_and_the_first_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "SHOWN", 2)
    for name in ("person-0/face-0.jpg", "person-1/face-0.jpg", "person-1/face-1.jpg"):
        (folder / name).write_bytes(b"bad")
    (folder / "person-2" / os.fsdecode(b"\xff<b>\n.jpg")).write_bytes(b"bad")
    found = describe(folder)
    assert found["bad_images"] == 4
    assert [name.split(":")[0] for name in found["bad"]] == ["set/person-0/face-0.jpg", "set/person-1/face-0.jpg"]


def test_text_for_people_is_printable_lines(folder: Path) -> None:
    (folder / "person-2" / os.fsdecode(b"\xff<b>\n\x1b.jpg")).write_bytes(b"bad")
    lines = text(describe(folder)).split("\n")
    assert "images: 6" in lines
    assert "bad images: 1" in lines
    assert r"  set/person-2/\udcff<b>\n\x1b.jpg: does not decode as an image" in lines
    assert all(line.isprintable() for line in lines)


def test_a_pack_is_described_like_its_folder(tmp_path: Path, folder: Path) -> None:
    line = pack(str(folder), tmp_path / "out" / "train.rec", tmp_path)
    assert line == f"wrote {tmp_path / 'out' / 'train.rec'}: 5 images of 3 identities"
    one, two = describe(folder), describe(tmp_path / "out" / "train.rec")
    for key in ("images", "identities", "one_image_identities", "images_per_identity", "bad_images"):
        assert one[key] == two[key]


def test_a_folder_becomes_a_pack_of_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    pack(str(folder), tmp_path / "train.rec", tmp_path)
    faces, packed = FolderFaces(folder), RecordFaces(tmp_path / "train.rec")
    assert [bytes(packed.read(i)) for i in range(5)] == [faces.read(i) for i in range(5)]
    np.testing.assert_array_equal(packed.labels, faces.labels)
    assert isinstance(open_source(tmp_path / "train.rec"), RecordFaces)


def test_pairs_become_a_bin_of_the_same_pairs(tmp_path: Path, pairs: Path) -> None:
    line = pack(str(pairs), tmp_path / "some.bin", tmp_path)
    assert line.endswith("some.bin: 4 pairs")
    images, same = read_bin(tmp_path / "some.bin")
    wanted = open_pairs(str(pairs), tmp_path)
    assert same.tolist() == wanted.same.tolist() == [True, False, True, False]
    ends = np.stack([wanted.first, wanted.second], 1).ravel()
    assert images == [wanted.read(int(i)) for i in ends]
    found = describe(tmp_path / "some.bin")
    assert (found["pairs"], found["genuine"], found["images"], found["bad_images"]) == (4, 2, 8, 0)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("to", ["out.rec", "out.bin"])
def test_a_bad_image_is_named_and_nothing_is_written(tmp_path: Path, pairs: Path, to: str) -> None:
    (pairs.parent / "person-1" / "person-1_0002.jpg").write_bytes(encode(np.zeros((50, 112, 3), np.uint8)))
    source = pairs if to == "out.bin" else pairs.parent
    with pytest.raises(InputError, match=r"person-1_0002\.jpg: is 112x50 px"):
        pack(str(source), tmp_path / "new" / to, tmp_path)
    assert list((tmp_path / "new").glob("*")) == [] == list((tmp_path / "new").glob(".*"))


def test_bad_images_of_a_bin_are_counted(tmp_path: Path) -> None:
    good = encode(np.zeros((112, 112, 3), np.uint8))
    write_bin(tmp_path / "x.bin", [(good, b"bad", True), (good, good, False)])
    found = describe(tmp_path / "x.bin")
    assert (found["bad_images"], found["bad"]) == (1, ["image 1: does not decode as an image"])


def test_what_is_neither(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"is neither an image folder nor a \.rec or \.bin file"):
        describe(folder / "person-0" / "face-0.jpg")
    with pytest.raises(InputError, match=r"out\.tar: is neither \.rec nor \.bin; wanted --to"):
        pack(str(folder), tmp_path / "out.tar", tmp_path)
