"""Exclude lists of .rec files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobileface.data.recordio import RecordFaces, write_pack
from mobileface.errors import InputError

LABELS = [0, 0, 0, 1, 2, 2]  # records 1 to 6


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    write_pack(tmp_path / "train.rec", ((label, b"image %d" % i) for i, label in enumerate(LABELS, 1)))
    return tmp_path / "train.rec"


def opened(rec: Path, text: str | None) -> RecordFaces:
    exclude = None if text is None else rec.with_name("exclude.txt")
    if exclude is not None and text is not None:
        exclude.write_text(text)
    return RecordFaces(rec, rec.parent / "cache", exclude)


@given(out=st.sets(st.integers(1, 6), min_size=1, max_size=5), prefix=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_what_is_named_is_left_out(rec: Path, out: set[int], prefix: bool) -> None:
    lines = [f"train.rec:{key}\twrong-label\n" if prefix else f"{key}\n" for key in out]
    faces = opened(rec, "# left out by cleaning\n" + "".join(lines))
    kept = [key for key in range(1, 7) if key not in out]
    assert [faces.key(i) for i in range(len(faces))] == [f"train.rec:{key}" for key in kept]
    assert [bytes(faces.read(i)) for i in range(len(faces))] == [b"image %d" % key for key in kept]
    assert faces.raw_labels.tolist() == [LABELS[key - 1] for key in kept]
    present = sorted({LABELS[key - 1] for key in kept})
    assert faces.labels.tolist() == [present.index(LABELS[key - 1]) for key in kept]
    assert faces.num_identities == len(present)


def test_the_fingerprint_tells_what_is_left_out(rec: Path) -> None:
    prints = [opened(rec, text).fingerprint() for text in (None, "1\n", "2\n", "1\n2\n", "2\n1\n")]
    assert len(set(prints)) == 4
    assert prints[3] == prints[4]


def test_a_pickled_source_leaves_out_the_same(rec: Path) -> None:
    faces = opened(rec, "train.rec:2\n")
    again = pickle.loads(pickle.dumps(faces))  # our own bytes
    assert np.array_equal(again.labels, faces.labels)
    assert again.key(1) == "train.rec:3"


def test_records_that_are_not_there_are_warned_of_once(rec: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "train.rec:2\n88\ntrain.rec:7\n"
    for _ in range(2):
        opened(rec, text)
    exclude = rec.with_name("exclude.txt")
    assert caplog.messages == [f"{exclude}: 2 names match nothing in {rec}, the first: train.rec:88"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("99\n", "names none of the 6 images"),
        ("", "names none of the 6 images"),
        ("1\n2\n3\n4\n5\n6\n", "names all of the 6 images"),
        ("someone/1.jpg\n", "names 'someone/1.jpg'; wanted records of train.rec, as in train.rec:17"),
        ("other.rec:3\n", "names 'other.rec:3'; wanted records"),
        ("9" * 30 + "\n", "wanted records of train.rec"),
        ("-1\n", "wanted records of train.rec"),
    ],
)
def test_bad_lists_are_named(rec: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        opened(rec, text)
    assert words in str(caught.value)
    assert "exclude.txt" in str(caught.value)
