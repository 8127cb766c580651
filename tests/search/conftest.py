"""What several tests of searching share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.latency import KINDS


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A machine on which a million multiply-adds of 1x1 convolutions take 1 ms, a call 2 ms, and nothing else any."""
    ms = {**dict.fromkeys(KINDS, 0.0), "pointwise": 1.0, "call": 2.0}
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"runtime": "onnx", "precision": "fp32", "ms": ms}))
    return str(path)
