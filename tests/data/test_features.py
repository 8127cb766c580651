"""Feature files: written and read back, compared with the bytes themselves, and what is refused."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data import features
from mobileface.data.features import blocks, check_features, read_features, write_features
from mobileface.errors import InputError


def some(rows: int = 7, dim: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def lfrc(rows: int, columns: int, stride: int, kind: int, payload: bytes) -> bytes:
    return struct.pack("<4i", rows, columns, stride, kind) + payload


def test_the_bytes_are_those_of_the_challenge(tmp_path: Path) -> None:
    rows = some()
    write_features(tmp_path / "f.bin", [rows[0], rows[1:4], rows[4:]], 7, 5)  # one row, several rows
    assert (tmp_path / "f.bin").read_bytes() == lfrc(7, 5, 20, 5, rows.tobytes())
    found = read_features(tmp_path / "f.bin")
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, rows)


def test_npy_is_known_by_its_content(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", some())
    (tmp_path / "f.npy").rename(tmp_path / "f.bin")
    np.testing.assert_array_equal(read_features(tmp_path / "f.bin"), some())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_what_was_written_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: int, dim: int, seed: int) -> None:
    path = tmp_path_factory.mktemp("f") / "f.bin"
    write_features(path, iter(some(rows, dim, seed)), rows, dim)
    np.testing.assert_array_equal(read_features(path), some(rows, dim, seed))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "0 bytes; wanted a feature file"),
        (b"abc", "3 bytes"),
        (lfrc(7, 5, 24, 5, b""), "the header is 7, 5, 24, 5; wanted rows, columns, columns * 4, 5"),
        (lfrc(7, 5, 20, 6, b""), "the header is 7, 5, 20, 6"),
        (lfrc(7, 5, 20, 5, b"\0" * 139), "155 bytes; wanted 156 for 7 rows of 5 float32"),  # cut short
        (lfrc(7, 5, 20, 5, b"\0" * 141), "157 bytes; wanted 156"),
        (lfrc(2**31 - 1, 2**15, 2**17, 5, b""), "16 bytes; wanted 281,474,976,579,600"),  # no memory is asked for
        (lfrc(-7, 5, 20, 5, b""), "-7 rows of 5"),
        (lfrc(0, 5, 20, 5, b""), "0 rows of 5"),
        (lfrc(5, 0, 0, 5, b""), "5 rows of 0"),
        (lfrc(1, 2**17, 2**19, 5, b""), "1 rows of 131072 numbers"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "the .npy header cannot be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'", "the .npy header cannot be read (version 2.0, wanted 1.0)"),
        (b"\x93NUMPY", "the .npy header cannot be read"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_features(tmp_path / "f")
    assert str(caught.value).startswith(f"{tmp_path / 'f'}: {told}")


def npy(array: np.ndarray, tmp_path: Path) -> bytes:
    np.save(tmp_path / "made.npy", array)
    return (tmp_path / "made.npy").read_bytes()


def test_npy_files_of_other_things(tmp_path: Path) -> None:
    cases = [
        (npy(some().astype(np.float64), tmp_path), "holds float64 of shape (7, 5) by rows; wanted float32"),
        (npy(np.asfortranarray(some()), tmp_path), "holds float32 of shape (7, 5) by columns"),
        (npy(some()[0], tmp_path), "holds float32 of shape (5,)"),
        (npy(np.array([[{}]], object), tmp_path), "holds object of shape (1, 1)"),  # a pickle, never opened
        (npy(some().astype(">f4"), tmp_path), "holds >f4 of shape (7, 5)"),
        (npy(some(), tmp_path)[:-1], "267 bytes; wanted 268"),
        (npy(some(), tmp_path).replace(b"(7, 5)", b"(-7,5)"), "-7 rows of 5"),
        (npy(some(), tmp_path).replace(b"(7, 5), }", b"(7, 5) (}"), "the .npy header cannot be read"),
    ]
    for content, told in cases:
        (tmp_path / "f").write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_features(tmp_path / "f")
        assert str(caught.value).startswith(f"{tmp_path / 'f'}: {told}"), told


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="no such feature file"):
            read_features(path)


@pytest.mark.parametrize(
    ("rows", "count", "told"),
    [
        ([some()], 8, "7 rows came; wanted 8"),
        ([some()], 6, "7 rows came; wanted 6"),
        ([some(), some(2, 4)], 9, r"row 7 has shape \(2, 4\); wanted 5 numbers"),
        ([some(), np.full(5, np.nan, np.float32)], 8, "row 7 is not finite"),
        ([some()], 0, "0 rows of 5 numbers"),
        ([some()], 2**31, "2147483648 rows"),
    ],
)
def test_rows_that_are_not_written(tmp_path: Path, rows: list[np.ndarray], count: int, told: str) -> None:
    (tmp_path / "f.bin").write_bytes(b"older")
    with pytest.raises(InputError, match=told):
        write_features(tmp_path / "f.bin", rows, count, 5)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"older"]


def test_lengths_are_those_of_exact_sums() -> None:
    rows = some(50, 282)
    exact = [math.sqrt(math.fsum(float(x) ** 2 for x in row)) for row in rows]
    np.testing.assert_allclose(check_features(rows, "f"), exact, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_unusable_rows_are_counted_and_the_first_is_named(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(features, "BLOCK_BYTES", 60)  # three rows at a time
    rows = some(11)
    assert [start for start, _ in blocks(rows)] == [0, 3, 6, 9]
    rows[[7, 9], 1] = value
    with pytest.raises(InputError, match=r"f\.bin: 2 of 11 rows hold a NaN or an infinity, the first: row 7; wanted"):
        check_features(rows, "f.bin")
    assert check_features(rows[:7], "f.bin").shape == (7,)


def test_a_row_of_zeros_has_length_zero() -> None:
    rows = some()
    rows[[0, 4]] = 0
    assert (check_features(rows, "f") == 0).tolist() == [True, False, False, False, True, False, False]
