"""RecordIO written: InsightFace's layout, what is refused, and no more memory than an image."""

from __future__ import annotations

import hashlib
import io
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobileface.data.recordio import RecordFaces, RecordWriter, pack, write_pack
from mobileface.errors import InputError
from tests.data.records import IMAGES, MAGIC, contents, in_one_folder, payloads, slow_faces, slow_record


@given(runs=st.lists(st.tuples(st.integers(0, 2**24 - 1), st.lists(payloads, min_size=1, max_size=4)), min_size=1))
@example(runs=[(0, [b""])])
@in_one_folder
@pytest.mark.usefixtures("no_fsync")
def test_pack_round_trip(tmp_path: Path, runs: list[tuple[int, list[bytes]]]) -> None:
    given_images = [(label, image) for label, group in dict(runs).items() for image in group]
    rec = Path(tempfile.mkdtemp(dir=tmp_path)) / "train.rec"  # the cache tells files of one path by size and time
    write_pack(rec, iter(given_images))
    faces = RecordFaces(rec, tmp_path / "cache")
    assert contents(faces) == given_images
    assert [(label, image) for _, label, image in slow_faces(rec)] == given_images
    assert [faces.key(i) for i in range(len(faces))] == [f"train.rec:{key}" for key, *_ in slow_faces(rec)]
    ranks = {label: rank for rank, label in enumerate(sorted({label for label, _ in given_images}))}
    assert faces.labels.tolist() == [ranks[label] for label, _ in given_images]
    assert faces.num_identities == len(ranks)
    assert faces.labels.dtype == faces.raw_labels.dtype == np.int64
    pairs = b"".join(struct.pack("<qq", key, len(image)) for key, _, image in slow_faces(rec))
    assert faces.fingerprint() == hashlib.sha256(pairs).hexdigest()


def test_written_pack_has_insightfaces_layout(tmp_path: Path) -> None:
    rec = tmp_path / "train.rec"
    write_pack(rec, IMAGES)
    file = io.BytesIO(rec.read_bytes())
    records = [slow_record(file) for _ in range(9)]
    assert not file.read()
    assert records[0] == struct.pack("<IfQQff", 2, 0, 0, 1, 6, 9)
    assert records[1:6] == [struct.pack("<IfQQ", 0, label, i, 0) + jpeg for i, (label, jpeg) in enumerate(IMAGES, 1)]
    ranges = [(6, 1, 3), (7, 3, 5), (8, 5, 6)]
    assert records[6:] == [struct.pack("<IfQQff", 2, 0, key, 0, start, end) for key, start, end in ranges]
    assert (tmp_path / "property").read_text() == "9,112,112\n"
    assert [line.split("\t")[0] for line in (tmp_path / "train.idx").read_text().splitlines()] == list("012345678")
    write_pack(rec, IMAGES, identities=20)
    assert (tmp_path / "property").read_text() == "20,112,112\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["property", "train.idx", "train.rec"]


def failing(images_before: list[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield from images_before
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("given_images", "words"),
    [
        ([], ["no images"]),
        ([(1, b"a"), (2, b"b"), (1, b"c")], ["image 3", "label 1", "one run"]),
        ([(-1, b"a")], ["image 1", "label -1"]),
        ([(2**24, b"a")], ["label 16777216", "0 to 16777215"]),
    ],
)
def test_writing_refuses(rec: Path, given_images: list[tuple[int, bytes]], words: list[str]) -> None:
    before = {path.name: path.read_bytes() for path in rec.parent.iterdir()}
    with pytest.raises(InputError) as caught:
        write_pack(rec, given_images)
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(KeyboardInterrupt):
        write_pack(rec, failing(given_images[:1]) if given_images[:1] == [(1, b"a")] else failing([]))
    assert {path.name: path.read_bytes() for path in rec.parent.iterdir()} == before


def test_labels_beyond_the_identities(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label 4, wanted labels from 0 to 3"):
        write_pack(tmp_path / "a.rec", [(0, b"a"), (4, b"b")], identities=4)
    assert not list(tmp_path.iterdir())


def test_record_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec = tmp_path / "a.rec"
    with RecordWriter(rec) as writer:
        writer.write(3, pack(1, 3, b"x"))
        writer.write(8, pack((2.0, 1.0), 8, b"y" + MAGIC))
    assert slow_faces(rec) == [(3, 1.0, b"x"), (8, 2.0, b"y" + MAGIC)]
    assert not rec.with_suffix(".idx").read_text().startswith("0")
    with RecordWriter(rec) as writer:
        writer.write(3, b"")
        with pytest.raises(InputError, match="record 3 comes after 3"):
            writer.write(3, b"")
        monkeypatch.setattr("mobileface.data.recordio.MAX_LENGTH", 100)
        with pytest.raises(InputError, match="record 4 has 101 bytes"):
            writer.write(4, bytes(101))
    with pytest.raises(InputError, match="not end in"):
        RecordWriter(tmp_path / "c.idx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.idx", "a.rec"]


def test_writing_streams(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        write_pack(tmp_path / "a.rec", ((i // 4, bytes(1 << 20)) for i in range(40)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert (tmp_path / "a.rec").stat().st_size > 40 << 20
