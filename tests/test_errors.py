"""Errors end in one line and in the exit code that design gives them."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from mobileface import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.CheckFailed("over budget"), 1),
        (errors.InputError("bad file"), 2),
        (errors.NonFiniteError("NaN"), 3),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file.rec"), 2),
        (MemoryError("too much"), 2),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a defect"), 1),
    ],
)
def test_exit_codes_and_one_line(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise error

    assert errors.guarded(fails) == code
    out = capsys.readouterr()
    assert out.out == ""
    assert len(out.err.splitlines()) == 1
    assert "Traceback" not in out.err


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise errors.InputError("bad file")

    assert errors.guarded(fails, debug=True) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_command_that_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.guarded(lambda: None) == 0
    assert errors.guarded(lambda: 1) == 1
    assert capsys.readouterr().err == ""


def test_a_line_holds_no_control_characters_nor_odd_bytes() -> None:
    odd = os.fsdecode(b"a\x1b[31m\xff\nb.jpg")
    line = errors.one_line(errors.InputError(f"{odd}: is bad"))
    assert line == "a\\x1b[31m\\udcff b.jpg: is bad"
    line.encode("utf-8")


def test_an_error_of_the_system_names_the_file() -> None:
    assert errors.one_line(OSError(errno.ENOENT, "No such file", "x.rec")) == "No such file: x.rec"
    assert errors.one_line(ValueError()) == "ValueError"


def test_the_nearest_known_name() -> None:
    assert errors.nearest("imges", ["images", "batch"]) == " (did you mean 'images'?)"
    assert errors.nearest("zzz", ["images", "batch"]) == ""


@pytest.mark.parametrize(("ended", "code"), [(None, 0), (0, 0), (2, 2), ("text", 1)])
def test_an_application_that_exits(ended: object, code: int) -> None:
    assert errors.exit_code(lambda: sys.exit(ended)) == code  # type: ignore[arg-type]
