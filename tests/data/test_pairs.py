"""Pair lists: LFW and its kin on small trees, the KFold rule, packed pairs, and what a bad list ends in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobileface.data.images import MAX_BYTES
from mobileface.data.lfw import read_lfw_pairs
from mobileface.data.pairs import SETS, contiguous_folds, open_pairs, select_folds
from mobileface.data.sllfw import read_sllfw_pairs
from mobileface.data.verification_bin import write_bin
from mobileface.errors import InputError
from tests.data.pair_rows import as_rows, image

LFW_LIST = """2\t2
Ann\t1\t2
Bob\t1\t12
Ann\t2\tBob\t1
Cid\t1\tAnn\t1
Cid\t1\t2
Cid\t2\t1
Ann\t1\tDan\t1
Dan\t1\tBob\t12
"""


LFW_IMAGES = ["Ann 1", "Ann 2", "Bob 1", "Bob 12", "Cid 1", "Cid 2", "Dan 1"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a small LFW."""
    (tmp_path / "lfw").mkdir()
    (tmp_path / "lfw" / "pairs.txt").write_text(LFW_LIST)
    for seed, entry in enumerate(LFW_IMAGES):
        name, number = entry.split()
        path = tmp_path / "lfw" / name / f"{name}_{int(number):04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image(seed))
    return tmp_path


def test_lfw_by_hand(root: Path) -> None:
    pairs = open_pairs("lfw", root)
    assert as_rows(pairs) == [
        ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", True, 0),
        ("Bob/Bob_0001.jpg", "Bob/Bob_0012.jpg", True, 0),
        ("Ann/Ann_0002.jpg", "Bob/Bob_0001.jpg", False, 0),
        ("Cid/Cid_0001.jpg", "Ann/Ann_0001.jpg", False, 0),
        ("Cid/Cid_0001.jpg", "Cid/Cid_0002.jpg", True, 1),
        ("Cid/Cid_0002.jpg", "Cid/Cid_0001.jpg", True, 1),
        ("Ann/Ann_0001.jpg", "Dan/Dan_0001.jpg", False, 1),
        ("Dan/Dan_0001.jpg", "Bob/Bob_0012.jpg", False, 1),
    ]
    assert pairs.name == "lfw"
    assert pairs.identity is not None
    assert pairs.identity.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert pairs.read(0) == (root / "lfw/Ann/Ann_0001.jpg").read_bytes()


@pytest.mark.parametrize("crops", ["xqlfw", "xqlfw/xqlfw_aligned_112"])
def test_xqlfw_is_lfws_format_in_a_folder_of_its_own(root: Path, crops: str) -> None:
    """With the crops beside the list, or in the folder that their archive unpacks to."""
    official = open_pairs("lfw", root)
    (root / crops).parent.mkdir(exist_ok=True)
    (root / "lfw").rename(root / crops)
    (root / crops / "pairs.txt").rename(root / "xqlfw" / "xqlfw_pairs.txt")
    found = open_pairs("xqlfw", root)
    assert found.name == "xqlfw"
    assert as_rows(found) == as_rows(official)
    assert found.identity is not None
    assert found.identity.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert found.read(3) == (root / crops / "Bob" / "Bob_0012.jpg").read_bytes()


SLLFW_FOLD = ["Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", "Cid/Cid_0002.jpg", "Dan/Dan_0001.jpg"]


SLLFW_OTHER = ["Bob/Bob_0012.jpg", "Bob/Bob_0001.jpg", "Bob/Bob_0001.jpg", "Ann/Ann_0002.jpg"]


