"""Reading what a log says of norm and quality: rows that are there, rows that are not what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobileface.training.watch import LEVELS
from mobileface.understanding import page
from mobileface.understanding.watched import read_watched

SETTINGS = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20
)  # each draws up to five plots


def row(images: float, step: float = 0.0) -> dict[str, Any]:
    """A row as a training writes it; `step` moves its numbers."""
    return {
        "event": "quality",
        "images": images,
        **{f"{kind}_{name}": 0.1 + step for kind in ("resolution", "blur") for name in ("norm", "probability")},
        "levels": [
            {"kind": kind, "px": px, "norm": 5.0 + step, "norm_std": 1.0, "probability": 0.5, "probability_std": 0.1}
            for kind, px in LEVELS
        ],
        "tracked": {
            "norm": [[5.0 + step + i] * len(LEVELS) for i in range(3)],
            "probability": [[0.5] * len(LEVELS)] * 3,
        },
    }


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in rows))
    return path


def test_what_a_training_wrote(tmp_path: Path) -> None:
    others = [{"event": "step", "images": 50, "loss": 1.0}, {"event": "phase", "images": 100, "name": "two"}]
    found = read_watched(write(tmp_path / "log.jsonl", [row(100), *others, row(200, 0.25)]))
    assert found is not None
    assert found["images"] == [100, 200]
    assert found["edges"] == [0, 100, 200]
    assert found["correlations"]["blur"] == {"norm": [0.1, 0.35], "probability": [0.1, 0.35]}
    assert found["levels"][0]["norm"] == 5.25  # of the last row
    assert found["tracked"]["norm"][1][2] == [7.25] * len(LEVELS)
    assert [plot["title"] for plot in page.watched("w", found)["plots"]] == [
        "Correlation with resolution",
        "Correlation with blur",
        "Feature norm by quality",
        "Probability of the own class by quality",
        "Ways of single images",
    ]


def test_without_rows_there_is_nothing(tmp_path: Path) -> None:
    assert read_watched(tmp_path / "log.jsonl") is None
    assert read_watched(write(tmp_path / "log.jsonl", [{"event": "step", "images": 4}])) is None


def test_norms_alone(tmp_path: Path) -> None:
    """A phase without a classifier: no probability in its rows."""
    lean = row(100)
    lean = {key: value for key, value in lean.items() if "probability" not in key}
    lean["levels"] = [{k: v for k, v in level.items() if "probability" not in k} for level in lean["levels"]]
    del lean["tracked"]["probability"]
    found = read_watched(write(tmp_path / "log.jsonl", [lean]))
    assert found is not None
    plots = page.watched("w", found)["plots"]
    assert len(plots) == 3
    assert all("robability" not in plot["title"] and len(plot["legend"]) <= 2 for plot in plots)


@pytest.mark.parametrize("key", ["levels", "tracked", "blur_norm"])
def test_a_row_with_a_part_missing(key: str, tmp_path: Path) -> None:
    broken = {name: value for name, value in row(100).items() if name != key}
    found = read_watched(write(tmp_path / "log.jsonl", [row(50), broken]))
    assert found is not None
    assert page.watched("w", found)["plots"]


junk: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


hostile = st.dictionaries(st.sampled_from(sorted(row(0))), junk, min_size=1)


@given(changes=hostile, place=st.integers(0, 2))
@SETTINGS
def test_no_row_can_break_the_reader(changes: dict[str, Any], place: int, tmp_path: Path) -> None:
    """What is read is plain finite numbers, and as many of them as the page counts on."""
    rows = [row(100), row(200), row(300)]
    rows[place] |= changes
    found = read_watched(write(tmp_path / "log.jsonl", rows))
    assert found is not None
    json.dumps(found, allow_nan=False)
    lengths = {len(values) for kind in found["correlations"].values() for values in kind.values()}
    assert lengths == {len(found["images"])}
    for tracked in found["tracked"].values():
        assert len(tracked) in (0, len(found["images"]))
        assert len({(len(table), *map(len, table)) for table in tracked}) <= 1


@pytest.mark.slow
@given(changes=hostile)
@settings(SETTINGS, max_examples=20)  # each draws five plots
def test_no_row_can_break_the_page(changes: dict[str, Any], tmp_path: Path) -> None:
    found = read_watched(write(tmp_path / "log.jsonl", [row(100), row(200) | changes]))
    assert found is not None
    assert page.watched("w", found)["plots"]


@given(content=st.binary(max_size=300))
@SETTINGS
def test_no_bytes_can_break_the_reader(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    assert read_watched(tmp_path / "log.jsonl") is None
