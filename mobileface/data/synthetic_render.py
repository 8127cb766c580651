"""One picture of a synthetic person: pose, light, background, cover, blur, resolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.align import similarity
from mobileface.data.degrade import blurred_along
from mobileface.data.images import SIZE, Image
from mobileface.data.synthetic_person import person
from mobileface.data.synthetic_shape import (
    ANGLES,
    ARC,
    COLUMNS,
    ROWS,
    STEP,
    TOP,
    Floats,
    head,
    rotation,
    seen,
    surface,
)
from mobileface.data.synthetic_texture import EXPRESSIONS, landmarks, texture, to_texels
from mobileface.errors import InputError

# Lowest and highest value of each factor that is a number.
LIMITS: dict[str, tuple[float, float]] = {
    "yaw_degrees": (0, 90),
    "pitch_degrees": (-40, 40),
    "expression": (0, EXPRESSIONS - 1),
    "light_azimuth_degrees": (-180, 180),
    "light_elevation_degrees": (-90, 90),
    "light_strength": (0, 1),
    "occlusion": (0, 0.9),
    "blur_px": (0, 40),
    "resolution_px": (4, SIZE),
}


@dataclass(frozen=True)
class Factors:
    """What is known about a picture. The default is a sharp, frontal, evenly lit, neutral face."""

    yaw_degrees: float = 0.0  # 0 frontal .. 90 profile
    turned_left: bool = False  # to which side of the image the face turns
    pitch_degrees: float = 0.0  # above 0 the face looks up
    expression: int = 0  # 0 neutral, 1 smiles .. 4 laughs with an open mouth
    light_azimuth_degrees: float = 0.0  # where the light comes from: above 0 the image's right
    light_elevation_degrees: float = 30.0  # above 0 from above
    light_strength: float = 0.3  # share of directed light; the rest comes from everywhere
    occlusion: float = 0.0  # share of the picture's pixels that a thing in front covers
    blur_px: float = 0.0  # length of the motion blur
    resolution_px: int = SIZE  # side of the picture before it was enlarged to 112

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            whole = name not in ("expression", "resolution_px") or isinstance(value, int | np.integer)
            if not (low <= value <= high and whole):
                raise InputError(f"factor {name} is {value!r}, wanted {low} to {high}")


def render(identity: int, factors: Factors, seed: int) -> Image:
    """A picture (112, 112, 3) uint8 RGB of the person `identity`, aligned to the ArcFace template.

    `identity` and `seed` are integers of 0 or above. The seed draws what no factor names: background, colour
    and strength of the light, slips of the landmarks, look and place of the cover, direction of the blur,
    noise. The same arguments give the same picture on every call, in any order, in any process (another
    release of OpenCV may round some pixels differently).
    """
    rng = np.random.default_rng([seed, 3])
    yaw = float(np.deg2rad(-factors.yaw_degrees if factors.turned_left else factors.yaw_degrees))
    pitch = float(np.deg2rad(factors.pitch_degrees))
    picture = _face(_background(rng), identity, factors, yaw, pitch, rng)
    _cover(picture, factors.occlusion, rng)
    gain = rng.uniform(0.65, 1.2) * rng.uniform(0.87, 1.13, 3)
    lit = np.asarray(cv2.multiply(picture, np.append(gain, 0.0), dtype=cv2.CV_8U), np.uint8)  # saturates
    blurred = blurred_along(lit, factors.blur_px, rng.uniform(0, np.pi))
    return _noise(_enlarge(blurred, factors.resolution_px), rng)


def _background(rng: np.random.Generator) -> Floats:
    """Blurred colours (112, 112, 3) float32, 0..255."""
    rows, columns = rng.integers(2, 7, 2)
    base, contrast = rng.uniform(20, 235, 3), rng.uniform(10, 90)
    coarse = np.clip(base + contrast * rng.uniform(-1, 1, (rows, columns, 3)), 0, 255).astype(np.uint8)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def _face(behind: Floats, key: int, factors: Factors, yaw: float, pitch: float, rng: np.random.Generator) -> Floats:
    """The head before what is behind it: look up the skin and the light of every pixel."""
    drawn, turn = texture(key, factors.expression), rotation(yaw, pitch)
    placed = placement(key, factors.expression, turn, rng.normal(0, 0.5, (5, 2)))
    origin = np.array([-STEP * (COLUMNS - 1), TOP])  # of the grid that `seen` fills
    matrix = np.column_stack([STEP * placed[:, :2], placed[:, :2] @ origin + placed[:, 2]])
    angle, y, margin = seen(key, yaw, pitch)
    tables = *to_texels(angle * np.float32(ARC), y), margin, _light(key, factors, turn, angle, y)
    column, row, inside, shade = (
        np.asarray(cv2.warpAffine(table, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE), np.float32)
        for table in tables
    )
    whole, part = cv2.convertMaps(column, row, cv2.CV_16SC2)  # 1/32 texel is enough, and twice as fast
    skin = cv2.remap(drawn, whole, part, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    bright = skin * cv2.merge([shade] * 3)
    alpha = np.clip(inside + np.float32(0.5), 0, 1)
    return np.asarray(cv2.blendLinear(bright, behind, alpha, 1 - alpha), np.float32)


def placement(
    key: int, expression: int, turn: NDArray[np.float64], slip: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """(2, 3): camera px to crop px, from the person's five landmarks, each found `slip` px beside its place.

    The fit is the aligner's own, so a profile is placed as an aligned photo of a profile is.
    """
    return similarity((_landmarks(key, expression) @ turn.T)[:, :2] + slip)


@lru_cache(maxsize=256)
def _landmarks(key: int, expression: int) -> NDArray[np.float64]:
    """(5, 3) in the head's frame."""
    return surface(key, landmarks(person(key), expression))


