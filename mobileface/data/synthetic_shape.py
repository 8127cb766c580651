"""The head as a surface r(angle, y) about a vertical axis, and which part of it a camera sees.

Such a surface is star-shaped in every horizontal cut: of two points on one sight line the nearer has the
smaller angle to the viewing direction. So hidden points are found by a running maximum, without a z-buffer:
once along the cut for the yaw, once along the columns of the result for the pitch (as in terrain drawing).
Lengths are px of the 112x112 template, angles radians; the camera is orthographic.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mobileface.data.synthetic_person import Person, person

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.intp]

STEP = 2.5  # px between the rows of all tables, and between the columns of the seen head
TOP, ROWS = -76.0, 65  # y of the first row; the last one is at y = 84
COLUMNS = 33  # columns of the seen head on each side of the axis: 0..80 px
ANGLES = 144  # the head's columns: -180..177.5 degrees
ARC = 48.0  # px of arc on the skin per radian: x in the texture and in the positions of the features
TURN = 47  # angles looked at on each side of the viewing direction: 0..115 degrees

Y: Floats = (TOP + STEP * np.arange(ROWS)).astype(np.float32)
ANGLE: Floats = np.deg2rad(np.arange(ANGLES) * (360 / ANGLES) - 180).astype(np.float32)


def _bell(value: Floats, centre: float, width: float) -> Floats:
    return np.exp(-(((value - centre) / width) ** 2))


def _curve(value: Floats, at: Sequence[float] | Doubles, height: Sequence[float] | Doubles) -> Floats:
    """Straight lines through the knots (at, height)."""
    return np.interp(value, at, height).astype(np.float32)


@lru_cache(maxsize=64)
def head(key: int) -> tuple[Floats, Floats]:
    """Radius (ROWS, ANGLES) in px and outward unit normals (ROWS, ANGLES, 3) of the person `key`."""
    who = person(key)
    y, angle = Y[:, None], ANGLE[None]
    radius = _skull(who, y, angle) + _features(who, y, angle * ARC) + _hair(who, y, angle * ARC)
    over_angle = (np.roll(radius, -1, axis=1) - np.roll(radius, 1, axis=1)) / (2 * np.deg2rad(360 / ANGLES))
    over_y = np.gradient(radius, STEP, axis=0)
    out, along = (np.sin(angle), np.cos(angle)), (np.cos(angle), -np.sin(angle))
    normal = np.stack(
        [radius * out[0] - over_angle * along[0], -radius * over_y, radius * out[1] - over_angle * along[1]],
        -1,
    )
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    tables = radius.astype(np.float32), normal.astype(np.float32)
    for table in tables:
        table.setflags(write=False)
    return tables


def _skull(who: Person, y: Floats, angle: Floats) -> Floats:
    """Superellipses whose half-axes follow the height: dome, temples, cheeks, jaw, chin, neck."""
    chin, wide, jaw = who.chin_y, who.head_width, who.head_width * who.jaw_width
    at = [-76, -66, -60, -48, -32, -12, 12, 28, who.mouth_y + 2, chin - 5, chin, chin + 5, 90]
    low, out = who.chin_width, who.chin_out
    knots: list[list[float]] = [
        [0, 0, 18, 33, wide * 0.95, wide, wide, (wide + jaw) / 2, jaw, low + 6, low, 24, 27],  # to the side
        [0, 0, 20, 37, 46, 48, 46, 46, 45, 44 + out, 41 + out, 26, 25],  # to the front
        [0, 0, 22, 40, 52, 55, 52, 46, 38, 33, 32, 31, 31],  # to the back
    ]
    fine = np.arange(TOP - 10, TOP + STEP * ROWS + 10, 0.5)
    kernel = np.hanning(17) / np.hanning(17).sum()  # rounds the corners at the knots off
    smooth = [np.convolve(np.interp(fine, at, knot), kernel, "same") for knot in knots]
    side, front, back = (_curve(y, fine, np.maximum(half_axis, 0.5)) for half_axis in smooth)
    front = front * (who.head_depth / 50)
    ahead = np.where(np.cos(angle) > 0, front, back)
    power = 2.25
    inverse = (np.abs(np.cos(angle)) / ahead) ** power + (np.abs(np.sin(angle)) / side) ** power
    return np.asarray(inverse ** (-1 / power))


def _features(who: Person, y: Floats, x: Floats) -> Floats:
    """Height in px over the skull at y and x along the skin: nose, eyes, brows, cheeks, lips, chin, ears."""
    tip, base = who.nose_y, who.nose_y + 5.5
    aside = np.abs(x)
    rise = _curve(y, [-10, -3, tip - 4, tip, base, base + 3], [0, who.nose_bridge * 0.7, 0.82, 1, 0.25, 0])
    width = _curve(y, [-6, tip - 5, tip + 2], [who.bridge_width, who.bridge_width * 1.15, who.nose_width * 0.72])
    nose = who.nose_out * rise * np.exp(-((aside / width) ** 2.2))
    wings = 2.6 * _bell(aside, who.nose_width * 0.85, 2.6) * _bell(y, tip + 2.5, 3.2)
    sockets = -3.2 * _bell(aside, who.eye_x - 2, 8.5) * _bell(y, -1, 6)
    balls = 1.6 * _bell(aside, who.eye_x, 4.5) * _bell(y, 0.5, 3.6)
    ridge = who.brow_ridge * _bell(y, who.brow_y + 1, 4.5) * np.exp(-((x / 30) ** 4))
    cheeks = who.cheek_out * _bell(aside, 27, 10) * _bell(y, 15, 9)
    lips = who.lip_out * np.exp(-((x / who.mouth_half) ** 4)) * _bell(y, who.mouth_y + 0.5, 4.5)
    groove = -1.6 * _bell(x, 0, 10) * _bell(y, who.mouth_y + 9, 3.0)
    chin = (1.5 + who.chin_out) * _bell(x, 0, 9) * _bell(y, who.chin_y - 5, 6)
    ears = who.ear_size * _bell(aside, 80, 4.5) * _bell(y, 9, 12)
    return np.asarray(nose + wings + sockets + balls + ridge + cheeks + lips + groove + chin + ears)


def hair_cover(who: Person, y: Floats, x: Floats) -> Floats:
    """How far (px, positive inside) a point lies within the hair; x along the skin."""
    aside = np.abs(x)
    wave = who.hair_peak * (_bell(x, 0, 14) - 0.5) - 4 * _bell(x, who.hair_part, 7)
    line = who.hair_line + wave + 0.006 * x**2
    above = line - y  # px above the hairline
    beside = aside - _curve(y, [-30, -8, 10, 60], [who.hair_side, who.hair_side + 6, 70, 66])
    length = 100.0 if who.hair_long > 0 else 8.0 + 30 * _bell(aside, 140, 45)
    beside = np.minimum(beside, length - y)
    if who.hair_long <= 0:  # short hair stands behind the ear, a sideburn before it
        beside = np.minimum(beside, np.where(y > -6, np.abs(aside - 80) - 7 + 3 * (y < 4), 99))
    return np.asarray(np.maximum(above, beside))


def _hair(who: Person, y: Floats, x: Floats) -> Floats:
    inside = np.clip(hair_cover(who, y, x) / 5, 0, 1)
    fall = np.clip(np.abs(x) / 60 - 0.6, 0, 1) * np.clip(y / 30, 0, 1) * (12 if who.hair_long > 0 else 0)
    return np.asarray(inside * (who.hair_thick + fall) * np.clip((y + 70) / 20, 0, 1))


def surface(key: int, points: Doubles) -> Doubles:
    """(N, 3) positions on the head of (N, 2) points given as x along the skin and y."""
    angle = points[:, 0] / ARC
    row, column = (points[:, 1] - TOP) / STEP, (angle + np.pi) / (2 * np.pi) * ANGLES
    i, j = np.floor(row).astype(int), np.floor(column).astype(int)
    radius, a, b = head(key)[0], row - i, column - j
    upper = radius[i, j] * (1 - b) + radius[i, (j + 1) % ANGLES] * b
    lower = radius[i + 1, j] * (1 - b) + radius[i + 1, (j + 1) % ANGLES] * b
    out = upper * (1 - a) + lower * a
    return np.stack([out * np.sin(angle), points[:, 1], out * np.cos(angle)], axis=1)


def rotation(yaw: float, pitch: float) -> Doubles:
    """(3, 3): head frame to camera frame. Yaw > 0 turns the face to the image's right, pitch > 0 upwards."""
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return about_x @ about_y


