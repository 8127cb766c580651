"""What is written on contact sheets."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data.images import SIZE
from mobileface.data.sheet import LINE, Cell, draw_rows, fitted, text_width

GREY = np.full((SIZE, SIZE, 3), 127, np.uint8)


@given(st.text(max_size=60), st.integers(30, 200))
def test_fitted_text_is_the_end_of_the_name_and_as_long_as_can_be(text: str, width: int) -> None:
    found = fitted(text, width)
    assert found.isascii()
    assert found.isprintable()
    assert text_width(found) <= width
    whole = fitted(text, 100_000)
    assert found == whole or (found.startswith("..") and whole.endswith(found[2:]) and text_width(whole) > width)
    if found != whole:
        one_more = ".." + whole[len(whole) - len(found[2:]) - 1 :]
        assert text_width(one_more) > width


def test_short_names_stay() -> None:
    assert fitted("0001.jpg") == "0001.jpg"
    assert fitted("é\n.jpg", 200) == "\\xe9\\n.jpg"
    assert fitted("Aaron_Eckhart_0001.jpg").endswith("_0001.jpg")


@pytest.mark.parametrize("text", ["", "0001.jpg", "mmmmmm"])
def test_text_is_drawn_as_wide_as_it_is_said_to_be(text: str) -> None:
    sheet = np.zeros((40, 400), np.uint8)
    cv2.putText(sheet, text, (0, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255,), 1, cv2.LINE_AA)
    drawn = np.flatnonzero(sheet.max(axis=0))
    assert len(drawn) == 0 or drawn[-1] <= text_width(text) + 1


def test_rows_are_as_high_as_the_longest_caption_and_the_legend_stands_above_them() -> None:
    rows = [("a", [Cell(0, GREY, "one")]), ("b", [Cell(0, GREY, "one\ntwo"), Cell(SIZE, GREY, "")])]
    bare, sheet = draw_rows(rows), draw_rows(rows, "legend")
    height = 3 * LINE + SIZE
    assert bare.shape == (2 * height, 2 * SIZE, 3)
    np.testing.assert_array_equal(sheet[LINE:], bare)
    assert sheet[:LINE].min() < 128
    second = slice(height + SIZE + 2 * LINE, 2 * height)
    assert bare[second, :SIZE].min() < 128
    assert (bare[second, SIZE:] == 255).all()
    assert (bare[SIZE + 2 * LINE : height] == 255).all()  # row a has no second line
    assert len(draw_rows(rows[:1])) == 2 * LINE + SIZE
