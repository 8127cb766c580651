"""AdaFace's three augmentations against slow definitions, their statistics, and their place in the stream."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageEnhance

from mobileface.data import augment
from mobileface.data.augment import OPERATIONS, Step, apply, generator
from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces
from mobileface.data.images import decode
from mobileface.data.loading import AUGMENT_STREAM, SAMPLER_STREAM, FaceStream, batches, stream_seed
from mobileface.data.samplers import PlainSampler
from mobileface.training.plan_views import Views, steps

Pixels = NDArray[np.uint8]
MakeFace = Callable[[int, int], Pixels]
SIDE = 112
VIEW = ["crop_paste", {"kind": "low_resolution", "least": 0.2, "interpolations": list(augment.INTERPOLATIONS)},
        "photometric", "flip"]  # fmt: skip
STEPS: list[Step] = steps(Views.model_validate({"clean": VIEW}).clean)


GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide.md"


@pytest.fixture
def image(make_face: MakeFace) -> Pixels:
    """Without black, so that black is what a crop has left out."""
    return make_face(2, 1).clip(1, 255)


def test_the_plans_numbers_are_those_of_adaface() -> None:
    assert STEPS == [
        ("crop_paste", 0.2, {"least": 0.2, "ratio": 4 / 3}),
        (
            "low_resolution",
            0.2,
            {"least": 0.2, "most": 1.0, "interpolations": ["nearest", "linear", "area", "cubic", "lanczos4"]},
        ),
        ("photometric", 0.2, {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5}),
        ("flip", 0.5, {}),
    ]


def test_the_guide_shows_this_view() -> None:
    [line] = [
        line
        for line in GUIDE.read_text(encoding="utf-8").splitlines()
        if line.startswith("views:") and "crop_paste" in line
    ]
    assert steps(Views.model_validate(yaml.safe_load(line)["views"]).clean) == STEPS


# ---- crop


def drawn_crop(rng: np.random.Generator, least: float, ratio: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) by the definition of RandomResizedCrop on a square image."""
    for _ in range(10):
        area = SIDE * SIDE * rng.uniform(least, 1)
        aspect = math.exp(rng.uniform(-1, 1) * math.log(ratio))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= SIDE and 0 < height <= SIDE:
            return (
                int(rng.integers(0, SIDE - height + 1)), int(rng.integers(0, SIDE - width + 1)), height, width
            )  # fmt: skip
    return 0, 0, SIDE, SIDE


@pytest.mark.parametrize(("least", "ratio"), [(0.2, 4 / 3), (1.0, 1.0), (0.01, 10.0), (0.9, 10.0)])
def test_a_crop_keeps_its_place_on_black(image: Pixels, least: float, ratio: float) -> None:
    for position in range(20):
        top, left, height, width = drawn_crop(generator(3, position), least, ratio)
        wanted = np.zeros_like(image)
        for y in range(top, top + height):
            for x in range(left, left + width):
                wanted[y, x] = image[y, x]
        np.testing.assert_array_equal(augment.crop_paste(image, generator(3, position), least, ratio), wanted)


def test_a_crop_that_never_fits_is_the_whole_image(image: Pixels) -> None:
    found = [augment.crop_paste(image, generator(0, position), 1, 1e6) for position in range(50)]
    assert sum(np.array_equal(one, image) for one in found) > 40


def boxes(count: int) -> NDArray[np.float64]:
    """(count, 4) top, left, height, width of crops with AdaFace's numbers, read off the pixels."""
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    crops = (augment.crop_paste(white, generator(8, position), 0.2, 4 / 3) for position in range(count))
    found = [cv2.boundingRect(crop[..., 0]) for crop in crops]
    return np.array([(y, x, height, width) for x, y, width, height in found], float)


def test_crops_are_distributed_as_random_resized_crop_draws_them() -> None:
    """Against draws of another generator, thinned by the same rule: a crop that does not fit is drawn again."""
    top, left, height, width = boxes(4000).T
    assert (height * width / SIDE**2).min() > 0.19  # 0.2 but for whole pixels
    assert 0.73 < (width / height).min() < 0.77
    assert 1.30 < (width / height).max() < 1.37
    rng = np.random.default_rng(1)
    area, aspect = SIDE**2 * rng.uniform(0.2, 1, 200_000), np.exp(rng.uniform(-1, 1, 200_000) * np.log(4 / 3))
    sides = np.sqrt([area * aspect, area / aspect])
    sides = sides[:, (sides < SIDE + 0.5).all(0)]
    for found, wanted in ((width, sides[0]), (height, sides[1]), (width * height, sides.prod(0))):
        assert abs(found.mean() - wanted.mean()) < 4 * wanted.std() / math.sqrt(len(found))
    for place, room in ((top, SIDE - height), (left, SIDE - width)):
        share = (place + 0.5)[room > 20] / (room[room > 20] + 1)  # uniform in 0..1
        assert abs(share.mean() - 0.5) < 4 * math.sqrt(1 / 12 / len(share))
        assert abs(share.var() - 1 / 12) < 0.01


