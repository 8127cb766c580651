"""Contact sheets: who is shown where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.cleaning.identities import KEEP, OTHER_DOMAIN, POOR_QUALITY, VERDICTS, WRONG_LABEL, Judged
from mobileface.cleaning.sheet import GAP, KEPT, LEGEND, PICKS, ROWS, Row, choose, draw, write_sheets
from mobileface.data.sheet import LINE, text_width

SIZE = 112


def judged(verdict: list[int], cosine: list[float] | None = None) -> Judged:
    count = len(verdict)
    cosines = np.zeros(count, np.float32) if cosine is None else np.array(cosine, np.float32)
    component = np.zeros(count, np.int64)
    return Judged(np.array(verdict), component, cosines, np.full(count, 16, np.float32), 16.0, 1.0, ())


def plain(i: int) -> NDArray[np.uint8]:
    """An image of one colour, another one for each index; red is the index."""
    return np.broadcast_to(np.array([i, 100, 200], np.uint8), (SIZE, SIZE, 3))


def test_rows_hold_the_first_kept_and_the_least_similar_picks() -> None:
    verdict = [KEEP, WRONG_LABEL, KEEP, WRONG_LABEL, KEEP, KEEP, KEEP, WRONG_LABEL, POOR_QUALITY]
    found = judged(verdict, [0.9, 0.3, 0.9, -0.1, 0.9, 0.9, 0.9, 0.2, 0.1])
    rows = choose(found, np.zeros(9, np.int64), WRONG_LABEL, "person {}".format)
    assert rows == [Row("person 0", [0, 2, 4, 5], [3, 7, 1], 0)]


def test_identities_with_the_most_picks_come_first_and_their_number_is_bounded() -> None:
    labels = np.repeat(np.arange(ROWS + 5), 3)
    verdict = [POOR_QUALITY, KEEP, KEEP] * (ROWS + 4) + [POOR_QUALITY] * 3
    rows = choose(judged(verdict), labels, POOR_QUALITY, str)
    assert [row.title for row in rows] == [str(ROWS + 4), *map(str, range(ROWS - 1))]
    assert choose(judged(verdict), labels, WRONG_LABEL, str) == []


def test_what_has_no_place_is_counted() -> None:
    (row,) = choose(judged([WRONG_LABEL] * (PICKS + 3)), np.zeros(PICKS + 3, np.int64), WRONG_LABEL, str)
    assert (row.picks, row.hidden) == (list(range(PICKS)), 3)


def test_images_stand_where_they_should_with_text_around_them() -> None:
    rows = [Row("one", [1, 2], [3], 0), Row("caf\udce9\n", [], [4, 5, 6], 7)]
    whole = draw(rows, judged([KEEP] * 7), "{}.jpg".format, plain, "what is where")
    height = 3 * LINE + SIZE
    assert (whole[:LINE] == whole[:LINE, :, :1]).all()
    assert whole[:LINE].min() < 128  # the legend
    sheet = whole[LINE:]
    assert sheet.shape == (2 * height, KEPT * SIZE + GAP + 3 * SIZE, 3)
    expected = {(0, 0): 1, (0, SIZE): 2}
    expected |= {(0, KEPT * SIZE + GAP): 3}
    expected |= {(1, KEPT * SIZE + GAP + i * SIZE): 4 + i for i in range(3)}
    rest = np.ones(sheet.shape[:2], bool)
    for (row, left), image in expected.items():
        area = slice(row * height + LINE, row * height + LINE + SIZE), slice(left, left + SIZE)
        assert (sheet[area] == plain(image)).all()
        rest[area] = False
        for line in range(2):  # its numbers, its file
            top = row * height + SIZE + (1 + line) * LINE
            assert sheet[top : top + LINE, area[1]].min() < 128
    assert (sheet[rest] == sheet[rest][:, :1]).all()  # grey only
    for row in range(2):
        assert sheet[row * height : row * height + LINE].min() < 128  # the title
        assert (sheet[row * height + LINE : (row + 1) * height, KEPT * SIZE : KEPT * SIZE + GAP] == 255).all()
    assert (sheet[height + LINE :, : KEPT * SIZE] == 255).all()  # nobody was kept


def test_only_what_is_shown_is_read_and_old_sheets_go(tmp_path: Path) -> None:
    seen: list[int] = []

    def read(i: int) -> NDArray[np.uint8]:
        seen.append(i)
        return plain(i)

    found = judged([KEEP] * 10 + [WRONG_LABEL])
    (tmp_path / "poor-quality.png").write_bytes(b"of another day")
    (tmp_path / "keep.png").write_bytes(b"not ours")
    written = write_sheets(tmp_path, found, np.zeros(11, np.int64), str, str, read)
    assert sorted(seen) == [0, 1, 2, 3, 10]
    assert written == [tmp_path / "wrong-label.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep.png", "wrong-label.png"]
    image = cv2.imread(str(written[0]), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    rows, legend = [Row("0", [0, 1, 2, 3], [10], 0)], LEGEND.format("wrong-label")
    np.testing.assert_array_equal(image, draw(rows, found, str, plain, legend))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_legend_fits_the_narrowest_sheet(verdict: str) -> None:
    assert text_width(LEGEND.format(verdict)) <= KEPT * SIZE + GAP + SIZE - 2


@pytest.mark.parametrize("verdict", [WRONG_LABEL, OTHER_DOMAIN])
def test_each_verdict_has_its_own_sheet(tmp_path: Path, verdict: int) -> None:
    (path,) = write_sheets(tmp_path, judged([KEEP, verdict]), np.zeros(2, np.int64), str, str, plain)
    assert path.stem == {WRONG_LABEL: "wrong-label", OTHER_DOMAIN: "other-domain"}[verdict]
