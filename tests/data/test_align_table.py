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
from mobileface.data.align_table import (
    COLUMNS,
    MAX_LINE,
    VERDICTS,
    begin_table,
    make_row,
    photo_of,
    read_part,
    read_table,
    rows_of,
    text_of,
    verdict_of,
    write_table,
)
from mobileface.data.detect import Face
from mobileface.data.folder import Entry
from mobileface.errors import InputError

FACE = Face(0.87654, np.array([1.5, 2, 30, 40.25]), np.arange(10.0).reshape(5, 2) - 3)
names = st.binary(min_size=1, max_size=30).filter(lambda b: b"\0" not in b and b"/" not in b).map(os.fsdecode)


def test_a_row_says_what_became_of_a_photograph(tmp_path: Path) -> None:
    row = make_row(Entry("a/1.png", 77, 1234567890123456789), "aligned", "a/1.png.jpg", "", 3, (480, 640, 3), FACE)
    write_table(tmp_path / "t.tsv", {"a/1.png": text_of([row])})
    with (tmp_path / "t.tsv").open(newline="") as file:
        [found] = csv.DictReader(file, dialect="excel-tab")
    assert found == {
        "path": "a/1.png", "bytes": "77", "mtime_ns": "1234567890123456789", "verdict": "aligned",
        "crop": "a/1.png.jpg", "faces": "3", "photo_width": "640", "photo_height": "480",
        "score": "0.8765", "left": "1.50", "top": "2.00",
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
        path: [make_row(Entry(path, n, 7 * n), verdict, crop, f"{crop}: why\tnot") for n, verdict, crop in rows]
        for path, rows in drawn.items()
    }
    write_table(tmp_path / "t.tsv", {path: text_of(rows) for path, rows in table.items()})
    found = read_table(tmp_path / "t.tsv")
    assert {path: rows_of(text) for path, text in found.items()} == table
    assert list(found) == sorted(table)
    kept = [(*photo_of(row), verdict_of(row)) for path in drawn for row in rows_of(found[path])]
    assert kept == [(path, size, 7 * size, verdict) for path, rows in drawn.items() for size, verdict, _ in rows]


HEAD = "\t".join(COLUMNS) + "\n"
GOOD = "\t".join(make_row(Entry("a/1.jpg", 5, 9), "no-face")) + "\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("path\tverdict\n", 1),
        (HEAD + GOOD + "a/1.jpg\t5\n", 3),
        (HEAD + GOOD.replace("no-face", "handsome"), 2),
        (HEAD + GOOD.replace("\t5\t", "\tmany\t"), 2),
        (HEAD + GOOD.replace("\t5\t", "\t-5\t"), 2),
        (HEAD + GOOD.replace("\t9\t", "\t\t"), 2),
        (HEAD + GOOD + GOOD.replace("a/1", "a/2") + GOOD, 4),
        (HEAD.replace("\tmtime_ns", "") + GOOD, 1),
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
    path = tmp_path / "align.tsv"
    path.write_text(HEAD + "".join(GOOD.replace("a/1", f"a/{n}") for n in range(3)))
    monkeypatch.setattr(align_table, "MAX_PHOTOS", 3)
    assert len(read_table(path)) == 3
    monkeypatch.setattr(align_table, "MAX_PHOTOS", 2)
    with pytest.raises(InputError, match="has rows of more than 2 photographs"):
        read_table(path)
    with path.open("wb") as file:
        file.truncate(1 << 40)  # one line without an end, a terabyte that takes no room
    with pytest.raises(InputError, match="line 1: is no row of it"):
        read_table(path)
    assert len(HEAD) < MAX_LINE


def written_part(path: Path, *groups: list[list[str]]) -> bytes:
    with begin_table(path) as file:
        for rows in groups:
            file.write(text_of(rows))
    return path.read_bytes()


def test_what_a_kill_left_is_read_up_to_its_last_photograph(tmp_path: Path) -> None:
    """Cut anywhere: what is read was whole, and at most the last whole photograph of it is missing."""
    path = tmp_path / "align.tsv.part"
    photos = [Entry(f"a/{n}\n.jpg", 5, n) for n in range(4)]
    groups = [[make_row(photo, "aligned", f"crop {n}", "why\tnot") for n in range(2)] for photo in photos]
    whole = written_part(path, *groups)
    ends = [len(written_part(path, *groups[:n])) for n in range(5)]
    wanted = {photo.path: text_of(rows) for photo, rows in zip(photos, groups, strict=True)}
    for length in [*range(0, len(whole), 7), *ends]:
        path.write_bytes(whole[:length])
        found = read_part(path)
        complete = sum(length >= end for end in ends[1:])
        assert len(found) in (max(0, complete - 1), complete)
        assert found.items() <= wanted.items()
    assert list(found) == [photo.path for photo in photos[:3]]
    path.write_bytes(whole[: ends[3]] + bytes(300))  # what a power cut may leave
    assert list(read_part(path)) == [photo.path for photo in photos[:2]]
    path.unlink()
    assert read_part(path) == {}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_a_table_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "align.tsv"
    path.write_bytes(HEAD.encode() + content)
    try:
        assert all(len(row) == len(COLUMNS) for text in read_table(path).values() for row in rows_of(text))
    except InputError as error:
        assert "line" in str(error)
