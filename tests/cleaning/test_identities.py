"""Verdicts against a slow reading of the rules, and each rule on a set made for it."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobileface.cleaning.identities import DEFAULTS, VERDICTS, Misfiled, Settings, identities, judge
from mobileface.errors import InputError

Raw = NDArray[np.float32]
Labels = NDArray[np.int64]

DIM = 16


def image(axis: int, norm: float = 16.0, tilt: int | None = None) -> list[float]:
    """Raw sum of an image and its mirror image: along `axis`, or halfway between it and `tilt`."""
    vector = np.zeros(DIM)
    vector[axis] = 1
    if tilt is not None:
        vector[tilt] = 1
    return list(2 * norm * vector / np.linalg.norm(vector))


def verdicts(rows: list[list[float]], labels: list[int], chosen: Settings = DEFAULTS) -> list[str]:
    judged = judge(np.array(rows, np.float32), np.array(labels), chosen)
    return [VERDICTS[v] for v in judged.verdict]


def crowd(count: int = 20, axis: int = 15) -> list[list[float]]:
    """One person of norms 15 to 17: median 16, deviation about 0.74. Poor: below 14.1 joined, below 14.9 alone."""
    return [image(axis, 15 + 2 * i / (count - 1)) for i in range(count)]


def test_a_stranger_is_a_wrong_label_and_so_is_his_photograph_twice() -> None:
    rows = [*crowd(), *[image(0)] * 4, image(1)]
    assert verdicts(rows, [9] * 20 + [0] * 5) == ["keep"] * 24 + ["wrong-label"]
    rows += [image(1)]
    assert verdicts(rows, [9] * 20 + [0] * 6) == ["keep"] * 24 + ["wrong-label"] * 2


def test_three_who_agree_are_another_domain_until_another_identity_looks_like_them() -> None:
    rows = [*crowd(), *[image(0)] * 4, *[image(1)] * 3]
    labels = [9] * 20 + [0] * 7
    assert verdicts(rows, labels) == ["keep"] * 24 + ["other-domain"] * 3
    assert verdicts(rows, labels, Settings(component=4)) == ["keep"] * 24 + ["wrong-label"] * 3
    rows, labels = [*rows, *[image(1)] * 3], labels + [5] * 3
    judged = judge(np.array(rows, np.float32), np.array(labels))
    assert [VERDICTS[v] for v in judged.verdict[20:]] == ["keep"] * 4 + ["wrong-label"] * 3 + ["keep"] * 3
    (series,) = judged.misfiled
    assert series == Misfiled(label=0, component=1, images=3, person=5, cosine=series.cosine)
    assert series.cosine == pytest.approx(1)


def test_a_series_nearer_to_its_own_person_is_not_misfiled() -> None:
    own, series, other = image(0), image(1), image(2)
    blend = np.array(own) * 0.35 + np.array(series) + np.array(other) * 0.3  # cosine to own 0.32, to other 0.27
    rows = [*crowd(), *[own] * 4, *[list(blend)] * 3, *[other] * 3]
    assert verdicts(rows, [9] * 20 + [0] * 7 + [5] * 3)[24:27] == ["other-domain"] * 3


def test_the_long_tail_is_no_person_to_be_misfiled_under() -> None:
    rows = [*crowd(), *[image(0)] * 4, *[image(1)] * 3, *[image(1)] * 2]
    labels = [9] * 20 + [0] * 7 + [5] * 2
    assert verdicts(rows, labels)[24:] == ["other-domain"] * 3 + ["long-tail"] * 2


def test_low_norms_are_poor_sooner_when_nothing_agrees_with_them() -> None:
    alone = [image(1, 14.5), image(1, 14.5), image(2, 15.5)]
    found = verdicts([*crowd(200), image(15, 14.5), image(15, 13.5), *alone], [9] * 205)
    assert found[200:] == ["keep", "poor-quality", "poor-quality", "poor-quality", "wrong-label"]
    agreeing = [image(1, 14.5), image(1, 14.5), image(1, 13.5), image(1, 16)]  # the teacher can read them
    found = verdicts([*crowd(200), *agreeing], [9] * 204)
    assert found[200:] == ["other-domain", "other-domain", "poor-quality", "other-domain"]


def test_a_misfiled_series_keeps_its_poor_images_poor() -> None:
    rows = [*crowd(), *[image(0)] * 4, *[image(1)] * 3, image(1, 13.0), *[image(1)] * 3]
    found = verdicts(rows, [9] * 20 + [0] * 8 + [5] * 3)
    assert found[24:28] == ["wrong-label"] * 3 + ["poor-quality"]


def test_equal_norms_make_nothing_poor() -> None:
    rows = [image(0)] * 6 + [image(0, 15.9), image(1, 15.9)]
    assert verdicts(rows, [0] * 8) == ["keep"] * 7 + ["wrong-label"]


def test_the_long_tail_is_cut_before_and_after() -> None:
    rows = [*crowd(), *[image(0)] * 2, *[image(1)] * 3, *[image(2)] * 2, image(3)]
    labels = [9] * 20 + [0] * 2 + [1] * 3 + [2] * 3
    assert verdicts(rows, labels)[20:] == ["long-tail"] * 2 + ["keep"] * 3 + ["long-tail"] * 2 + ["wrong-label"]
    assert verdicts(rows, labels, Settings(least=1))[20:] == ["keep"] * 7 + ["wrong-label"]
    assert verdicts(rows, labels, Settings(least=4))[20:] == ["long-tail"] * 8


def test_ties_go_to_the_higher_norm_then_to_the_earliest() -> None:
    rows = [image(0, 16), image(1, 16.5), image(1, 16.5), image(0, 16)]
    judged = judge(np.array(rows, np.float32), np.zeros(4, np.int64), Settings(least=1))
    assert judged.component.tolist() == [1, 0, 0, 1]
    judged = judge(np.array([image(1), image(0), image(0), image(1)], np.float32), np.zeros(4, np.int64))
    assert judged.component.tolist() == [0, 1, 1, 0]


def test_cosine_and_norm() -> None:
    rows = [image(0), image(0, 17, tilt=1), image(0, 15), image(2, 16)]
    judged = judge(np.array(rows, np.float32), np.zeros(4, np.int64))
    centre = np.array([2 + math.sqrt(0.5), math.sqrt(0.5)])
    centre /= np.linalg.norm(centre)
    expected = [centre[0], centre.sum() * math.sqrt(0.5), centre[0], 0]
    np.testing.assert_allclose(judged.cosine, expected, atol=1e-6)
    np.testing.assert_allclose(judged.norm, [16, 17, 15, 16], rtol=1e-6)
    assert judged.median == pytest.approx(16)
    assert judged.deviation == pytest.approx(1.4826 * 0.5)


def slow_judge(raw: Raw, labels: Labels, chosen: Settings) -> tuple[list[str], list[int]]:
    """The rules read one image at a time: verdicts and component numbers."""
    vectors = [[float(x) for x in row] for row in raw]
    norms = [math.sqrt(math.fsum(x * x for x in row)) / 2 for row in vectors]
    median = statistics.median(norms)
    deviation = 1.4826 * statistics.median(abs(n - median) for n in norms)

    def cosine(i: int, j: int) -> float:
        return math.fsum(a * b for a, b in zip(vectors[i], vectors[j], strict=True)) / (4 * norms[i] * norms[j])

    def mean_cosine(some: list[int], others: list[int]) -> float:
        return statistics.fmean(cosine(i, j) for i in some for j in others)

    groups: dict[int, list[list[int]]] = {}
    for label in sorted(set(labels.tolist())):
        members = [i for i in range(len(raw)) if labels[i] == label]
        found: list[list[int]] = []
        for i in members:
            near = [group for group in found if any(cosine(i, j) >= chosen.threshold for j in group)]
            found = [group for group in found if group not in near] + [sorted(sum(near, [i]))]
        groups[label] = sorted(found, key=lambda g: (-len(g), -statistics.fmean(norms[i] for i in g), g[0]))
    persons = {label: g[0] for label, g in groups.items() if sum(map(len, g)) >= chosen.least}
    verdict, component = [""] * len(raw), [0] * len(raw)
    for label, found in groups.items():
        for number, group in enumerate(found):
            large = number == 0 or len(group) >= chosen.component
            reason = "keep" if number == 0 else "other-domain" if large else "wrong-label"
            if reason == "other-domain" and label in persons:
                similar = {person: mean_cosine(group, images) for person, images in persons.items()}
                best = max(similar, key=lambda person: similar[person])
                if best != label and similar[best] >= chosen.threshold:
                    reason = "wrong-label"
            for i in group:
                component[i] = number
                level = median - (chosen.poor_joined if large else chosen.poor_alone) * deviation
                verdict[i] = "poor-quality" if norms[i] < level else reason
        members = [i for group in found for i in group]
        if len(members) < chosen.least:
            for i in members:
                verdict[i] = "long-tail"
        kept = [i for i in members if verdict[i] == "keep"]
        if len(kept) < chosen.least:
            for i in kept:
                verdict[i] = "long-tail"
    return verdict, component


@given(
    st.integers(0, 2**32 - 1),
    st.integers(10, 60),
    st.integers(1, 4),
    st.floats(0.1, 0.9),
    st.integers(1, 5),
    st.integers(2, 5),
    st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)).map(sorted),
)
@settings(deadline=None, max_examples=80)
def test_verdicts_are_those_of_the_rules_read_slowly(
    seed: int, count: int, persons: int, threshold: float, least: int, component: int, poor: list[float]
) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(persons + 2, 6))  # two of them are nobody's own
    who = rng.integers(0, persons + 2, count)
    right = (who < persons) & (rng.random(count) < 0.7)
    labels = np.where(right, who, rng.integers(0, persons, count)).astype(np.int64)
    directions = centres[who] + rng.choice([0.2, 0.8]) * rng.normal(size=(count, 6))
    lengths = rng.gamma(8, 4, count)[:, None]
    raw = (lengths * directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    chosen = Settings(threshold, least, component, poor_joined=poor[1], poor_alone=poor[0])
    judged = judge(raw, labels, chosen)
    expected, number = slow_judge(raw, labels, chosen)
    assert judged.component.tolist() == number
    assert [VERDICTS[v] for v in judged.verdict] == expected
    twice = judge(raw * 4, labels, chosen)  # the teacher's scale says nothing
    assert twice.verdict.tolist() == judged.verdict.tolist()


def test_identities_are_groups_in_order() -> None:
    assert [group.tolist() for group in identities(np.array([3, 0, 3, 7, 0]))] == [[1, 4], [0, 2], [3]]
    assert identities(np.array([], np.int64)) == []


def test_an_empty_set() -> None:
    judged = judge(np.empty((0, 4), np.float32), np.array([], np.int64))
    assert judged.verdict.tolist() == []


@pytest.mark.parametrize(
    ("raw", "labels", "text"),
    [
        (np.ones((3, 4)), [0, 0], r"embeddings are \(3, 4\) and labels \(2,\); wanted \(N, D\) and \(N,\)"),
        (np.ones(3), [0, 0, 0], r"embeddings are \(3,\)"),
        (np.ones((3, 4)), [0, 0, -1], r"image 2 has a label below 0; wanted labelled images only"),
        (np.diag([1.0, 0.0]), [0, 0], r"embedding 1 has length 0; wanted above 0 and finite"),
        (np.diag([1.0, np.nan]), [0, 0], r"embedding 1 has length nan"),
        (np.diag([np.inf, 1.0]), [0, 0], r"embedding 0 has length inf"),
    ],
)
def test_what_cannot_be_judged(raw: NDArray[np.float64], labels: list[int], text: str) -> None:
    with pytest.raises(InputError, match=text):
        judge(raw.astype(np.float32), np.array(labels))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"threshold": 1.5}, r"threshold is 1\.5; wanted a cosine, -1 to 1"),
        ({"threshold": math.nan}, r"threshold is nan"),
        ({"least": 0}, r"least is 0; wanted 1 image or more"),
        ({"component": 1}, r"component is 1; wanted 2 images or more"),
        ({"poor_alone": -0.1}, r"poor_alone is -0\.1"),
        ({"poor_alone": 3.0}, r"poor_alone is 3 and poor_joined 2\.5; wanted 0 <= poor_alone <= poor_joined"),
        ({"poor_joined": math.inf}, r"finite"),
        ({"poor_joined": math.nan}, r"poor_joined nan"),
    ],
)
def test_settings_out_of_range(values: dict[str, float], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Settings(**values)  # type: ignore[arg-type]
