"""InsightFace's verification sets: lfw.bin, cfp_fp.bin, agedb_30.bin...

A .bin is one pickle of `(bins, issame_list)`: encoded images, two for each pair in order, and a bool for each
pair (insightface, `build_eval_pack.py`). Images are bytes, or uint8 arrays as cv2.imencode gives them.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.data.pickled_names import Array
from mobileface.data.plain_pickle import load
from mobileface.errors import InputError
from mobileface.files import atomic_path

MAX_BYTES = 4 << 30  # of a file; the public ones hold up to 14,000 images of about 10 KB


def read_bin(path: Path) -> tuple[list[bytes], NDArray[np.bool_]]:
    """(encoded images, 2P of them; same person or not, (P,) bool). Images 2p and 2p + 1 are pair p.

    The pickle is read by `plain_pickle`, which runs nothing. Raises InputError for a file that is cut off, or
    that holds anything else than images and bools, or another number of images than two for each pair.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not 0 < size <= MAX_BYTES:
            raise InputError(f"{path}: has {size} bytes, wanted a .bin of 1 to {MAX_BYTES} bytes")
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            value = load(data, str(path))
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{path}: holds a {type(value).__name__}, wanted a pair of images and bools")
    images = [image_bytes(image, f"{path}: image {i}") for i, image in enumerate(sequence(value[0], path))]
    same = bools(value[1], path)
    if len(images) != 2 * len(same) or not images:
        raise InputError(f"{path}: holds {len(images)} images and {len(same)} pairs, wanted two images for each pair")
    return images, same


def sequence(value: object, path: Path) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{path}: holds a {type(value).__name__}, wanted a list")
    return value


def image_bytes(value: object, name: str) -> bytes:
    """The bytes of one entry."""
    if isinstance(value, Array) and value.kind == "u1":
        value = value.data
    if not isinstance(value, bytes):
        raise InputError(f"{name} is a {type(value).__name__}, wanted bytes or a uint8 array")
    return value


def bools(value: object, path: Path) -> NDArray[np.bool_]:
    """(P,) bool from a list of bools or a bool array."""
    if isinstance(value, Array) and value.kind == "b1":
        return np.frombuffer(value.data, np.uint8) != 0
    flags = sequence(value, path)
    if not all(isinstance(flag, bool) for flag in flags):
        raise InputError(f"{path}: says something else than True or False about a pair")
    return np.array(flags, np.bool_)


def write_bin(path: Path, pairs: Iterable[tuple[bytes, bytes, bool]]) -> None:
    """Write (encoded image, encoded image, same person or not) for each pair, atomically.

    The images are held in memory until they are written. Raises InputError for no pairs.
    """
    images: list[bytes] = []
    same: list[bool] = []
    for first, second, is_same in pairs:
        images += [bytes(first), bytes(second)]
        same.append(bool(is_same))
    if not same:
        raise InputError(f"{path}: no pairs to write")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        pickle.dump((images, same), file, protocol=4)
