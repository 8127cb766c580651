"""Synthetic faces: the geometry against a brute-force camera, and every factor acts as its name says."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from mobileface.data import synthetic_render, synthetic_shape, synthetic_texture
from mobileface.data.align import TEMPLATE
from mobileface.data.synthetic import Factors, render
from mobileface.data.synthetic_person import person
from mobileface.data.synthetic_shape import ANGLES, ARC, ROWS, STEP, TOP

# ---- the geometry


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (20, 10), (60, 0), (-60, -15), (90, 0), (0, 30), (35, -30)])
def test_the_seen_surface_is_the_nearest_one(yaw: float, pitch: float) -> None:
    """Against 1.2 million points of the surface: none near a sight line stands before the one seen."""
    key, a, b = 4, float(np.deg2rad(yaw)), float(np.deg2rad(pitch))
    radius = synthetic_shape.head(key)[0].astype(float)
    across, down = 12, 13  # points per step of the table
    fine = cv2.resize(np.concatenate([radius, radius[:, :1]], axis=1), None, fx=across, fy=down)
    fine = fine[:, across:]  # the first half step lies outside the table
    angle = -np.pi + 2 * np.pi / ANGLES * ((np.arange(fine.shape[1]) + across + 0.5) / across - 0.5)
    y = TOP + STEP * ((np.arange(fine.shape[0]) + 0.5) / down - 0.5)
    points = np.stack([fine * np.sin(angle), np.broadcast_to(y[:, None], fine.shape), fine * np.cos(angle)], -1)
    turn = synthetic_shape.rotation(a, b)
    cloud = points[fine > 2] @ turn.T
    middle = synthetic_shape.COLUMNS - 1
    place = (cloud[:, :2] - (-STEP * middle, TOP)) / STEP  # column and row of the grid
    node = np.round(place).astype(int)
    near = (np.abs(place - node).max(axis=1) * STEP < 0.5) & (node[:, 1] >= 0) & (node[:, 1] < ROWS)
    front = np.full((ROWS, 2 * middle + 1), -np.inf)
    np.maximum.at(front, (node[near, 1], node[near, 0]), cloud[near, 2])

    seen_angle, seen_y, margin = synthetic_shape.seen(key, a, b)
    inside = (margin > 1) & np.isfinite(front) & (seen_y < 80)
    rows, columns = np.nonzero(inside)
    assert len(rows) > 1000
    skin = np.stack([seen_angle[inside] * ARC, seen_y[inside]], 1).astype(float)
    skin[:, 0] = (skin[:, 0] + np.pi * ARC) % (2 * np.pi * ARC) - np.pi * ARC
    found = synthetic_shape.surface(key, skin) @ turn.T
    aside = np.hypot(found[:, 0] - (columns - middle) * STEP, found[:, 1] - (TOP + rows * STEP))
    assert np.median(aside) < 0.2
    assert np.quantile(aside, 0.95) < 2
    behind = front[inside] - found[:, 2]
    assert np.median(np.abs(behind)) < 1
    assert np.quantile(behind, 0.97) < 3  # at the rims of nose, ear and chin a cell holds two surfaces


def test_directions_of_the_turns() -> None:
    nose = np.array([0.0, 0.0, 1.0])
    right, up = synthetic_shape.rotation(0.5, 0.0) @ nose, synthetic_shape.rotation(0.0, 0.5) @ nose
    assert right[0] > 0.4
    assert up[1] < -0.4  # y goes down
    turn = synthetic_shape.rotation(0.7, -0.3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("key", range(12))
def test_frontal_landmarks_lie_near_the_template(key: int) -> None:
    matrix = synthetic_render.placement(key, 0, np.eye(3))
    points = synthetic_shape.surface(key, synthetic_texture.landmarks(person(key), 0))
    placed = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(placed - TEMPLATE).max() < 6
    assert 0.8 < np.linalg.norm(matrix[0, :2]) < 1.25  # px of the head are about px of the crop


def test_normals_are_unit_vectors_that_point_out() -> None:
    radius, normal = synthetic_shape.head(9)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1, atol=1e-5)
    out = np.stack([np.sin(synthetic_shape.ANGLE), np.cos(synthetic_shape.ANGLE)], -1)
    assert (np.einsum("rac,ac->ra", normal[..., [0, 2]], out) > 0).all()
    assert radius.min() > 0


# ---- the factors act


def mean_over_people(value: Callable[[int], float]) -> float:
    return float(np.mean([value(key) for key in range(6)]))


def sharpness(factors: Factors) -> float:
    return mean_over_people(
        lambda key: cv2.Laplacian(cv2.cvtColor(render(key, factors, key), cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()
    )


def test_longer_blur_is_less_sharp() -> None:
    values = [sharpness(Factors(blur_px=length)) for length in (0, 2, 5, 10, 20)]
    assert (np.diff(values) < 0).all()


def test_lower_resolution_is_less_sharp() -> None:
    values = [sharpness(Factors(resolution_px=side)) for side in (112, 80, 48, 28, 14)]
    assert (np.diff(values) < 0).all()


def difference(factors: Factors, rest: Factors) -> float:
    def one(key: int) -> float:
        return float(np.abs(render(key, factors, key).astype(float) - render(key, rest, key)).mean())

    return mean_over_people(one)


def test_yaw_moves_away_from_the_frontal_picture_and_shows_the_background() -> None:
    values = [difference(Factors(yaw_degrees=yaw), Factors()) for yaw in (0, 15, 40, 90)]
    assert values[0] == 0
    assert (np.diff(values) > 0).all()

    def alpha(yaw: float) -> float:  # share of the right third of the crop that the head fills
        _, _, margin = synthetic_shape.seen(0, np.deg2rad(yaw), 0.0)
        matrix = synthetic_render.placement(0, 0, synthetic_shape.rotation(np.deg2rad(yaw), 0.0))
        origin = np.array([-STEP * (synthetic_shape.COLUMNS - 1), TOP])
        full = np.column_stack([STEP * matrix[:, :2], matrix[:, :2] @ origin + matrix[:, 2]])
        crop = cv2.warpAffine(margin, full, (112, 112), borderMode=cv2.BORDER_REPLICATE)
        return float((crop[:, 75:] > 0).mean())

    shares = [alpha(yaw) for yaw in (0, 15, 30, 60)]
    assert shares[0] > 0.5
    assert shares[3] < 0.1
    assert (np.diff(shares) < 0).all()


def test_left_and_right_turns_mirror_each_other() -> None:
    """The heads are symmetric but for hair and marks, so a mirrored left turn is near the right turn."""
    right = np.mean([render(k, Factors(yaw_degrees=50), 1).mean(axis=2) for k in range(12)], axis=0)
    left = np.mean([render(k, Factors(yaw_degrees=50, turned_left=True), 1).mean(axis=2) for k in range(12)], axis=0)
    right, left = right[30:100], left[30:100]
    mirrored, unmirrored = (np.corrcoef(x.ravel(), right.ravel())[0, 1] for x in (left[:, ::-1], left))
    assert mirrored > unmirrored + 0.2


def test_expressions_are_ordered() -> None:
    values = [difference(Factors(expression=level), Factors()) for level in range(5)]
    assert values[0] == 0
    assert (np.diff(values) > 0).all()


def test_light_comes_from_where_it_is_said_to_come_from() -> None:
    def balance(azimuth: float) -> float:
        factors = Factors(light_azimuth_degrees=azimuth, light_elevation_degrees=0, light_strength=0.8)
        face = np.mean([render(key, factors, 0)[40:100, 25:87].mean(axis=2) for key in range(6)], axis=0)
        return float(face[:, 31:].mean() - face[:, :31].mean())

    values = [balance(azimuth) for azimuth in (-80, -40, 0, 40, 80)]
    assert (np.diff(values) > 0).all()
    assert values[0] < -20
    assert values[-1] > 20


@pytest.mark.parametrize("share", [0.0, 0.003, 0.1, 0.4, 0.9])
def test_the_cover_hides_exactly_its_share(share: float) -> None:
    rest, covered = render(3, Factors(), 8), render(3, Factors(occlusion=share), 8)
    changed = np.mean((rest != covered).any(axis=2))
    assert changed <= share + 0.5 / 112**2
    assert changed >= 0.9 * share  # a covered pixel may have the colour it had
    masks = [synthetic_render.covered(s, np.random.default_rng(4)) for s in (share, min(1.0, share + 0.1))]
    assert masks[0].sum() == round(share * 112 * 112)
    assert not (masks[0] & ~masks[1]).any()
