"""Whole photographs against Pillow: orientation, limits; upright views against `align` and an average over areas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from mobileface.data import photos
from mobileface.data.align import TEMPLATE, align, similarity
from mobileface.data.images import BadImage
from mobileface.data.photos import read_photo, view

Pixels = NDArray[np.uint8]


def scene(width: int, height: int) -> Pixels:
    """Smooth, with another colour in every corner."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([255 * x, 255 * y, 120 + 60 * np.sin(9 * x + 4 * y)], 2).astype(np.uint8)


def saved(pixels: Pixels, path: Path, orientation: int = 1, **options: Any) -> Path:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(pixels).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_upright(tmp_path: Path, name: str, orientation: int) -> None:
    path = saved(scene(90, 60), tmp_path / name, orientation)
    with Pillow.open(path) as opened:
        wanted = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    found, factor = read_photo(path, "a")
    assert factor == 1
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape == ((60, 90, 3) if orientation < 5 else (90, 60, 3))
    assert np.abs(found - wanted).max() <= 4  # two decoders of JPEG and of WebP


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff and no more")
    with pytest.raises(BadImage, match=r"^x/bad\.jpg: does not decode as an image$"):
        read_photo(tmp_path / "bad.jpg", "x/bad.jpg")
    with pytest.raises(BadImage, match=r"^gone: cannot be read \(No such file or directory\)$"):
        read_photo(tmp_path / "gone.jpg", "gone")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(BadImage, match=r"^empty: holds 0 bytes, wanted a photograph of 1 to"):
        read_photo(tmp_path / "empty.jpg", "empty")
    monkeypatch.setattr(photos, "MAX_PHOTO_BYTES", 10)
    monkeypatch.setattr(photos.cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(BadImage, match=r"^large: holds more, wanted a photograph of 1 to 10 bytes$"):
        read_photo(tmp_path / "bad.jpg", "large")
    os.mkfifo(tmp_path / "pipe.jpg")  # to open it would wait for its writer
    with pytest.raises(BadImage, match=r"^pipe: is no regular file$"):
        read_photo(tmp_path / "pipe.jpg", "pipe")


def test_what_opencv_thinks_of_a_tiff_is_not_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Pillow.fromarray(np.ones((20, 30), np.float32)).save(tmp_path / "a.tiff")  # no picture
    with pytest.raises(BadImage, match="does not decode as an image"):
        read_photo(tmp_path / "a.tiff", "a")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
def test_tiffs_of_any_colours(tmp_path: Path, mode: str) -> None:
    image = Pillow.fromarray(scene(90, 60)).convert(mode)
    image.save(tmp_path / "a.tiff", compression=None if mode == "P" else "tiff_lzw")
    found, _ = read_photo(tmp_path / "a.tiff", "a")
    np.testing.assert_array_equal(found, image.convert("RGB"))


@pytest.mark.parametrize("cut", [0.3, 0.9])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_half_a_file_is_no_photograph(tmp_path: Path, name: str, cut: float) -> None:
    path = saved(scene(200, 150), tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(BadImage, match="does not decode"):
        read_photo(path, name)


def test_beyond_the_limit_of_pixels_a_jpeg_is_read_at_half_its_size(tmp_path: Path) -> None:
    """In a process of its own: OpenCV reads its limit once."""
    pixels = scene(200, 150)
    for name, width in (("whole.jpg", 130), ("half.jpg", 200), ("far.jpg", 900), ("wide.png", 200)):
        saved(scene(width, 150), tmp_path / name, 6, quality=95)
    code = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from mobileface.data.photos import BadImage, read_photo\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.*g')):\n"
        "    try: numpy.savez(path.with_suffix('.npz'), *read_photo(path, path.name))\n"
        "    except BadImage as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True,
        env={**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": "20000"},
    )  # fmt: skip
    refused = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in refused] == ["far.jpg", "wide.png"]
    assert all("does not decode as an image (" in line for line in refused)
    (whole, one), (half, two) = (np.load(tmp_path / f"{name}.npz").values() for name in ("whole", "half"))
    assert (whole.shape, one, two) == ((130, 150, 3), 1, 2)
    assert half.shape == (100, 75, 3)  # turned as well
    wanted = np.rot90(pixels, -1).reshape(100, 2, 75, 2, 3).mean((1, 3))
    assert np.abs(half - wanted).mean() < 2


# ---- views


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 1.99), st.floats(-180, 180), st.floats(-60, 60))
def test_a_view_of_about_its_size_is_what_align_cuts(scale: float, degrees: float, shift: float) -> None:
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = (TEMPLATE - 56) @ turn.T + (130 + shift, 110)
    photo = scene(260, 220)
    found, wanted = view(photo, similarity(landmarks), 112).astype(int), align(photo, landmarks)
    assert np.abs(found - wanted).max() <= 1  # px are counted from another one: some halves are rounded otherwise
    assert np.abs(found - wanted).mean() < 0.02


