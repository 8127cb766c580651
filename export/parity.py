"""Does an exported file answer as its network does? Same images, its own runtime, at batch 1 and N."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.arch import INPUT_SIZE
from mobileface.embedders.contract import Embedder
from mobileface.errors import CheckFailed, InputError
from mobileface.files import remove

BATCHES = (1, 8)  # one image, and several: a fixed batch is a usual defect of exported files

TINY = 1e-12  # the norm below which an embedding counts as zero


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its network: on unit embeddings, and relative for the norm (`quality`)."""

    max_abs: float
    min_cosine: float
    mean_cosine: float
    quality: float


# fp32: rounding alone gives 3e-6, 1 - 4e-11 and 3e-6 on lfrc-step5, the deepest of the zoo. int8 is judged by its mean:
# what one image loses matters less than what a set of pairs does.
TOLERANCES = {
    "fp32": Tolerance(max_abs=1e-4, min_cosine=1 - 1e-6, mean_cosine=1 - 1e-6, quality=1e-4),
    "fp16": Tolerance(max_abs=1e-2, min_cosine=0.9999, mean_cosine=0.9999, quality=1e-2),
    "int8": Tolerance(max_abs=1.0, min_cosine=0.9, mean_cosine=0.99, quality=0.25),
}


@dataclass(frozen=True)
class ParityReport:
    """The worst that was seen over all images and batch sizes.

    max_abs: largest difference of a component of the unit embeddings; min_cosine, mean_cosine: of an image's two
    embeddings, the least and the mean (that of the worse batch size); quality_error: largest difference of the norms,
    relative to the network's.
    """

    batches: tuple[int, ...]
    images: int
    max_abs: float
    min_cosine: float
    mean_cosine: float
    quality_error: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether every figure is within the tolerance; a NaN never is."""
        allowed = self.tolerance
        return (
            self.max_abs <= allowed.max_abs
            and self.min_cosine >= allowed.min_cosine
            and self.mean_cosine >= allowed.mean_cosine
            and self.quality_error <= allowed.quality
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for export/FORMAT.json."""
        return {**asdict(self), "batches": list(self.batches), "passed": self.passed}

    def text(self) -> str:
        """The figures in one line, each with what is allowed."""
        allowed = self.tolerance
        batches = " and ".join(map(str, self.batches))
        return (
            f"largest difference {self.max_abs:.1e} (allowed {allowed.max_abs:g}), least cosine "
            f"{self.min_cosine:.9g} (wanted {allowed.min_cosine:g}), mean cosine {self.mean_cosine:.9g} (wanted "
            f"{allowed.mean_cosine:g}), norms apart by {self.quality_error:.1e} (allowed {allowed.quality:g}), on "
            f"{self.images} images at batch {batches}"
        )


class ParityMissed(CheckFailed):
    """A file answers otherwise than its network."""


def parity(
    reference: Embedder,
    candidate: Embedder,
    images: NDArray[np.uint8],
    batches: tuple[int, ...] = BATCHES,
    tolerance: Tolerance = TOLERANCES["fp32"],
) -> ParityReport:
    """Compare the raw embeddings of `images` (N, 112, 112, 3) uint8 RGB, given in pieces of each batch size.

    Raises InputError for fewer images than the largest batch, CheckFailed where the candidate does not answer
    at all: a batch that it cannot take, another width, a NaN.
    """
    if images.shape[1:] != (INPUT_SIZE, INPUT_SIZE, 3) or images.dtype != np.uint8:
        raise InputError(f"parity: images are {images.dtype} {images.shape}, wanted uint8 (N, 112, 112, 3)")
    if len(images) < max(batches):
        raise InputError(f"parity: {len(images)} images, wanted at least {max(batches)}, the largest batch")
    wanted = _in_batches(reference, images, max(batches))
    unit, norm = _split(wanted)
    max_abs, min_cosine, mean_cosine, quality_error = 0.0, 1.0, 1.0, 0.0
    for batch in batches:
        found = _answers(candidate, images, batch, wanted.shape)
        difference = _split(found)[0] - unit
        cosine = 1 - (difference**2).sum(axis=1) / 2  # exact for unit vectors, and 1 for two zero vectors
        quality = np.abs(_split(found)[1] - norm) / np.maximum(norm, TINY)
        max_abs = float(np.maximum(max_abs, np.abs(difference).max()))  # unlike max(), lets a NaN through
        min_cosine = float(np.minimum(min_cosine, cosine.min()))
        mean_cosine = float(np.minimum(mean_cosine, cosine.mean()))
        quality_error = float(np.maximum(quality_error, quality.max()))
    return ParityReport(batches, len(images), max_abs, min_cosine, mean_cosine, quality_error, tolerance)


def gate(
    reference: Embedder,
    candidate: Embedder,
    images: NDArray[np.uint8],
    tolerance: Tolerance = TOLERANCES["fp32"],
    name: str | None = None,
    batches: tuple[int, ...] = BATCHES,
) -> ParityReport:
    """`parity` that removes what the candidate was read from and raises CheckFailed on a miss.

    `name` stands for the file in the message, where it has a temporary name.
    """
    name = name or str(candidate.path)
    try:
        report = parity(reference, candidate, images, batches, tolerance)
        if not report.passed:
            raise CheckFailed(report.text())
    except CheckFailed as missed:
        remove(candidate.path)
        raise ParityMissed(f"{name}: is not the network, and is not kept: {missed}") from None
    return report


def _in_batches(embedder: Embedder, images: NDArray[np.uint8], batch: int) -> NDArray[np.float64]:
    pieces = [embedder(images[start : start + batch]) for start in range(0, len(images), batch)]
    return np.concatenate(pieces).astype(np.float64)


def _answers(candidate: Embedder, images: NDArray[np.uint8], batch: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The candidate's embeddings. What is bad input elsewhere is here a fault of the export."""
    try:
        found = _in_batches(candidate, images, batch)
    except InputError as error:
        raise CheckFailed(f"at batch {batch}: {error}") from None
    if found.shape != shape:
        raise CheckFailed(f"at batch {batch}: embeddings are {found.shape}, wanted {shape}")
    return found


def _split(raw: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit embeddings (N, D) and norms (N,); a zero embedding stays zero."""
    norm = np.linalg.norm(raw, axis=1)
    return raw / np.maximum(norm, TINY)[:, None], norm
