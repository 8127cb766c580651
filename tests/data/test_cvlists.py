"""CALFW, CPLFW and AgeDB-30: their lists, their folders, their .bin files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mobileface.data.known_pairs import SETS, looked_for
from mobileface.data.pairs import open_pairs
from mobileface.data.verification_bin import write_bin
from mobileface.errors import InputError
from tests.data.pair_rows import as_rows, image


def two_line(labels: list[int]) -> str:
    """Pair p is of person p, and with label 0 of person p + 1 as well."""
    return "".join(f"P{p}_0001.jpg {k}\nP{p + (k == 0)}_0002.jpg {k}\n" for p, k in enumerate(labels))


def write_set(folder: Path, file: str, text: str, crops: str) -> None:
    (folder / crops).mkdir(parents=True)
    (folder / file).write_text(text)
    names = {part for line in text.split("\n") for part in line.split() if part.endswith(".jpg")}
    for seed, name in enumerate(sorted(names)):
        (folder / crops / name).write_bytes(image(seed))


@pytest.mark.parametrize("name", ["calfw", "cplfw"])
@pytest.mark.parametrize("crops", ["aligned images", "."])
def test_two_line_lists_by_hand(tmp_path: Path, name: str, crops: str) -> None:
    """CALFW's order: those of one person with their folds first. Ten of each kind: one of each a fold."""
    labels = [*range(1, 11), *[0] * 10]
    write_set(tmp_path / name, SETS[name].listed, two_line(labels), crops)
    pairs = open_pairs(name, tmp_path)
    assert as_rows(pairs) == [
        (f"P{p}_0001.jpg", f"P{p + (k == 0)}_0002.jpg", k != 0, p % 10) for p, k in enumerate(labels)
    ]
    assert pairs.identity is not None
    owner = {pairs.key(i): int(pairs.identity[i]) for i in range(len(pairs.images))}
    assert owner["P3_0001.jpg"] == owner["P3_0002.jpg"]
    assert len(set(owner.values())) == 21


def test_folds_of_a_list_whose_kinds_alternate(tmp_path: Path) -> None:
    """CPLFW says 1 and 0: fold after fold, the kinds' own order gives the same folds."""
    labels = [1, 1, 0, 0] * 10
    write_set(tmp_path / "cplfw", "pairs_CPLFW.txt", two_line(labels), "aligned images")
    assert open_pairs("cplfw", tmp_path).fold.tolist() == [p // 4 for p in range(40)]


def test_agedb_by_hand(tmp_path: Path) -> None:
    text = "".join(f"a{p}.jpg b{p}.jpg {p % 2}\n" for p in range(20))
    write_set(tmp_path / "agedb", "agedb_30_pair.txt", text, "agedb30_align_112")
    pairs = open_pairs("agedb", tmp_path)
    assert as_rows(pairs) == [(f"a{p}.jpg", f"b{p}.jpg", p % 2 == 1, p // 2) for p in range(20)]
    assert pairs.identity is None  # names do not say it


@pytest.mark.parametrize(
    ("name", "file"), [("agedb", "agedb_30.bin"), ("cfp-fp", "cfp_fp.bin"), ("calfw", "calfw.bin")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_a_bin_by_its_sets_name(tmp_path: Path, name: str, file: str, inside: bool) -> None:
    folder = tmp_path / SETS[name].folder if inside else tmp_path
    folder.mkdir(exist_ok=True)
    assert file in str(looked_for(name, tmp_path))
    write_bin(folder / file, [(image(p), image(p + 100), p % 2 == 0) for p in range(20)])
    assert looked_for(name, tmp_path) is None
    pairs = open_pairs(name, tmp_path)
    assert (pairs.name, len(pairs.same), pairs.identity) == (name, 20, None)


def test_the_list_is_taken_before_the_bin(tmp_path: Path) -> None:
    write_set(tmp_path / "calfw", "pairs_CALFW.txt", two_line([*range(1, 11), *[0] * 10]), "aligned images")
    write_bin(tmp_path / "calfw.bin", [(image(p), image(p + 100), p % 2 == 0) for p in range(30)])
    assert len(open_pairs("calfw", tmp_path).same) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names 0 images, wanted two a pair"),
        ("a_1.jpg 1\n", "names 1 images, wanted two a pair"),
        ("a_1.jpg 1\na_2.jpg 0\n", "line 2 has the label 0, wanted 1"),
        ("a_1.jpg\na_2.jpg 1\n", "line 1 is 'a_1.jpg', wanted NAME_0001.jpg LABEL"),
        ("a_1.jpg x\na_2.jpg x\n", "line 2: 'x' is no whole number"),
        ("../a_1.jpg 1\na_2.jpg 1\n", r"line 1: '\.\.' is no plain name"),
    ],
)
def test_bad_two_line_lists(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "calfw").mkdir()
    (tmp_path / "calfw" / "pairs_CALFW.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_pairs("calfw", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg b.jpg 1\n", "holds 1 pairs, wanted 10 folds of as many"),
        ("a.jpg b.jpg\n" * 10, "line 1 is 'a.jpg b.jpg', wanted FIRST SECOND LABEL"),
        ("a.jpg /b.jpg 1\n" * 10, "line 1: '' is no plain name"),
        ("a.jpg b.jpg -1\n" * 10, "line 1: '-1' is no whole number"),
    ],
)
def test_bad_agedb_lists(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "agedb").mkdir()
    (tmp_path / "agedb" / "agedb_30_pair.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        open_pairs("agedb", tmp_path)
