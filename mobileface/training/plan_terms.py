"""A plan's losses: the classification loss by its four parts, and the terms beside it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mobileface.training.plan_table import NameAlone, Table

Angle = Annotated[float, Field(ge=0, lt=3.14159)]
Gradient = Literal["exact", "straight_through"]
Weight = Annotated[float, Field(ge=0)]
View = Literal["clean", "degraded"]
Threshold = Annotated[float, Field(ge=0, le=1)] | Literal["none"]  # b of QGFace's partition by quality, 0..1


# -- margins (losses/margins.py)


class Softmax(Table):
    """No margin (NormFace)."""

    kind: Literal["softmax"]


class ArcFace(Table):
    """cos(theta + radians)."""

    kind: Literal["arcface"]
    radians: Angle = 0.5
    gradient: Gradient = "exact"


class CosFace(Table):
    """cos(theta) - cosine."""

    kind: Literal["cosface"]
    cosine: float = Field(0.35, ge=0)


class SphereFace(Table):
    """cos(factor * theta)."""

    kind: Literal["sphereface"]
    factor: float = Field(1.35, ge=1)
    gradient: Gradient = "exact"


class Combined(Table):
    """cos(factor * theta + radians) - cosine."""

    kind: Literal["combined"]
    factor: float = Field(1.0, ge=1)
    radians: Angle = 0.3
    cosine: float = Field(0.2, ge=0)
    gradient: Gradient = "exact"


class MagFace(Table):
    """ArcFace with a margin that grows with the norm, and a term that makes the norm grow."""

    kind: Literal["magface"]
    norm_low: float = Field(10.0, gt=0)
    norm_high: float = Field(110.0, gt=0)
    radians_low: Angle = 0.45
    radians_high: Angle = 0.8
    penalty_weight: Weight = 35.0
    gradient: Gradient = "exact"


class AdaFace(Table):
    """Angular margin for bad images, additive for good ones."""

    kind: Literal["adaface"]
    margin: Angle = 0.4
    concentration: float = Field(0.333, ge=0)
    quality: Literal["norm", "probability", "score"] = "norm"
    gradient: Gradient = "exact"


Margin = Annotated[
    Annotated[
        Softmax | ArcFace | CosFace | SphereFace | Combined | MagFace | AdaFace,
        Field(discriminator="kind"),
    ],
    NameAlone,
]


# -- negatives (losses/negatives.py)


class Plain(Table):
    """Cosines of the other classes as they are."""

    kind: Literal["plain"]


class SupportVector(Table):
    """Classes closer than the own one, margin included, count more (progressive framework, eq. 5-6)."""

    kind: Literal["support_vector"]
    t: float = Field(1.2, ge=1)


class Curricular(Table):
    """Hard classes count more as training goes on (CurricularFace)."""

    kind: Literal["curricular"]


Negatives = Annotated[
    Annotated[Plain | SupportVector | Curricular, Field(discriminator="kind")],
    NameAlone,
]


# -- terms


class Balance(Table):
    """Class-balanced weights (progressive framework, eq. 9); beta 0 weighs all classes alike."""

    beta: float = Field(0.9999, ge=0, lt=1)


def _once(values: list[str]) -> list[str]:
    """Each may stand once."""
    if len(set(values)) != len(values):
        raise ValueError(f"{', '.join(values)}: each may stand once")
    return values


class Classification(Table):
    """Cross-entropy over all training identities, margin on the own class. Samples of all its views, where their
    quality is above the threshold."""

    kind: Literal["classification"]
    weight: Weight = 1.0
    margin: Margin = ArcFace(kind="arcface")
    scale: float = Field(64.0, gt=0)
    negatives: Negatives = Plain(kind="plain")
    balance: Balance = Balance(beta=0)
    sample: float = Field(1.0, gt=0, le=1, description="share of the classes that a step sees (partial FC)")
    views: Annotated[list[View], AfterValidator(_once)] = Field(["clean"], min_length=1)
    threshold: Threshold = "none"


class Intra(Table):
    """Angle to the own class centre (eq. 7), in units of pi; needs classification."""

    kind: Literal["intra"]
    weight: Weight = 1.0
    view: View = "clean"


class Inter(Table):
    """Largest cosine between class centres (eq. 8); needs classification. `all`: costs the square of the classes."""

    kind: Literal["inter"]
    weight: Weight = 1.0
    over: Literal["batch", "all"] = "batch"


class Centre(Table):
    """Euclidean distance to a centre of its own (centre loss)."""

    kind: Literal["centre"]
    weight: Weight = 0.003
    view: View = "clean"


class Triplet(Table):
    """Triplets within a batch; wants a sampler that repeats identities."""

    kind: Literal["triplet"]
    weight: Weight = 1.0
    mining: Literal["batch_hard", "semi_hard"] = "semi_hard"
    distance: Literal["euclidean", "squared", "cosine"] = "euclidean"
    margin: float = Field(0.3, gt=0)
    normalised: bool = True
    view: View = "clean"


class Octuplet(Table):
    """Triplets between clean and degraded views (octuplet loss, eq. 11). relative: margin times the mean norm."""

    kind: Literal["octuplet"]
    weight: Weight = 1.0
    distance: Literal["euclidean", "squared", "cosine"] = "euclidean"
    margin: float = Field(25.0, gt=0)
    relative: bool = False
    normalised: bool = False
    terms: Annotated[list[Literal["hhh", "hll", "lhh", "lll"]], AfterValidator(_once)] = Field(
        ["hhh", "hll", "lhh", "lll"], min_length=1
    )

    @model_validator(mode="after")
    def _has_norms(self) -> Octuplet:
        if self.relative and (self.normalised or self.distance == "cosine"):
            raise ValueError("relative multiplies by the norms, which normalised and the cosine take away")
        return self


class Contrastive(Table):
    """Poor images against their clean ones (QGFace); a queue as large as the number of identities unless told."""

    kind: Literal["contrastive"]
    weight: Weight = 1.0
    scale: float = Field(64.0, gt=0)
    threshold: Threshold = 0.2
    queue: Literal["proxy", "batch", "momentum"] = "proxy"
    size: Annotated[int, Field(gt=0)] | None = None
    momentum: float = Field(0.999, ge=0, lt=1, description="of the momentum queue's encoder")


class Distillation(Table):
    """1 - cosine to the teacher's embedding."""

    kind: Literal["distillation"]
    weight: Weight = 1.0
    view: View = "clean"


class RelationalDistillation(Table):
    """Squared difference between student and teacher of the cosines between a batch's images."""

    kind: Literal["relational_distillation"]
    weight: Weight = 1.0
    view: View = "clean"


class LogitDistillation(Table):
    """Divergence from the teacher's softmax over the training's identities, against centres of its own embeddings."""

    kind: Literal["logit_distillation"]
    weight: Weight = 1.0
    scale: float = Field(64.0, gt=0)
    temperature: float = Field(4.0, gt=0, le=1000)
    view: View = "clean"


TAUGHT = (Distillation, RelationalDistillation, LogitDistillation)  # what reads the teacher's embeddings

Term = Annotated[
    Annotated[
        Classification
        | Intra
        | Inter
        | Centre
        | Triplet
        | Octuplet
        | Contrastive
        | Distillation
        | RelationalDistillation
        | LogitDistillation,
        Field(discriminator="kind"),
    ],
    NameAlone,
]


def views_of(term: Term) -> set[str]:
    """The views that a term reads."""
    if isinstance(term, Octuplet | Contrastive):
        return {"clean", "degraded"}
    return set(term.views) if isinstance(term, Classification) else {getattr(term, "view", "clean")}
