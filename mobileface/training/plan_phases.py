"""A plan's phases: how long, with which optimizer, batches and losses; and how one wraps the phase before it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mobileface.training.plan_table import NameAlone, Positive, Table
from mobileface.training.plan_terms import Classification, Contrastive, Term, views_of
from mobileface.training.plan_views import Views

LATER_LR = 0.1  # ours: a phase that names no optimizer has this share of the first one's learning rate


def switch(value: Any) -> Any:
    """The words on and off, which YAML reads as True and False; anything else as it is."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class Optimizer(Table):
    """Weight decay acts on weights of convolutions and linear layers and on centres: no batch norms, biases, slopes.

    Adagrad adds 1 to its root (the octuplet paper's epsilon), AdamW 1e-8.
    """

    kind: Literal["sgd", "adamw", "adagrad"] = "sgd"
    lr: float = Field(0.1, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)


class Schedule(Table):
    """Learning rate over images seen. warmup: images of a linear rise; milestones: images of a step's drops."""

    kind: Literal["constant", "step", "cosine", "one_cycle", "polynomial"] = "cosine"
    warmup: int = Field(0, ge=0)
    milestones: list[Positive] = Field([])
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


class PlainSampler(Table):
    """Every image once in each epoch."""

    kind: Literal["plain"]


class PKSampler(Table):
    """Batches of batch / images identities with `images` images each."""

    kind: Literal["pk"]
    images: Positive = 4


class ClassUniformSampler(Table):
    """Every identity equally often."""

    kind: Literal["class_uniform"]


Sampler = Annotated[
    Annotated[PlainSampler | PKSampler | ClassUniformSampler, Field(discriminator="kind")],
    NameAlone,
]


class Phase(Table):
    """One stretch of training. Lengths are in images seen.

    quantise: the network is trained, and judged, as what int8 makes of it, so that its weights learn to bear that; its
    batch norms stand still, and the result is a float network as any other. It begins with the same function, its
    channels made equal as an export makes them.
    """

    name: str = Field("phase-1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    images: Positive = 1_000_000
    batch: Annotated[int, Field(ge=2)] = 128  # a batch norm needs two
    accumulate: Positive = 1  # micro-batches of a batch; each is a batch of its own to batch norms and terms
    patience: int = Field(0, ge=0, description="evaluations without a better score that end the phase; 0 = never")
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    sampler: Sampler = PlainSampler(kind="plain")
    views: Views = Views()
    quantise: Annotated[Literal["int8", "off"], BeforeValidator(switch)] = "off"
    terms: list[Term] = Field([Classification(kind="classification")], min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Phase:
        kinds = [term.kind for term in self.terms]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"terms {', '.join(kinds)}: each kind may stand once")
        if "classification" not in kinds and (lonely := [t.kind for t in self.terms if _reads_centres(t)]):
            raise ValueError(f"terms: {lonely[0]} reads the centres of a classification term, which is not there")
        if self.views.degraded is None:
            if reader := next((term.kind for term in self.terms if "degraded" in views_of(term)), None):
                raise ValueError(f"terms: {reader} reads the degraded view; wanted views.degraded")
        elif all("degraded" not in views_of(term) for term in self.terms):
            raise ValueError("views.degraded: no term reads that view")
        if "octuplet" in kinds and not (isinstance(self.sampler, PKSampler) and self.sampler.images > 1):
            raise ValueError("terms: octuplet wants two or more images of an identity, sampler: {kind: pk, images: 2}")
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} is no multiple of accumulate {self.accumulate}")
        if self.batch // self.accumulate < 2:
            raise ValueError(f"batch {self.batch} in {self.accumulate} parts leaves one image each; wanted two or more")
        if (late := max([self.schedule.warmup, *self.schedule.milestones])) >= self.images:
            what = "milestones: " if late in self.schedule.milestones else "warmup: "
            raise ValueError(f"schedule: {what}{late} images are not reached in a phase of {self.images}")
        return self

    @property
    def in_int8(self) -> bool:
        """Whether it trains what int8 makes of the network."""
        return self.quantise == "int8"


