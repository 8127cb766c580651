"""Plans: every misspelt key, every shipped recipe, overrides, and what contradicts itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.factory import budget_verdict, find_plan_arch
from mobileface.training import plan as plans
from mobileface.training.plan import Plan, parse_plan, read_plan

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
SMALL: dict[str, Any] = {"name": "a", "arch": "micro", "data": {"train": [{"folder": "faces"}]}}
FULL: dict[str, Any] = {
    "name": "all-keys",
    "arch": "tiny",
    "seed": 7,
    "budget": {"name": "mine", "rule": "macs", "max_flops": 2e8, "max_size_mib": 4.5, "max_dim": 128},
    "data": {
        "train": [
            {"folder": "faces", "include": "some.txt", "exclude": "others.txt", "scores": "s.tsv", "labelled": True},
            {"rec": "train.rec"},
        ],
        "validate": {"identities": 0.05, "sides": [7, 112]},
        "min_images": 3,
        "root": ".",
        "synthetic": {"identities": 20, "images": 4, "held_out": 30, "pairs": 40, "seed": 1},
        "max_corrupt": 3,
        "licence": "CC0",
    },
    "teacher": {
        "model": "teacher.onnx",
        "contract": {
            "scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "layout": "nhwc",
            "color": "bgr", "flip": "none",
        },
        "online": True,
        "blends": 50,
    },
    "phases": [
        {
            "name": "first",
            "images": 1000,
            "batch": 16,
            "accumulate": 2,
            "patience": 4,
            "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.01, "momentum": 0.8},
            "schedule": {"kind": "step", "warmup": 10, "milestones": [100, 500], "factor": 0.2, "power": 2.0},
            "sampler": {"kind": "pk", "images": 2},
            "views": {
                "clean": [
                    {"kind": "flip", "p": 0.4},
                    {"kind": "affine", "p": 0.3, "degrees": 5, "shift": 2, "zoom": 0.1},
                    {"kind": "brightness", "p": 0.2, "strength": 0.1},
                    {"kind": "saturation", "p": 0.1, "strength": 0.2},
                    {"kind": "low_resolution", "p": 0.6, "least": 0.5, "most": 0.9, "interpolations": ["cubic"]},
                    {"kind": "photometric", "p": 0.9, "brightness": 0.4, "contrast": 0.3, "saturation": 0.2},
                    {"kind": "crop_paste", "p": 0.8, "least": 0.3, "ratio": 1.5},
                    {"kind": "cutout", "p": 0.7, "most": 0.3},
                ],
                "degraded": [
                    {"kind": "resolution", "p": 0.9, "sides": [8, 16], "per": "image"},
                    {"kind": "jpeg", "p": 0.8, "least": 30, "most": 90},
                    {"kind": "motion_blur", "p": 0.7, "least": 1, "most": 5},
                    {"kind": "resized_crop", "p": 0.6, "least": 0.7, "ratio": 1.2},
                ],
            },
            "terms": [
                {
                    "kind": "classification", "weight": 0.5, "scale": 32,
                    "sample": 0.5, "views": ["clean", "degraded"], "threshold": 0.3,
                    "margin": {
                        "kind": "combined", "factor": 1.1, "radians": 0.2, "cosine": 0.1,
                        "gradient": "straight_through",
                    },
                    "negatives": {"kind": "support_vector", "t": 1.1},
                    "balance": {"beta": 0.99},
                },
                {"kind": "intra", "weight": 0.1, "view": "degraded"},
                {"kind": "inter", "weight": 0.2, "over": "all"},
                {"kind": "centre", "weight": 0.3, "view": "degraded"},
                {
                    "kind": "triplet", "weight": 0.4, "mining": "batch_hard", "distance": "cosine", "margin": 0.1,
                    "normalised": False, "view": "degraded",
                },
                {
                    "kind": "octuplet", "weight": 0.7, "distance": "squared", "margin": 2, "relative": True,
                    "normalised": False, "terms": ["hll", "lhh"],
                },
                {
                    "kind": "contrastive", "weight": 0.8, "scale": 32, "threshold": 0.1, "queue": "momentum",
                    "size": 100, "momentum": 0.9,
                },
                {"kind": "distillation", "weight": 2, "view": "degraded"},
                {"kind": "relational_distillation", "weight": 3, "view": "degraded"},
                {"kind": "logit_distillation", "weight": 0.6, "scale": 48, "temperature": 2, "view": "degraded"},
            ],
        }
    ],
    "evaluate": ["lfw", "held_out.bin"],
    "export": {"formats": ["onnx"]},
    "precision": "bf16",
    "compile": "on",
    "activation_checkpointing": False,
    "watch": 32,
    "checkpoint": {"every_images": 500},
}  # fmt: skip


def write(path: Path, data: Any) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def tables(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The place of every table in plain data."""
    if isinstance(value, dict):
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from tables(inner, *path, key)


