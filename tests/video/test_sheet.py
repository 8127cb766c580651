"""Which frames a sheet shows, and what is red."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.data.images import SIZE, BadImage
from mobileface.data.sheet import LINE
from mobileface.video import sheet
from mobileface.video.clean import Cleaned
from mobileface.video.sheet import BORDER, FRAMES, LEGEND, RED, Most, Shown, Strip, write_sheets


def cleaned(component: list[int]) -> Cleaned:
    numbers = np.arange(len(component), dtype=np.float32)
    return Cleaned(np.array(component), numbers, numbers / 100, np.zeros((1, 2), np.float32))


def grey(frame: str) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 3), int(frame.split("/")[1]), np.uint8)


def frames(count: int) -> list[str]:
    return [f"v/{i}" for i in range(count)]


@pytest.mark.parametrize(
    ("kept", "noise", "shown"),
    [(3, 2, (3, 2)), (100, 3, (11, 3)), (100, 50, (7, 7)), (2, 50, (2, 12)), (1, 0, None), (30, 1, (13, 1))],
)
def test_both_kinds_are_shown_in_their_order(kept: int, noise: int, shown: tuple[int, int] | None) -> None:
    component = np.random.default_rng(kept).permutation([0] * kept + [1] * noise).tolist()
    most = Most()
    most.take("v", frames(kept + noise), cleaned(component))
    if shown is None:
        assert most.strips() == []
        return
    (strip,) = most.strips()
    assert strip.title == f"v: {noise} of {kept + noise} frames are noise"
    numbers = [int(one.frame.split("/")[1]) for one in strip.frames]
    assert numbers == sorted(set(numbers))
    assert [one.noise for one in strip.frames] == [component[i] > 0 for i in numbers]
    assert (sum(not one.noise for one in strip.frames), sum(one.noise for one in strip.frames)) == shown
    assert len(strip.frames) <= FRAMES
    i = numbers[-1]
    assert strip.frames[-1].caption == f"{i / 100:.2f} n {i:.1f} c {component[i]}\n{i}"


def test_the_videos_with_the_most_noise_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "VIDEOS", 3)
    most = Most()
    for name, noise in (("a", 1), ("b", 5), ("c", 0), ("d", 2), ("e", 2), ("f", 5), ("g", 1)):
        most.take(name, frames(6 + noise), cleaned([0] * 6 + [1] * noise))
    assert [strip.title.split(":")[0] for strip in most.strips()] == ["b", "f", "d"]


def test_noise_is_framed_in_red_and_nothing_else_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "ROWS", 2)
    (tmp_path / "noise-9.png").write_bytes(b"of another day")
    (tmp_path / "other.png").write_bytes(b"not ours")

    def read(frame: str) -> NDArray[np.uint8]:
        if frame == "v/99":
            raise BadImage("gone")
        return grey(frame)

    strips = [
        Strip(name, [Shown("v/40", False, "k"), Shown("v/80", True, "n"), Shown("v/99", True, "g")]) for name in "abc"
    ]
    written = write_sheets(tmp_path, strips, read)
    assert [path.name for path in written] == ["noise-1.png", "noise-2.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise-1.png", "noise-2.png", "other.png"]
    for path, rows in zip(written, (2, 1), strict=True):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        assert image is not None
        red = (image == RED).all(axis=2)
        expected = np.zeros_like(red)
        for row in range(rows):
            top = LINE + row * (SIZE + 2 * LINE) + LINE
            for place, value in ((1, 80), (2, sheet.GONE)):
                left = place * SIZE
                expected[top : top + SIZE, left : left + SIZE] = True
                inside = slice(top + BORDER, top + SIZE - BORDER), slice(left + BORDER, left + SIZE - BORDER)
                expected[inside] = False
                assert (image[inside] == value).all()
            assert (image[top : top + SIZE, :SIZE] == 40).all()
        np.testing.assert_array_equal(red, expected)


def test_no_noise_is_no_sheet(tmp_path: Path) -> None:
    (tmp_path / "noise-1.png").write_bytes(b"of another day")
    assert write_sheets(tmp_path, [], grey) == []
    assert list(tmp_path.iterdir()) == []


def test_the_legend_fits_a_sheet_of_some_frames() -> None:
    from mobileface.data.sheet import text_width

    assert text_width(LEGEND) <= 7 * SIZE