def _light(key: int, factors: Factors, turn: NDArray[np.float64], angle: Floats, y: Floats) -> Floats:
    """Brightness (1 = evenly lit) of the seen points: Lambert's law, and a sheen towards the light."""
    azimuth, elevation = np.deg2rad((factors.light_azimuth_degrees, factors.light_elevation_degrees))
    out = np.cos(elevation)
    to_light = np.array([np.sin(azimuth) * out, -np.sin(elevation), np.cos(azimuth) * out])
    in_head_frame = (to_light @ turn).astype(np.float32)
    lit = (head(key)[1].reshape(-1, 3) @ in_head_frame).reshape(ROWS, ANGLES)
    column = (angle + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))
    row = (y - np.float32(TOP)) * np.float32(1 / STEP)
    diffuse = np.maximum(cv2.remap(lit, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), 0)
    sheen = diffuse
    for _ in range(4):
        sheen = sheen * sheen  # to the power of 16
    strength = np.float32(factors.light_strength)
    return np.asarray(1 - strength + strength * (1.6 * diffuse + 0.35 * sheen), np.float32)


_COLUMN = np.arange(SIZE, dtype=np.float32)[None] - (SIZE - 1) / 2
_ROW = np.arange(SIZE, dtype=np.float32)[:, None] - (SIZE - 1) / 2


def covered(share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which pixels (112, 112) a thing in front hides: exactly round(share * 112 * 112), growing with `share`.

    Its edge is part of a large or small circle around a point in a random direction: a scarf, a hand, a
    head in front.
    """
    away, distance = rng.uniform(0, 2 * np.pi), rng.uniform(25, 260)
    x, y = float(distance * np.cos(away)), float(distance * np.sin(away))
    field = ((_COLUMN - x) ** 2 + (_ROW - y) ** 2).ravel()
    count = round(share * field.size)
    mask = np.zeros(field.size, bool)
    mask[np.argpartition(field, min(count, field.size - 1))[:count]] = True
    return mask.reshape(SIZE, SIZE)


def _cover(picture: Floats, share: float, rng: np.random.Generator) -> None:
    state = rng.integers(2**63)  # one draw with or without a cover, so that the rest of the picture stays
    if share == 0:
        return
    own = np.random.default_rng(int(state))
    mask = covered(share, own).view(np.uint8)
    first, second = own.uniform(10, 240, (2, 3))
    tilt, period = own.uniform(0, np.pi), own.uniform(5, 40)
    stripe = np.sin((_COLUMN * np.cos(tilt) + _ROW * np.sin(tilt)) * (2 * np.pi / period)).astype(np.float32)
    middle, swing = ((first + second) / 2).astype(np.float32), ((first - second) / 4).astype(np.float32)
    cv2.copyTo(cv2.merge([middle[c] + swing[c] * stripe for c in range(3)]), mask, picture)


def _enlarge(picture: Image, resolution: int) -> Image:
    if resolution == SIZE:
        return picture
    small = cv2.resize(picture, (resolution, resolution), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


_NOISE = np.random.default_rng(0).normal(0, 1, (256, 256, 3)).astype(np.float32)  # drawn once: it is slow


def _noise(picture: Image, rng: np.random.Generator) -> Image:
    (top, left), level = rng.integers(0, 256 - SIZE, 2), np.float32(rng.uniform(0.5, 4))
    noise = _NOISE[top : top + SIZE, left : left + SIZE] * level
    return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U), np.uint8)  # rounds and saturates
