"""A folder that holds another run: the message names what differs, by its key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mobileface.errors import InputError
from mobileface.factory import find_plan_arch
from mobileface.training.plan import parse_plan
from mobileface.training.run_folder import check_run_folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 9}, "seed=5 there, seed=9 here"),
        ({"watch": 3, "seed": 9}, "seed=5 there, seed=9 here, and 1 more"),
        ({"evaluate": ["lfw"]}, "evaluate.0=not set there, evaluate.0=lfw here"),
    ],
)
def test_what_differs_is_named(
    shared_faces: Path, make_plan_data: Callable[..., dict[str, Any]], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    data = make_plan_data(shared_faces)
    there, here = (parse_plan({**data, **more}, "x") for more in ({}, change))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "plan.yaml").write_text(there.to_yaml())
    (tmp_path / "arch.json").write_text(json.dumps(find_plan_arch(there).to_dict()))
    check_run_folder(tmp_path, there, find_plan_arch(there))
    with pytest.raises(InputError) as caught:
        check_run_folder(tmp_path, here, find_plan_arch(here))
    assert str(caught.value) == f"{tmp_path}: holds a run of another plan ({said}); give another --out"