# ---- low resolution


def sinc(x: float) -> float:
    return 1.0 if abs(x) < 1e-9 else math.sin(math.pi * x) / (math.pi * x)


def cubic(x: float, a: float = -0.75) -> float:  # OpenCV's a
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


KERNELS: dict[str, tuple[int, Callable[[float], float]]] = {
    "linear": (1, lambda x: max(0.0, 1 - abs(x))),
    "cubic": (2, cubic),
    "lanczos4": (4, lambda x: sinc(x) * sinc(x / 4) if abs(x) < 4 else 0.0),
}


def weights(kind: str, before: int, after: int) -> NDArray[np.float64]:
    """(after, before): how much of each pixel of a row goes into each new one; edges are repeated outwards."""
    matrix, scale = np.zeros((after, before)), before / after
    for i in range(after):
        if kind == "nearest":
            matrix[i, int(i * scale)] = 1
        elif kind == "area":  # shrinking: the share of [i, i + 1) * scale that lies on each pixel
            for k in range(before):
                matrix[i, k] = max(0.0, min(k + 1, (i + 1) * scale) - max(k, i * scale))
        else:
            reach, kernel = KERNELS[kind]
            at = (i + 0.5) * scale - 0.5
            for k in range(math.floor(at) - reach + 1, math.floor(at) + reach + 1):
                matrix[i, min(max(k, 0), before - 1)] += kernel(at - k)
        matrix[i] /= matrix[i].sum()
    return matrix


def slow_resize(image: NDArray[Any], kind: str, side: int) -> NDArray[np.float64]:
    matrix = weights(kind, len(image), side)
    channels = [matrix @ image[..., c].astype(float) @ matrix.T for c in range(3)]
    return np.rint(np.stack(channels, 2).clip(0, 255))


@pytest.mark.parametrize("down", ["nearest", "linear", "area", "cubic", "lanczos4"])
@pytest.mark.parametrize("up", ["nearest", "linear", "cubic", "lanczos4"])
def test_low_resolution_against_float64_kernels(image: Pixels, down: str, up: str) -> None:
    ways = list(augment.INTERPOLATIONS)
    positions = [p for p in range(200) if draws_of(p)[1:] == (ways.index(down), ways.index(up))]
    assert positions
    for position in positions[:2]:
        side = max(1, round(SIDE * draws_of(position)[0]))
        wanted = slow_resize(slow_resize(image, down, side), up, SIDE)
        found = augment.low_resolution(image, generator(4, position), 0.2, ways)
        assert np.abs(found - wanted).max() <= 3  # OpenCV's weights are whole numbers / 2048
        assert np.abs(found - wanted).mean() < 0.6


def draws_of(position: int) -> tuple[float, int, int]:
    """(share of the side, way down, way up) of a position, from the generator's own stream."""
    rng = generator(4, position)
    share = rng.uniform(0.2, 1)
    down, up = rng.integers(0, 5, 2).tolist()
    return share, down, up


def test_draws_of_low_resolution_are_uniform() -> None:
    share, down, up = np.array([draws_of(position) for position in range(4000)]).T
    assert abs(share.mean() - 0.6) < 4 * math.sqrt(0.8**2 / 12 / 4000)
    assert 0.2 <= share.min() < share.max() < 1
    for way in (down, up):
        assert all(abs(n - 800) < 4 * math.sqrt(4000 * 0.2 * 0.8) for n in Counter(way.tolist()).values())
    assert abs(np.corrcoef(down, up)[0, 1]) < 4 / math.sqrt(4000)


def test_recipes_without_interpolations_draw_as_before(image: Pixels) -> None:
    """The operation as it was before the key came: four ways, in this order."""
    [(_, _, strength)] = steps(Views.model_validate({"clean": ["low_resolution"]}).clean)
    ways = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC)
    for position in range(100):
        rng = generator(9, position)
        side = max(1, round(SIDE * rng.uniform(0.25, 1)))
        down, up = rng.integers(0, len(ways), 2)
        small = cv2.resize(image, (side, side), interpolation=ways[down])
        wanted = cv2.resize(small, (SIDE, SIDE), interpolation=ways[up])
        np.testing.assert_array_equal(augment.low_resolution(image, generator(9, position), **strength), wanted)


# ---- photometric


def grey(image: NDArray[Any]) -> NDArray[np.float64]:
    """(H, W) ITU-R BT.601, in whole numbers as the eight-bit grey image."""
    return np.rint(image.astype(float) @ np.array([0.299, 0.587, 0.114]))


def blended(image: NDArray[Any], name: str, factor: float) -> NDArray[np.float64]:
    """ColorJitter's definition: factor * image + (1 - factor) * what is without brightness, contrast, saturation."""
    flat: Any = {"brightness": 0, "contrast": grey(image).mean(), "saturation": grey(image)[..., None]}[name]
    return np.rint((factor * image.astype(float) + (1 - factor) * flat).clip(0, 255))


