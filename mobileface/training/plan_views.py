"""A plan's views of an image: how it is augmented."""

from __future__ import annotations

from typing import Annotated, Literal

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


class LowResolution(Table):
    """Side shrunk to `least`..1 of itself and enlarged."""

    kind: Literal["low_resolution"]
    p: Probability = 0.2
    least: float = Field(0.25, gt=0, le=1)


class Cutout(Table):
    """A filled rectangle, sides up to `most` of the crop's."""

    kind: Literal["cutout"]
    p: Probability = 0.2
    most: float = Field(0.4, gt=0, le=1)


Augmentation = Annotated[
    Annotated[Flip | Affine | Brightness | Saturation | LowResolution | Cutout, Field(discriminator="kind")],
    NameAlone,
]


class Views(Table):
    """Augmentation of each view of an image, in order."""

    clean: list[Augmentation] = Field([Flip(kind="flip")])
