"""CFP by its protocol, folds that are chosen by name, and what a bad protocol or name ends in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mobileface.data.pairs import open_pairs
from mobileface.errors import InputError
from tests.data.pair_rows import as_rows, image


def write_cfp(root: Path, folds: int = 10) -> None:
    """Folds of one person pair each: person p has frontal images 2p - 1, 2p and profile image p."""
    protocol = root / "cfp" / "Protocol"
    protocol.mkdir(parents=True)
    frontal, profile = [], []
    for person in range(1, folds + 1):
        frontal += [f"../Data/Images/{person:03d}/frontal/{i:02d}.jpg" for i in (1, 2)]
        profile.append(f"../Data/Images/{person:03d}/profile/01.jpg")
    for name, paths in (("F", frontal), ("P", profile)):
        lines = [f"{i} {path}" for i, path in enumerate(paths, start=1)]
        (protocol / f"Pair_list_{name}.txt").write_text("\n".join(lines) + "\n")
        for seed, path in enumerate(paths):
            file = root / "cfp" / path.removeprefix("../Data/Images/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(image(seed))
    for fold in range(1, folds + 1):
        other = fold % folds + 1
        splits = {
            "FF": {"same": f"{2 * fold - 1},{2 * fold}", "diff": f"{2 * fold},{2 * other}"},
            "FP": {"same": f"{2 * fold},{fold}", "diff": f"{2 * fold},{other}"},
        }
        for views, files in splits.items():
            folder = protocol / "Split" / views / f"{fold:02d}"
            folder.mkdir(parents=True)
            for name, text in files.items():
                (folder / f"{name}.txt").write_text(text + "\n")


def test_cfp_by_hand(tmp_path: Path) -> None:
    write_cfp(tmp_path)
    frontal = as_rows(open_pairs("cfp-ff", tmp_path))
    profile = as_rows(open_pairs("cfp-fp", tmp_path))
    assert len(frontal) == len(profile) == 20
    assert frontal[:2] == [
        ("001/frontal/01.jpg", "001/frontal/02.jpg", True, 0),
        ("001/frontal/02.jpg", "002/frontal/02.jpg", False, 0),
    ]
    assert profile[-2:] == [
        ("010/frontal/02.jpg", "010/profile/01.jpg", True, 9),
        ("010/frontal/02.jpg", "001/profile/01.jpg", False, 9),
    ]
    identity = open_pairs("cfp-fp", tmp_path).identity
    assert identity is not None
    assert identity.tolist() == np.repeat(np.arange(10), 2).tolist()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "Pair_list_F.txt",
            "1 ../Data/Images/../../x.jpg",
            r"Pair_list_F\.txt: line 1: '\.\.' is no plain name",
        ),
        (
            "Pair_list_P.txt",
            "1 /etc/passwd",
            r"Pair_list_P\.txt: line 1 is .*wanted a number and a path below",
        ),
        ("Pair_list_P.txt", "2 ../Data/Images/001/profile/01.jpg", "line 1 has number 2, wanted 1"),
        (
            "Split/FP/03/diff.txt",
            "1,2\n\n1 2",
            r"03/diff\.txt: line 3 is '1 2', wanted two numbers with a comma",
        ),
        ("Split/FP/03/diff.txt", "0,1", "line 1 names image 0, wanted 1 to 20"),
        ("Split/FP/03/diff.txt", "1,11", "line 1 names image 11, wanted 1 to 10"),
        ("Split/FP/03/diff.txt", "1,-1", "line 1: '-1' is no whole number"),
    ],
)
def test_bad_cfp_protocol(tmp_path: Path, file: str, text: str, message: str) -> None:
    write_cfp(tmp_path)
    (tmp_path / "cfp" / "Protocol" / file).write_text(text)
    with pytest.raises(InputError, match=message):
        open_pairs("cfp-fp", tmp_path)


def test_folds_are_chosen_and_counted_anew(tmp_path: Path) -> None:
    write_cfp(tmp_path)
    whole = open_pairs("cfp-fp", tmp_path)
    for spec, folds in (("cfp-fp:9-10", [8, 9]), ("cfp-fp:1,3", [0, 2]), ("cfp-fp:2-3,10", [1, 2, 9])):
        part = open_pairs(spec, tmp_path)
        wanted = [(a, b, same, folds.index(fold)) for a, b, same, fold in as_rows(whole) if fold in folds]
        assert as_rows(part) == wanted
        assert part.name == spec
        assert sorted(part.keys) == sorted({key for row in wanted for key in row[:2]})
        assert part.identity is not None
        people = [key[:3] for key in part.keys]
        assert np.unique(part.identity).size == len(set(people))
        assert all((a == b) == (p == q) for (a, p), (b, q) in pairwise(zip(people, part.identity, strict=True)))
    assert part.sha256 != whole.sha256


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cfp-fp:11", "asks for fold 11, wanted 1 to 10"),
        ("cfp-fp:0-2", "asks for fold 0, wanted 1 to 10"),
        ("cfp-fp:4", "cfp-fp:4: holds one fold, wanted two or more"),
        ("cfp-fp:5-3", "'5-3' names no folds"),
        ("cfp-fp:1,,2", "'1,,2' names no folds"),
        ("cfp_fp", r"'cfp_fp' is no known pair set \(did you mean 'cfp-fp'\?\), wanted lfw, cfp-fp, cfp-ff"),
        ("gone.bin", "gone.bin: not found, neither here nor in .* .--data.$"),
        ("lfw", r"lfw: not found, wanted lfw; --data says where lfw/ lies"),
    ],
)
def test_bad_specs(tmp_path: Path, spec: str, message: str) -> None:
    write_cfp(tmp_path)
    with pytest.raises(InputError, match=message):
        open_pairs(spec, tmp_path)
