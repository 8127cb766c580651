"""What an embedder is, and the one place that knows how pixels are normalised."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mobileface.errors import InputError, nearest

CHOICES = {"layout": ("nchw", "nhwc"), "color": ("rgb", "bgr"), "flip": ("sum", "none")}


@dataclass(frozen=True)
class InputContract:
    """What a network wants to be fed: x' = (x / scale - mean) / std, for x in 0..255.

    `mean` and `std` are in the order of the channels that the network takes (for `color` bgr: B, G, R).
    `flip` says how it is judged: "sum" adds the embedding of the mirrored image, as InsightFace's protocol
    does, "none" does not. The defaults are the contract of our own networks and exports: RGB in 0..255,
    normalised inside the graph.
    """

    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: str = "nchw"
    color: str = "rgb"
    flip: str = "sum"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three(name, getattr(self, name)))
        object.__setattr__(self, "scale", _number("scale", self.scale))
        for name, values in (("scale", (self.scale,)), ("std", self.std)):
            if min(values) <= 0:
                raise InputError(f"contract: {name} holds {min(values):g}, wanted numbers above 0")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"contract: {name} is {getattr(self, name)!r}, wanted one of {', '.join(known)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, as stored in JSON."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @staticmethod
    def from_dict(values: object) -> InputContract:
        """The inverse of `to_dict`; keys that are left out take their defaults, unknown ones are refused."""
        known = [field.name for field in fields(InputContract)]
        if not isinstance(values, dict):
            raise InputError(f"contract: found {type(values).__name__}, wanted an object with keys {known}")
        for key in values:
            if key not in known:
                raise InputError(f"contract: unknown key {key!r}{nearest(str(key), known)}, wanted {known}")
        return InputContract(**values)

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 RGB (B, 112, 112, 3) -> what the network takes: float32 (B, 3, 112, 112), or as it was."""
        if self.color == "bgr":
            images = images[..., ::-1]
        pixels = images.astype(np.float32, order="C")
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        with np.errstate(all="ignore"):  # what is not finite shows in the embeddings: `check_finite`
            pixels *= (1.0 / (self.scale * std)).astype(np.float32)
            pixels -= (mean / std).astype(np.float32)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if self.layout == "nchw" else pixels

    def shape(self) -> tuple[int, int, int]:
        """The shape of one image in this layout."""
        return (3, 112, 112) if self.layout == "nchw" else (112, 112, 3)


class Embedder(Protocol):
    """A callable: uint8 RGB images (B, 112, 112, 3) -> raw embeddings (B, dim) float32.

    Raw: not normalised, so that the norm can serve as quality; a foreign file that normalises inside gives
    unit vectors.
    """

    path: Path
    dim: int
    sha256: str
    contract: InputContract
    libraries: tuple[str, ...]  # the distributions that computed it, for the versions in a result

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def embed_with_flip(embedder: Embedder, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 112, 112, 3) -> (N, D): the raw embedding of each image plus that of its mirror image."""
    return embedder(images) + embedder(mirrored(images))


def mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(N, 112, 112, 3) -> the same, left and right changed."""
    return np.ascontiguousarray(images[:, :, ::-1])


def check_finite(embeddings: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Hand the embeddings (B, D) on, or raise InputError if any holds a NaN or an infinity."""
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise InputError(
            f"{path}: gives NaN or infinity for {len(bad)} of {len(embeddings)} images, wanted finite ones "
            "(damaged weights, or the wrong scale, mean or std)"
        )
    return embeddings


def _three(name: str, values: object) -> tuple[float, float, float]:
    """Three finite numbers, from a list or tuple of three."""
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise InputError(f"contract: {name} is {values!r}, wanted three numbers, one for each channel")
    first, second, third = (_number(name, value) for value in values)
    return first, second, third


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"contract: {name} holds {value!r}, wanted a finite number")
        return float(value)
    except OverflowError:  # a whole number
        raise InputError(f"contract: {name} holds a number beyond {sys.float_info.max:.1g}, wanted less") from None
