"""Plans that contradict themselves, and files that hold none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobileface.errors import InputError
from mobileface.training import plan as plans
from mobileface.training.plan import parse_plan, read_plan
from tests.training.plans import SMALL, write


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"name": "../up"}, "name: wanted a name of letters, digits, .*, found '../up'$"),
        ({"name": ""}, "name: wanted a name of letters, digits, .*, found ''$"),
        ({"seed": -1}, "seed: wanted 0 or more, found -1$"),
        ({"data": {"train": []}}, "data.train: wanted a list of 1 or more, found an empty list$"),
        ({"data": {"train": [{"folder": "a", "rec": "b"}]}}, "data.train.0: give one of folder, rec"),
        ({"data": {"train": [{}]}}, "data.train.0: give one of folder, rec"),
        ({"data": {"train": [{"rec": "b", "include": "c"}]}}, "data.train.0: include, scores and labelled go"),
        (
            {"data": {"train": [{"folder": "f"}], "validate": {"identities": 1}}},
            "data.validate.identities: wanted a number below 1, f",
        ),
        ({"phases": []}, "phases: wanted a list of 1 or more"),
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
        ({"phases": [{}, {"drop": ["classification"]}]}, "phases.1.terms: wanted a list of 1 or more"),
        ({"phases": [{"batch": 10, "accumulate": 4}]}, "phases.0: batch 10 is no multiple of accumulate 4"),
        ({"phases": [{"batch": 4, "accumulate": 4}]}, "phases.0: batch 4 in 4 parts leaves one image each"),
        ({"phases": [{"images": 0}]}, "phases.0.images: wanted a number above 0, found 0$"),
        ({"phases": [{"batch": 1}]}, "phases.0.batch: wanted 2 or more, found 1$"),
        (
            {"phases": [{"optimizer": {"lr": float("inf")}}]},
            "phases.0.optimizer.lr: wanted a finite number, found inf$",
        ),
        (
            {"phases": [{"optimizer": {"kind": "adam"}}]},
            "phases.0.optimizer.kind: wanted sgd, adamw or adagrad, found 'adam' .did you mean 'adamw'",
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
        ({"phases": [{"terms": []}]}, "phases.0.terms: wanted a list of 1 or more"),
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
        (
            {"phases": [{"sampler": 3}]},
            "phases.0.sampler: wanted one of plain, pk, class_uniform, or a table of its keys with that kind, found 3$",
        ),
        ({"phases": [{"terms": ["classification"] * 2}]}, "phases.0: .*each kind may stand once"),
        ({"phases": [{"terms": ["distillation"]}]}, "plan: a distillation term needs a teacher"),
        ({"phases": [{}, {"add": ["logit_distillation"]}]}, "plan: a distillation term needs a teacher"),
        ({"teacher": {"model": "t"}}, "plan: a teacher needs a distillation term that learns from it"),
        (
            {"teacher": {"model": "t"}, "phases": [{"terms": [{"kind": "logit_distillation", "temperature": 0}]}]},
            "phases.0.terms.0.temperature: wanted a number above 0, found 0$",
        ),
        (
            {"teacher": {"model": "t"}, "phases": [{"terms": [{"kind": "relational_distillation", "scale": 4}]}]},
            "unknown key 'phases.0.terms.0.scale'; known here: kind, view, weight",
        ),
        (
            {"phases": [{"views": {"clean": ["blur"]}}]},
            "phases.0.views.clean.0: 'blur' is no kind here .did you mean 'motion_blur'.*; wanted one of flip, affine",
        ),
        ({"export": {"formats": ["onyx"]}}, "export.formats.0: wanted .*onnx.*, found 'onyx' .did you mean 'onnx'"),
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
    ("content", "wanted"),
    [
        (b"name: [", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        (b"- a\n- b\n", "holds list, wanted a table of keys"),
        (b"", "holds NoneType, wanted a table"),
        (b"a: &x [1]\nb: *x\n", "not YAML"),
        (b"[" * 20_000, "not YAML"),
        (b"!!python/object/apply:os.system ['true']", "not YAML"),
        (b"1: 2\n", "1: wanted a key that is text, found 1"),
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
