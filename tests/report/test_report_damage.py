"""Damaged and hostile files of a run: named, survived or left out, and never able to break the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.report import html, read
from mobileface.report.html import write_report
from tests.report.page import Page, assert_self_contained


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'{"name": "x"', "not readable as JSON"),
        (b"[1, 2]", "found a JSON list, want an object"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": "' + b"x" * 5000 + b'"}', "larger than 4096 bytes"),
        (b'{"a": ' + b"9" * 4500 + b"}", "larger than 4096 bytes"),
    ],
)
def test_damaged_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, wanted: str) -> None:
    monkeypatch.setattr(read, "JSON_LIMIT", 4096 if len(content) < 10_000 else 1 << 20)
    (tmp_path / "report.html").write_text("the old one")
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(InputError, match=wanted) as caught:
        write_report(tmp_path)
    assert str(tmp_path / "card.json") in str(caught.value)
    assert (tmp_path / "report.html").read_text() == "the old one"


def test_log_is_thinned_and_survives_damage(tmp_path: Path) -> None:
    rows = [json.dumps({"event": "step", "images": i, "loss": 1.0}) for i in range(9_001)]
    rows[5000:5000] = [
        "\x00\xff not JSON",
        "[]",
        json.dumps({"event": "resume"}),
        json.dumps({"event": "novel"}),
    ]
    path = tmp_path / "log.jsonl"
    path.write_bytes("\n".join(rows).encode() + b'\n{"event": "step", "images": 9')
    log = read.read_log(path)
    assert (log.rows, log.resumed, log.damaged) == (9_001, 1, 2)
    images = [row["images"] for row in log.steps]
    assert 500 < len(images) <= read.LOG_POINTS
    assert images[0] == 0
    assert images[-1] == 9_000
    assert set(np.diff(images)[:-1]) == {np.diff(images)[0]}


@given(st.integers(0, 300), st.integers(2, 20))
def test_thinned_keeps_first_and_last_within_the_limit(rows: int, limit: int) -> None:
    thinned = read.Thinned(limit)
    for i in range(rows):
        thinned.add({"i": i})
    kept = [row["i"] for row in thinned.rows()]
    assert len(kept) <= limit
    assert kept == sorted(set(kept))
    assert kept[:1] == list(range(rows))[:1]
    assert kept[-1:] == list(range(rows))[-1:]


def test_values_that_are_not_finite_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [
        '{"event": "step", "images": 1, "loss": NaN, "terms": {"arc": Infinity}}',
        '{"event": "step", "images": 2, "loss": 1e999, "terms": 3}',
        '{"event": "step", "images": 3, "loss": 2.0, "terms": {"arc": 2.0}, "lr": "0.1"}',
        '{"event": "step", "images": "4", "loss": 2.0}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(rows) + "\n")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "2 logged steps hold a value that is not a finite number" in page.text
    assert page.tags.count("svg") == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "name", "created", "budget", "data", "teacher", "training", "versions", "results", "per_stage", "fits",
    "sources", "skipped", "set", "stage", "grid", "macs", "flops_lfrc", "contract", "parity", "batches",
    "tolerance", "passed", "accuracy", "tar", "rule", "bytes", "over", "phases", "losses", "folds", "std",
    "unfinished", "identities", "images", "train_images", "held_out_images",
]  # fmt: skip
OBJECTS = st.dictionaries(
    st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5), max_size=8
)


@settings(max_examples=40, deadline=None)
@given(OBJECTS, OBJECTS, OBJECTS, st.text(st.characters(exclude_categories=()), max_size=200))
def test_no_content_of_the_files_breaks_the_page(
    card: dict[str, Any], result: dict[str, Any], export: dict[str, Any], plan: str
) -> None:
    files = read.RunFiles(
        Path("run"),
        card,
        plan,
        None,
        {plan: {"network": result, "onnx": export}},
        {plan: result},
        {"onnx": export},
    )
    rendered = html.render(files)
    rendered.encode("utf-8")  # no lone surrogate is left
    assert_self_contained(Page(rendered))
