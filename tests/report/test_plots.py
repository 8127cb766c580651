"""The report's plots: means, axes, curves of few points, colours."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.report import plots


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 20))
def test_running_mean_against_a_slow_loop(values: list[float], width: int) -> None:
    half = width // 2
    slow = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(plots.running_mean(np.array(values), width), slow, atol=1e-6)


def test_far_axis_is_logarithmic() -> None:
    svg = plots.roc("r", [([0.0, 1e-4, 1e-2, 1.0], [0.1, 0.5, 0.9, 1.0])])
    root = ElementTree.fromstring(svg)
    labels = ("1 in 10,000", "1 in 1,000", "1 in 100")
    ticks = [next(float(e.get("x", "")) for e in root.iter("text") if e.text == label) for label in labels]
    assert ticks[1] - ticks[0] == pytest.approx(ticks[2] - ticks[1], abs=0.1)
    assert ticks[1] - ticks[0] > 30


@pytest.mark.parametrize("points", [1, 2, 3])
def test_curves_of_few_points_are_drawn(points: int) -> None:
    some = [1.0] * points
    assert plots.training_curve("a", list(range(points)), some).startswith("<svg")
    assert plots.validation_curve("b", [(list(range(points)), some)]).startswith("<svg")
    assert plots.roc("c", [([0.0] * points, some)]).startswith("<svg")
    assert plots.histogram("d", list(range(points + 1)), [0] * points, [0] * points, None).startswith("<svg")


def test_colours_come_from_the_style_sheet() -> None:
    svg = plots.histogram("h", [0, 0.5, 1], [1, 2], [2, 1], 0.4)
    style = (Path(plots.__file__).parent / "style.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\((--[a-z]+)\)", svg))
    assert {"--first", "--second", "--ink"} <= used
    assert all(f"{name}:" in style for name in used)
    assert not re.findall(r"#0[0-9a-f]{5}\b", svg)
    for scheme in ("prefers-color-scheme: dark", "@media print"):
        assert all(f"{name}:" in style[style.index(scheme) :] for name in used)
