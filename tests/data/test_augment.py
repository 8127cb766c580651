"""Each operation against an obvious reference, and what all of them keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobileface.data import augment
from mobileface.data.augment import OPERATIONS, apply, generator
from mobileface.training import plan_views as plan

Pixels = NDArray[np.uint8]
MakeFace = Callable[[int, int], Pixels]
KINDS = {table.model_fields["kind"].annotation.__args__[0]: table for table in (  # type: ignore[union-attr]
    plan.Flip, plan.Affine, plan.Brightness, plan.Saturation, plan.Photometric, plan.CropPaste, plan.LowResolution,
    plan.Cutout, plan.ResizedCrop, plan.Resolution, plan.Jpeg, plan.MotionBlur,
)}  # fmt: skip
STRENGTHS: dict[str, dict[str, Any]] = {
    kind: table(kind=kind).model_dump(exclude={"kind", "p"}) for kind, table in KINDS.items()
}


class Fixed:
    """A generator that draws what it is told: `uniform` a number or a list, `integers` whole numbers in order."""

    def __init__(self, uniform: Any = None, integers: list[Any] | None = None) -> None:
        self._uniform, self._integers = uniform, list(integers or [])

    def uniform(self, low: float, high: float, size: int | None = None) -> Any:
        return np.array(self._uniform) if size else self._uniform

    def integers(self, low: int, high: int, size: int | None = None) -> Any:
        return np.array(self._integers.pop(0)) if size else self._integers.pop(0)


@pytest.fixture
def image(make_face: MakeFace) -> Pixels:
    return make_face(2, 1)


def near(found: Pixels, wanted: NDArray[np.float64], most: float) -> None:
    assert np.abs(found.astype(float) - wanted.clip(0, 255)).max() <= most


def test_the_plan_knows_every_operation() -> None:
    assert set(KINDS) == set(OPERATIONS)


@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_draw_is_repeated_and_the_input_is_left_alone(image: Pixels, kind: str) -> None:
    before = image.copy()
    outs = [OPERATIONS[kind](image, generator(5, 9), **STRENGTHS[kind]) for _ in range(2)]
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(image, before)
    assert (outs[0].shape, outs[0].dtype) == ((112, 112, 3), np.uint8)
    others = [OPERATIONS[kind](image, generator(5, position), **STRENGTHS[kind]) for position in range(8)]
    assert any(not np.array_equal(outs[0], other) for other in others) or kind in ("flip", "jpeg")


def test_flip(image: Pixels) -> None:
    np.testing.assert_array_equal(augment.flip(image, generator(0, 0)), image[:, ::-1])


def bilinear(image: Pixels, angle: float, dx: float, dy: float, scale: float) -> NDArray[np.float64]:
    """Slow warp: each target pixel looks back to its source, edges reflected without repeating the last pixel."""
    out = np.empty((112, 112, 3))
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))

    def pixel(y: int, x: int) -> NDArray[np.float64]:
        y, x = (abs(v) if v < 112 else 2 * 111 - v for v in (y, x))
        return image[y, x].astype(float)

    for v in range(0, 112, 5):
        for u in range(0, 112, 5):
            p, q = u - 55.5 - dx, v - 55.5 - dy
            x = 55.5 + (cosine * p - sine * q) / scale  # counter-clockwise on the screen
            y = 55.5 + (sine * p + cosine * q) / scale
            left, top = int(np.floor(x)), int(np.floor(y))
            a, b = x - left, y - top
            upper = (1 - a) * pixel(top, left) + a * pixel(top, left + 1)
            lower = (1 - a) * pixel(top + 1, left) + a * pixel(top + 1, left + 1)
            out[v, u] = (1 - b) * upper + b * lower
    return out


@pytest.mark.parametrize("draw", [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, -0.5, 0), (0, 0, 0, -1), (-0.7, 0.3, 0.9, 0.6)])
def test_affine_against_a_slow_warp(image: Pixels, draw: tuple[float, ...]) -> None:
    found = augment.affine(image, Fixed(draw), degrees=8, shift=3, zoom=0.06)  # type: ignore[arg-type]
    wanted = bilinear(image, 8 * draw[0], 3 * draw[1], 3 * draw[2], 1 + 0.06 * draw[3])
    near(found[::5, ::5], wanted[::5, ::5], 4)  # OpenCV knows positions to 1/32 px


@pytest.mark.parametrize("draw", [-0.3, 0.0, 0.11, 0.3])
def test_brightness(image: Pixels, draw: float) -> None:
    found = augment.brightness(image, Fixed(draw), strength=0.3)  # type: ignore[arg-type]
    near(found, np.floor(image * (1 + draw) + 0.5), 1)


@pytest.mark.parametrize("draw", [-1.0, -0.5, 0.0, 0.4, 1.0])
def test_saturation(image: Pixels, draw: float) -> None:
    found = augment.saturation(image, Fixed(draw), strength=1)  # type: ignore[arg-type]
    grey = image @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    near(found, image * (1 + draw) - grey[..., None] * draw, 2)


WAYS = list(augment.INTERPOLATIONS)


def test_low_resolution_by_nearest_neighbours(image: Pixels) -> None:
    draws = Fixed(0.25, [(0, 0)])  # nearest both ways, 28 px
    found = augment.low_resolution(image, draws, 0.25, ["nearest"])  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, image[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))


@pytest.mark.parametrize("ways", [(down, up) for down in range(5) for up in range(5)])
def test_low_resolution_keeps_flat_areas_and_loses_detail(image: Pixels, ways: tuple[int, int]) -> None:
    flat = np.full((112, 112, 3), (10, 130, 250), np.uint8)
    np.testing.assert_array_equal(augment.low_resolution(flat, Fixed(0.3, [ways]), 0.1, WAYS), flat)  # type: ignore[arg-type]
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment.low_resolution(noise, Fixed(1.0, [ways]), 1, WAYS), noise)  # type: ignore[arg-type]
    coarse = augment.low_resolution(image, Fixed(0.2, [ways]), 0.2, WAYS)  # type: ignore[arg-type]
    assert abs(float(coarse.mean()) - float(image.mean())) < 5
    assert not np.array_equal(coarse, image)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 1), st.integers(0, 2**63))
def test_cutout_fills_one_rectangle(most: float, position: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    found = augment.cutout(noise, generator(0, position), most)
    rows, columns = np.nonzero((found != noise).any(2))
    hole = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (hole == hole[0, 0, 0]).all()
    assert max(hole.shape[:2]) <= max(1, round(112 * most))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_strength_of_a_plan_gives_an_image(make_face: MakeFace, data: st.DataObject) -> None:
    ranges = {
        "flip": {},
        "affine": {"degrees": st.floats(0, 180), "shift": st.floats(0, 56), "zoom": st.floats(0, 0.99)},
        "brightness": {"strength": st.floats(0, 1)},
        "saturation": {"strength": st.floats(0, 1)},
        "photometric": dict.fromkeys(("brightness", "contrast", "saturation"), st.floats(0, 1)),
        "crop_paste": {"least": st.floats(0, 1, exclude_min=True), "ratio": st.floats(1, 10)},
        "low_resolution": {
            "least": st.floats(0, 1, exclude_min=True),
            "interpolations": st.lists(st.sampled_from(WAYS), min_size=1),
        },
        "cutout": {"most": st.floats(0, 1, exclude_min=True)},
    }
    kind = data.draw(st.sampled_from(sorted(ranges)))
    strength = {name: data.draw(values) for name, values in ranges[kind].items()}
    KINDS[kind](kind=kind, **strength)  # the plan admits it
    found = OPERATIONS[kind](make_face(0, 0), generator(data.draw(st.integers(0, 2**64 - 1)), 3), **strength)
    assert (found.shape, found.dtype) == ((112, 112, 3), np.uint8)


def test_steps_run_in_order_with_their_probabilities(image: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, float]] = []

    def noted(name: str) -> Callable[..., Pixels]:
        return lambda image, rng, strength=0.0: called.append((name, strength)) or image

    for name in ("one", "two", "three"):
        monkeypatch.setitem(OPERATIONS, name, noted(name))
    steps: list[tuple[str, float, dict[str, Any]]] = [
        ("two", 1.0, {"strength": 0.5}), ("one", 0.0, {}), ("three", 1.0, {}), ("two", 1.0, {}),
    ]  # fmt: skip
    apply(image, steps, generator(0, 0))
    assert called == [("two", 0.5), ("three", 0.0), ("two", 0.0)]
    called.clear()
    for position in range(400):
        apply(image, [("one", 0.3, {}), ("two", 0.8, {})], generator(7, position))
    count = {name: sum(name == found for found, _ in called) for name in ("one", "two")}
    assert abs(count["one"] - 120) < 4 * (400 * 0.3 * 0.7) ** 0.5
    assert abs(count["two"] - 320) < 4 * (400 * 0.8 * 0.2) ** 0.5


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1))
def test_generator_is_a_function_of_seed_and_position(seed: int, position: int) -> None:
    here = generator(seed, position).integers(0, 2**63, 4).tolist()
    assert here == generator(seed, position).integers(0, 2**63, 4).tolist()
    assert here != generator(seed, position + 1).integers(0, 2**63, 4).tolist()
    assert here != generator(seed ^ 1, position).integers(0, 2**63, 4).tolist()
