"""The skin of a synthetic person, unrolled: x along the skin and y, drawn once for each expression."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.synthetic_person import (
    Colour,
    Person,
    hair_colour,
    iris_colour,
    lip_colour,
    person,
    skin_colour,
)
from mobileface.data.synthetic_shape import TOP, Floats, hair_cover

TEXEL = 1.5  # texels per px
HALF = 108.0  # px of skin on each side of the middle: 129 degrees; beyond there is only hair
WIDTH, HEIGHT = round(2 * HALF * TEXEL), round(160 * TEXEL)
EXPRESSIONS = 5  # 0 neutral .. 4 laughing
Points = NDArray[np.float64]
Outlines = Sequence[Points]
_DIGITS = 4  # binary digits after the point in cv2's drawing
_FACE = (
    slice(round((-26 - TOP) * TEXEL), round((66 - TOP) * TEXEL)),
    slice(round((HALF - 46) * TEXEL), round((HALF + 46) * TEXEL)),
)
_MIRROR = np.array([-1.0, 1.0])

_X = ((np.arange(WIDTH) + 0.5) / TEXEL - HALF).astype(np.float32)[None]
_Y = ((np.arange(HEIGHT) + 0.5) / TEXEL + TOP).astype(np.float32)[:, None]


def to_texels(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Column and row in the texture of points given as x along the skin and y in px."""
    return (x + np.float32(HALF)) * np.float32(TEXEL) - 0.5, (y - np.float32(TOP)) * np.float32(TEXEL) - 0.5


class _Canvas:
    """Draws shapes given in px of the skin on the part (H, W, 3) of the texture from (left, top) on."""

    def __init__(self, pixels: Floats, left: int = 0, top: int = 0) -> None:
        self.pixels = pixels
        self.shift = np.array([HALF * TEXEL - 0.5 - left, -TOP * TEXEL - 0.5 - top])  # where x = y = 0 lies

    def shape(
        self, *outlines: Points, colour: Colour, soft: float = 0.0, alpha: float = 1.0, within: Outlines = ()
    ) -> None:
        """Fill the polygons `outlines` (N, 2 each), cut by the polygons `within`.

        `soft` is the blur of the edges in px, `alpha` the opacity.
        """
        texels = [points * TEXEL + self.shift for points in outlines]
        together = np.concatenate(texels)
        pad = (3 * soft + 1) * TEXEL
        left, top = (max(0, int(low - pad)) for low in together.min(axis=0))
        right, bottom = (int(high + pad) + 2 for high in together.max(axis=0))
        part = self.pixels[top : max(0, bottom), left : max(0, right)]
        if part.size == 0:
            return
        mask = _filled(texels, part, left, top)
        if within:
            lids = [points * TEXEL + self.shift for points in within]
            mask = np.minimum(mask, _filled(lids, part, left, top))
        if soft:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), soft * TEXEL), np.uint8)
        _mix_in(part, colour, mask * np.float32(alpha / 255))

    def both(
        self, outline: Points, colour: Colour, soft: float = 0.0, alpha: float = 1.0, within: Outlines = ()
    ) -> None:
        """The polygon and its mirror image."""
        self.shape(outline, outline * _MIRROR, colour=colour, soft=soft, alpha=alpha, within=within)


def _mix_in(pixels: Floats, colour: Colour | Floats, share: Floats) -> None:
    """Move the (H, W, 3) pixels towards the colour (3,) or colours (H, W, 3) by `share` (H, W)."""
    shares = np.asarray(cv2.merge([share] * 3), np.float32)
    pixels *= 1 - shares
    pixels += colour * shares


def _filled(texels: Outlines, part: Floats, left: int, top: int) -> NDArray[np.uint8]:
    """Coverage 0..255 (H, W) by polygons of the part (H, W, 3) whose first texel is (left, top)."""
    mask = np.zeros(part.shape[:2], np.uint8)
    fixed = [((points - (left, top)) * (1 << _DIGITS) + 0.5).astype(np.int32) for points in texels]
    cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _DIGITS)
    return mask


_AROUND = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_CIRCLE = np.stack([np.cos(_AROUND), np.sin(_AROUND)], 1)


