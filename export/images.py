"""The crops that a file and its network are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.parity import BATCHES
from mobileface.data.folder import SUFFIXES
from mobileface.data.images import MAX_BYTES, BadImage, decode
from mobileface.data.synthetic import sample
from mobileface.data.verification_bin import read_bin
from mobileface.errors import InputError, one_line
from mobileface.training.plan import Plan, read_plan
from mobileface.training.sources import open_faces

FEW, MANY = 32, 256  # images: for float, whose differences are rounding; for int8, whose ranges come from them too
SEED = 20_190_922  # of the synthetic crops


@dataclass(frozen=True)
class Crops:
    """Faces that files are compared on, and that int8's ranges come from. source: in words, for the files' metadata."""

    images: NDArray[np.uint8]  # (N, 112, 112, 3) RGB
    source: str

    def few(self) -> NDArray[np.uint8]:
        """At most FEW of them, evenly spread."""
        return self.images[_spread(len(self.images), FEW)]


def crops_for(run: Path, images: Path | None, precisions: Sequence[str]) -> Crops:
    """Of `images`, a folder or a .bin; else of the run's training set; else synthetic faces, which int8 refuses.

    Bad images of a training set are left out. InputError for `images` that cannot be used, and for int8 without faces.
    """
    most = MANY if "int8" in precisions else FEW
    if images is not None:
        return Crops(parity_images(images, most), f"{images.name}, by --images")
    try:
        if (run / "plan.yaml").is_file():
            return Crops(_training_crops(read_plan(run / "plan.yaml"), most), "the training set")
        why = "the run has no plan that names its faces"
    except (InputError, OSError) as error:
        why = f"the run's own faces are not at hand: {one_line(error)}"
    if "int8" in precisions:
        raise InputError(f"int8 takes its ranges from faces; {why}; wanted --images, a folder of crops or a .bin")
    return Crops(parity_images(most=most), "synthetic faces")


def _training_crops(plan: Plan, most: int) -> NDArray[np.uint8]:
    faces, crops = open_faces(plan), []
    for i in _spread(len(faces), most):
        with suppress(BadImage):
            crops.append(decode(faces.read(i), faces.key(i)))
    if len(crops) < max(BATCHES):
        raise InputError(f"{len(crops)} images that can be read, wanted {max(BATCHES)}")
    return np.stack(crops)


def parity_images(source: Path | None = None, most: int = FEW) -> NDArray[np.uint8]:
    """At most `most` crops (N, 112, 112, 3) uint8 RGB, evenly spread over a folder (with its folders) or a .bin.

    None means synthetic faces, the same ones every time. Raises InputError for a source that is no folder or
    .bin, holds no image, or holds one that cannot be used.
    """
    if source is None:
        return np.stack([sample(SEED, identity, 0)[0] for identity in range(most)])
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        return _stack(source, [(str(files[i]), _read(files[i])) for i in _spread(len(files), most)])
    if source.is_file() and source.suffix == ".bin":
        encoded = read_bin(source)[0]
        return _stack(source, [(f"{source}: image {i}", encoded[i]) for i in _spread(len(encoded), most)])
    missing = "" if source.exists() else "not found, "
    raise InputError(f"{source}: {missing}wanted a folder of aligned 112x112 crops or a verification .bin")


def _read(path: Path) -> bytes:
    """The file's bytes; one more than an image may have, so that decoding refuses a larger file."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` places of `count`, evenly spread."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()] if count else []


def _stack(source: Path, encoded: list[tuple[str, bytes]]) -> NDArray[np.uint8]:
    if not encoded:
        raise InputError(f"{source}: holds no image, wanted aligned 112x112 crops ({', '.join(SUFFIXES)})")
    return np.stack([decode(content, name) for name, content in encoded])