KEYS = [
    (*path, key)
    for path in tables(FULL)
    for key in reduce(lambda value, part: value[part], path, FULL)
    if key != "kind"  # without it nobody knows which table it is
]


def changed(path: tuple[str | int, ...], change: Callable[[Any, Any], None]) -> dict[str, Any]:
    """FULL, copied, with `change(table, key)` done at `path`."""
    data = value = copy.deepcopy(FULL)
    for part in path[:-1]:
        value = value[part]
    change(value, path[-1])
    return data


def test_every_key_of_the_full_plan_is_read() -> None:
    found = parse_plan(FULL, "x").model_dump(by_alias=True, mode="json", exclude_none=True)
    wanted = copy.deepcopy(FULL)
    wanted["data"]["train"][1]["labelled"] = True  # a default
    assert found == wanted
    tables_of_the_plan = {type(part).__name__ for part in _models(parse_plan(FULL, "x"))}
    every = {cls.__name__ for cls in _subclasses(plans.Table)}
    margins = {"Softmax", "ArcFace", "CosFace", "SphereFace", "MagFace", "AdaFace"}  # of which one was taken
    assert every - tables_of_the_plan == margins | {"Plain", "Curricular", "PlainSampler", "ClassUniformSampler"}


def _models(value: Any) -> Iterator[Any]:
    if isinstance(value, plans.Table):
        yield value
        for name in type(value).model_fields:
            yield from _models(getattr(value, name))
    elif isinstance(value, list):
        for inner in value:
            yield from _models(inner)


def _subclasses(cls: type) -> Iterator[type]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_misspelt_key_gets_the_nearest_name(path: tuple[str | int, ...]) -> None:
    def misspell(table: Any, key: str) -> None:
        table[key[:-1] + 2 * key[-1]] = table.pop(key)

    wrong = ".".join(map(str, path)) + str(path[-1])[-1]
    with pytest.raises(InputError) as caught:
        parse_plan(changed(path, misspell), "my.yaml")
    text = str(caught.value)
    assert text.startswith(f"my.yaml: unknown key {wrong!r} (did you mean {path[-1]!r}?); known here: ")
    assert "\n" not in text


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(map(str, path)))
def test_a_wrong_value_names_its_key(path: tuple[str | int, ...]) -> None:
    def spoil(table: Any, key: str) -> None:
        table[key] = [{"no": "value"}, float("nan")]

    try:
        parse_plan(changed(path, spoil), "my.yaml")
    except InputError as error:
        text = str(error)
        assert str(path[-1]) in text
        assert "\n" not in text
        assert len(text) < 500
    else:
        pytest.fail("was taken")


@pytest.mark.parametrize("key", ["name", "data"])
def test_what_has_no_default_is_asked_for(key: str) -> None:
    data = {name: value for name, value in SMALL.items() if name != key}
    with pytest.raises(InputError, match=f"^my.yaml: '{key}' is missing$"):
        parse_plan(data, "my.yaml")


def test_everything_else_has_a_default() -> None:
    plan = parse_plan(SMALL, "x")
    assert plan.phases[0].terms[0].kind == "classification"
    assert (plan.seed, plan.compile, plan.precision, plan.budget) == (0, "auto", "auto", None)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes(recipe: Path) -> None:
    plan = read_plan(recipe)
    assert plan.name == recipe.stem
    if plan.budget is not None:
        assert budget_verdict(plan, find_plan_arch(plan))["fits"]
    assert (plan.arch is None) == plan.name.startswith("octuplet")  # these begin with a trained network
    assert plan.data.licence != "not stated"
    assert plan.checkpoint.every_images < plan.phases[0].images


