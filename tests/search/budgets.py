"""The budget command's answers, as tests read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from search.budget import main

PROMISED = {
    "arch",
    "rule",
    "macs",
    "flops_lfrc",
    "params",
    "size_mib",
    "embedding_dim",
    "budget",
    "fits",
    "over",
}  # design 12
OURS = {"bytes"}
Capture = pytest.CaptureFixture[str]


def answer(capture: Capture, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The object that --json prints; it stands alone on stdout."""
    assert main([*arguments, "--json"]) == code
    out, err = capture.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    found: dict[str, Any] = json.loads(out)
    return found


def complaint(capture: Capture, *arguments: str, code: int = 2) -> str:
    """The one line on stderr; nothing on stdout."""
    assert main(list(arguments)) == code
    out, err = capture.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err
