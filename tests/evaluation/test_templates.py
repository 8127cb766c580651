"""Templates by hand: each choice of weights, empty ones, scores of pairs, and the rates against other code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mobileface.data.searches import Members
from mobileface.errors import InputError
from mobileface.evaluation import templates
from mobileface.evaluation.identification import NO_SCORE
from mobileface.evaluation.templates import Fusion, described, fuse, pair_scores, parse_fusion, verify

# template 0: two frames of video 7 and a still; template 1: empty; template 2: one image that template 0 has as well
RAW = np.array([(6, 0), (0, 2), (0, 3)], np.float32)
MEMBERS = Members(
    count=3,
    image=np.array([2, 0, 1, 2]),
    template=np.array([2, 0, 0, 0]),
    media=np.array([9, 7, 7, 9]),
    detector=np.array([0.5, 1.0, 1.0], np.float32),
)


@pytest.mark.parametrize(
    ("fusion", "wanted"),
    [
        (Fusion(True, False, True), (3, 1 + 3)),  # the mean of (6, 0) and (0, 2), plus (0, 3)
        (Fusion(True, True, True), (1.5, 1 + 3)),  # (6, 0) counts half
        (Fusion(False, False, True), (0.5, 0.5 + 1)),  # unit vectors
        (Fusion(False, True, True), (0.25, 0.5 + 1)),
        (Fusion(True, False, False), (6, 2 + 3)),  # all images alike
        (Fusion(False, True, False), (0.5, 2)),
    ],
)
def test_fusion_by_hand(fusion: Fusion, wanted: tuple[float, float]) -> None:
    units = fuse(RAW, MEMBERS, fusion)
    np.testing.assert_allclose(units[0], np.array(wanted) / np.hypot(*wanted), rtol=1e-6)
    np.testing.assert_array_equal(units[1], (0, 0))  # empty
    np.testing.assert_allclose(units[2], (0, 1))


def test_what_a_set_does_not_ship_is_not_used() -> None:
    plain = Members(1, np.array([0, 1]), np.array([0, 0]))
    np.testing.assert_allclose(fuse(RAW, plain)[0], np.array((6, 2)) / np.hypot(6, 2), rtol=1e-6)
    assert described(Fusion(), plain, "none") == {
        "variant": "N1D0F1", "norm_weighted": True, "detector_weighted": False, "media_averaged": False,
    }  # fmt: skip
    assert described(Fusion(norm_weighted=False), MEMBERS, "sum")["variant"] == "N0D1F2"


def test_images_that_sum_to_nothing_are_named() -> None:
    pair = Members(1, np.array([0, 1]), np.array([0, 0]))
    with pytest.raises(InputError, match="template 0: its 2 images sum to nothing"):
        fuse(np.array([(1, 2), (-1, -2)], np.float32), pair)
    dark = Members(1, np.array([0]), np.array([0]), detector=np.array([0.0], np.float32))
    with pytest.raises(InputError, match="the detector's score of each is 0"):
        fuse(RAW[:1], dark)
    with pytest.raises(InputError, match="1 of 2 embeddings are all zero"):
        fuse(np.array([(1, 2), (0, 0)], np.float32), pair)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("N1D1", Fusion()), ("N0D1", Fusion(False, True, True)), ("N1D0M0", Fusion(True, False, False))],
)
def test_fusion_has_a_name(text: str, wanted: Fusion) -> None:
    assert parse_fusion(text) == wanted


@pytest.mark.parametrize("text", ["", "N2D1", "D1N1", "N1D1F2", "n1d1"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=r"--templates is .*wanted N0 or N1"):
        parse_fusion(text)


def test_pairs_with_an_empty_template_score_below_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "PAIRS", 2)  # three blocks
    units = np.array([(1, 0), (0, 0), (-1, 0), (0.6, 0.8)], np.float32)
    first, second = np.array([0, 0, 1, 0, 3]), np.array([1, 2, 1, 3, 0])
    np.testing.assert_allclose(pair_scores(units, first, second), [NO_SCORE, -1, NO_SCORE, 0.6, 0.6], rtol=1e-6)


def test_rates_by_hand() -> None:
    """Ten impostors 0.0 … 0.9; genuine 0.95, 0.85, 0.85 and an empty one."""
    scores = np.array([*np.arange(10) / 10, 0.95, 0.85, 0.85, NO_SCORE])
    found = verify(scores, np.arange(14) >= 10)
    assert found["tar"] == {"1e-1": 0.75}  # one impostor, 0.9, may pass: the threshold is just above 0.8
    assert found["tar_impostors"] == {"source": "list", "pairs": 10}
    # InsightFace's reading: FPR is 0 for 0.25 of them; at FPR 0.1 the ROC has 0.25 (at 0.9) and 0.75 (at 0.85)
    assert found["tpr_nearest"] == {"1e-6": 0.25, "1e-5": 0.25, "1e-4": 0.25, "1e-3": 0.25, "1e-2": 0.25, "1e-1": 0.75}


def test_a_tie_at_the_threshold_is_rejected() -> None:
    scores = np.array([0.9, 0.9, *np.zeros(8), 0.9, 0.95])  # two impostors tie; one may pass
    found = verify(scores, np.arange(12) >= 10)
    assert found["tar"] == {"1e-1": 0.5}
    assert found["tpr_nearest"]["1e-1"] == 1.0  # FPR 0 (0.5) and 0.2 (1.0) are as near: the last is read


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60))
@example([(4, True), (4, False), (3, True), (3, False), *[(0, False)] * 8, (2, True), (2, True)])  # begins with a slope
def test_the_nearest_point_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores = np.array([score / 4 for score, _ in pairs])
    same = np.array([kind for _, kind in pairs])
    if same.all() or not same.any():
        return
    fpr, tpr, _ = metrics.roc_curve(same, scores)
    fpr, tpr = fpr[::-1], tpr[::-1]  # the last of equally near points, as InsightFace's script does
    found = verify(scores, same)
    for name, far in templates.FARS.items():
        assert found["tpr_nearest"][name] == pytest.approx(tpr[np.argmin(np.abs(fpr - far))])