def test_there_are_recipes() -> None:
    assert {"demo.yaml", "distill-real.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("data", [SMALL, FULL, *(yaml.safe_load(path.read_text()) for path in RECIPES)])
def test_a_written_plan_is_read_back(tmp_path: Path, data: dict[str, Any]) -> None:
    plan = parse_plan(data, "x")
    (tmp_path / "plan.yaml").write_text(plan.to_yaml())
    again = read_plan(tmp_path / "plan.yaml")
    assert again == plan
    assert again.to_yaml() == plan.to_yaml()


@settings(max_examples=50)
@given(
    st.floats(1e-300, 1e300),
    st.integers(1, 10**18),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_numbers_and_texts_survive_the_yaml(rate: float, images: int, licence: str) -> None:
    phase = {"images": images, "optimizer": {"lr": rate}}
    data = {**SMALL, "data": {**SMALL["data"], "licence": licence}, "phases": [phase]}
    plan = parse_plan(data, "x")
    assert parse_plan(yaml.safe_load(plan.to_yaml()), "x") == plan


def test_short_forms() -> None:
    text = """
name: short
arch: micro
compile: off
data: {train: [{folder: f}]}
teacher: {model: t.onnx}
phases:
- optimizer: {kind: adamw, lr: 2e-3}
  images: 420_000
  views: {clean: [flip, cutout]}
  terms: [distillation, {kind: classification, margin: cosface}]
"""
    plan = parse_plan(yaml.safe_load(text), "x")
    phase = plan.phases[0]
    assert (plan.compile, phase.optimizer.lr, phase.images) == ("off", 0.002, 420_000)
    assert [step.kind for step in phase.views.clean] == ["flip", "cutout"]
    assert phase.terms[1].margin.cosine == 0.35  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"name": "../up"}, "name: .*pattern.*found '../up'"),
        ({"name": ""}, "name: .*pattern"),
        ({"seed": -1}, "seed: .*found -1"),
        ({"data": {"train": []}}, "data.train: .*at least 1"),
        ({"data": {"train": [{"folder": "a", "rec": "b"}]}}, "data.train.0: give one of folder, rec"),
        ({"data": {"train": [{}]}}, "data.train.0: give one of folder, rec"),
        ({"data": {"train": [{"rec": "b", "include": "c"}]}}, "data.train.0: include, scores and labelled go"),
        ({"data": {"train": [{"folder": "f"}], "validate": {"identities": 1}}}, "data.validate.identities: .*less"),
        ({"phases": []}, "phases: .*at least 1"),
        ({"phases": [{"name": "a"}, {"name": "a"}]}, "plan: phases: two are called 'a'"),
        ({"phases": [{"add": ["triplet"]}]}, "phases: phase phase-1: add wraps the phase before"),
        (
            {"phases": [{}, {"drop": ["inter"]}]},
            "phases: phase phase-2: drop: 'inter' is no term of the phase before",
        ),
        (
            {"phases": [{}, {"name": "b", "terms": ["triplet"], "add": []}]},
            "phases: phase b: has terms, and add or drop",
        ),
        (
            {"phases": [{}, {"name": "b", "add": "triplet"}]},
            "phases: phase b: add is 'triplet'; wanted a list of terms",
        ),
        ({"phases": [{}, {"drop": None}]}, "phases: phase phase-2: drop is None; wanted a list of terms"),
        ({"phases": [{"terms": "triplet"}, {"add": ["centre"]}]}, "phases: phase phase-2: terms is 'triplet'; wanted"),
        ({"phases": [{"terms": ["intra"]}]}, "phases.0: terms: intra reads the centres of a classification term"),
        ({"phases": [{}, {"drop": ["classification"]}]}, "phases.1.terms: .*at least 1"),
        ({"phases": [{"batch": 10, "accumulate": 4}]}, "phases.0: batch 10 is no multiple of accumulate 4"),
        ({"phases": [{"batch": 4, "accumulate": 4}]}, "phases.0: batch 4 in 4 parts leaves one image each"),
        ({"phases": [{"images": 0}]}, "phases.0.images: .*greater than 0, found 0"),
        ({"phases": [{"batch": 1}]}, "phases.0.batch: .*found 1"),
        ({"phases": [{"optimizer": {"lr": float("inf")}}]}, "phases.0.optimizer.lr: .*finite.*found inf"),
        (
            {"phases": [{"optimizer": {"kind": "adam"}}]},
            "phases.0.optimizer.kind: .*'sgd', 'adamw' or 'adagrad', found 'adam'",
        ),
        ({"phases": [{"schedule": {"kind": "step"}}]}, "phases.0.schedule: milestones go with kind step"),
        ({"phases": [{"schedule": {"milestones": [5]}}]}, "phases.0.schedule: milestones go with kind step"),
        ({"phases": [{"schedule": {"kind": "step", "milestones": [5, 3]}}]}, r".*milestones \[5, 3\] do not"),
        ({"phases": [{"schedule": {"kind": "one_cycle", "warmup": 5}}]}, ".*one_cycle has its own rise"),
        ({"phases": [{"images": 9, "schedule": {"warmup": 9}}]}, ".*warmup: 9 images are not reached in a phase of 9"),
        (
            {"phases": [{"images": 9, "schedule": {"kind": "step", "milestones": [5, 10]}}]},
            ".*milestones: 10 images are not reached in a phase of 9",
        ),
        ({"phases": [{"terms": []}]}, "phases.0.terms: .*at least 1"),
        (
            {"phases": [{"terms": ["tripelt"]}]},
            "phases.0.terms.0: 'tripelt' is no kind here .did you mean 'triplet'.*intra",
        ),
        ({"phases": [{"terms": [{"kind": "classification", "margin": "arcfase"}]}]}, ".*terms.0.margin: .*'arcface'"),
        ({"phases": [{"terms": [{"kind": "triplet", "mining": "semihard"}]}]}, ".*mining: .*did you mean 'semi_hard'"),
        ({"phases": [{"schedule": "step"}]}, "phases.0.schedule: wanted {kind: step, ...}, found 'step'"),
        ({"phases": [{"optimizer": "adam"}]}, "phases.0.optimizer: wanted {kind: adamw, ...}, found 'adam'"),
        ({"phases": [{"schedule": "x"}]}, "phases.0.schedule: wanted a table of keys such as factor, kind, .*'x'"),
        ({"phases": [{"sampler": {"images": 4}}]}, "phases.0.sampler: kind is missing; wanted one of plain, pk"),
        ({"phases": [{"sampler": 3}]}, "phases.0.sampler: wanted a table of keys such as images, kind, found 3"),
        ({"phases": [{"terms": ["classification"] * 2}]}, "phases.0: .*each kind may stand once"),
        ({"phases": [{"terms": ["distillation"]}]}, "plan: a distillation term needs a teacher"),
        ({"phases": [{}, {"add": ["logit_distillation"]}]}, "plan: a distillation term needs a teacher"),
        ({"teacher": {"model": "t"}}, "plan: a teacher needs a distillation term that learns from it"),
        (
            {"teacher": {"model": "t"}, "phases": [{"terms": [{"kind": "logit_distillation", "temperature": 0}]}]},
            "phases.0.terms.0.temperature: .*greater than 0, found 0",
        ),
        (
            {"teacher": {"model": "t"}, "phases": [{"terms": [{"kind": "relational_distillation", "scale": 4}]}]},
            "unknown key 'phases.0.terms.0.scale'; known here: kind, view, weight",
        ),
        (
            {"phases": [{"views": {"clean": ["blur"]}}]},
            "phases.0.views.clean.0: 'blur' is no kind here .did you mean 'motion_blur'.*; wanted one of flip, affine",
        ),
        ({"export": {"formats": ["coreml"]}}, "export.formats.0: .*'onnx', found 'coreml'"),
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, Any], wanted: str) -> None:
    with pytest.raises(InputError, match=rf"^my\.yaml: {wanted}") as caught:
        parse_plan({**SMALL, **changes}, "my.yaml")
    assert "\n" not in str(caught.value)