def _oval(x: float, y: float, rx: float, ry: float) -> Points:
    return _CIRCLE * (rx, ry) + (x, y)


def _band(x: Points, upper: Points, lower: Points) -> Points:
    """The polygon between two curves over the same x."""
    return np.concatenate([np.stack([x, upper], 1), np.stack([x, lower], 1)[::-1]])


def _grain(rng: np.random.Generator, rows: int, columns: int) -> Floats:
    """Smooth noise (HEIGHT, WIDTH), about -1..1, with features of HEIGHT/rows by WIDTH/columns texels."""
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=8)
def _bare(key: int) -> tuple[NDArray[np.uint8], Floats]:
    """What no expression changes: skin, marks, beard, nose, ears and hair.

    Returns the texture (HEIGHT, WIDTH, 3) RGB and, not rounded yet, its part _FACE.
    """
    who, rng = person(key), np.random.default_rng([key, 2])
    skin, hair = skin_colour(who), hair_colour(who)
    grain = 1 + np.float32(0.05) * _grain(rng, 10, 20) + np.float32(0.03) * _grain(rng, 40, 60)
    canvas = _Canvas(np.asarray(cv2.merge([grain * channel for channel in skin]), np.float32))
    _blush(canvas, who, skin)
    _marks(canvas, who, skin, rng)
    _beard(canvas, who, hair)
    _nose(canvas, who, skin)
    canvas.both(_oval(79, 9, 2.5, 7), skin * np.float32(0.6), soft=1.5)
    _hair(canvas, who, hair, rng)
    return _rounded(canvas.pixels), canvas.pixels[_FACE]


def _rounded(pixels: Floats) -> NDArray[np.uint8]:
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _hair(canvas: _Canvas, who: Person, hair: Colour, rng: np.random.Generator) -> None:
    """Strands wherever the hair is, with a ragged line."""
    strands = 1 + np.float32(0.3) * _grain(rng, 8, 150) + np.float32(0.1) * _grain(rng, 40, 150)
    coarse = hair_cover(who, _Y[::4], _X[:, ::4])
    inside = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) + 2 * _grain(rng, 12, 90)
    cover = np.clip(inside * np.float32(1 / 3) + np.float32(0.5), 0, 1)
    _mix_in(canvas.pixels, np.asarray(cv2.merge([strands * channel for channel in hair]), np.float32), cover)


def _blush(canvas: _Canvas, who: Person, skin: Colour) -> None:
    """Red of cheeks and nose, dark around the eyes and under the lip."""
    red = skin * np.array([1.0, 0.78, 0.76], np.float32)
    canvas.both(_oval(26, 17, 9, 8), red, soft=4, alpha=0.2 + 0.5 * who.flush)
    canvas.shape(_oval(0, who.nose_y + 1, 6, 5), colour=red, soft=3, alpha=0.2 + 0.4 * who.flush)
    dark = skin * np.array([0.7, 0.62, 0.64], np.float32)
    canvas.both(_oval(who.eye_x, 0, 10.5, 6.5), dark, soft=2.5, alpha=0.15 + 0.5 * who.eye_shadow)
    canvas.shape(_oval(0, who.mouth_y + 8.5, 8, 1.6), colour=dark, soft=1.5, alpha=0.5)


def _marks(canvas: _Canvas, who: Person, skin: Colour, rng: np.random.Generator) -> None:
    """Freckles over nose and cheeks, and a few moles."""
    places = rng.normal((0, 13), (17, 7), (70, 2))[: round(70 * max(0.0, who.freckles))]
    freckles = [_oval(x, y, size, size) for (x, y), size in zip(places, rng.uniform(0.5, 1, 70), strict=False)]
    if freckles:
        brown = skin * np.array([0.72, 0.58, 0.48], np.float32)
        canvas.shape(*freckles, colour=brown, alpha=0.65)
    for _ in range(int(who.moles)):
        size = rng.uniform(0.9, 2.3)
        mole = _oval(rng.uniform(-34, 34), rng.uniform(-22, 54), size, size)
        canvas.shape(mole, colour=skin * np.float32(0.33), soft=0.3, alpha=0.95)