def test_sllfw_is_a_list_over_lfws_images(root: Path) -> None:
    """Ten folds of a pair of one person and one of two; the last line may lack its end, lines may end in CRLF."""
    lines = (SLLFW_FOLD + SLLFW_OTHER) * 5
    (root / "lfw" / "pair_SLLFW.txt").write_text("\r\n".join(lines))
    found = open_pairs("sllfw", root)
    assert found.name == "sllfw"
    assert as_rows(found) == [
        row
        for fold in range(0, 10, 2)
        for row in [
            ("Ann/Ann_0001.jpg", "Ann/Ann_0002.jpg", True, fold),
            ("Cid/Cid_0002.jpg", "Dan/Dan_0001.jpg", False, fold),
            ("Bob/Bob_0012.jpg", "Bob/Bob_0001.jpg", True, fold + 1),
            ("Bob/Bob_0001.jpg", "Ann/Ann_0002.jpg", False, fold + 1),
        ]
    ]
    assert found.identity is not None
    assert found.identity.tolist() == [0, 0, 1, 1, 2, 3]  # Cid_0001 is in no pair


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "names 0 images, wanted two a pair in 10 folds of as many pairs"),
        (SLLFW_FOLD, "names 4 images, wanted two a pair in 10 folds"),
        ((SLLFW_FOLD * 10)[:-1], "names 39 images"),
        ([*SLLFW_FOLD * 9, *SLLFW_FOLD[:3], "Ann/Ann_0001.jpg 1"], "line 40 is 'Ann/Ann_0001.jpg 1', wanted an image"),
        (["Ann_0001.jpg", *(SLLFW_FOLD * 10)[1:]], r"line 1 is 'Ann_0001\.jpg', wanted an image's path"),
        (["../Ann_0001.jpg", *(SLLFW_FOLD * 10)[1:]], r"line 1: '\.\.' is no plain name"),
        (["/etc/passwd", *(SLLFW_FOLD * 10)[1:]], "line 1 is '/etc/passwd', wanted an image's path"),
        (["Ann\\/x.jpg", *(SLLFW_FOLD * 10)[1:]], "line 1: .* is no plain name"),
    ],
)
def test_bad_sllfw_lists(root: Path, lines: list[str], message: str) -> None:
    (root / "lfw" / "pair_SLLFW.txt").write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        open_pairs("sllfw", root)


def test_sllfw_without_its_list(root: Path) -> None:
    with pytest.raises(InputError, match=r"lfw/pair_SLLFW\.txt: not found, wanted a list of pairs"):
        open_pairs("sllfw", root)


def test_a_list_by_its_path_takes_images_of_its_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = open_pairs("lfw", root)
    for spec in (str(root / "lfw" / "pairs.txt"), "lfw/pairs.txt"):
        assert as_rows(open_pairs(spec, root)) == as_rows(official)
    monkeypatch.chdir(root / "lfw")
    assert open_pairs("pairs.txt", root / "elsewhere").name == "lfw"
    (root / "lfw" / "mine.txt").write_text(LFW_LIST.replace("\t", " "))
    assert as_rows(open_pairs("mine.txt", root)) == as_rows(official)


def test_hash_is_over_list_and_contents(root: Path) -> None:
    before = open_pairs("lfw", root).sha256
    assert open_pairs("lfw", root).sha256 == before
    (root / "lfw/Dan/Dan_0001.jpg").write_bytes(image(99))
    content = open_pairs("lfw", root).sha256
    (root / "lfw/pairs.txt").write_text(LFW_LIST.replace("Cid\t1\t2", "Cid\t1\t1"))
    assert len({before, content, open_pairs("lfw", root).sha256}) == 3


def test_a_folder_without_its_list(tmp_path: Path) -> None:
    (tmp_path / "lfw").mkdir()
    with pytest.raises(InputError, match=r"lfw/pairs\.txt: not found, wanted a list of pairs"):
        open_pairs("lfw", tmp_path)


