"""Blends against a slow float64 loop; who is in them; what they are a function of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobileface.data.augment import generator
from mobileface.data.blends import BlendedFaces, blend
from mobileface.data.faces import UNLABELLED
from mobileface.data.faceset import FaceSet, split_identities
from mobileface.data.folder import FolderFaces
from mobileface.data.images import BadImage, decode
from mobileface.errors import InputError

Pixels = NDArray[np.uint8]
SEEDS = st.integers(0, 2**32)


def slow_blend(one: Pixels, other: Pixels, seed: int) -> NDArray[np.float64]:
    """The same draws; mask and mix pixel by pixel in float64."""
    rng = generator(seed, 0)
    mirrored = rng.random() < 0.5
    if rng.random() < 0.3:
        mask = np.full((112, 112), rng.uniform(0.3, 0.7))
    else:
        cells = int(rng.integers(2, 6))
        grid = cv2.resize(rng.random((cells, cells), np.float32), (112, 112), interpolation=cv2.INTER_CUBIC)
        slope = rng.uniform(1, 8)
        mask = np.vectorize(lambda v: 1 / (1 + np.exp(-slope * (float(v) - 0.5))))(grid)
    out = np.empty((112, 112, 3))
    for y in range(112):
        for x in range(112):
            partner = other[y, 111 - x if mirrored else x].astype(float)
            out[y, x] = mask[y, x] * one[y, x].astype(float) + (1 - mask[y, x]) * partner
    return out


@pytest.mark.parametrize("seed", range(6))
def test_a_blend_is_what_a_slow_loop_gives(make_face: Callable[[int, int], Pixels], seed: int) -> None:
    one, other = make_face(0, 1), make_face(3, 2)
    found = blend(one, other, generator(seed, 0))
    assert (found.shape, found.dtype) == ((112, 112, 3), np.uint8)
    assert np.abs(found - slow_blend(one, other, seed)).max() <= 1  # rounding


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(0, 255), st.integers(0, 255))
def test_every_pixel_lies_between_its_two(seed: int, low: int, high: int) -> None:
    low, high = sorted((low, high))
    found = blend(np.full((112, 112, 3), low, np.uint8), np.full((112, 112, 3), high, np.uint8), generator(seed, 1))
    assert low <= found.min()
    assert found.max() <= high


def test_blends_of_one_image_with_itself_are_that_image(make_face: Callable[[int, int], Pixels]) -> None:
    face = make_face(1, 1)
    face = np.ascontiguousarray(np.concatenate([face[:, :56], face[:, 55::-1]], 1))  # symmetric: mirroring is nothing
    for seed in range(5):
        assert np.abs(blend(face, face, generator(seed, 0)).astype(int) - face).max() <= 1


def constant(folder: Path, identity: str, value: int) -> None:
    (folder / identity).mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(folder / identity / f"{number}.png"), np.full((112, 112, 3), value, np.uint8))


def test_held_out_people_are_in_no_blend(tmp_path: Path) -> None:
    for identity in range(6):
        constant(tmp_path, f"{identity}", 0)
    faces = FaceSet([FolderFaces(tmp_path)])
    split = split_identities(faces, 0.3, seed=4)
    held = {faces.key(int(i)).split("/")[1] for i in split.held_out}
    assert held
    for identity in held:
        for number in range(2):
            path = tmp_path / identity / f"{number}.png"
            cv2.imwrite(str(path), np.full((112, 112, 3), 255, np.uint8))
    blends = BlendedFaces(FaceSet([FolderFaces(tmp_path)]), split.train, 50, 7)
    assert max(int(decode(blends.read(i), "blend").max()) for i in range(50)) == 0


def test_they_repeat_and_depend_on_everything_they_are_made_of(shared_faces: Path) -> None:
    faces = FaceSet([FolderFaces(shared_faces)])
    chosen = np.arange(len(faces))
    same = [BlendedFaces(faces, chosen, 20, 3) for _ in range(2)]
    assert [same[0].read(i) for i in range(20)] == [same[1].read(i) for i in reversed(range(20))][::-1]
    assert len({same[0].read(i) for i in range(20)}) == 20
    assert same[0].fingerprint() == same[1].fingerprint()
    assert same[0].labels.tolist() == [UNLABELLED] * 20
    assert len(same[0]) == 20
    others = [
        BlendedFaces(faces, chosen, 20, 4),
        BlendedFaces(faces, chosen[1:], 20, 3),
        BlendedFaces(faces, chosen, 9, 3),
    ]
    assert len({b.fingerprint() for b in [same[0], *others]}) == 4
    assert others[0].read(0) != same[0].read(0)


def test_a_corrupt_crop_is_named_and_one_image_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.jpg").write_bytes(b"no image")
    faces = FaceSet([FolderFaces(tmp_path)])
    with pytest.raises(BadImage, match=r"a/bad\.jpg"):
        BlendedFaces(faces, np.zeros(2, np.int64), 1, 0).read(0)
    with pytest.raises(InputError, match="blends: 1 training images"):
        BlendedFaces(faces, np.zeros(1, np.int64), 1, 0)
