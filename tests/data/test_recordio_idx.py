"""The files beside a .rec: its .idx and its property."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data import record_keys
from mobileface.data.recordio import RecordFaces
from mobileface.errors import InputError
from tests.data.records import IMAGES, contents, insightface_pack, record, refused, write_raw

# ---- the .idx


@pytest.mark.parametrize("block", [1, 7, 64])
def test_idx_is_read_in_blocks(tmp_path: Path, open_rec: Any, monkeypatch: Any, block: int) -> None:
    monkeypatch.setattr(record_keys, "BLOCK", block)
    rec = write_raw(tmp_path / "a.rec", insightface_pack(True))
    assert contents(open_rec(rec)) == IMAGES


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_line_ends_of_the_idx(tmp_path: Path, open_rec: Any, end: bytes) -> None:
    rec = write_raw(tmp_path / "a.rec", insightface_pack(True))
    idx = rec.with_suffix(".idx")
    idx.write_bytes(idx.read_bytes().rstrip(b"\n").replace(b"\n", end or b"\n") + end)
    assert contents(open_rec(rec)) == IMAGES


@given(st.lists(st.tuples(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1)), min_size=1, max_size=20))
def test_lines_are_parsed_as_python_does(rows: list[tuple[int, int]]) -> None:
    block = "".join(f"{key}\t{offset}\n" for key, offset in rows).encode()
    assert record_keys.parse_lines(block, Path("a.idx"), 1).T.tolist() == [list(row) for row in rows]


@given(st.text("09a \t\n\r-+.", min_size=1, max_size=12))
def test_lines_of_any_text(text: str) -> None:
    """Accepted just where each line is two runs of digits with a tab between."""
    lines = [line.split("\t") for line in text.split("\n")]
    bad = [i for i, line in enumerate(lines, 1) if len(line) != 2 or not all(part.isdigit() for part in line)]
    if bad:
        with pytest.raises(InputError, match=f"line {bad[0]}:"):
            record_keys.parse_lines(text.encode() + b"\n", Path("a.idx"), 1)
    else:
        found = record_keys.parse_lines(text.encode() + b"\n", Path("a.idx"), 1)
        assert found.T.tolist() == [[int(part) for part in line] for line in lines]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("0\t0\n1\t48\nx\t80\n", ["line 3", "b'x\\t80'"]),
        ("0\t0\n1 48\n", ["line 2"]),
        ("0\t0\n\n", ["line 2"]),
        ("0\t0\n1\t-4\n", ["line 2"]),
        ("0\t0\n1\t48.0\n", ["line 2"]),
        ("0\t0\n1\t48\t3\n", ["line 2"]),
        ("0\t0\n1\t" + "9" * 19 + "\n", ["line 2"]),
        ("9" * 5000, ["more than 40 bytes"]),
        ("0\t0\n1\t92\n2\t48\n", ["line 3", "offset 48", "not above"]),
        ("0\t0\n1\t0\n", ["line 2", "not above"]),
        ("0\t0\n1\t40\n2\t4000\n", ["line 3", "record 2", "byte 4000"]),
        ("0\t0\n1\t40\n1\t68\n2\t96\n", ["record 1 twice"]),
        ("0\t0\n1\t40\n2\t68\n", ["cut off", "record 2"]),
        ("0\t0\n1\t42\n2\t96\n", ["record 1", "byte 42", "multiple of 4"]),
        ("0\t0\n1\t44\n2\t96\n", ["record 1", "byte 44", "0xced7230a"]),
        ("0\t0\n2\t40\n3\t68\n4\t96\n", ["1 to 2", "1 is not there"]),
    ],
)
def test_bad_idx(tmp_path: Path, text: str, words: list[str]) -> None:
    rows = [
        (0, record((3.0, 4.0), b"")),
        (1, record(1, b"")),
        (2, record(1, b"")),
        (3, record((1.0, 3.0), b"")),
    ]
    rec = write_raw(tmp_path / "a.rec", rows)
    sizes = [40, 32, 32, 40]
    assert rec.stat().st_size == sum(sizes)
    moved = {"40": "40", "68": "72", "96": "104"}  # the second and third image and the identity record
    for old, new in moved.items():
        text = text.replace(f"\t{old}\n", f"\t{new}\n")
    (tmp_path / "a.idx").write_text(text)
    refused(rec, *words)


def test_a_missing_idx_is_said(tmp_path: Path, open_rec: Any, caplog: pytest.LogCaptureFixture) -> None:
    rec = write_raw(tmp_path / "a.rec", insightface_pack(False))
    with caplog.at_level(logging.WARNING):
        open_rec(rec)
        assert not caplog.text
        rec.with_suffix(".idx").unlink()
        faces = open_rec(rec)
    assert "has no a.idx" in caplog.text
    assert contents(faces) == IMAGES


# ---- property


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3,112,96", ["96x112"]),
        ("many", ["b'many'", "100,112,112"]),
        ("3,112", ["b'3,112'"]),
        ("-3,112,112", ["b'-3,112,112'"]),
        ("", ["b''"]),
        ("1," * 10_000, ["property"]),
    ],
)
def test_bad_property(tmp_path: Path, text: str, words: list[str]) -> None:
    rec = write_raw(tmp_path / "train.rec", insightface_pack(True))
    (tmp_path / "property").write_text(text)
    with pytest.raises(InputError) as caught:
        RecordFaces(rec, tmp_path / "cache")
    assert len(str(caught.value)) < 400
    for word in ("property", *words):
        assert word in str(caught.value)


def test_property(tmp_path: Path, open_rec: Any, caplog: pytest.LogCaptureFixture) -> None:
    rec = write_raw(tmp_path / "train.rec", insightface_pack(True))
    for text in ("3,112,112", "85742, 112, 112\n5822653\n"):
        (tmp_path / "property").write_text(text)
        open_rec(rec)
    assert not caplog.text
    (tmp_path / "property").write_text("2,112,112")
    open_rec(rec)
    assert "says 2 identities, but train.rec holds 3" in caplog.text
