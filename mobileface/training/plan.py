"""A training run as data: the YAML of a recipe, validated. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mobileface.errors import InputError
from mobileface.plain_yaml import read_yaml
from mobileface.training.plan_errors import explain

MAX_PLAN_BYTES = 1 << 20
Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """Base of every table: unknown keys are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _switch(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value  # YAML reads on and off so


# -- data


class Synthetic(Table):
    """Procedural faces, written as train.rec and held_out.bin into the cache before anything else."""

    identities: Positive = 200
    images: Positive = 40
    held_out: Positive = 60
    pairs: Positive = 2000
    seed: int = Field(0, ge=0)


class Source(Table):
    """One folder of identity folders, or one .rec; lists name identities or image paths (first column)."""

    folder: str | None = None
    rec: str | None = None
    include: str | None = None
    exclude: str | None = None
    labelled: bool = True

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.folder is None) == (self.rec is None):
            raise ValueError("give one of folder, rec")
        if self.rec and (self.include or self.exclude or not self.labelled):
            raise ValueError("include, exclude and labelled go with folder, not with rec")
        return self


class Validate(Table):
    """Share of the training identities that are held out to judge checkpoints; 0 turns it off."""

    identities: Annotated[float, Field(ge=0, lt=1)] = 0.02


class Data(Table):
    """Where images come from. Paths are relative to `root`; synthetic faces have a root of their own."""

    train: list[Source] = Field(min_length=1)
    validate_: Validate = Field(Validate(), alias="validate")
    root: str = "."
    synthetic: Synthetic | None = None
    max_corrupt: int = Field(10, ge=0, description="bad images that are skipped before training stops")
    licence: str = "not stated"

    @model_validator(mode="after")
    def _one_root(self) -> Data:
        if self.synthetic and self.root != ".":
            raise ValueError(f"synthetic faces lie in the cache; leave root (--data), here {self.root!r}, out")
        return self


class Contract(Table):
    """How a foreign network wants its pixels: (x / scale - mean) / std."""

    scale: float = Field(gt=0)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: Literal["nchw", "nhwc"] = "nchw"
    color: Literal["rgb", "bgr"] = "rgb"
    flip: Literal["sum", "none"] = "sum"


class Teacher(Table):
    """An embedder to learn from: an ONNX file (with its contract) or a run folder."""

    model: str
    contract: Contract | None = None


# -- one phase


class Optimizer(Table):
    """Weight decay acts on weights of convolutions and on centres, not on batch norms, biases and slopes."""

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)


class Schedule(Table):
    """Learning rate over images seen. warmup: images of a linear rise; milestones: images of a step's drops."""

    kind: Literal["constant", "step", "cosine", "one_cycle", "polynomial"] = "cosine"
    warmup: int = Field(0, ge=0)
    milestones: list[Positive] = []
    factor: float = Field(0.1, gt=0, lt=1)
    power: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> Schedule:
        if (self.kind == "step") != bool(self.milestones):
            raise ValueError("milestones go with kind step, which needs them")
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} do not rise")
        if self.kind == "one_cycle" and self.warmup:
            raise ValueError("one_cycle has its own rise; leave warmup out")
        return self


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
    BeforeValidator(_kind),
]


class Softmax(Table):
    """No margin (NormFace)."""

    kind: Literal["softmax"]


class ArcFace(Table):
    """cos(theta + radians)."""

    kind: Literal["arcface"]
    radians: float = Field(0.5, ge=0, lt=3.14159)


class CosFace(Table):
    """cos(theta) - cosine."""

    kind: Literal["cosface"]
    cosine: float = Field(0.35, ge=0)


class Combined(Table):
    """cos(factor * theta + radians) - cosine."""

    kind: Literal["combined"]
    factor: float = Field(1.0, ge=1)
    radians: float = Field(0.3, ge=0, lt=3.14159)
    cosine: float = Field(0.2, ge=0)


Margin = Annotated[
    Annotated[Softmax | ArcFace | CosFace | Combined, Field(discriminator="kind")], BeforeValidator(_kind)
]


class Classification(Table):
    """Cross-entropy over all training identities, margin on the own class."""

    kind: Literal["classification"]
    weight: float = Field(1.0, ge=0)
    margin: Margin = ArcFace(kind="arcface")
    scale: float = Field(64.0, gt=0)


class Distillation(Table):
    """1 - cosine to the teacher's embedding of the clean crop and its flip."""

    kind: Literal["distillation"]
    weight: float = Field(1.0, ge=0)


