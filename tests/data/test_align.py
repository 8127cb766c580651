"""Alignment against an independent least-squares solution and known motions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.data.align import TEMPLATE, align, similarity
from mobileface.errors import InputError


def lstsq_similarity(source: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The same fit as four linear unknowns a, b, tx, ty: x' = ax - by + tx, y' = bx + ay + ty."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, goal, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    (a, b, tx, ty), *_ = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)
    return np.array([[a, -b, tx], [b, a, ty]])


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 40), st.floats(0, 60))
def test_equals_independent_least_squares(seed: int, scale: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = TEMPLATE @ turn.T + rng.uniform(-500, 500, 2) + noise * scale * rng.normal(size=(5, 2))
    expected = lstsq_similarity(landmarks, TEMPLATE)
    np.testing.assert_allclose(similarity(landmarks), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -135])
@pytest.mark.parametrize("scale", [0.25, 1.0, 7.0])
def test_known_motion_is_undone(degrees: float, scale: float) -> None:
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = TEMPLATE @ turn.T + (31.0, -17.0)
    matrix = similarity(landmarks)
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)
    np.testing.assert_allclose(matrix[:, :2] @ turn, np.eye(2), atol=1e-12)


def test_never_reflects() -> None:
    mirrored = TEMPLATE * (-1, 1) + (112, 0)  # a mirrored face without its points exchanged
    matrix = similarity(mirrored)
    assert np.linalg.det(matrix[:, :2]) > 0
    np.testing.assert_allclose(matrix, lstsq_similarity(mirrored, TEMPLATE), atol=1e-9)


def test_template_is_a_fixed_point_at_any_size() -> None:
    np.testing.assert_allclose(similarity(TEMPLATE), np.eye(2, 3), atol=1e-12)
    np.testing.assert_allclose(similarity(TEMPLATE, size=224), 2 * np.eye(2, 3), atol=1e-12)


def test_align_brings_the_landmarks_to_the_template() -> None:
    photo = np.zeros((300, 400, 3), np.uint8)
    angle = np.deg2rad(25)
    turn = 1.5 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks = TEMPLATE @ turn.T + (160.0, 40.0)
    for point in landmarks:
        cv2.circle(photo, np.round(point).astype(int).tolist(), 4, (255, 255, 255), -1)
    crop = align(photo, landmarks)
    assert crop.shape == (112, 112, 3)
    assert crop.dtype == np.uint8
    for x, y in TEMPLATE:
        assert crop[round(y), round(x)].min() > 200
    rows, columns = np.nonzero(crop[..., 0] > 100)
    near = np.hypot(columns[:, None] - TEMPLATE[:, 0], rows[:, None] - TEMPLATE[:, 1]).min(axis=1)
    assert near.max() < 5  # nothing white anywhere else


def test_outside_of_the_image_is_black() -> None:
    crop = align(np.full((112, 112, 3), 255, np.uint8), TEMPLATE + np.array([40, 0]))
    assert crop[:, -30:].max() == 0
    assert crop[5:-5, :60].min() == 255


@pytest.mark.parametrize(
    "landmarks",
    [
        np.full((5, 2), 7.0),
        np.full((5, 2), 1e9) + 1e-7,
        np.where(TEMPLATE > 92.3, np.nan, TEMPLATE),
        np.where(TEMPLATE > 92.3, np.inf, TEMPLATE),
        TEMPLATE[:4],
        TEMPLATE.T,
        [],
    ],
)
def test_unusable_landmarks_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(InputError, match="landmarks"):
        similarity(landmarks)


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), np.zeros((0, 9, 3), np.uint8)]
)
def test_unusable_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="wanted \\(H, W, 3\\) uint8"):
        align(image, TEMPLATE)
