"""What a command prints."""

from __future__ import annotations

import pytest

Captured = pytest.CaptureFixture[str]


def one_line(captured: Captured, *wanted: str) -> str:
    """The one line on stderr, which holds all of `wanted`."""
    err = captured.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    for text in wanted:
        assert text in err
    return err
