"""A plan's views of an image: how it is augmented."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

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


class Range(Table):
    """A strength drawn from `least`..`most`."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        least, most = getattr(self, "least"), getattr(self, "most")  # noqa: B009
        if least > most:
            raise ValueError(f"least {least:g} is above most {most:g}")
        return self


class LowResolution(Range):
    """Side shrunk to `least`..`most` of itself and enlarged. AdaFace: 0.2..1, and lanczos4 among the interpolations."""

    kind: Literal["low_resolution"]
    p: Probability = 0.2
    least: float = Field(0.25, gt=0, le=1)
    most: float = Field(1.0, gt=0, le=1)
    interpolations: list[Literal["nearest", "linear", "area", "cubic", "lanczos4"]] = Field(
        ["nearest", "linear", "area", "cubic"], min_length=1
    )


class Cutout(Table):
    """A filled rectangle, sides up to `most` of the crop's."""

    kind: Literal["cutout"]
    p: Probability = 0.2
    most: float = Field(0.4, gt=0, le=1)


class Resolution(Table):
    """Shrunk to one of `sides`, px, and enlarged: bicubic, anti-aliased on the way down. per: one draw for the batch or
    for each image."""

    kind: Literal["resolution"]
    p: Probability = 1.0
    sides: list[Annotated[int, Field(ge=1, le=112)]] = Field([7, 14, 28], min_length=1)  # octuplet loss
    per: Literal["batch", "image"] = "batch"


class Jpeg(Range):
    """Artefacts of a JPEG file of quality `least`..`most`."""

    kind: Literal["jpeg"]
    p: Probability = 1.0
    least: int = Field(75, ge=1, le=100)  # QGFace's public code
    most: int = Field(75, ge=1, le=100)


class MotionBlur(Range):
    """The mean along a straight path of `least`..`most` px."""

    kind: Literal["motion_blur"]
    p: Probability = 0.2
    least: float = Field(2.0, ge=0, le=56)
    most: float = Field(12.0, ge=0, le=56)


class ResizedCrop(Table):
    """A rectangle of `least`..1 of the area, enlarged to the whole; width / height in 1 / ratio..ratio."""

    kind: Literal["resized_crop"]
    p: Probability = 1.0
    least: float = Field(0.8, gt=0, le=1)  # QGFace's public code
    ratio: float = Field(4 / 3, ge=1, le=10)


Augmentation = Annotated[
    Annotated[
        Flip
        | Affine
        | Brightness
        | Saturation
        | Photometric
        | CropPaste
        | ResizedCrop
        | LowResolution
        | Resolution
        | Jpeg
        | MotionBlur
        | Cutout,
        Field(discriminator="kind"),
    ],
    NameAlone,
]


ALL_KERNELS = ["nearest", "linear", "area", "cubic", "lanczos4"]
NAMED: dict[str, list[Any]] = {
    "octuplet": ["resolution"],
    "adaface": [
        "crop_paste",
        {"kind": "low_resolution", "least": 0.2, "interpolations": ALL_KERNELS},
        "photometric",
    ],
    "qgface": [  # its public code's L view; the order is ours
        {"kind": "low_resolution", "p": 1.0, "least": 0.1, "most": 0.5, "interpolations": ALL_KERNELS},
        "jpeg",
        "resized_crop",
        {"kind": "photometric", "p": 1.0, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        {"kind": "affine", "p": 1.0, "degrees": 45, "shift": 0, "zoom": 0},
        "flip",
    ],
}


def _named(value: Any) -> Any:
    """A set of steps by its name."""
    if not isinstance(value, str):
        return value
    if value not in NAMED:
        raise ValueError(f"{value[:80]!r} is no set of steps here; wanted a list, or one of {', '.join(NAMED)}")
    return NAMED[value]


Steps = Annotated[list[Augmentation], BeforeValidator(_named)]


class Views(Table):
    """Augmentation of each view of an image, in order: a list of steps, or the name of one. The clean view is made from
    the crop, the degraded one from the clean one."""

    clean: Steps = Field([Flip(kind="flip")])
    degraded: Steps | None = None


def steps(view: Iterable[Augmentation]) -> list[tuple[str, float, dict[str, Any]]]:
    """(operation, probability, strength) of each: what the loader takes."""
    return [(a.kind, a.p, a.model_dump(exclude={"kind", "p"})) for a in view]
