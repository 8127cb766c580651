"""Image folders: labels, lists, names of every kind."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.data import lists
from mobileface.data.faces import UNLABELLED
from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces, list_images
from mobileface.data.images import MAX_BYTES, BadImage, decode
from mobileface.data.lists import read_names
from mobileface.errors import InputError

ODD = (b"caf\xe9.jpg", b"..two dots.jpg", b"<script>alert(1)<b>.jpg", b"a\nb.jpg", b"[bold]x[].JPG")


def fill(top: Path, *files: str, content: bytes = b"12345") -> Path:
    """Files below `top`, each with the same bytes."""
    for name in files:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


def test_the_first_folder_is_the_identity(tmp_path: Path) -> None:
    top = fill(tmp_path / "set", "b/2.png", "b/1.jpg", "a/x/deep/3.JPEG", "c/4.webp", "c/5.bmp")
    faces = FolderFaces(top)
    assert faces.paths == ["a/x/deep/3.JPEG", "b/1.jpg", "b/2.png", "c/4.webp", "c/5.bmp"]
    assert faces.labels.tolist() == [0, 1, 1, 2, 2]
    assert faces.identities == ["a", "b", "c"]
    assert len(faces) == 5
    assert (faces.name, faces.key(0)) == ("set", "set/a/x/deep/3.JPEG")


def test_what_is_no_image_of_somebody_is_left_out(tmp_path: Path) -> None:
    top = fill(tmp_path, "a/1.jpg", "top.jpg", "a/notes.txt", "a/jpg", ".hidden/1.jpg", "a/.thumbs/1.jpg")
    assert FolderFaces(top).paths == ["a/1.jpg"]


def test_identities_of_one_image_are_kept(tmp_path: Path) -> None:
    assert FolderFaces(fill(tmp_path, "a/1.jpg", "b/1.jpg")).labels.tolist() == [0, 1]


def test_unlabelled(tmp_path: Path) -> None:
    faces = FolderFaces(fill(tmp_path, "a/1.jpg", "b/1.jpg"), labelled=False)
    assert faces.labels.tolist() == [UNLABELLED, UNLABELLED]


def test_read_gives_the_bytes_and_never_many_more_than_an_image_has(tmp_path: Path) -> None:
    fill(tmp_path, "a/1.jpg", content=b"\xff\xd8 whatever")
    fill(tmp_path, "a/2.jpg", content=bytes(MAX_BYTES + 1000))
    faces = FolderFaces(tmp_path)
    assert faces.read(0) == b"\xff\xd8 whatever"
    assert len(faces.read(1)) == MAX_BYTES + 1
    with pytest.raises(BadImage, match=r"a/2\.jpg"):
        decode(faces.read(1), faces.key(1))


def test_what_is_no_regular_file_is_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = fill(tmp_path / "set", "a/1.jpg", "b/2.jpg")
    (top / "a" / "0\x1b.jpg").symlink_to(tmp_path / "nowhere")
    (top / "b" / "3.jpg").symlink_to(top / "a" / "1.jpg")
    assert FolderFaces(top).paths == ["a/1.jpg", "b/2.jpg", "b/3.jpg"]
    os.mkfifo(top / "b" / "4.jpg")
    for _ in range(2):
        faces = FolderFaces(top)
        assert faces.paths == ["a/1.jpg", "b/2.jpg", "b/3.jpg"]
    assert faces.fingerprint() == hashlib.sha256(b"a/1.jpg\t5\nb/2.jpg\t5\nb/3.jpg\t5\n").hexdigest()
    why = "(no regular file, or a link that leads nowhere), the first: a/0\\x1b.jpg"
    assert caplog.messages == [f"{top}: 1 file is left out {why}", f"{top}: 2 files are left out {why}"]


def test_a_listing_counts_what_is_no_image(tmp_path: Path) -> None:
    top = fill(tmp_path, "a/1.jpg", "b/2.tif", "top.png", "a/.hidden", "a/readme")
    os.mkfifo(tmp_path / "a" / "0.jpg")
    os.utime(top / "a" / "1.jpg", ns=(5, 7))
    found = list_images(top)
    assert (found.images, found.broken) == ([("a/1.jpg", 5, 7)], [("a/0.jpg", 0, 0)])
    assert found.left_out() == "no suffix 1, .tif 1; 1 directly in the folder, not in IDENTITY/"
    assert [entry.path for entry in list_images(top, (".tif",)).images] == ["b/2.tif"]
    fill(tmp_path, *(f"b/{n}.s{n % 7}" for n in range(70)))
    said = list_images(top).left_out()
    assert said == ".s0 10, .s1 10, .s2 10, .s3 10, .s4 10, others 22; 1 directly in the folder, not in IDENTITY/"
    assert list_images(fill(tmp_path / "plain", "a/1.jpg")).left_out() == ""
    with pytest.raises(InputError, match=r"wanted IDENTITY/image\.jpg \(found: \.heic 1\)"):
        list_images(fill(tmp_path / "heic", "a/1.heic"))


@pytest.mark.parametrize("there", [[], ["top.jpg"], ["a/readme.txt"], ["a/b/"]])
def test_a_folder_without_images(tmp_path: Path, there: list[str]) -> None:
    for name in there:
        (tmp_path / name).mkdir(parents=True) if name.endswith("/") else fill(tmp_path, name)
    with pytest.raises(InputError, match=r"holds no image in a folder of its own; wanted IDENTITY/image\.jpg"):
        FolderFaces(tmp_path)


def test_a_folder_that_holds_a_pack(tmp_path: Path) -> None:
    fill(tmp_path, "train.idx", "train.rec", "property")
    with pytest.raises(InputError, match=r"wanted IDENTITY/image\.jpg, or the file train\.rec that is in it .*`rec`"):
        FolderFaces(tmp_path)


def test_what_is_no_folder(tmp_path: Path) -> None:
    fill(tmp_path, "file")
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(InputError, match=f"^{path}: is not a folder"):
            FolderFaces(path)


def test_lists_name_identities_and_images(tmp_path: Path) -> None:
    top = fill(tmp_path / "set", "a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg", "c/sub/2.jpg", "d/1.jpg")
    include = tmp_path / "include.txt"
    include.write_bytes(b"# people\na\tsome remark\r\n\n b/1.jpg \nc\nnobody\n")
    exclude = tmp_path / "exclude.txt"
    exclude.write_bytes(b"a/2.jpg\nc/sub/2.jpg\tblurred\nd")
    assert FolderFaces(top, include).paths == ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg", "c/sub/2.jpg"]
    assert FolderFaces(top, None, exclude).paths == ["a/1.jpg", "b/1.jpg", "c/1.jpg"]
    both = FolderFaces(top, include, exclude)
    assert both.paths == ["a/1.jpg", "b/1.jpg", "c/1.jpg"]
    assert both.labels.tolist() == [0, 1, 2]


def test_lists_that_leave_nothing_or_are_not_there(tmp_path: Path) -> None:
    top = fill(tmp_path / "set", "a/1.jpg")
    (tmp_path / "list").write_text("b\n")
    (tmp_path / "all").write_text("a\n")
    for pair in ((tmp_path / "list", None), (None, tmp_path / "list"), (tmp_path / "all", tmp_path / "list")):
        with pytest.raises(InputError, match=f"^{tmp_path / 'list'}: names nothing in {top}; wanted identities or"):
            FolderFaces(top, *pair)
    with pytest.raises(InputError, match=f"no image of 1 is left by {tmp_path / 'all'} and {tmp_path / 'all'}; wanted"):
        FolderFaces(top, tmp_path / "all", tmp_path / "all")
    with pytest.raises(InputError, match="missing: no such list file"):
        FolderFaces(top, None, tmp_path / "missing")


def test_names_that_match_nothing_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    top = fill(tmp_path / "set", "a/1.jpg", "a/2.jpg", "b/1.jpg")
    include, exclude = tmp_path / "include.txt", tmp_path / "exclude.txt"
    include.write_text("a\nno\x1bbody\n")
    exclude.write_text("a/2.jpg\ta\nz/9.jpg\nb/1.jpg\nA/1.jpg\n")  # what include leaves out does count
    for _ in range(2):
        FolderFaces(top, include, exclude)
    assert caplog.messages == [
        f"{include}: 1 name matches nothing in {top}: no\\x1bbody",
        f"{exclude}: 2 names match nothing in {top}, the first: z/9.jpg",
    ]


def test_a_list_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text("name\n" * 3)
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 14)
    with pytest.raises(InputError, match="larger than 14 bytes"):
        read_names(tmp_path / "list")


def test_only_line_feeds_end_a_line_of_a_list(tmp_path: Path) -> None:
    names = {"a\u2028b/1.jpg", "c\x85d/1.jpg", "e\x0bf/1.jpg"}
    (tmp_path / "list").write_text("\n".join(sorted(names)), encoding="utf-8")
    assert list(read_names(tmp_path / "list")) == sorted(names)


def test_odd_names(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "set") + b"/\xff<b>"
    os.makedirs(folder)
    for name in ODD:
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(name)
    faces = FolderFaces(tmp_path / "set")
    assert sorted(faces.read(i) for i in range(len(faces))) == sorted(ODD)
    assert len(faces.fingerprint()) == 64
    (tmp_path / "list").write_bytes(b"\xff<b>/caf\xe9.jpg\n\xff<b>/..two dots.jpg\n")
    assert len(FolderFaces(tmp_path / "set", tmp_path / "list")) == 2


def test_fingerprint_is_over_sorted_names_and_sizes(tmp_path: Path) -> None:
    top = fill(tmp_path / "one", "b/2.jpg", "a/1.jpg")
    lines = hashlib.sha256(b"a/1.jpg\t5\nb/2.jpg\t5\n").hexdigest()
    assert FolderFaces(top).fingerprint() == lines
    assert FolderFaces(fill(tmp_path / "two", "a/1.jpg", "b/2.jpg")).fingerprint() == lines
    assert FolderFaces(fill(top, "a/1.jpg", content=b"123456")).fingerprint() != lines
    assert FolderFaces(fill(tmp_path / "two", "b/3.jpg")).fingerprint() != lines


parts = st.text("ab. \u00e9\udcff<>&'\"$\t", min_size=1, max_size=5).filter(lambda s: s not in (".", ".."))


@settings(max_examples=30, deadline=None)
@given(st.sets(st.tuples(parts, parts), min_size=1, max_size=8))
def test_every_image_is_found_once(names: set[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as top:
        for owner, name in names:
            fill(Path(top), f"{owner}/{name}.jpg")
        wanted = sorted(f"{owner}/{name}.jpg" for owner, name in names if not owner.startswith("."))
        if not wanted:
            with pytest.raises(InputError):
                FolderFaces(Path(top))
            return
        faces = FolderFaces(Path(top))
        assert faces.paths == wanted
        owners = sorted({path.split("/")[0] for path in wanted})
        assert faces.labels.tolist() == [owners.index(path.split("/")[0]) for path in wanted]


def test_scores_are_read_by_path(shared_faces: Path, tmp_path: Path) -> None:
    paths = FolderFaces(shared_faces).paths
    lines = [f"{path}\t{i / 100}\tmore" for i, path in enumerate(paths)]
    (tmp_path / "scores.tsv").write_text("# path\tscore\n" + "\n".join(reversed(lines)) + "\nother/x.jpg\t0.5\n")
    faces = FolderFaces(shared_faces, scores=tmp_path / "scores.tsv")
    assert faces.scores is not None
    np.testing.assert_allclose(faces.scores, np.arange(len(paths)) / 100)
    assert FolderFaces(shared_faces).scores is None
    np.testing.assert_array_equal(FaceSet([faces, faces]).scores, np.tile(faces.scores, 2))
    assert FaceSet([faces, FolderFaces(shared_faces)]).scores is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{0}\t0.5\n", "has no score for 29 of 30 images, such as person-0/face-1.jpg"),
        ("{0}\tgood\n", "person-0/face-0.jpg has the score 'good'; wanted a number in 0..1"),
        ("{0}\tnan\n", "person-0/face-0.jpg has the score nan; wanted a number in 0..1"),
        ("{0}\t1.5\n", "person-0/face-0.jpg has the score 1.5; wanted a number in 0..1"),
    ],
)
def test_bad_scores_are_named(shared_faces: Path, tmp_path: Path, text: str, wanted: str) -> None:
    file = tmp_path / "scores.tsv"
    file.write_text(text.format(FolderFaces(shared_faces).paths[0]))
    with pytest.raises(InputError) as caught:
        FolderFaces(shared_faces, scores=file)
    assert str(caught.value) == f"{file}: {wanted}"
