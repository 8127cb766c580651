"""The cached index of a .rec, and its readers in forked and pickled copies."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobileface.data import record_index
from mobileface.data.recordio import RecordFaces
from tests.data.records import IMAGES, contents, record, write_raw


def no_build(*_: Any) -> Any:
    raise AssertionError("built again")


def test_the_index_is_built_once(rec: Path, open_rec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_rec(rec)
    monkeypatch.setattr(record_index, "build", no_build)
    second = open_rec(rec)
    assert contents(second) == contents(first) == IMAGES
    assert second.fingerprint() == first.fingerprint()
    assert second.labels.tolist() == [0, 0, 1, 1, 2]
    assert second.name == "set/train.rec"
    assert not second.labels.flags.writeable
    os.utime(rec, ns=(1, 1))
    with pytest.raises(AssertionError, match="built again"):
        open_rec(rec)


def test_the_cache_is_where_the_user_wants_it(rec: Path, tmp_path: Path, monkeypatch: Any) -> None:
    before = sorted(rec.parent.iterdir())
    monkeypatch.setenv("MOBILEFACE_CACHE", str(tmp_path / "mine"))
    RecordFaces(rec)
    assert list((tmp_path / "mine" / "records").glob("*.npy"))
    assert sorted(rec.parent.iterdir()) == before


def test_a_changed_idx_is_read_again(tmp_path: Path, open_rec: Any) -> None:
    rows = [(key, record(key, b"%d" % key)) for key in (1, 2, 3)]
    rec = write_raw(tmp_path / "a.rec", rows)
    assert contents(open_rec(rec)) == [(1, b"1"), (2, b"2"), (3, b"3")]
    idx = rec.with_suffix(".idx")
    idx.write_text(idx.read_text().replace("1\t0", "9\t0"))
    assert contents(open_rec(rec)) == [(2, b"2"), (3, b"3"), (1, b"1")]


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Any] = {
    "flip": damage_flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(b"\x80\x04noise\xff" * 9),
    "gone": lambda path: path.unlink(),
    "null": lambda path: path.write_text("null"),
    "other": lambda path: path.write_text(json.dumps({"sha256": 3})),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_damaged_cache_is_built_again(rec: Path, open_rec: Any, damage: str, suffix: str) -> None:
    open_rec(rec)
    (path,) = (rec.parent.parent / "cache" / "records").glob(f"*{suffix}")
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert contents(open_rec(rec)) == IMAGES
    assert path.read_bytes() == whole


def test_a_cache_cut_off_anywhere_is_built_again(rec: Path, open_rec: Any) -> None:
    open_rec(rec)
    (path,) = (rec.parent.parent / "cache" / "records").glob("*.npy")
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert contents(open_rec(rec)) == IMAGES


def in_processes(function: Any, arguments: list[Any]) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks of threaded processes
        with multiprocessing.get_context("fork").Pool(3) as pool:
            return pool.map(function, arguments, chunksize=1)


FORKED: list[RecordFaces] = []


def read_forked(seed: int) -> bool:
    order = np.random.default_rng(seed).integers(0, len(IMAGES), 2000)
    return all(bytes(FORKED[0].read(i)) == IMAGES[i][1] for i in order)


def test_forked_workers_share_nothing_that_moves(rec: Path, open_rec: Any) -> None:
    FORKED[:] = [open_rec(rec)]
    assert all(in_processes(read_forked, list(range(6))))


def open_and_read(paths: tuple[Path, Path]) -> list[tuple[int, bytes]]:
    return contents(RecordFaces(*paths))


def test_processes_that_open_together(rec: Path, tmp_path: Path) -> None:
    for attempt in range(5):
        paths = (rec, tmp_path / f"cache{attempt}")
        assert in_processes(open_and_read, [paths] * 6) == [IMAGES] * 6
        names = sorted(path.suffix for path in (paths[1] / "records").iterdir())
        assert names == [".json", ".lock", ".npy"]


def test_a_pickled_source_opens_again_when_used(rec: Path, open_rec: Any) -> None:
    faces = open_rec(rec)
    data = pickle.dumps(faces)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert "labels" not in vars(copy)
    assert copy.labels.tolist() == faces.labels.tolist()
    assert contents(copy) == IMAGES
    assert copy.fingerprint() == faces.fingerprint()
    assert (copy.name, copy.key(0), len(copy)) == (faces.name, faces.key(0), len(faces))
    again = pickle.loads(pickle.dumps(copy))
    rec.unlink()
    with pytest.raises(FileNotFoundError):
        again.read(0)
    with pytest.raises(AttributeError, match="no attribute 'lables'"):
        _ = again.lables


def test_reading_leaves_no_pages_of_labels_behind(rec: Path, open_rec: Any) -> None:
    faces = open_rec(rec)
    base = faces.labels
    while getattr(base, "base", None) is not None:
        base = base.base
    assert type(base).__name__ == "mmap"