def test_every_known_set_without_its_folder_is_named(tmp_path: Path) -> None:
    assert SETS
    for name in SETS:
        with pytest.raises(
            InputError, match=f"not found, wanted {name}; --data says where (lfw|cfp|xqlfw|agedb|calfw|cplfw)/ lies"
        ):
            open_pairs(name, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is '', wanted two numbers"),
        ("500\nAnn\t1\t2\n", "line 1 is '500', wanted two numbers"),
        ("1\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\n", "says 1 folds of 1, wanted at least 2"),
        (LFW_LIST.replace("Dan\t1\tBob\t12\n", ""), "holds 7 pairs, wanted 8"),
        (LFW_LIST + "Ann\t1\t2\n", "holds 9 pairs, wanted 8"),
        (LFW_LIST.replace("Cid\t1\t2", "Cid\tone\t2"), "line 6: 'one' is no whole number"),
        (LFW_LIST.replace("Cid\t1\t2", "Cid\t1"), "line 6 is .* wanted NAME, i, j"),
        (LFW_LIST.replace("Cid\t1\t2", "..\t1\t2"), r"line 6: '\.\.' is no plain name"),
        (LFW_LIST.replace("Cid\t1\t2", "a/../../b\t1\t2"), "line 6: .* is no plain name"),
    ],
)
def test_bad_lfw_lists(root: Path, text: str, message: str) -> None:
    (root / "lfw" / "pairs.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_pairs("lfw", root)


def test_missing_images_are_counted_and_the_first_is_named(root: Path) -> None:
    for name in ("Bob/Bob_0012.jpg", "Dan/Dan_0001.jpg"):
        (root / "lfw" / name).unlink()
    with pytest.raises(InputError, match=r"Bob_0012\.jpg: not found; lfw misses 2 of its 7 images"):
        open_pairs("lfw", root)


def test_no_more_of_a_file_is_read_than_an_image_may_have(root: Path) -> None:
    (root / "lfw/Ann/Ann_0001.jpg").write_bytes(bytes(MAX_BYTES + 5000))
    assert len(open_pairs("lfw", root).read(0)) == MAX_BYTES + 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(alphabet="0123456789\t\n Ann../", max_size=80).map(str.encode))
def test_no_list_ends_in_anything_but_pairs_or_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.txt"
    path.write_bytes(content)
    for read in (read_lfw_pairs, read_sllfw_pairs):
        try:
            pairs = read(path)
        except InputError:
            continue
        assert all(".." not in Path(image).parts for pair in pairs for image in pair[:2])


def slow_k_fold(pairs: int, folds: int) -> Iterator[int]:
    """scikit-learn's KFold: n // k each, the first n % k folds one more."""
    left = pairs
    for k in range(folds):
        size = -(-left // (folds - k))  # what is left, shared out, rounded up
        yield from [k] * size
        left -= size


@given(st.integers(2, 400), st.integers(2, 12))
def test_contiguous_folds_are_sklearns(pairs: int, folds: int) -> None:
    found = contiguous_folds(pairs, folds)
    assert found.tolist() == list(slow_k_fold(pairs, min(folds, pairs)))


def test_bin_file(tmp_path: Path) -> None:
    contents = [(image(2 * i), image(2 * i + 1), i % 2 == 0) for i in range(23)]
    write_bin(tmp_path / "held_out.bin", contents)
    pairs = open_pairs("held_out.bin", tmp_path)
    assert (pairs.name, pairs.identity) == ("held_out", None)
    assert np.bincount(pairs.fold).tolist() == [3, 3, 3, 2, 2, 2, 2, 2, 2, 2]
    for i, (a, b, same) in enumerate(contents):
        assert (pairs.read(int(pairs.first[i])), pairs.read(int(pairs.second[i]))) == (a, b)
        assert pairs.same[i] == same
    assert pairs.key(5) == "pair 3, second image"
    write_bin(tmp_path / "copy.bin", contents)
    write_bin(tmp_path / "other.bin", [*contents[:-1], (image(0), image(0), True)])
    assert pairs.sha256 == open_pairs("copy.bin", tmp_path).sha256
    assert pairs.sha256 != open_pairs("other.bin", tmp_path).sha256
    part = select_folds(pairs, [0, 9], "part")
    assert [part.read(int(i)) for i in part.first] == [a for a, _, _ in (*contents[:3], *contents[21:])]


def test_pairs_of_one_kind_are_refused(tmp_path: Path) -> None:
    write_bin(tmp_path / "same.bin", [(image(i), image(i), True) for i in range(12)])
    with pytest.raises(InputError, match="same: holds 12 pairs of one person and 0 of two, wanted at least one"):
        open_pairs("same.bin", tmp_path)
