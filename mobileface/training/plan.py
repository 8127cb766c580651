"""A training run as data: the YAML of a recipe, validated. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from mobileface.errors import InputError
from mobileface.plain_yaml import read_yaml, read_yaml_file
from mobileface.training.plan_errors import explain
from mobileface.training.plan_phases import Phase, switch, wrapped
from mobileface.training.plan_table import Positive, Table
from mobileface.training.plan_terms import TAUGHT, LogitDistillation

MAX_PLAN_BYTES = 1 << 20


# -- data


class Synthetic(Table):
    """Procedural faces, written as train.rec and held_out.bin into the cache before anything else."""

    identities: Positive = 200
    images: Positive = 40
    held_out: Positive = 60
    pairs: Positive = 2000
    seed: int = Field(0, ge=0)


class Source(Table):
    """One folder of identity folders, or one .rec; lists name identities or image paths, or records (first column)."""

    folder: str | None = None
    rec: str | None = None
    include: str | None = None
    exclude: str | None = None
    scores: str | None = None  # list file: image path, tab, its quality in 0..1 (AdaFace with quality: score)
    labelled: bool = True

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.folder is None) == (self.rec is None):
            raise ValueError("give one of folder, rec")
        if self.rec and (self.include or self.scores or not self.labelled):
            raise ValueError("include, scores and labelled go with folder, not with rec")
        return self


class Validate(Table):
    """Share of the training identities that are held out to judge checkpoints; 0 turns it off. sides: what they are
    judged by is the mean over these, px: one image of each pair is shrunk to it."""

    identities: Annotated[float, Field(ge=0, lt=1)] = 0.02
    sides: list[Annotated[int, Field(ge=1, le=112)]] = Field([112], min_length=1)

    @model_validator(mode="after")
    def _sides_differ(self) -> Validate:
        if len(set(self.sides)) != len(self.sides):
            raise ValueError(f"sides {self.sides}: each may stand once")
        return self


class Data(Table):
    """Where images come from. Paths are relative to `root`; synthetic faces have a root of their own."""

    train: list[Source] = Field(min_length=1)
    validate_: Validate = Field(Validate(), alias="validate")
    min_images: Positive = 1  # identities with fewer images (the long tail) are left out of the training
    root: str = "."
    synthetic: Synthetic | None = None
    max_corrupt: int = Field(10, ge=0, description="bad images that are skipped before training stops")
    licence: str = "not stated"

    @model_validator(mode="after")
    def _one_root(self) -> Data:
        if self.synthetic and self.root != ".":
            raise ValueError(f"synthetic faces lie in the cache; leave root (--data), here {self.root[:80]!r}, out")
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
    """An embedder to learn from: an ONNX file (with its contract) or a run folder.

    online: it embeds in every step the clean view, augmented as it is; else each clean crop and its flip, once.
    """

    model: str
    contract: Contract | None = None
    online: bool = False
    blends: int = Field(0, ge=0, le=10_000_000, description="faces blended from pairs of training images, to teach on")


# -- the whole


class BudgetLimits(Table):
    """Limits of its own; `search.budget` says what each means."""

    name: str = "custom"
    rule: Literal["lfrc", "macs"] = "lfrc"
    max_flops: float | None = Field(None, gt=0)
    max_size_mib: float | None = Field(None, gt=0)
    max_dim: int | None = Field(None, gt=0)
    max_ms: float | None = Field(None, gt=0)
    latency: str | None = None


class Export(Table):
    """Formats and precisions to write and to prove equal."""

    formats: list[Literal["onnx", "coreml", "tflite", "web"]] = Field(["onnx"])
    precisions: list[Literal["fp32", "fp16", "int8"]] = Field(["fp32"], min_length=1)


class Checkpoint(Table):
    """How often the run is saved and judged, in images seen."""

    every_images: Positive = 50_000


class Plan(Table):
    """A recipe: what to train, on what, how, and what is done with the result."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    arch: str | dict[str, Any] | None = None
    start: str | None = None  # run folder whose network the training begins with, and whose arch it has
    data: Data
    seed: int = Field(0, ge=0, lt=2**32)
    budget: str | BudgetLimits | None = None
    teacher: Teacher | None = None
    phases: Annotated[list[Phase], BeforeValidator(wrapped)] = Field([Phase()], min_length=1, max_length=100)
    evaluate: list[str] = Field([])
    export: Export = Export()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(switch)] = "auto"
    activation_checkpointing: bool = False  # activations are computed twice instead of kept: less memory, slower
    checkpoint: Checkpoint = Checkpoint()
    watch: int = Field(0, ge=0, le=10_000, description="training images whose norms are watched, clean and degraded")

    @model_validator(mode="after")
    def _names_differ(self) -> Plan:
        names = [phase.name for phase in self.phases]
        if clash := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"phases: two are called {clash[0]!r}")
        return self

    @model_validator(mode="after")
    def _has_an_arch(self) -> Plan:
        if (self.arch is None) == (self.start is None):
            raise ValueError("give one of arch, or start: a run folder to begin with")
        return self

    @model_validator(mode="after")
    def _compiles_or_recomputes(self) -> Plan:
        if self.activation_checkpointing and self.compile == "on":
            raise ValueError("activation_checkpointing goes with compile: off or auto, not with on")
        return self

    @model_validator(mode="after")
    def _quantises_or_recomputes(self) -> Plan:
        rounded = [phase.name for phase in self.phases if phase.in_int8]
        if rounded and self.activation_checkpointing:
            raise ValueError(f"phase {rounded[0]}: quantise goes with activation_checkpointing: false alone")
        if len(rounded) == len(self.phases) and self.compile == "on":
            raise ValueError(f"phase {rounded[0]}: quantise is not compiled; wanted compile: off or auto")
        return self

    @model_validator(mode="after")
    def _teacher_is_there(self) -> Plan:
        taught = any(isinstance(term, TAUGHT) for phase in self.phases for term in phase.terms)
        if taught and self.teacher is None:
            raise ValueError("a distillation term needs a teacher: {model: FILE}")
        if self.teacher and not taught:
            raise ValueError("a teacher needs a distillation term that learns from it")
        return self

    @property
    def wants_targets(self) -> bool:
        """Whether the teacher embeds all training images beforehand: to be learned from, or for its class centres."""
        logits = any(isinstance(term, LogitDistillation) for phase in self.phases for term in phase.terms)
        return self.teacher is not None and (logits or not self.teacher.online)

    def to_yaml(self) -> str:
        """The whole plan, defaults included; `read_plan` reads it back."""
        return yaml.safe_dump(self.model_dump(by_alias=True, exclude_none=True), sort_keys=False)


def read_plan(path: Path, overrides: list[str] | None = None) -> Plan:
    """Read a recipe and apply `--set key.0.key=value` overrides; raises InputError that names the key."""
    if not path.is_file():
        raise InputError(f"{path}: no such recipe; wanted a YAML file")
    try:
        data = read_yaml_file(path, "plan", MAX_PLAN_BYTES)
    except ValueError as error:  # bytes that are not UTF-8 as well
        raise InputError(f"{path}: is not YAML ({error})") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds {type(data).__name__}, wanted a table of keys such as name, arch, data")
    for override in overrides or []:
        _override(data, override)
    return parse_plan(data, str(path))


def parse_export(data: dict[str, Any], source: str) -> Export:
    """Validate the export part of a plan alone, as `parse_plan` does the whole."""
    try:
        return Export.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, Export)}") from None


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
