"""What makes one synthetic person look like nobody else: continuous traits, drawn from one integer."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float32]  # (3,) RGB, 0..255


def _between(low: float, high: float) -> Any:
    """A trait drawn evenly between two values."""
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Person:
    """Traits of a face. Lengths are px of the 112x112 template (1 px is about 1.8 mm), shares are 0..1.

    The frame: x to the image's right, y down from the line of the eyes, z out of the face, origin on the
    vertical axis of the head.
    """

    key: int

    # shape of the head
    head_width: float = _between(38.0, 47.0)
    head_depth: float = _between(48.0, 53.0)
    jaw_width: float = _between(0.74, 0.97)  # of head_width, at the mouth
    chin_width: float = _between(15.0, 29.0)
    chin_y: float = _between(56.0, 66.0)
    chin_out: float = _between(-2.0, 4.0)
    cheek_out: float = _between(0.0, 3.5)
    brow_ridge: float = _between(0.0, 3.0)
    ear_size: float = _between(4.0, 10.0)
    # nose
    nose_y: float = _between(16.0, 23.5)  # tip
    nose_out: float = _between(8.0, 14.5)
    nose_bridge: float = _between(0.15, 0.6)  # height of the bridge, share of nose_out
    nose_width: float = _between(5.0, 11.5)  # at the wings
    bridge_width: float = _between(3.0, 5.5)
    # eyes
    eye_x: float = _between(15.5, 20.5)
    eye_width: float = _between(6.0, 9.4)
    eye_height: float = _between(2.2, 5.4)
    eye_tilt: float = _between(-0.22, 0.22)  # rise of the outer corner per px
    eye_arch: float = _between(0.2, 0.8)  # where the lid is highest, inner to outer corner
    lid_crease: float = _between(0.0, 1.0)
    iris: float = _between(2.6, 4.0)  # radius
    iris_hue: float = _between(0.0, 1.0)
    iris_light: float = _between(0.0, 1.0)
    eye_shadow: float = _between(0.0, 1.0)
    # brows
    brow_y: float = _between(-13.0, -7.0)
    brow_length: float = _between(7.5, 12.0)
    brow_thick: float = _between(0.7, 3.8)
    brow_arch: float = _between(0.0, 4.8)
    brow_tilt: float = _between(-0.28, 0.22)
    brow_gap: float = _between(3.5, 10.0)
    brow_dark: float = _between(0.45, 1.0)
    # mouth
    mouth_y: float = _between(36.5, 44.0)
    mouth_half: float = _between(10.0, 18.5)
    upper_lip: float = _between(1.2, 5.6)
    lower_lip: float = _between(1.8, 6.8)
    cupid: float = _between(0.0, 1.6)
    mouth_curve: float = _between(-1.8, 1.8)
    lip_red: float = _between(0.0, 1.0)
    lip_out: float = _between(0.5, 3.0)
    # skin
    tone: float = _between(0.0, 1.0)
    flush: float = _between(0.0, 1.0)
    freckles: float = _between(-1.0, 1.0)  # none below 0
    folds: float = _between(0.0, 1.0)
    beard: float = _between(-1.0, 1.0)  # none below 0
    moustache: float = _between(-1.2, 1.0)
    moles: float = _between(0.0, 5.9)  # how many, rounded down
    # hair
    hair_dark: float = _between(0.0, 1.0)
    hair_red: float = _between(0.0, 1.0)
    hair_grey: float = _between(-2.0, 1.0)
    hair_line: float = _between(-52.0, -26.0)  # y at the middle
    hair_peak: float = _between(-9.0, 9.0)  # the middle lower (+) or higher (-) than the sides
    hair_side: float = _between(36.0, 54.0)  # x at the temples, along the skin
    hair_part: float = _between(-22.0, 22.0)
    hair_long: float = _between(-1.0, 1.0)  # falls beside the neck above 0
    hair_thick: float = _between(1.0, 6.0)


@lru_cache(maxsize=256)
def person(key: int) -> Person:
    """The person that the integer `key` (0 or above) names: the same one on every call and every machine."""
    rng = np.random.default_rng([key, 1])
    ranges = {f.name: f.metadata["range"] for f in fields(Person) if f.metadata}
    return Person(key, **{name: float(rng.uniform(low, high)) for name, (low, high) in ranges.items()})


def _mix(share: float, *stops: tuple[int, int, int]) -> Colour:
    """The colour at `share` (0..1) of the way along the stops."""
    at = np.clip(share, 0, 1) * (len(stops) - 1)
    channels = [np.interp(at, range(len(stops)), [stop[c] for stop in stops]) for c in range(3)]
    return np.array(channels, np.float32)


@lru_cache(maxsize=64)
def skin_colour(who: Person) -> Colour:
    light = _mix(who.tone, (238, 200, 178), (222, 178, 146), (186, 136, 100), (132, 88, 62), (92, 60, 44))
    return light * np.array([1.0, 1.03 - 0.07 * who.flush, 1.03 - 0.09 * who.flush], np.float32)


@lru_cache(maxsize=64)
def hair_colour(who: Person) -> Colour:
    dark = _mix(who.hair_dark, (214, 176, 112), (150, 104, 60), (92, 60, 38), (46, 32, 26), (24, 20, 20))
    red = dark * np.array([1.15, 0.82, 0.65], np.float32)
    colour = dark + (red - dark) * np.float32(who.hair_red**2)
    grey = np.array([176, 174, 172], np.float32)
    return colour + (grey - colour) * np.float32(max(0.0, who.hair_grey))


@lru_cache(maxsize=64)
def iris_colour(who: Person) -> Colour:
    hue = _mix(who.iris_hue, (66, 36, 20), (94, 60, 30), (120, 104, 50), (78, 124, 96), (90, 140, 180))
    return hue * np.float32(0.6 + 0.6 * who.iris_light)


@lru_cache(maxsize=64)
def lip_colour(who: Person) -> Colour:
    skin = skin_colour(who)
    red = skin * np.array([0.86, 0.55, 0.58], np.float32)
    pale = skin * np.float32(0.86)
    return np.asarray(pale + (red - pale) * (0.35 + 0.65 * who.lip_red), np.float32)
