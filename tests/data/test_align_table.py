"""align.tsv: what is written is read again; what is not ours is refused with its line."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobileface.data import align_table
from mobileface.data.align_table import COLUMNS, VERDICTS, make_row, read_table, size_of, verdict_of, write_table
from mobileface.data.detect import Face
from mobileface.errors import InputError

FACE = Face(0.87654, np.array([1.5, 2, 30, 40.25]), np.arange(10.0).reshape(5, 2) - 3)
names = st.binary(min_size=1, max_size=30).filter(lambda b: b"\0" not in b and b"/" not in b).map(os.fsdecode)


def test_a_row_says_what_became_of_a_photograph(tmp_path: Path) -> None:
    row = make_row("a/1.png", 77, "aligned", "a/1.png.jpg", "", 3, (480, 640, 3), FACE)
    write_table(tmp_path / "t.tsv", {"a/1.png": [row]})
    with (tmp_path / "t.tsv").open(newline="") as file:
        [found] = csv.DictReader(file, dialect="excel-tab")
    assert found == {
        "path": "a/1.png", "bytes": "77", "verdict": "aligned", "crop": "a/1.png.jpg", "faces": "3",
        "photo_width": "640", "photo_height": "480", "score": "0.8765", "left": "1.50", "top": "2.00",
        "width": "30.00", "height": "40.25", "left_eye_x": "-3.00", "left_eye_y": "-2.00", "right_eye_x": "-1.00",
        "right_eye_y": "0.00", "nose_x": "1.00", "nose_y": "2.00", "left_mouth_x": "3.00", "left_mouth_y": "4.00",
        "right_mouth_x": "5.00", "right_mouth_y": "6.00", "reason": "",
    }  # fmt: skip


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        names, st.lists(st.tuples(st.integers(0, 2**40), st.sampled_from(VERDICTS), names), min_size=1), min_size=5
    )
)
def test_any_names_come_back(tmp_path: Path, drawn: dict[str, list[tuple[int, str, str]]]) -> None:
    table = {
        path: [make_row(path, size, verdict, crop, f"{crop}: why\tnot") for size, verdict, crop in rows]
        for path, rows in drawn.items()
    }
    write_table(tmp_path / "t.tsv", table)
    found = read_table(tmp_path / "t.tsv")
    assert found == table
    assert list(found) == sorted(table)
    kept = [(size_of(row), verdict_of(row)) for path in drawn for row in found[path]]
    assert kept == [(size, verdict) for rows in drawn.values() for size, verdict, _ in rows]


HEAD = "\t".join(COLUMNS) + "\n"
GOOD = "\t".join(make_row("a/1.jpg", 5, "no-face")) + "\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("path\tverdict\n", 1),
        (HEAD + GOOD + "a/1.jpg\t5\n", 3),
        (HEAD + GOOD.replace("no-face", "handsome"), 2),
        (HEAD + GOOD.replace("\t5\t", "\tmany\t"), 2),
        (HEAD + GOOD.replace("\t5\t", "\t-5\t"), 2),
        (HEAD + GOOD[:-20], 2),
        (HEAD + "x" * 200_000 + GOOD, 2),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "align.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"align\.tsv: line {line}: .+; wanted a table that `data align` wrote$"):
        read_table(path)


def test_a_table_is_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align_table, "MAX_TABLE_BYTES", 10)
    (tmp_path / "align.tsv").write_text(HEAD)
    with pytest.raises(InputError, match="is larger than 10 bytes"):
        read_table(tmp_path / "align.tsv")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_a_table_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "align.tsv"
    path.write_bytes(HEAD.encode() + content)
    try:
        assert all(len(row) == len(COLUMNS) for rows in read_table(path).values() for row in rows)
    except InputError as error:
        assert "line" in str(error)