def _first_crossing(position: Floats, count: int) -> tuple[Indices, Floats, Floats]:
    """Where each row of `position` (N, K) first reaches 0, STEP, ... (count - 1) * STEP.

    Returns (N, count) the place in the flattened table just before it and the share of the way to the next
    one, and (N,) each row's highest value. A level that is never reached gives the last place, one below
    the first value the first place.
    """
    rows, length = position.shape
    top = np.maximum.accumulate(position, axis=1)
    # number of levels below `top`; the cast cuts towards zero, which is down for all that is kept
    bins = np.clip(top * np.float32(1 / STEP) + 1, 0, count).astype(np.intp)
    bins += (np.arange(rows) * (count + 1))[:, None]
    found = np.bincount(bins.ravel(), minlength=rows * (count + 1)).reshape(rows, count + 1)
    left = np.clip(found[:, :count].cumsum(axis=1), 1, length - 1)
    left += (np.arange(rows) * length - 1)[:, None]
    low, high = top.take(left), top.take(left + 1)
    level = (np.arange(count) * STEP).astype(np.float32)
    share = np.clip((level - low) / np.maximum(high - low, np.float32(1e-6)), 0, 1)
    return left, share, top[:, -1]


def _between(table: Floats, left: Indices, share: Floats) -> Floats:
    """Linear interpolation of a contiguous table at the places that `_first_crossing` found."""
    low = table.take(left)
    return np.asarray(low + (table.take(left + 1) - low) * share, np.float32)


