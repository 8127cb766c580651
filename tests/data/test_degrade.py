"""Degradations against Pillow, slow sums over pixels, and definitions."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from mobileface.data.augment import apply, generator
from mobileface.data.degrade import at_side, blurred_along, jpeg, motion_blur, rectangle, resized_crop, resolution
from mobileface.training.plan_views import NAMED, Views, steps
from tests.strategies import examples

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def image() -> Pixels:
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 2), np.uint8)


def kernel(x: float) -> float:
    """Keys' cubic with a = -0.75: torch's and OpenCV's, where nothing is anti-aliased."""
    x, a = abs(x), -0.75
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def enlarged(small: Pixels) -> NDArray[np.float64]:
    """Each pixel from its four times four neighbours, edges repeated."""
    side = len(small)
    weights = np.zeros((112, side))
    for row in range(112):
        place = (row + 0.5) * side / 112 - 0.5
        for neighbour in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            weights[row, min(max(neighbour, 0), side - 1)] += kernel(place - neighbour)
    return np.einsum("ij,jkc,lk->ilc", weights, small.astype(np.float64), weights).clip(0, 255)


@pytest.mark.parametrize("side", [1, 7, 14, 28, 56, 111])
def test_lower_resolution(image: Pixels, side: int) -> None:
    """Pillow's bicubic shrinks (it is anti-aliased); a slow sum enlarges."""
    small = np.asarray(Pillow.fromarray(image).resize((side, side), Pillow.Resampling.BICUBIC))
    assert np.abs(at_side(image, side) - enlarged(small)).max() <= 3  # of two roundings


def test_full_size_is_the_image_itself(image: Pixels) -> None:
    assert at_side(image, 112) is image


def test_a_side_is_drawn_evenly(image: Pixels) -> None:
    made = {side: at_side(image, side) for side in (7, 14, 28)}
    counts = dict.fromkeys(made, 0)
    for position in range(600):
        poor = resolution(image, generator(0, position), [7, 14, 28])
        (side,) = [s for s, wanted in made.items() if np.array_equal(poor, wanted)]
        counts[side] += 1
    assert all(abs(count - 200) < 5 * np.sqrt(600 * 2 / 9) for count in counts.values())


def test_jpeg_is_a_jpeg_of_that_quality(image: Pixels) -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=30, subsampling=2)
    wanted = np.asarray(Pillow.open(buffer).convert("RGB")).astype(int)
    assert np.abs(jpeg(image, generator(0, 0), 30, 30) - wanted).mean() < 1.5
    errors = [np.abs(jpeg(image, generator(0, 0), q, q).astype(int) - image).mean() for q in (10, 30, 75, 100)]
    assert errors == sorted(errors, reverse=True)
    drawn = {jpeg(image, generator(0, position), 70, 72).tobytes() for position in range(60)}
    assert len(drawn) == 3


@pytest.mark.parametrize("length", [4.0, 6.0])
def test_motion_blur_is_the_mean_along_its_path(image: Pixels, length: float) -> None:
    """Along a row and along a column: the mean of the image moved in steps of half a pixel, in its middle."""
    for axis, direction in ((1, 0.0), (0, np.pi / 2)):
        halves = np.arange(-int(length), int(length) + 1)
        moved = [np.roll(image.astype(float), step // 2, axis) for step in (*halves, *(halves + 1))]
        wanted = np.mean(moved, 0)  # half a pixel: the mean of the two around it
        got = blurred_along(image, length, direction)
        assert np.abs(got - wanted)[8:-8, 8:-8].max() <= 0.5 + 1e-6


@examples(40)
@given(length=st.floats(0, 40), direction=st.floats(0, np.pi))
def test_motion_blur_keeps_grey_and_the_mean(length: float, direction: float) -> None:
    grey = np.full((112, 112, 3), 77, np.uint8)
    np.testing.assert_array_equal(blurred_along(grey, length, direction), grey)
    dot = np.zeros((112, 112, 3), np.uint8)
    dot[56, 56] = 255
    found = blurred_along(dot, length, direction).astype(float)
    rows, columns = np.nonzero(found[:, :, 0] > 0)
    assert np.abs(rows - 56).max() <= length / 2 + 1
    assert np.abs(columns - 56).max() <= length / 2 + 1


def test_motion_blur_draws_length_and_direction(image: Pixels) -> None:
    rng = generator(3, 1)
    length, direction = rng.uniform(2, 12), rng.uniform(0, np.pi)
    np.testing.assert_array_equal(motion_blur(image, generator(3, 1), 2, 12), blurred_along(image, length, direction))


@examples(60)
@given(seed=st.integers(0, 2**32), least=st.floats(0.05, 1), ratio=st.floats(1, 4))
def test_rectangles_lie_inside_and_keep_their_bounds(seed: int, least: float, ratio: float) -> None:
    top, left, height, width = rectangle(generator(seed, 0), least, ratio)
    assert 0 <= top <= top + height <= 112
    assert 0 <= left <= left + width <= 112
    rounding = 1 + 1 / min(height, width)
    assert height * width >= least * 112**2 / rounding**2
    assert 1 / (ratio * rounding**2) <= width / height <= ratio * rounding**2


def test_a_resized_crop_is_its_rectangle_enlarged(image: Pixels) -> None:
    top, left, height, width = rectangle(generator(4, 2), 0.3, 4 / 3)
    part = Pillow.fromarray(image[top : top + height, left : left + width])
    wanted = np.asarray(part.resize((112, 112), Pillow.Resampling.BILINEAR))
    assert np.abs(resized_crop(image, generator(4, 2), 0.3, 4 / 3).astype(int) - wanted).max() <= 2


# -- sets of steps


@pytest.mark.parametrize("name", NAMED)
def test_named_sets_make_a_degraded_view(image: Pixels, name: str) -> None:
    view = steps(Views.model_validate({"degraded": name}).degraded or ())
    made = apply(image, view, generator(0, 1), lambda step: generator(1, step))
    assert (made.shape, made.dtype) == ((112, 112, 3), np.uint8)


def test_qgfaces_numbers_are_those_of_its_public_code() -> None:
    view = dict(
        (kind, (p, strength))
        for kind, p, strength in steps(Views.model_validate({"degraded": "qgface"}).degraded or ())
    )
    assert view["low_resolution"][0] == 1
    assert (view["low_resolution"][1]["least"], view["low_resolution"][1]["most"]) == (0.1, 0.5)
    assert view["jpeg"] == (1, {"least": 75, "most": 75})
    assert view["resized_crop"][1]["least"] == 0.8
    assert set(view["photometric"][1].values()) == {0.2}
    assert view["affine"][1] == {"degrees": 45, "shift": 0, "zoom": 0}
    assert view["flip"] == (0.5, {})


def test_steps_of_a_batch_draw_alike_for_all_its_images(image: Pixels) -> None:
    step: list[Any] = [("resolution", 0.5, {"sides": list(range(5, 60)), "per": "batch"})]
    for batch in range(20):
        made = {
            apply(image, step, generator(0, position), lambda step: generator(7, batch)).tobytes()  # noqa: B023
            for position in range(5)
        }
        assert len(made) == 1