def test_several_errors_are_counted() -> None:
    with pytest.raises(InputError, match=r"\(and 2 more\)$"):
        parse_plan({**SMALL, "seed": -1, "precision": "fp8", "evaluate": 3}, "x")


@pytest.mark.parametrize(
    ("terms", "online", "wanted"),
    [
        (["distillation"], False, True),
        (["distillation", "relational_distillation"], True, False),
        (["logit_distillation"], True, True),  # for the teacher's class centres
    ],
)
def test_when_the_teacher_embeds_all_images_beforehand(terms: list[str], online: bool, wanted: bool) -> None:
    teacher = {"model": "t", "online": online}
    assert parse_plan({**SMALL, "teacher": teacher, "phases": [{"terms": terms}]}, "x").wants_targets is wanted
    assert not parse_plan(SMALL, "x").wants_targets


# ---- overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("phases.0.images=20000", lambda plan: plan.phases[0].images == 20000),
        ("phases.0.optimizer.lr=2e-3", lambda plan: plan.phases[0].optimizer.lr == 2e-3),
        ("phases.0.terms.1.weight=0.25", lambda plan: plan.phases[0].terms[1].weight == 0.25),
        ("phases.0.views.clean=[flip]", lambda plan: [v.kind for v in plan.phases[0].views.clean] == ["flip"]),
        ("export.formats=[]", lambda plan: plan.export.formats == []),
        ("compile=off", lambda plan: plan.compile == "off"),
        ("data.licence=a=b, c", lambda plan: plan.data.licence == "a=b, c"),
        ("data.train.0={rec: other.rec}", lambda plan: plan.data.train[0].rec == "other.rec"),
        ("budget=", lambda plan: plan.budget is None),
    ],
)
def test_overrides(tmp_path: Path, override: str, value: Callable[[Plan], bool]) -> None:
    assert not value(parse_plan(FULL, "x"))
    assert value(read_plan(write(tmp_path / "p.yaml", FULL), [override]))


