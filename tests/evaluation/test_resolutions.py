"""Verification across resolutions, against one obvious loop over pairs; the plain protocol against `evaluate`."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobileface.data.degrade import at_side
from mobileface.data.images import decode
from mobileface.data.pairs import PairSet, contiguous_folds
from mobileface.embedders.contract import InputContract
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.evaluation.resolutions import cosines, embed_at, measure, parse_sides, strangers
from mobileface.evaluation.verification import evaluate

PEOPLE, EACH, PAIRS = 15, 5, 60
SIDES = [5, 16, 112]


class Grid:
    """The mean colours of 14 x 14 tiles, minus grey, the left ones counted twice: what it was fed is remembered."""

    path, dim, sha256, libraries = Path("grid.onnx"), 588, "ab" * 32, ("numpy",)

    def __init__(self) -> None:
        self.contract = InputContract()
        self.fed: list[np.ndarray] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert len(images) <= 64
        self.fed += list(images.copy())
        return np.stack([slow_embedding(image) for image in images]).astype(np.float32)


def slow_embedding(image: np.ndarray) -> np.ndarray:
    tiles = image.reshape(14, 8, 14, 8, 3).astype(np.float64).mean(axis=(1, 3)) - 127.5
    tiles[:, :7] *= 2
    return tiles.ravel()


def face(rng: np.random.Generator, own: np.ndarray) -> np.ndarray:
    """Fine detail of a person's own, (14, 14, 3), under coarse and fine noise: at 5 px little of it is left."""
    coarse = cv2.resize(rng.normal(0, 30, (2, 2, 3)), (112, 112), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(own + rng.normal(0, 45, own.shape), (112, 112), interpolation=cv2.INTER_NEAREST)
    return (127.5 + coarse + fine).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pairs() -> PairSet:
    """75 images of 15 people as PNG, 60 pairs in ten folds."""
    rng = np.random.default_rng(3)
    images = [face(rng, own) for own in rng.normal(0, 40, (PEOPLE, 14, 14, 3)) for _ in range(EACH)]
    first = rng.integers(0, len(images), PAIRS)
    same = np.arange(PAIRS) % 2 == 0
    shift = np.where(same, 0, rng.integers(1, PEOPLE, PAIRS) * EACH)
    second = (first // EACH * EACH + (first + 1) % EACH + shift) % len(images)
    return PairSet(
        name="toy",
        images=tuple(bytes(cv2.imencode(".png", image[..., ::-1])[1]) for image in images),
        keys=tuple(f"image {i}" for i in range(len(images))),
        first=first,
        second=second,
        same=same,
        fold=contiguous_folds(PAIRS),
        identity=np.repeat(np.arange(PEOPLE), EACH),
    )


@cache
def slow_unit(pairs: PairSet, i: int, side: int, flip: str) -> np.ndarray:
    image = at_side(decode(pairs.read(i), "x"), side)
    raw = slow_embedding(image) + (slow_embedding(image[:, ::-1]) if flip == "sum" else 0)
    return raw / np.linalg.norm(raw)


def slow_scores(pairs: PairSet, a: int, b: int, flip: str) -> np.ndarray:
    """The first image of each pair at side `a`, the second at `b`."""
    both = zip(pairs.first, pairs.second, strict=True)
    return np.array([slow_unit(pairs, i, a, flip) @ slow_unit(pairs, j, b, flip) for i, j in both])


def by(rows: list[dict[str, Any]], kind: str, side: int) -> dict[str, Any]:
    (row,) = [row for row in rows if (row["kind"], row["side"]) == (kind, side)]
    return row


@pytest.mark.parametrize("flip", ["sum", "none"])
def test_every_cell_is_that_of_the_obvious_loop(pairs: PairSet, flip: str) -> None:
    found = measure(Grid(), pairs, SIDES, flip)
    units = embed_at(Grid(), pairs, SIDES, flip)
    for i, a in enumerate(SIDES):
        for j, b in enumerate(SIDES):
            slow = slow_scores(pairs, a, b, flip)
            np.testing.assert_allclose(cosines(units[a], units[b], pairs), slow, atol=1e-6)
            assert found["matrix"][i][j] == sc.k_fold(slow, pairs.same, pairs.fold)[0].mean()
    assert min(map(min, found["matrix"])) < 0.7 < 0.85 < max(map(max, found["matrix"]))
    for at, side in enumerate(SIDES):
        assert by(found["rows"], "cross", side)["accuracy"] == found["matrix"][-1][at]
        assert by(found["rows"], "same", side)["accuracy"] == found["matrix"][at][at]
    assert len(found["rows"]) == 2 * len(SIDES)
    assert found["mean"]["same"] == pytest.approx(sum(found["matrix"][i][i] for i in range(3)) / 3)
    assert found["mean"]["cross"] == pytest.approx(sum(found["matrix"][-1]) / 3)


@pytest.mark.parametrize("kind", ["cross", "same"])
def test_the_measures_of_a_row(pairs: PairSet, kind: str) -> None:
    """AUC and TAR by counting pairs; FAR 1e-3 of 2,625 pairs of strangers lets two through, of twice as many five."""
    row = by(measure(Grid(), pairs, SIDES, "none")["rows"], kind, 5)
    a = 112 if kind == "cross" else 5
    slow = slow_scores(pairs, a, 5, "none")
    genuine, others = slow[pairs.same], slow[~pairs.same]
    assert row["auc"] == pytest.approx(np.mean(genuine[:, None] > others[None, :]))
    misses = [(np.mean(others >= t), np.mean(genuine < t)) for t in np.sort(slow)]
    assert min(max(both) for both in misses) + 0.02 > row["eer"] > max(min(both) for both in misses) - 0.02
    first = [slow_unit(pairs, i, a, "none") for i in range(len(pairs.images))]
    second = [slow_unit(pairs, i, 5, "none") for i in range(len(pairs.images))]
    person = pairs.identity
    assert person is not None
    places = [(i, j) for i in range(len(first)) for j in range(len(second)) if person[i] != person[j]]
    places = [(i, j) for i, j in places if i < j] if kind == "same" else places
    scores = sorted((float(first[i] @ second[j]) for i, j in places), reverse=True)
    assert row["tar_impostors"] == {"source": "all pairs", "pairs": len(scores)}
    assert len(scores) == (2625 if kind == "same" else 5250)
    assert row["tar"]["1e-3"] == np.mean(genuine > scores[2 if kind == "same" else 5] + 1e-7)
    hardest = [
        max(float(first[i] @ second[j]) for j in range(len(second)) if person[i] != person[j])
        for i in pairs.first[pairs.same]
    ]
    unmatched = row["unmatched"]
    assert unmatched["matched_mean"] == pytest.approx(genuine.mean(), abs=1e-6)
    assert unmatched["hardest_mean"] == pytest.approx(np.mean(hardest), abs=1e-6)
    assert unmatched["difference"] == pytest.approx(genuine.mean() - np.mean(hardest), abs=1e-6)
    assert sum(unmatched["histogram"]["matched"]) == sum(unmatched["histogram"]["hardest"]) == len(genuine)


@pytest.mark.parametrize("with_identity", [True, False])
@pytest.mark.parametrize("flip", ["sum", "none"])
def test_112_px_is_the_plain_protocol_to_the_last_bit(pairs: PairSet, flip: str, with_identity: bool) -> None:
    pairs = pairs if with_identity else replace(pairs, identity=None)
    plain = evaluate(Grid(), pairs, flip).result
    rows = measure(Grid(), pairs, SIDES, flip)["rows"]
    for kind in ("cross", "same"):
        row = by(rows, kind, 112)
        for key in ("accuracy", "std", "threshold", "eer", "auc", "roc"):
            assert row[key] == plain[key], key
        assert row["tar"]["1e-3"] == plain["tar"].get("1e-3")
    assert by(rows, "same", 112)["tar_impostors"] == by(rows, "cross", 112)["tar_impostors"] == plain["tar_impostors"]
    assert (plain["tar"].get("1e-3") is not None) == with_identity


def test_without_identities_strangers_are_those_of_the_list(pairs: PairSet) -> None:
    for row in measure(Grid(), replace(pairs, identity=None), SIDES, "none")["rows"]:
        assert row["tar_impostors"] == {"source": "list", "pairs": PAIRS // 2}
        assert row["tar"] == {"1e-3": None}  # 30 pairs cannot tell
        assert row["unmatched"] is None


@pytest.mark.parametrize("flip", ["sum", "none"])
def test_every_image_is_embedded_once_a_side(pairs: PairSet, flip: str) -> None:
    """As `at_side` makes it of the clean one, then mirrored; 75 images are two batches."""
    embedder, seen = Grid(), []
    embed_at(embedder, pairs, SIDES, flip, lambda done, total: seen.append((done, total)))
    sides = len(SIDES)
    assert seen == [(64 * side, 75 * sides) for side in range(1, sides + 1)] + [
        (64 * sides + 11 * side, 75 * sides) for side in range(1, sides + 1)
    ]
    wanted = []
    for i in range(len(pairs.images)):
        for side in SIDES:
            image = at_side(decode(pairs.read(i), "x"), side)
            wanted += [image.tobytes()] + ([image[:, ::-1].tobytes()] if flip == "sum" else [])
    assert sorted(image.tobytes() for image in embedder.fed) == sorted(wanted)


def test_an_image_that_does_not_decode_ends_it(pairs: PairSet) -> None:
    bad = replace(pairs, images=(b"bad", *pairs.images[1:]))
    with pytest.raises(InputError, match="toy: image 0: does not decode"):
        measure(Grid(), bad, SIDES, "none")


@st.composite
def galleries(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Small whole numbers, so that scores tie and are exact: first, second (N, 3), identity (N,), keep, block."""
    count = draw(st.integers(2, 12))
    whole = hnp.arrays(np.float32, (count, 3), elements=st.integers(-2, 2).map(float))
    people = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count).filter(lambda ids: len(set(ids)) > 1))
    return draw(whole), draw(whole), np.array(people), draw(st.integers(1, 30)), draw(st.integers(1, 40))


@given(galleries())
def test_strangers_are_never_the_same_person(case: tuple[np.ndarray, np.ndarray, np.ndarray, int, int]) -> None:
    first, second, person, keep, block = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sc, "BLOCK", block)
        highest, hardest = strangers(first, second, person, keep)
    count = range(len(first))
    scores = {(i, j): float(first[i] @ second[j]) for i in count for j in count if person[i] != person[j]}
    assert highest.tolist() == sorted(scores.values(), reverse=True)[:keep]
    assert hardest.tolist() == [max(score for (i, _), score in scores.items() if i == row) for row in count]


@pytest.mark.parametrize(
    ("text", "sides"),
    [("7,28", [7, 28, 112]), ("28, 7 ,28", [7, 28, 112]), ("112", [112]), ("1,111,112", [1, 111, 112])],
)
def test_sides(text: str, sides: list[int]) -> None:
    assert parse_sides(text) == sides


@pytest.mark.parametrize("text", ["", "0", "113", "-7", "7.5", "7;28", "7,,28", "seven", "7,x", "٧", "9999999"])
def test_sides_that_there_are_not(text: str) -> None:
    with pytest.raises(InputError, match=r"^--sides is .*, wanted whole numbers from 1 to 112 \(px\) such as 7,14,28$"):
        parse_sides(text)