def _reads_centres(term: Term) -> bool:
    return term.kind in ("intra", "inter") or (isinstance(term, Contrastive) and term.queue == "proxy")


def losses(phase: Phase) -> list[str]:
    """The phase's losses and batches in the words of the papers' tables."""
    words: list[str] = []
    for term in phase.terms:
        if isinstance(term, Classification):
            words.append(term.margin.kind)
            words += [term.negatives.kind] * (term.negatives.kind != "plain")
            words += ["class-balanced"] * (term.balance.beta > 0)
            words += ["partition"] * (term.threshold != "none")
        else:
            words.append(f"{term.mining} triplet" if term.kind == "triplet" else term.kind)
    words += ["int8"] * phase.in_int8
    return words + [f"{phase.sampler.kind} batches"] * (phase.sampler.kind != "plain")


def wrapped(phases: Any) -> Any:
    """Raw phases, each filled up from the one before it: "wrap one more loss" is one more line.

    A key that a phase gives replaces the key of the phase before; `optimizer` is merged key by key, and without
    it the learning rate is a tenth of the first phase's. `add` is a list of terms to wrap around those before:
    one of a kind that is there already replaces only the keys that it gives. `drop` names kinds of terms to leave
    out. What comes back holds neither, so filling up once more changes nothing.
    """
    if not isinstance(phases, list) or not all(isinstance(phase, dict) for phase in phases):
        return phases  # the validation says what is wrong
    filled: list[dict[str, Any]] = []
    for number, phase in enumerate(phases, start=1):
        own = {"name": f"phase-{number}", **phase}
        if not filled and (extra := own.keys() & {"add", "drop"}):
            found = f"phase {own['name']}: {min(extra)} wraps the phase before, and the first has none"
            raise ValueError(f"{found}; wanted terms")
        if filled:
            own = _over(filled[-1], own, filled[0])
        filled.append(own)
    return filled


def _over(before: dict[str, Any], phase: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in phase.items() if key not in ("add", "drop")}
    merged = {**before, **own}
    optimizers = [p.get("optimizer", {}) for p in (first, before, own)]
    if all(isinstance(optimizer, dict) for optimizer in optimizers):
        rate = _number(optimizers[0].get("lr", Optimizer().lr))
        lower = {"lr": rate * LATER_LR} if "optimizer" not in own and rate is not None else {}
        merged["optimizer"] = {**optimizers[1], **optimizers[2], **lower}
    if "add" in phase or "drop" in phase:
        where = f"phase {phase['name']}"
        if "terms" in own:
            raise ValueError(f"{where}: has terms, and add or drop beside them; wanted one or the other")
        lists = {"terms": ["classification"], "add": [], "drop": [], **before, **phase}
        merged["terms"] = _terms({key: lists[key] for key in ("terms", "add", "drop")}, where)
    return merged


def _number(value: Any) -> float | None:
    """A number as YAML gives it: 4e-3, without a dot, comes as text."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _terms(lists: dict[str, Any], where: str) -> list[Any]:
    """`terms` of the phase before, without those in `drop`, with those in `add`."""
    for key, given in lists.items():
        if not isinstance(given, list):
            raise ValueError(f"{where}: {key} is {given!r}; wanted a list of terms")
    terms = {_name(term): term for term in lists["terms"]}
    for kind in lists["drop"]:
        if not isinstance(kind, str) or kind not in terms:
            raise ValueError(f"{where}: drop: {kind!r} is no term of the phase before; it has {', '.join(terms)}")
        del terms[kind]
    for term in lists["add"]:
        old = terms.get(_name(term))
        terms[_name(term)] = {**_table(old), **_table(term)} if old is not None else term
    return list(terms.values())


def _name(term: Any) -> str:
    return str(term.get("kind")) if isinstance(term, dict) else str(term)


def _table(term: Any) -> dict[str, Any]:
    return term if isinstance(term, dict) else {"kind": term}