def test_an_override_makes_tables_that_are_not_there_and_the_last_one_wins(tmp_path: Path) -> None:
    recipe = write(tmp_path / "p.yaml", SMALL)
    overrides = ["checkpoint.every_images=5", "checkpoint.every_images=6", "data.synthetic.images=3"]
    plan = read_plan(recipe, overrides)
    assert plan.checkpoint.every_images == 6
    assert plan.data.synthetic is not None
    assert plan.data.synthetic.images == 3


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("phases.0.images", "wanted KEY=VALUE, such as"),
        ("phases.1.images=5", r"'1' is no place in a list of 1; wanted 0\.\.0"),
        ("phases.first.images=5", "'first' is no place in a list of 1"),
        ("phases.\u00b2.images=5", "is no place in a list of 1"),
        ("name.x=5", "'x' is not inside a table or a list"),
        ("name.x.y=5", "'x' is not inside a table or a list"),
        ("seed=[1", "the value is not YAML"),
        ("seed=2020-99-99", "the value is not YAML"),
        ("seed=!!python/name:os.system x", "the value is not YAML"),
        ("sed=5", r"unknown key 'sed' \(did you mean 'seed'\?\)"),
        ("phases.0.image=5", r"unknown key 'phases\.0\.image' \(did you mean 'images'\?\)"),
        ("=5", "unknown key ''"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted) as caught:
        read_plan(write(tmp_path / "p.yaml", FULL), [override])
    assert "\n" not in str(caught.value)


parts = st.sampled_from(["phases", "data", "train", "0", "1", "-1", "name", "optimizer", "", "arch", "\u0663"])
values = st.text(max_size=8) | st.sampled_from(
    ["!!int x", "!!bool x", "!!timestamp x", "2001-02-30", "&a [*a]", "{<<: 3}", "? {a: b}", "[" * 2000, "0x", "~"]
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("recipe") / "p.yaml", FULL)


@settings(max_examples=80)
@given(st.lists(parts, min_size=1, max_size=4), values)
def test_any_override_gives_a_plan_or_one_line(recipe: Path, keys: list[str], value: str) -> None:
    try:
        assert isinstance(read_plan(recipe, [".".join(keys) + "=" + value]), Plan)
    except InputError as error:
        assert str(error).isprintable() or "--set" in str(error)


