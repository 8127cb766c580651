"""A plan's views of an image: how it is augmented."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from mobileface.training.plan_table import NameAlone, Probability, Table


class Flip(Table):
    """Mirror."""

    kind: Literal["flip"]
    p: Probability = 0.5


class Affine(Table):
    """Small rotation (degrees), shift (px), zoom (share)."""

    kind: Literal["affine"]
    p: Probability = 0.5
    degrees: float = Field(8.0, ge=0, le=180)
    shift: float = Field(3.0, ge=0, le=56)
    zoom: float = Field(0.06, ge=0, lt=1)


class Brightness(Table):
    """Times 1 +- strength."""

    kind: Literal["brightness"]
    p: Probability = 0.5
    strength: float = Field(0.3, ge=0, le=1)


class Saturation(Table):
    """Blend with grey, 1 +- strength."""

    kind: Literal["saturation"]
    p: Probability = 0.3
    strength: float = Field(0.5, ge=0, le=1)


class Photometric(Table):
    """Brightness, contrast and saturation, each times 1 +- its number, in random order: ColorJitter with hue 0."""

    kind: Literal["photometric"]
    p: Probability = 0.2  # this and the numbers: AdaFace
    brightness: float = Field(0.5, ge=0, le=1)
    contrast: float = Field(0.5, ge=0, le=1)
    saturation: float = Field(0.5, ge=0, le=1)


class CropPaste(Table):
    """A rectangle of `least`..1 of the area stays at its place, on black; width / height in 1 / ratio..ratio."""

    kind: Literal["crop_paste"]
    p: Probability = 0.2  # this and the numbers: AdaFace
    least: float = Field(0.2, gt=0, le=1)
    ratio: float = Field(4 / 3, ge=1, le=10)


class LowResolution(Table):
    """Side shrunk to `least`..1 of itself and enlarged. AdaFace: least 0.2, and lanczos4 among the interpolations."""

    kind: Literal["low_resolution"]
    p: Probability = 0.2
    least: float = Field(0.25, gt=0, le=1)
    interpolations: list[Literal["nearest", "linear", "area", "cubic", "lanczos4"]] = Field(
        ["nearest", "linear", "area", "cubic"], min_length=1
    )


class Cutout(Table):
    """A filled rectangle, sides up to `most` of the crop's."""

    kind: Literal["cutout"]
    p: Probability = 0.2
    most: float = Field(0.4, gt=0, le=1)


Augmentation = Annotated[
    Annotated[
        Flip | Affine | Brightness | Saturation | Photometric | CropPaste | LowResolution | Cutout,
        Field(discriminator="kind"),
    ],
    NameAlone,
]


class Views(Table):
    """Augmentation of each view of an image, in order."""

    clean: list[Augmentation] = Field([Flip(kind="flip")])


def steps(view: Iterable[Augmentation]) -> list[tuple[str, float, dict[str, Any]]]:
    """(operation, probability, strength) of each: what the loader takes."""
    return [(a.kind, a.p, a.model_dump(exclude={"kind", "p"})) for a in view]
