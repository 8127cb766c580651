"""Alignment of a face to the 112x112 ArcFace template from five landmarks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mobileface.data.images import SIZE, Image
from mobileface.errors import InputError

# x, y in px of the 112x112 crop: left eye, right eye (as seen in the image), nose tip, left and right mouth
# corner. InsightFace, recognition/arcface_torch/eval_ijbc.py and python-package/.../utils/face_align.py.
TEMPLATE: NDArray[np.float64] = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
TEMPLATE.setflags(write=False)


def similarity(landmarks: ArrayLike, size: int = SIZE) -> NDArray[np.float64]:
    """The (2, 3) matrix [sR | t] that takes (5, 2) landmarks (x, y in px) nearest to the template.

    Least squares over rotation, scale and shift without reflection (Umeyama, PAMI 1991, eq. 40-42). In the
    plane its closed form is one complex division: with x + iy for a point, sR is the factor `turn` below.
    `size` is the side of the crop in px. Raises InputError for landmarks that are not 5 finite points, that
    all coincide, or that fit the template at no scale above zero.
    """
    found = np.asarray(landmarks, np.float64)
    if found.shape != TEMPLATE.shape or not np.isfinite(found).all():
        raise InputError(f"landmarks of shape {found.shape}, wanted (5, 2) finite x, y in px: {found.tolist()}")
    wanted = TEMPLATE * (size / SIZE)
    centre, target = found.mean(axis=0), wanted.mean(axis=0)
    source = np.ascontiguousarray(found - centre).view(np.complex128).ravel()
    goal = np.ascontiguousarray(wanted - target).view(np.complex128).ravel()
    spread = float(np.sum(np.abs(source) ** 2))
    covariance = complex(np.vdot(source, goal))
    limit = 1e-9 * (1.0 + float(np.abs(found).max())) * float(np.abs(goal).max())
    if abs(covariance) <= limit:
        raise InputError(f"landmarks {found.tolist()} coincide or do not resemble a face, wanted 5 apart")
    turn = covariance / spread
    matrix = np.array([(turn.real, -turn.imag), (turn.imag, turn.real)])
    return np.column_stack([matrix, target - matrix @ centre])


def align(image: Image, landmarks: ArrayLike, size: int = SIZE) -> Image:
    """Cut the face with these (5, 2) landmarks out of an (H, W, 3) uint8 image as (size, size, 3).

    Bilinear; what lies outside the image becomes black, as in InsightFace's `norm_crop`.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InputError(f"an image of shape {image.shape} and type {image.dtype}, wanted (H, W, 3) uint8")
    matrix = similarity(landmarks, size)
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)