# ---- files


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"name: [", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"- a\n- b\n", "holds list, wanted a table of keys"),
        (b"", "holds NoneType, wanted a table"),
        (b"a: &x [1]\nb: *x\n", "not YAML"),
        (b"[" * 20_000, "not YAML"),
        (b"!!python/object/apply:os.system ['true']", "not YAML"),
        (b"1: 2\n", "1: Keys should be strings"),
        (b"name: a\ndata: {}\nname: b\n", "not YAML .line 3: the key 'name' stands in its table twice"),
        (b"data: {root: a, root: b}\n", "not YAML .line 1: the key 'root' stands in its table twice"),
    ],
)
def test_files_that_hold_no_plan(tmp_path: Path, content: bytes, wanted: str) -> None:
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(InputError, match=wanted) as caught:
        read_plan(tmp_path / "p.yaml")
    assert str(caught.value).startswith(str(tmp_path / "p.yaml"))
    assert "\n" not in str(caught.value)


def test_missing_and_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no\.yaml: no such recipe"):
        read_plan(tmp_path / "no.yaml")
    with pytest.raises(InputError, match="no such recipe"):
        read_plan(tmp_path)
    monkeypatch.setattr(plans, "MAX_PLAN_BYTES", 10)
    with pytest.raises(InputError, match="larger than 10 bytes"):
        read_plan(write(tmp_path / "p.yaml", SMALL))


# ---- phases that wrap

LADDER: dict[str, Any] = {
    **SMALL,
    "phases": [
        {"name": "arcface", "images": 500, "batch": 32, "optimizer": {"kind": "adamw", "lr": "2e-2"}},
        {"name": "combined", "add": [{"kind": "classification", "margin": "combined", "scale": 32}]},
        {"name": "svgs", "add": [{"kind": "classification", "negatives": "support_vector"}], "images": 200},
        {"name": "regular", "add": ["intra", {"kind": "inter", "weight": 0.5}], "optimizer": {"lr": 0.001}},
        {"name": "mining", "drop": ["intra"], "add": ["triplet"], "sampler": "pk", "patience": 2},
    ],
}


def test_a_phase_adds_to_the_one_before() -> None:
    plan = parse_plan(LADDER, "x")
    arcface, combined, svgs, regular, mining = plan.phases
    assert [phase.images for phase in plan.phases] == [500, 500, 200, 200, 200]
    assert {phase.batch for phase in plan.phases} == {32}
    assert [phase.optimizer.lr for phase in plan.phases] == pytest.approx([0.02, 0.002, 0.002, 0.001, 0.002])
    assert {phase.optimizer.kind for phase in plan.phases} == {"adamw"}
    kinds = [[term.kind for term in phase.terms] for phase in plan.phases]
    first = ["classification"]
    assert kinds == [first, first, first, [*first, "intra", "inter"], [*first, "inter", "triplet"]]
    losses: list[Any] = [phase.terms[0] for phase in plan.phases]
    assert [loss.margin.kind for loss in losses] == ["arcface", *["combined"] * 4]
    assert [loss.scale for loss in losses] == [64, 32, 32, 32, 32]
    assert [loss.negatives.kind for loss in losses] == ["plain", "plain", *["support_vector"] * 3]
    assert [phase.sampler.kind for phase in plan.phases] == [*["plain"] * 4, "pk"]
    assert [phase.patience for phase in plan.phases] == [0, 0, 0, 0, 2]
    assert mining.terms[1] == regular.terms[2]
    assert arcface.schedule == combined.schedule == svgs.schedule


def test_a_plan_that_was_filled_up_reads_back_the_same() -> None:
    plan = parse_plan(LADDER, "x")
    assert parse_plan(yaml.safe_load(plan.to_yaml()), "x") == plan


def test_phases_without_a_name_are_numbered() -> None:
    plan = parse_plan({**SMALL, "phases": [{}, {}, {"name": "last"}]}, "x")
    assert [phase.name for phase in plan.phases] == ["phase-1", "phase-2", "last"]