def _beard(canvas: _Canvas, who: Person, hair: Colour) -> None:
    """Beard along the jaw and moustache, from stubble to full."""
    shade, y, wide = hair * np.float32(0.85), who.mouth_y, who.mouth_half
    if who.beard > 0:
        inner = [(0, y + 6), (wide, y + 6), (wide + 2, y - 1), (30, y - 5), (52, 22), (62, 12)]
        half = [*inner, (72, 26), (90, 34), (90, 64), (40, 74), (0, 80)]
        canvas.shape(_mirrored(half), colour=shade, soft=2.5, alpha=0.2 + 0.7 * who.beard)
    if who.moustache > 0:
        low, high = y - who.upper_lip * 0.6, who.nose_y + 7.5
        half = [(0, high), (wide * 0.6, high + 2), (wide + 2, y + 2), (wide * 0.7, low), (0, low - 1)]
        canvas.shape(_mirrored(half), colour=shade, soft=1.0, alpha=0.25 + 0.7 * who.moustache)


def _mirrored(half: list[tuple[float, float]]) -> Points:
    """The outline whose right half goes from the middle at the top to the middle at the bottom."""
    right = np.array(half, float)
    return np.concatenate([right, right[::-1] * _MIRROR])


def _nose(canvas: _Canvas, who: Person, skin: Colour) -> None:
    base, wide = who.nose_y + 4.5, who.nose_width
    dark = skin * np.array([0.62, 0.52, 0.5], np.float32)
    canvas.shape(_mirrored([(0, base + 1), (wide, base - 1), (0, base + 3)]), colour=dark, soft=1, alpha=0.6)
    canvas.both(_oval(wide * 0.98, base - 3, 1.0, 3.2), dark, soft=0.8, alpha=0.55)
    canvas.both(_oval(wide * 0.45, base, wide * 0.22, 1.1), skin * np.float32(0.25), soft=0.35, alpha=0.9)
    canvas.both(_oval(who.bridge_width * 1.5, 4, 1.2, 9), dark, soft=1.8, alpha=0.3)


@lru_cache(maxsize=128)
def texture(key: int, expression: int) -> NDArray[np.uint8]:
    """The unrolled skin (HEIGHT, WIDTH, 3) RGB of the person `key` at an expression 0..EXPRESSIONS - 1."""
    who, (drawn, face) = person(key), _bare(key)
    canvas = _Canvas(face.copy(), left=_FACE[1].start, top=_FACE[0].start)
    _eyes(canvas, who, expression)
    _brows(canvas, who, expression)
    _mouth(canvas, who, expression)
    drawn = drawn.copy()
    drawn[_FACE] = _rounded(canvas.pixels)
    drawn.setflags(write=False)
    return drawn


def _eyes(canvas: _Canvas, who: Person, level: int) -> None:
    """Almond, iris, pupil, glint, lashes and the crease of the lid; smiling narrows the eye."""
    skin, t = skin_colour(who), np.linspace(-1, 1, 13)
    height = who.eye_height * (1 - 0.09 * level)
    tilt = -who.eye_tilt * t * who.eye_width  # above 0 the outer corner (t = 1) stands higher
    skew = t - 0.6 * (who.eye_arch - 0.5) * (1 - t**2)
    upper = tilt - height * (1 - skew**2)
    lower = tilt + 0.7 * height * (1 - t**2) * (1 - 0.08 * level)
    x, dark = who.eye_x + t * who.eye_width, skin * np.float32(0.42)
    almond = _band(x, upper, lower)
    canvas.both(almond, np.array([236, 232, 228], np.float32))
    _iris(canvas, who, almond)
    canvas.both(_band(x, upper - 0.9, upper + 0.45), skin * np.float32(0.2), soft=0.25)
    canvas.both(_band(x, lower - 0.2, lower + 0.5), dark, soft=0.3, alpha=0.6)
    canvas.both(_band(x, upper - 2.7, upper - 1.8), dark, soft=0.4, alpha=0.15 + 0.75 * who.lid_crease)
    bag = _band(x, lower + 2.4, lower + 3.3)
    canvas.both(bag, dark, soft=0.6, alpha=0.12 + 0.3 * who.folds + 0.08 * level)