Term = Annotated[Annotated[Classification | Distillation, Field(discriminator="kind")], BeforeValidator(_kind)]


class Views(Table):
    """Augmentation of each view of an image, in order."""

    clean: list[Augmentation] = [Flip(kind="flip")]


class Phase(Table):
    """One stretch of training. Lengths are in images seen."""

    name: str = "phase"
    images: Positive = 1_000_000
    batch: Annotated[int, Field(ge=2)] = 128  # a batch norm needs two
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    sampler: Literal["plain"] = "plain"
    views: Views = Views()
    terms: list[Term] = Field([Classification(kind="classification")], min_length=1)

    @model_validator(mode="after")
    def _each_kind_once(self) -> Phase:
        kinds = [term.kind for term in self.terms]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"terms {', '.join(kinds)}: each kind may stand once")
        return self


# -- the whole


class BudgetLimits(Table):
    """Limits of its own; `search.budget` says what each means."""

    name: str = "custom"
    rule: Literal["lfrc", "macs"] = "lfrc"
    max_flops: float | None = Field(None, gt=0)
    max_size_mib: float | None = Field(None, gt=0)
    max_dim: int | None = Field(None, gt=0)


class Export(Table):
    """Formats to write and to prove equal."""

    formats: list[Literal["onnx"]] = ["onnx"]


class Checkpoint(Table):
    """How often the run is saved and judged, in images seen."""

    every_images: Positive = 50_000


class Plan(Table):
    """A recipe: what to train, on what, how, and what is done with the result."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    arch: str | dict[str, Any]
    data: Data
    seed: int = Field(0, ge=0, lt=2**32)
    budget: str | BudgetLimits | None = None
    teacher: Teacher | None = None
    phases: list[Phase] = Field([Phase()], min_length=1, max_length=1)  # several: not in this version
    evaluate: list[str] = []
    export: Export = Export()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)] = "auto"
    checkpoint: Checkpoint = Checkpoint()

    @model_validator(mode="after")
    def _teacher_is_there(self) -> Plan:
        taught = any(term.kind == "distillation" for phase in self.phases for term in phase.terms)
        if taught and self.teacher is None:
            raise ValueError("a distillation term needs a teacher: {model: FILE}")
        if self.teacher and not taught:
            raise ValueError("a teacher needs a distillation term that learns from it")
        return self

    def to_yaml(self) -> str:
        """The whole plan, defaults included; `read_plan` reads it back."""
        return yaml.safe_dump(self.model_dump(by_alias=True, exclude_none=True), sort_keys=False)


def read_plan(path: Path, overrides: list[str] | None = None) -> Plan:
    """Read a recipe and apply `--set key.0.key=value` overrides; raises InputError that names the key."""
    if not path.is_file():
        raise InputError(f"{path}: no such recipe; wanted a YAML file")
    if path.stat().st_size > MAX_PLAN_BYTES:
        raise InputError(f"{path}: is larger than {MAX_PLAN_BYTES} bytes; not a plan")
    try:
        data = read_yaml(path.read_text(encoding="utf-8"))
    except ValueError as error:  # bytes that are not UTF-8 as well
        raise InputError(f"{path}: is not YAML ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds {type(data).__name__}, wanted a table of keys such as name, arch, data")
    for override in overrides or []:
        _override(data, override)
    return parse_plan(data, str(path))


def parse_plan(data: dict[str, Any], source: str) -> Plan:
    """Validate plain data. Every error is one line: where, what was found, what is wanted."""
    try:
        return Plan.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, Plan)}") from None


def _override(data: Any, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set {text}: wanted KEY=VALUE, such as phases.0.images=20000")
    *parents, last = key.split(".")
    try:
        parsed = read_yaml(value)
    except ValueError as error:
        raise InputError(f"--set {text}: the value is not YAML ({error})") from None
    for part in parents:
        if isinstance(data, list):
            data = data[_place(data, part, text)]
        elif isinstance(data, dict):
            data = data.setdefault(part, {})
        else:
            raise InputError(f"--set {text}: {part!r} is not inside a table or a list")
    if isinstance(data, list):
        data[_place(data, last, text)] = parsed
    elif isinstance(data, dict):
        data[last] = parsed
    else:
        raise InputError(f"--set {text}: {last!r} is not inside a table or a list")


def _place(items: list[Any], part: str, text: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise InputError(f"--set {text}: {part!r} is no place in a list of {len(items)}; wanted 0..{len(items) - 1}")
    return int(part)
