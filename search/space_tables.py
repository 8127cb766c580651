"""The keys of a space's file (search.space), and the spaces by name as their files would have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from mobileface.arch import MAX_CHANNELS, MAX_DEPTH
from mobileface.arch.checks import MAX_BLOCKS
from mobileface.training.plan_table import Table

MAX_CHOICES, MAX_SPACE_STAGES = 64, 6


def _distinct(choices: list[Any]) -> list[Any]:
    if twice := [choice for i, choice in enumerate(choices) if choice in choices[:i]]:
        raise ValueError(f"{twice[0]} stands there twice, wanted each choice once")
    return choices


def _kernel(size: int) -> int:
    if size not in (3, 5):
        raise ValueError(f"wanted 3 or 5, found {size}")
    return size


_Size = Field(min_length=1, max_length=MAX_CHOICES)
_Once = AfterValidator(_distinct)
_Channels = Annotated[list[Annotated[StrictInt, Field(ge=1, le=MAX_CHANNELS)]], _Size, _Once]
_Depths = Annotated[list[Annotated[StrictInt, Field(ge=0, le=MAX_DEPTH)]], _Size, _Once]
_Kernels = Annotated[list[Annotated[StrictInt, AfterValidator(_kernel)]], _Size, _Once]
_Switches = Annotated[list[StrictBool], _Size, _Once]
_Activations = Annotated[list[Literal["prelu", "leaky_relu", "hard_swish"]], _Size, _Once]


class _Reduction(Table):
    hidden: _Channels
    kernel: _Kernels = Field([3])
    se: _Switches = Field([True])


class _Stage(Table):
    width: _Channels
    reduction: _Reduction | None = None
    depth: _Depths
    hidden: _Channels
    kernel: _Kernels = Field([3])
    se: _Switches = Field([True])


def _ordered(stages: list[_Stage]) -> list[_Stage]:
    for place, stage in enumerate(stages):
        if stage.reduction is None and (place > 0 or len(stages) == 1):
            raise ValueError(f"stage {place} has no reduction, which only the first of several may be without")
    if (most := sum(max(stage.depth) + 1 for stage in stages)) > MAX_BLOCKS:
        raise ValueError(f"{most} blocks in the deepest network, wanted at most {MAX_BLOCKS}")
    return stages


class SpaceTable(Table):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    stem: _Channels
    stem_depthwise: _Switches = Field([False])
    activation: _Activations = Field(["prelu"])
    stages: Annotated[list[_Stage], Field(min_length=1, max_length=MAX_SPACE_STAGES), AfterValidator(_ordered)]
    head: _Channels
    embedding_dim: _Channels


# -- by name

_ACTIVATIONS = ["prelu", "leaky_relu", "hard_swish"]
_FREE = {"kernel": [3, 5], "se": [True, False]}


def _depths(most: int) -> list[int]:
    return list(range(most + 1))


SPACES: dict[str, dict[str, Any]] = {
    # Around Table 2 of A Progressive Learning Framework: its steps 0 to 5, with and without SE, and MobileFaceNet
    # are members. The finer steps of channels are those of the paper's values.
    "lfrc": {
        "stem": [16, 24, 26, 28, 30, 32, 40, 48, 56, 64],
        "stem_depthwise": [False, True],
        "activation": _ACTIVATIONS,
        "stages": [
            {  # 56x56
                "width": [16, 24, 26, 28, 30, 32, 40, 48, 56, 64],
                "depth": _depths(4),
                "hidden": [32, 40, 48, 56, 58, 60, 62, 64, 80, 96, 112, 128],
                **_FREE,
            },
            {  # 28x28
                "width": [40, 48, 56, 58, 60, 62, 64, 72, 80, 96],
                "reduction": {"hidden": [64, 80, 96, 112, 116, 120, 124, 128, 160, 192], **_FREE},
                "depth": _depths(10),
                "hidden": [64, 80, 96, 112, 116, 120, 124, 128, 160, 192],
                **_FREE,
            },
            {  # 14x14
                "width": [80, 96, 112, 124, 128, 144, 160, 192],
                "reduction": {"hidden": [128, 160, 192, 224, 248, 256, 320, 384], **_FREE},
                "depth": _depths(20),
                "hidden": [128, 160, 192, 224, 248, 256, 320, 384],
                **_FREE,
            },
            {  # 7x7
                "width": [96, 128, 160, 192, 224, 256, 288, 320],
                "reduction": {"hidden": [256, 320, 384, 448, 512, 576, 640], **_FREE},
                "depth": _depths(28),
                "hidden": [128, 192, 256, 320, 384, 512],
                **_FREE,
            },
        ],
        "head": [256, 320, 384, 448, 512, 640],
        "embedding_dim": [128, 192, 256, 282, 320, 384, 512],
    },
    # For networks of 20 to 200 MFLOPs, which train in minutes on two CPU cores: student-real, tiny and step 5 with
    # half the channels and half the depths are members.
    "small": {
        "stem": [8, 12, 16, 24, 32],
        "stem_depthwise": [False, True],
        "activation": _ACTIVATIONS,
        "stages": [
            {"width": [8, 12, 16, 24, 32], "depth": _depths(2), "hidden": [16, 24, 28, 32, 48, 64], **_FREE},
            {
                "width": [24, 28, 32, 40, 48, 64],
                "reduction": {"hidden": [16, 24, 32, 48, 56, 64, 96, 128], **_FREE},
                "depth": _depths(4),
                "hidden": [48, 56, 64, 96, 128],
                **_FREE,
            },
            {
                "width": [32, 48, 64, 80, 96],
                "reduction": {"hidden": [48, 64, 96, 128, 192], **_FREE},
                "depth": _depths(8),
                "hidden": [48, 64, 96, 128, 192],
                **_FREE,
            },
            {
                "width": [64, 96, 128, 160, 192],
                "reduction": {"hidden": [96, 128, 192, 256, 384], **_FREE},
                "depth": _depths(12),
                "hidden": [96, 128, 192, 256, 384],
                **_FREE,
            },
        ],
        "head": [128, 256, 384, 512],
        "embedding_dim": [64, 128, 256],
    },
}