def _iris(canvas: _Canvas, who: Person, almond: Points) -> None:
    colour, y = iris_colour(who), -0.15 * who.eye_height
    lids = almond, almond * _MIRROR
    for share, tint in ((1.0, 0.55), (0.86, 1.0), (0.45, 0.0)):
        disc = _oval(who.eye_x, y, who.iris * share, who.iris * share)
        canvas.both(disc, colour * np.float32(tint), within=lids)
    glints = (_oval(x + 0.9, y - 0.9, 0.7, 0.7) for x in (-who.eye_x, who.eye_x))
    canvas.shape(*glints, colour=np.full(3, 250, np.float32), alpha=0.9, within=lids)


def _brows(canvas: _Canvas, who: Person, level: int) -> None:
    """A tapering arch over each eye; it rises with the expression."""
    t = np.linspace(0, 1, 11)
    x = who.brow_gap + t * who.brow_length * 1.9
    middle = who.brow_y - 0.55 * level - who.brow_arch * np.sin(np.pi * t**1.3) - who.brow_tilt * (x - who.eye_x)
    half = who.brow_thick * (0.55 + 0.45 * np.sin(np.pi * np.minimum(t + 0.25, 1))) * (1 - 0.6 * t**3)
    colour = hair_colour(who) * np.float32(0.7)
    canvas.both(_band(x, middle - half, middle + half), colour, soft=0.35, alpha=who.brow_dark)


def _mouth(canvas: _Canvas, who: Person, level: int) -> None:
    """Lips, the opening with teeth, and the folds beside it; a smile widens, lifts and opens the mouth."""
    skin, lip, t = skin_colour(who), lip_colour(who), np.linspace(-1, 1, 21)
    wide, opening = _mouth_half(who, level), 2.4 * max(0, level - 1)
    x, round_ = wide * t, 1 - t**2
    line = who.mouth_y + _corner_lift(who, level) * t**2
    top, bottom = line - 0.15 * opening * round_, line + 0.85 * opening * round_
    upper = top - who.upper_lip * round_**0.75 + who.cupid * np.exp(-((t / 0.16) ** 2))
    lower = bottom + who.lower_lip * round_**0.6
    down = np.linspace(0, 1, 9)
    fold = who.nose_width + 2 + (wide + 1.5 - who.nose_width) * down**0.8  # x of the fold beside the mouth
    fold_y = who.nose_y + 3 + (who.mouth_y - who.nose_y - 1) * down
    beside = _band(fold_y, fold - 0.7, fold + 0.7)[:, ::-1]
    canvas.both(beside, skin * np.float32(0.55), soft=0.8, alpha=min(0.9, 0.05 + 0.5 * who.folds + 0.13 * level))
    canvas.shape(_band(x, upper, top + 0.2), colour=lip * np.float32(0.88), soft=0.3)
    canvas.shape(_band(x, bottom - 0.2, lower), colour=lip * np.float32(1.06), soft=0.4)
    dark = np.array([60, 22, 24], np.float32)
    canvas.shape(_band(x, top - 0.3, bottom + 0.35), colour=dark, soft=0.2, alpha=0.85)
    if opening:
        teeth = top + np.minimum(0.55 * (bottom - top), 2.6)
        canvas.shape(_band(x * 0.9, top, teeth), colour=np.array([238, 232, 222], np.float32), soft=0.2)


def _mouth_half(who: Person, level: int) -> float:
    return who.mouth_half * (1 + 0.055 * level)


def _corner_lift(who: Person, level: int) -> float:
    return who.mouth_curve - 1.1 * level


def landmarks(who: Person, level: int) -> Points:
    """(5, 2) x along the skin and y of eyes, nose tip and mouth corners, in the template's order."""
    wide, corner = _mouth_half(who, level), who.mouth_y + _corner_lift(who, level)
    return np.array([(-who.eye_x, 0), (who.eye_x, 0), (0, who.nose_y), (-wide, corner), (wide, corner)])
