"""What tests share: one thread, a cache of their own, small folders of faces, small plans."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; results do not depend on the machine,
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nor on whether it has a GPU

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from mobileface.data.images import encode
from mobileface.training.plan import Plan, parse_plan

Pixels = NDArray[np.uint8]

settings.register_profile("mobileface", deadline=None)  # a busy machine is no defect
settings.load_profile("mobileface")


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures of a wider scope run before `cache`: they keep away from the user's folder as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOBILEFACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test; made when something is cached."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MOBILEFACE_CACHE", str(folder))
    return folder


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No loading processes: Python 3.12 warns where a process with threads forks, and warnings are errors here."""
    monkeypatch.setattr("mobileface.training.loop.default_workers", lambda: 0)


def face(identity: int, number: int) -> Pixels:
    """(112, 112, 3): a smooth pattern, one for each identity, under noise that differs from image to image."""
    own = np.random.default_rng([identity, 0]).integers(40, 216, (4, 4, 3)).astype(np.float32)
    noise = np.random.default_rng([identity, number, 1]).normal(0, 25, (14, 14, 3)).astype(np.float32)
    both = cv2.resize(own, (112, 112), interpolation=cv2.INTER_CUBIC) + cv2.resize(noise, (112, 112))
    return both.clip(0, 255).astype(np.uint8)


def write_folder(folder: Path, identities: int = 5, images: int = 6) -> Path:
    """`folder/person-0/face-0.jpg` ..."""
    for identity in range(identities):
        (folder / f"person-{identity}").mkdir(parents=True, exist_ok=True)
        for number in range(images):
            path = folder / f"person-{identity}" / f"face-{number}.jpg"
            path.write_bytes(encode(face(identity, number)))
    return folder


@pytest.fixture(scope="session")
def make_face() -> Callable[[int, int], Pixels]:
    """`make_face(identity, number)`."""
    return face


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """`make_folder(path, identities=5, images=6)`."""
    return write_folder


@pytest.fixture(scope="session")
def shared_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people, six images each. Tests must not write here."""
    return write_folder(tmp_path_factory.mktemp("data") / "faces")


def plan_data(folder: Path, **changes: Any) -> dict[str, Any]:
    """A plan of half a second: `micro`, two people of five held out, four epochs of the 18 other images by fours.

    `changes` replace top-level keys; `phase` and `data` are merged into the first phase and the data.
    """
    phase = {
        "images": 72,
        "batch": 4,
        "optimizer": {"kind": "sgd", "lr": 0.05},
        "schedule": {"kind": "one_cycle"},
        "views": {"clean": ["flip", "affine", "brightness", "saturation", "low_resolution", "cutout"]},
        "terms": [{"kind": "classification", "scale": 16}],
        **changes.pop("phase", {}),
    }
    data = {
        "root": str(folder.parent),
        "train": [{"folder": folder.name}],
        "validate": {"identities": 0.4},
        **changes.pop("data", {}),
    }
    return {
        "name": "toy",
        "arch": "micro",
        "seed": 5,  # the best checkpoint of some trainings is not their last
        "data": data,
        "phases": [phase],
        "export": {"formats": []},
        "precision": "fp32",
        "compile": "off",
        "checkpoint": {"every_images": 24},
        **changes,
    }


@pytest.fixture(scope="session")
def make_plan_data() -> Callable[..., dict[str, Any]]:
    """`make_plan_data(folder, **changes)`: a small plan as plain data."""
    return plan_data


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """`make_plan(folder, **changes)`: the same, validated."""

    def made(folder: Path, **changes: Any) -> Plan:
        return parse_plan(plan_data(folder, **changes), "test")

    return made