ENHANCERS = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


class Draw:
    """A generator that draws one factor."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def uniform(self, low: float, high: float) -> float:
        assert low <= self.factor - 1 <= high
        return self.factor - 1


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.83, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("name", augment.JITTERS)
def test_each_jitter_is_that_of_the_definition_and_of_pillow(image: Pixels, name: str, factor: float) -> None:
    found = augment.JITTERS[name](image, Draw(factor), 1.0).astype(float)
    assert np.abs(found - blended(image, name, factor)).max() <= 1
    theirs = np.asarray(ENHANCERS[name](Pillow.fromarray(image)).enhance(factor)).astype(float)
    assert np.abs(found - theirs).max() <= 2  # Pillow cuts off where we round


def test_photometric_runs_all_three_in_the_order_drawn(image: Pixels) -> None:
    orders = set()
    for position in range(40):
        rng = generator(6, position)
        wanted: NDArray[Any] = image
        order = rng.permutation(["brightness", "contrast", "saturation"]).tolist()
        for name in order:
            wanted = blended(wanted, name, 1 + rng.uniform(-0.5, 0.5))
        found = augment.photometric(image, generator(6, position), brightness=0.5, contrast=0.5, saturation=0.5)
        assert np.abs(found - wanted).max() <= 4  # a level of the first may be 1.5 ** 2 of the last
        orders.add(tuple(order))
    assert len(orders) == 6


def test_photometric_of_strength_zero_changes_nothing(image: Pixels) -> None:
    found = augment.photometric(image, generator(0, 0), brightness=0, contrast=0, saturation=0)
    np.testing.assert_array_equal(found, image)


def test_saturation_keeps_a_grey_image_and_the_order_of_the_channels() -> None:
    """Red stays the first channel: with BGR weights a blue face would be darkened as a red one."""
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 200
    found = augment.JITTERS["saturation"](red, Draw(0.5), 1.0)
    np.testing.assert_array_equal(found[0, 0], [130, 30, 30])  # half of red 200 and of its grey, 60
    neutral = np.full((SIDE, SIDE, 3), 90, np.uint8)
    np.testing.assert_array_equal(augment.JITTERS["saturation"](neutral, Draw(1.9), 1.0), neutral)


# ---- probabilities and the stream


def test_probability_zero_changes_nothing_and_one_is_always(image: Pixels) -> None:
    never = [(name, 0.0, strength) for name, _, strength in STEPS]
    always = [(name, 1.0, strength) for name, _, strength in STEPS]
    for position in range(50):
        assert apply(image, never, generator(1, position)) is image
        rng, wanted = generator(1, position), image
        rng.random(4)  # what decides
        for name, _, strength in STEPS:
            wanted = OPERATIONS[name](wanted, rng, **strength)
        np.testing.assert_array_equal(apply(image, always, generator(1, position)), wanted)


def test_each_is_drawn_with_its_probability_and_alone(image: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda image, rng, name=name, **_: ran.append(name) or image)
    runs: Counter[tuple[str, ...]] = Counter()
    for position in range(6000):
        ran.clear()
        apply(image, STEPS, generator(5, position))
        runs[tuple(ran)] += 1
    for chosen in range(16):
        names = tuple(name for i, (name, _, _) in enumerate(STEPS) if chosen >> i & 1)
        p = math.prod(q if chosen >> i & 1 else 1 - q for i, (_, q, _) in enumerate(STEPS))
        assert abs(runs[names] - 6000 * p) < 4.5 * math.sqrt(6000 * p * (1 - p)), names


def stream(folder: Path, seed: int) -> FaceStream:
    faces = FaceSet([FolderFaces(folder)])
    sampler = PlainSampler(np.arange(len(faces)), faces.labels, 8, stream_seed(seed, 0, SAMPLER_STREAM))
    return FaceStream(faces, sampler, STEPS, seed, 0)


def pixels(folder: Path, seed: int, start: int, stop: int) -> NDArray[np.uint8]:
    return np.concatenate([batch.images.numpy() for batch in batches(stream(folder, seed), start, stop, 8, 0)])


def test_a_stream_that_is_taken_up_again_goes_on_with_the_same_pixels(shared_faces: Path) -> None:
    whole = pixels(shared_faces, 3, 0, 96)
    np.testing.assert_array_equal(pixels(shared_faces, 3, 40, 96), whole[40:])
    assert not np.array_equal(pixels(shared_faces, 4, 0, 96), whole)
    fresh = stream(shared_faces, 3)
    changed = 0
    for position in range(96):
        i = fresh.sampler(position)
        face = decode(fresh.faces.read(i), fresh.faces.key(i))
        rng = generator(stream_seed(3, 0, AUGMENT_STREAM), position)
        np.testing.assert_array_equal(whole[position], apply(face, STEPS, rng))
        changed += not np.array_equal(whole[position], face)
    assert changed > 48  # 0.8 ** 3 / 2 stay as they are
