"""Counts by hand, pairs one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.errors import InputError
from mobileface.video import sweep
from mobileface.video.clean import Cleaned
from mobileface.video.sweep import Row, read_labels, removal, table, verify
from mobileface.video.tracks import Videos


def cleaned(component: list[int], feature: list[float]) -> Cleaned:
    count = np.zeros(len(component), np.float32)
    return Cleaned(np.array(component, np.int64), count, count, np.array([feature], np.float32))


def people(count: int, persons: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    who = rng.integers(0, persons, count)
    raw = rng.normal(size=(persons, 6))[who] + 0.9 * rng.normal(size=(count, 6))
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32), who


def by_pairs(units: NDArray[np.float32], who: NDArray[np.int64]) -> tuple[list[float], list[float]]:
    genuine: list[float] = []
    impostors: list[float] = []
    for i, j in itertools.combinations(range(len(units)), 2):
        (genuine if who[i] == who[j] else impostors).append(float(units[i] @ units[j]))
    return genuine, impostors


def test_a_row_counts_frames_and_marks() -> None:
    row = Row(0.4)
    row.take(cleaned([0, 0, 1, 2], [1, 0]), ["", "blur", "blur", "other"], False)
    row.take(cleaned([0, 1], [0, 1]), ["", ""], False)
    found = row.result(None)
    assert (found["threshold"], found["kept"], found["noise"]) == (0.4, 3, 3)
    assert found["removal"] == {
        "precision": 2 / 3,  # two of the three that went are noise
        "recall": 2 / 3,  # of three that are
        "recall_by_kind": {"blur": 0.5, "other": 1.0},
    }
    assert "verification" not in found


def test_nothing_removed_has_no_precision_and_no_noise_no_recall() -> None:
    assert removal(Counter(), Counter({"": 2, "blur": 1})) == {
        "precision": None,
        "recall": 0,
        "recall_by_kind": {"blur": 0},
    }
    assert removal(Counter({"": 1}), Counter({"": 2})) == {"precision": 0, "recall": None, "recall_by_kind": {}}


def test_verification_is_that_of_all_pairs() -> None:
    units, who = people(70, 12)
    genuine, impostors = by_pairs(units, who)
    found = verify(units, who)
    assert (found["genuine"], found["impostors"], found["left_out"]) == (len(genuine), len(impostors), 0)
    wins = sum((g > i) + (g == i) / 2 for g in genuine for i in impostors)
    assert found["auc"] == pytest.approx(wins / len(genuine) / len(impostors), abs=1e-6)
    assert list(found["tar"]) == ["1e-2", "1e-3"]  # 1e-4 of these impostors is less than one
    for far, name in ((1e-2, "1e-2"), (1e-3, "1e-3")):
        limit = sorted(impostors, reverse=True)[int(far * len(impostors))]
        assert found["tar"][name] == pytest.approx(np.mean([g > limit for g in genuine]))


def test_many_videos_have_no_auc_and_the_same_tar_at_the_lowest_far(monkeypatch: pytest.MonkeyPatch) -> None:
    units, who = people(220, 12)
    exact = verify(units, who)
    assert list(exact["tar"]) == ["1e-2", "1e-3", "1e-4"]
    monkeypatch.setattr(sweep, "MAX_EXACT", 69)
    found = verify(units, who)
    assert found["auc"] is None
    assert found["tar"] == {"1e-4": exact["tar"]["1e-4"]}


def test_videos_without_a_feature_are_left_out_and_counted() -> None:
    units, who = people(30, 5)
    holes = np.concatenate([units, np.zeros((2, 6), np.float32)])
    found = verify(holes, np.concatenate([who, [0, 1]]))
    assert found == {**verify(units, who), "left_out": 2}


def test_labels_that_make_no_pair() -> None:
    with pytest.raises(InputError, match=r"labels: 0 pairs of videos of one person, 3 of two; wanted at least one"):
        verify(np.eye(3, dtype=np.float32), np.arange(3))
    with pytest.raises(InputError, match=r"labels: 3 pairs of videos of one person, 0 of two"):
        verify(np.eye(3, dtype=np.float32), np.zeros(3, np.int64))


def named(folder: Path, *names: str) -> Videos:
    return Videos(folder, list(names), lambda: iter(()))


def test_labels_with_and_without_a_header(tmp_path: Path) -> None:
    path, videos = tmp_path / "labels.tsv", named(tmp_path, "a", "b", "c", "d")
    path.write_text("clip\tidentity\tn\na\tAnn\t3\nother\tZoe\t1\n# d\tAnn\nb\tAnn\r\n\nc\tBob\n")
    assert read_labels(path, videos) == {"a": 0, "b": 0, "c": 1}
    path.write_text("a\tAnn\nc\tBob\nb\tBob\n")
    assert read_labels(path, videos) == {"a": 0, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a\tAnn\na\tBob\n", r"line 2 names 'a' again"),
        ("a\tAnn\nb\n", r"line 2 is 'b'; wanted a video, a tab, an identity"),
        ("a\t\n", r"line 1 is 'a\\t'"),
        ("x\tAnn\ny\tBob\n", r"names none of the 2 videos"),
        ("", r"names none of the 2 videos"),
        ("a\tAnn\nb\tBob\nx\tAnn\n", r"names 2 of the videos, of 2 identities; wanted two of one and one of another"),
        ("a\tAnn\nb\tAnn\nx\tBob\n", r"names 2 of the videos, of 1 identities"),
    ],
)
def test_bad_labels_are_named_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "labels.tsv").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_labels(tmp_path / "labels.tsv", named(tmp_path, "a", "b"))


def test_the_table_has_a_line_for_each_row() -> None:
    plain = {"threshold": None, "kept": 1234, "noise": 0}
    assert table([plain]) == ["  threshold   kept  noise", "no cleaning  1,234      0"]
    full = {
        "threshold": 0.4,
        "kept": 5,
        "noise": 1,
        "removal": {"precision": 1.0, "recall": None},
        "verification": {"auc": None, "tar": {"1e-2": 0.5}},
    }
    assert table([full]) == [
        "threshold  kept  noise  precision  recall  AUC  TAR@1e-2",
        "      0.4     5      1     1.0000       -    -    0.5000",
    ]