_SWEEP: Floats = (np.arange(TURN) * (2 * np.pi / ANGLES)).astype(np.float32)  # angle to the viewing direction
_SIN, _COS = np.sin(_SWEEP), np.cos(_SWEEP)
_SWEEPS: Floats = np.ascontiguousarray(np.broadcast_to(_SWEEP, (2 * ROWS, TURN)))
_SWEEPS[:ROWS] *= -1  # the left side


def seen(key: int, yaw: float, pitch: float) -> tuple[Floats, Floats, Floats]:
    """What the camera sees of a head on a grid (ROWS, 2 COLUMNS - 1): screen y = TOP.. and x = -80..80 px.

    Returns the angle on the head, the y on the head, and how far in px the point lies inside the outline
    (negative: outside; angle and y are then those of the nearest point of the outline in the row).
    """
    radius = head(key)[0]
    shift = np.rad2deg(yaw) / (360 / ANGLES)
    whole = int(np.floor(shift))
    share = np.float32(shift - whole)
    middle = ANGLES // 2 - whole  # the head's column that faces the camera
    near = radius.take(np.arange(middle - TURN, middle + TURN + 1) % ANGLES, axis=1)
    near = near[:, 1:] * (1 - share) + near[:, :-1] * share  # (ROWS, 2 TURN): sweep -(TURN - 1)..TURN
    sides = np.concatenate([near[:, TURN - 1 :: -1], near[:, TURN - 1 : 2 * TURN - 1]])
    left, share_, widest = _first_crossing(sides * _SIN, COLUMNS)
    depth = _between(sides * _COS, left, share_)
    widest[widest < 1] = -STEP  # above the head
    margin = widest[:, None] - (np.arange(COLUMNS) * STEP).astype(np.float32)
    angle = _between(_SWEEPS, left, share_) - np.float32(yaw)
    return _tilt(_joined(angle), _joined(depth), _joined(margin), pitch)


def _joined(sides: Floats) -> Floats:
    """(2 ROWS, COLUMNS), left sides first, as one table (2 COLUMNS - 1, ROWS): a row per screen column."""
    return np.concatenate([sides[:ROWS, :0:-1].T, sides[ROWS:].T])


def _tilt(angle: Floats, depth: Floats, margin: Floats, pitch: float) -> tuple[Floats, Floats, Floats]:
    """Turn what `seen` found at pitch 0 up or down: columns are lines of terrain, drawn from near to far."""
    screen = Y * np.float32(np.cos(pitch)) - depth * np.float32(np.sin(pitch))
    if pitch > 0:  # the chin is nearest when the face looks up: draw from there
        position, order = np.float32(TOP + STEP * (ROWS - 1)) - screen[:, ::-1], slice(None, None, -1)
    else:
        position, order = screen - np.float32(TOP), slice(None)
    left, share, highest = _first_crossing(position, ROWS)
    place = (left - (np.arange(len(left)) * ROWS)[:, None]).astype(np.float32) + share
    y = (np.float32(TOP) + np.float32(STEP) * (ROWS - 1 - place if pitch > 0 else place))[:, order].T
    angle, margin = (
        _between(np.ascontiguousarray(table[:, order]), left, share)[:, order].T for table in (angle, margin)
    )
    if pitch > 0:  # the outline of the dome, which no row shows
        margin = np.minimum(margin, highest - (np.float32(STEP) * np.arange(ROWS, dtype=np.float32))[::-1, None])
    return angle, y, margin
