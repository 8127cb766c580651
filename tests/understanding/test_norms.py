"""The norms of a set of faces: which crops are read, how they are counted, who is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobileface.data.folder import FolderFaces
from mobileface.errors import InputError
from mobileface.understanding.norms import BINS, PLACES, SHOWN, distribution, picks, read_crops

MakeFolder = Callable[..., Path]
norms = st.lists(st.floats(0.5, 200), min_size=1, max_size=80).map(np.array)


@given(norms, st.integers(1, 10))
def test_who_is_shown(values: np.ndarray, shown: int) -> None:
    found = picks(values, shown)
    assert list(found) == list(PLACES)
    low, middle, high = (values[found[place]] for place in PLACES)
    count = len(low)
    assert len(middle) == len(high) == count == max(1, min(shown, len(values) // 3))
    ordered = np.sort(values)
    assert low.tolist() == ordered[:count].tolist()
    assert high.tolist() == ordered[-count:].tolist()
    below, above = (values < middle.min()).sum(), (values > middle.max()).sum()
    assert max(below, above) <= (len(values) - count + 1) // 2
    if len(values) >= 3:
        assert len({i for place in found.values() for i in place}) == 3 * count


@example(np.array([0.5, np.nextafter(0.5, 1)]))
@given(norms)
def test_every_image_is_counted_once(values: np.ndarray) -> None:
    found = distribution(values, [f"image {i}" for i in range(len(values))])
    histogram = found["histogram"]
    assert sum(histogram["counts"]) == len(values)
    assert len(histogram["edges"]) == BINS + 1 == len(histogram["counts"]) + 1
    assert found["mean"] == pytest.approx(values.mean())
    assert found["quantiles"]["0.5"] == pytest.approx(np.median(values))
    for place in PLACES:
        for row in found["shown"][place]:
            assert values[int(row["key"].split()[1])] == row["norm"]
        assert len(found["shown"][place]) <= SHOWN


def test_crops_in_a_fixed_random_order_and_not_too_many(shared_faces: Path) -> None:
    source = FolderFaces(shared_faces)
    everything, some = read_crops(source), read_crops(source, 7)
    assert sorted(everything.keys) == sorted(source.key(i) for i in range(30))
    assert everything.keys != sorted(everything.keys)
    assert some.keys == everything.keys[:7]
    assert some.images.shape == (7, 112, 112, 3)
    facts = {"name": "faces", "whole": 30, "bad": 0, "sha256": source.fingerprint()}
    assert everything.to_dict() == {**facts, "images": 30}
    assert some.to_dict() == {**facts, "images": 7}


def test_bad_images_are_counted(tmp_path: Path, make_folder: MakeFolder) -> None:
    folder = make_folder(tmp_path / "faces", 2, 2)
    (folder / "person-0" / "face-1.jpg").write_bytes(b"bad")
    assert read_crops(FolderFaces(folder)).bad == 1
    for path in folder.glob("*/*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(InputError, match="faces: none of its 4 images can be used; the last: faces/person"):
        read_crops(FolderFaces(folder))
