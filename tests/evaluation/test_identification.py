"""Identification by hand and against a slow loop: ties, probes with no mate, empty templates, two galleries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data.faces import UNLABELLED
from mobileface.data.searches import Search
from mobileface.errors import InputError
from mobileface.evaluation import scores as sc
from mobileface.evaluation.identification import NEVER, NO_SCORE, cmc, identify, search, tpir

X, Y, Z = (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)  # Z is an empty template
NEAR = (0.6, 0.8)  # 0.6 to X, 0.8 to Y
FAR = (0.8, 0.6)


def units(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


def people(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_ranks_by_hand() -> None:
    """Person 1 is Y. Of the entries 2: 0.8 -> the mate (1.0) is first; 3 looks for its mate behind two strangers."""
    found = search(units(Y, X), people(1, 3), units(Y, NEAR, FAR, Y), people(1, 2, 4, 3))
    assert found.mated.tolist() == [True, True]
    # probe 1: its mate scores 1, as does entry 3 of a stranger: the tie is lost. Probe 3: its mate 0, ahead 0.6, 0.8, 0
    assert found.rank.tolist() == [2, 4]
    np.testing.assert_allclose(found.mate, [1.0, 0.0])
    np.testing.assert_allclose(found.stranger, [1.0, 0.8], rtol=1e-6)
    assert cmc(found, 5) == [0.0, 0.5, 0.5, 1.0, 1.0]


def test_the_best_of_several_mates_counts() -> None:
    found = search(units(X), people(1), units(Y, FAR, NEAR), people(1, 1, 2))
    assert found.rank.tolist() == [1]
    np.testing.assert_allclose(found.mate, [0.8], rtol=1e-6)


def test_distractors_are_nobodys_mate() -> None:
    found = search(units(X, X), people(UNLABELLED, 1), units(X, NEAR), people(UNLABELLED, 1))
    assert found.mated.tolist() == [False, True]
    assert found.rank.tolist() == [0, 2]


def test_probes_with_no_mate_are_left_out_of_the_closed_set() -> None:
    found = search(units(X, X, Y), people(1, 7, 8), units(X), people(1))
    assert cmc(found, 1) == [1.0]
    assert cmc(search(units(X), people(7), units(X), people(1)), 3) == []
    assert tpir(search(units(X), people(7), units(X), people(1)), {"1e-1": 0.1}) == {}


def test_empty_templates_find_nobody_and_are_found_by_nobody() -> None:
    gallery, owners = units(X, Z), people(1, 2)
    found = search(units(Z, Y, Z), people(1, 2, 9), gallery, owners)
    assert found.mated.tolist() == [True, True, False]
    assert found.rank.tolist() == [NEVER, NEVER, 0]
    assert found.mate.tolist() == [NO_SCORE, NO_SCORE, NO_SCORE]
    assert found.stranger[2] == NO_SCORE  # an empty probe is no false alarm
    assert cmc(found, 9) == [0.0] * 9  # at no rank, not even beyond the gallery of two


@pytest.mark.parametrize("size", [2, 7, 101])
@pytest.mark.parametrize("probes", [1, 3, 26])
def test_equal_entries_tie_whatever_the_rounding(size: int, probes: int) -> None:
    """A matrix product may round equal columns unequally; the mate, wherever it stands, ties with all and is last."""
    rng = np.random.default_rng(0)
    entry, *asked = (row / np.linalg.norm(row) for row in rng.normal(size=(1 + probes, 128)).astype(np.float32))
    for mate in (0, size // 2, size - 1):
        owners = np.where(np.arange(size) == mate, 1, 2)
        found = search(np.array(asked), people(*[1] * probes), np.repeat(entry[None], size, axis=0), owners)
        assert found.rank.tolist() == [size] * probes
        np.testing.assert_array_equal(found.mate, found.stranger)


def test_open_set_by_hand() -> None:
    """Ten probes with no mate score 0.8 once and 0 nine times. FPIR 0.1 lets one through: the threshold is above 0."""
    strangers = [NEAR] + [X] * 9
    mates = units(Y, FAR, NEAR, X)  # scores to the entry Y: 1, 0.6, 0.8, 0
    probes = np.concatenate([units(*strangers), mates])
    owners = people(*range(10, 20), 1, 1, 1, 1)
    found = search(probes, owners, units(Y), people(1))
    assert tpir(found, {"1e-1": 0.1, "2e-1": 0.2, "1e-2": 0.01}) == {"1e-1": 0.75, "2e-1": 0.75}


def test_at_the_threshold_ties_keep_the_fpir() -> None:
    """Two strangers of ten tie at 0.8: at FPIR 0.1 neither may pass, so a mate with 0.8 is lost as well."""
    probes = units(*[NEAR] * 2, *[X] * 8, Y, NEAR)
    found = search(probes, people(*range(10, 20), 1, 1), units(Y), people(1))
    assert tpir(found, {"1e-1": 0.1, "2e-1": 0.2}) == {"1e-1": 0.5, "2e-1": 1.0}


def test_a_mate_behind_a_stranger_is_not_identified() -> None:
    """The mate passes the threshold, but another person scores higher: rank 2."""
    probes = units(*[X] * 10, NEAR)
    found = search(probes, people(*range(10, 20), 1), units(Y, NEAR), people(1, 2))
    assert found.rank[-1] == 2
    assert tpir(found, {"1e-1": 0.1}) == {"1e-1": 0.0}


def test_two_galleries_joined_or_averaged() -> None:
    """Probe 1 is at X, its mate in the first gallery; probe 2 at Y has its mate, NEAR, in the second, where Y is 3."""
    all_units, owners = units(X, Y, X, NEAR, Y), people(1, 2, 1, 2, 3)
    one = Search("s", people(0, 1), (people(2), people(3, 4)))
    averaged = identify(all_units, owners, one, (1, 2), {}, joined=False)
    assert averaged["rank"] == {"1": 0.5, "2": 1.0}  # 1 of 1 in the first, 0 of 1 in the second
    assert averaged["mated"] == [1, 1]
    joined = identify(all_units, owners, one, (1, 2), {}, joined=True)
    assert joined["rank"] == {"1": 0.5, "2": 1.0}  # 1 of 2
    assert joined["mated"] == [2]
    assert joined["unmated"] == averaged["unmated"] == [1, 1]  # of each gallery alone: the open set's
    both_in_one = Search("s", people(0, 1), (people(2, 3), people(4)))
    assert identify(all_units, owners, both_in_one, (1,), {}, joined=False)["rank"] == {"1": 1.0}  # the other has none
    assert identify(all_units, owners, both_in_one, (1,), {}, joined=True)["rank"] == {"1": 0.5}


def test_tpir_is_the_mean_of_two_galleries() -> None:
    """Gallery 1 holds Y of person 1, gallery 2 NEAR of person 2. At FPIR 0.1 one probe with no mate may pass in each.

    Gallery 1: of the others person 2 scores 1, the ten 0: the threshold is above 0, person 1's 1 and 0.6 are found.
    Gallery 2: person 1 scores 0.96 and 0.8, the ten 0.6: the threshold is above 0.8, person 2's 0.8 is not found.
    """
    rows = units(*[X] * 10, Y, FAR, Y, Y, NEAR)
    owners = people(*range(10, 20), 1, 1, 2, 1, 2)
    one = Search("s", np.arange(13), (people(13), people(14)))
    found = identify(rows, owners, one, (1,), {"1e-1": 0.1}, joined=True)
    assert found["unmated"] == [11, 12]
    assert found["tpir"] == {"1e-1": 0.5}


def test_an_entry_of_both_galleries_counts_once() -> None:
    rows, owners = units(X, X, X), people(1, 2, 1)
    found = identify(rows, owners, Search("s", people(0), (people(1, 2), people(1))), (1, 2), {}, joined=True)
    assert found["rank"] == {"1": 0.0, "2": 1.0}  # one stranger ties


def test_nothing_to_search() -> None:
    with pytest.raises(InputError, match="found 1 probes and a gallery of 0"):
        search(units(X), people(1), units()[:0].reshape(0, 2), people())


halves = st.sampled_from([-0.5, 0.5])
vector = st.one_of(st.tuples(halves, halves, halves, halves), st.just((0.0, 0.0, 0.0, 0.0)))
entry = st.tuples(vector, st.integers(-1, 3))


@given(st.lists(entry, min_size=1, max_size=12), st.lists(entry, min_size=1, max_size=12), st.integers(1, 30))
def test_against_a_slow_loop(probes: list, gallery: list, block: int) -> None:
    """Dot products of these vectors are exact multiples of 1/4: ties abound, and are the same in float32."""

    def score(a: tuple, b: tuple) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) if any(a) and any(b) else NO_SCORE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sc, "BLOCK", block)
        columns = [(units(*(v for v, _ in side)), people(*(who for _, who in side))) for side in (probes, gallery)]
        found = search(*columns[0], *columns[1])
    for p, (v, who) in enumerate(probes):
        mates = [score(v, w) for w, other in gallery if other == who != UNLABELLED]
        others = [score(v, w) for w, other in gallery if not other == who != UNLABELLED]
        assert found.mated[p] == bool(mates)
        assert found.stranger[p] == max(others, default=NO_SCORE)
        if not mates:
            assert (found.rank[p], found.mate[p]) == (0, NO_SCORE)
            continue
        best = max(mates)
        assert found.mate[p] == best
        # its place when all entries stand in a row by score, strangers first where they tie
        row = sorted([(-s, 0) for s in others] + [(-s, 1) for s in mates])
        place = next(i for i, (_, mate) in enumerate(row, start=1) if mate)
        assert found.rank[p] == (place if best > NO_SCORE else NEVER)
    unmated = [found.stranger[p] for p in range(len(probes)) if not found.mated[p]]
    for name, rate in tpir(found, {"0.3": 0.3, "0.5": 0.5}).items():
        allowed = int(float(name) * len(unmated))
        limits = [t for t in (*np.arange(-2, 1.01, 0.125), 2) if sum(s >= t for s in unmated) <= allowed]
        hits = [found.rank[p] == 1 and found.mate[p] >= min(limits) for p in range(len(probes)) if found.mated[p]]
        assert rate == pytest.approx(np.mean(hits))