@pytest.mark.parametrize("factor", [4, 8])
def test_a_view_far_smaller_than_the_photograph_does_not_alias(factor: int) -> None:
    """Noise, shrunk without a turn, against the mean over each pixel's area; `align` picks single pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (112 * factor, 112 * factor, 3), dtype=np.uint8)
    centre = (factor - 1) / 2  # of the first pixel's area
    matrix = np.array([[1 / factor, 0, -centre / factor], [0, 1 / factor, -centre / factor]])
    wanted = noise.reshape(112, factor, 112, factor, 3).mean((1, 3))
    found = view(noise, matrix, 112).astype(float)
    plain = align(noise, (TEMPLATE - matrix[:, 2]) * factor).astype(float)
    inner = slice(2, -2)
    error = np.abs(found - wanted)[inner, inner].mean()
    assert error < 4
    assert np.abs(plain - wanted)[inner, inner].mean() > 5 * error


@pytest.mark.parametrize("scale", [2.5, 6.0, 13.0])
def test_a_view_lies_where_it_should_at_any_scale(scale: float) -> None:
    """A smooth picture, turned: the view's pixels are the picture's colours at the places they come from."""
    side = 900
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    picture = np.stack([x / 4, y / 4, (x + y) / 8], 2)
    angle = np.radians(20)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([np.linalg.inv(turn), -np.linalg.inv(turn) @ (450 - turn @ (50, 50))])
    found = view(np.rint(picture).clip(0, 255).astype(np.uint8), matrix, 100)
    for row in range(5, 100, 15):
        for column in range(5, 100, 15):
            u, v = turn @ (column - 50, row - 50) + 450
            if 10 < u < side - 10 and 10 < v < side - 10:
                np.testing.assert_allclose(found[row, column], (u / 4, v / 4, (u + v) / 8), atol=1.2)


def test_a_photograph_that_shrinks_below_a_pixel() -> None:
    found = view(np.full((1, 1, 3), 9, np.uint8), np.array([[0.01, 0, 5], [0, 0.01, 5]]), 20)
    assert found.shape == (20, 20, 3)
    assert found.max() <= 9


@pytest.mark.parametrize("left", [100, 32_700, 39_000, 66_000])
def test_a_view_anywhere_in_a_panorama(left: int) -> None:
    """Wider than the 32,767 px that OpenCV 4 warps: a slice of it, and one at a third of the size."""
    x = np.arange(70_000)
    wide = np.repeat(np.stack([128 + 100 * np.sin(x / 30), 0 * x, (x - left) % 256], 1).astype(np.uint8)[None], 112, 0)
    wide[..., 1] = 2 * np.arange(112)[:, None]
    for photo, top_left in ((wide, (left, 0)), (np.ascontiguousarray(wide.swapaxes(0, 1)), (0, left))):
        matrix = np.column_stack([np.eye(2), np.negative(top_left)])
        rows, columns = (slice(start, start + 112) for start in top_left[::-1])
        np.testing.assert_array_equal(view(photo, matrix, 112), photo[rows, columns])
        matrix = np.column_stack([np.eye(2) / 3, np.negative(top_left) / 3])
        rows, columns = (slice(start + 6, start + 106, 3) for start in top_left[::-1])
        found = view(photo, matrix, 40)[2:36, 2:36].astype(int)
        assert np.abs(found - photo[rows, columns]).max() <= 2


def test_only_what_is_needed_is_warped(monkeypatch: pytest.MonkeyPatch) -> None:
    warp, shapes = photos.cv2.warpAffine, []

    def warped(photo: Pixels, *rest: Any, **options: Any) -> Any:
        shapes.append(photo.shape)
        return warp(photo, *rest, **options)

    monkeypatch.setattr(photos.cv2, "warpAffine", warped)
    photo = np.full((1500, 4000, 3), 200, np.uint8)
    for scale in (0.1, 0.45, 1.0, 3.0):
        found = view(photo, np.array([[scale, 0, -scale * 1500], [0, scale, -scale * 200]]), 112)
        assert found.min() == 200
    assert max(max(shape) for shape in shapes) < 300
    assert not view(photo, np.array([[1.0, 0, 5000], [0, 1, 0]]), 112).any()  # beside the photograph
    assert len(shapes) == 4
