"""Several sources as one set, and its split: against slow loops and by invariants."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobileface.data.faces import UNLABELLED, FaceSource
from mobileface.data.faceset import FaceSet, split_identities
from mobileface.errors import InputError


@dataclass
class Listed:
    """A source in memory: image `i` of source "s" is the bytes b"s:i"."""

    name: str
    owners: list[int]
    labels: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.array(self.owners, np.int64)

    def __len__(self) -> int:
        return len(self.owners)

    def read(self, i: int) -> bytes:
        return f"{self.name}:{i}".encode()

    def key(self, i: int) -> str:
        return f"{self.name}/{i}"

    def fingerprint(self) -> str:
        return f"{self.name}{self.owners}"


def test_sources_follow_each_other_and_share_no_identity() -> None:
    sources: list[FaceSource] = [Listed("a", [0, 1, 1]), Listed("b", [-1, -1]), Listed("c", [0, 0, -1, 1])]
    faces = FaceSet(sources)
    assert faces.labels.tolist() == [0, 1, 1, -1, -1, 2, 2, -1, 3]
    assert (len(faces), faces.num_identities) == (9, 4)
    wanted = [(source.name, j) for source in sources for j in range(len(source))]
    assert [(source.name, j) for source, j in map(faces.locate, range(9))] == wanted
    assert [faces.read(i) for i in range(9)] == [f"{name}:{j}".encode() for name, j in wanted]
    assert [faces.key(i) for i in range(9)] == [f"{name}/{j}" for name, j in wanted]


def test_no_sources() -> None:
    with pytest.raises(InputError, match=r"data\.train is empty"):
        FaceSet([])


def test_the_hash_knows_the_sources_and_their_order() -> None:
    one, two = Listed("a", [0, 1]), Listed("b", [0, 1])
    hashes = {FaceSet(sources).fingerprint() for sources in ([one], [two], [one, two], [two, one])}
    assert len(hashes) == 4
    assert FaceSet([one, two]).fingerprint() in hashes


@given(
    st.lists(st.integers(-1, 12), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.9]),
    st.integers(0, 2**32 - 1),
)
def test_split(owners: list[int], fraction: float, seed: int) -> None:
    """Labels may have gaps; identities of one image are never held out."""
    faces = FaceSet([Listed("a", owners)])
    images = Counter(owner for owner in owners if owner != UNLABELLED)
    candidates = [owner for owner, count in images.items() if count >= 2]
    count = max(2, round(fraction * len(candidates))) if fraction else 0
    if count and len(candidates) - count < 2:
        few = f"{len(candidates)} of {len(images)} identities have two images or more; wanted four"
        wanted = few if len(candidates) < 4 else f"holds out {count} of {len(candidates)} identities"
        wanted = wanted if images else "images has a label"
        with pytest.raises(InputError, match=wanted):
            split_identities(faces, fraction, seed)
        return
    split = split_identities(faces, fraction, seed)
    assert sorted([*split.train, *split.held_out]) == list(range(len(owners)))
    out = {owners[i] for i in split.held_out}
    kept = {owners[i] for i in split.train}
    assert len(out) == count
    assert out <= set(candidates)
    assert not out & kept
    pairs = {(owners[i], int(split.classes[i])) for i in split.train}
    assert len(pairs) == len(kept)  # one class for each identity
    known = sorted(pair for pair in pairs if pair[0] != UNLABELLED)
    assert [number for _, number in known] == list(range(split.num_classes))
    assert all(number == UNLABELLED for owner, number in pairs if owner == UNLABELLED)
    assert (split.classes[split.held_out] == UNLABELLED).all()
    again = split_identities(faces, fraction, seed)
    np.testing.assert_array_equal(again.held_out, split.held_out)


def test_another_seed_holds_out_others() -> None:
    faces = FaceSet([Listed("a", [i // 2 for i in range(200)])])
    outs = {tuple(split_identities(faces, 0.1, seed).held_out) for seed in range(5)}
    assert len(outs) == 5


def test_the_message_says_how_to_turn_validation_off() -> None:
    faces = FaceSet([Listed("a", [0, 0, 1, 1, 2])])
    with pytest.raises(InputError, match=r"2 of 3 identities have two .* data\.validate\.identities: 0, which turns"):
        split_identities(faces, 0.02, 0)
    assert split_identities(faces, 0, 0).train.tolist() == [0, 1, 2, 3, 4]


def test_where_nobody_has_a_label_labelled_is_named() -> None:
    faces = FaceSet([Listed("a", [-1] * 5)])
    with pytest.raises(InputError, match=r"^none of 5 training images has a label \(labelled: false\)"):
        split_identities(faces, 0.02, 0)
    assert split_identities(faces, 0, 0).train.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("fraction", "least", "words"),
    [
        (0.02, 50, "data.min_images 50 leaves 0 of 5 identities (most images of one: 5); wanted four or more"),
        (0.02, 4, "data.min_images 4 leaves 2 of 5 identities (most images of one: 5); wanted four or more"),
        (0.0, 6, "data.min_images 6 leaves 0 of 5 identities (most images of one: 5); wanted at least one to train on"),
    ],
)
def test_where_min_images_leaves_too_few_it_is_named(fraction: float, least: int, words: str) -> None:
    faces = FaceSet([Listed("a", [owner for owner, count in enumerate([5, 5, 2, 2, 2]) for _ in range(count)])])
    with pytest.raises(InputError) as caught:
        split_identities(faces, fraction, 0, least)
    assert str(caught.value).startswith(words)
    assert len(split_identities(faces, fraction, 0, 2).train)


@given(
    counts=st.lists(st.integers(1, 6), min_size=5, max_size=12),
    least=st.integers(1, 6),
    fraction=st.sampled_from([0.0, 0.2]),
)
def test_the_long_tail_is_in_neither(counts: list[int], least: int, fraction: float) -> None:
    owners = [owner for owner, count in enumerate(counts) for _ in range(count)] + [UNLABELLED] * 2
    kept = [count for count in counts if count >= least]
    faces = FaceSet([Listed("a", owners)])
    if not kept or (fraction and len([count for count in kept if count >= 2]) < 4):
        with pytest.raises(InputError, match=r"data\.(min_images|validate)"):
            split_identities(faces, fraction, 0, least)
        return
    split = split_identities(faces, fraction, 0, least)
    used = [owners[i] for i in [*split.train, *split.held_out]]
    assert sorted(set(used)) == sorted({owner for owner, n in enumerate(counts) if n >= least} | {UNLABELLED})
    assert split.long_tail == sum(count for count in counts if count < least)
    assert len(used) + split.long_tail == len(owners)
    assert split.num_classes == len(kept) - len({owners[i] for i in split.held_out})
