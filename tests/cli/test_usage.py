"""The command line: help, wrong usage, exit codes, one line for an error, no traceback unless asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mobileface.cli import main
from tests.cli.output import Captured, one_line

COMMANDS = [
    [], ["make"], ["train"], ["evaluate"], ["export"], ["import"], ["report"], ["data"], ["data", "synth"],
    ["data", "info"], ["data", "pack"], ["data", "align"], ["data", "look"], ["understand"], ["resolutions"],
    ["score"], ["clean"], ["embed"],
]  # fmt: skip


def test_help_is_fast_because_it_loads_no_tensor_library() -> None:
    code = (
        "import sys\n"
        "from mobileface.cli import main\n"
        f"codes = [main([*command, '--help']) for command in {COMMANDS!r}]\n"
        "heavy = {'torch', 'numpy', 'cv2', 'yaml', 'onnx', 'matplotlib'} & set(sys.modules)\n"
        "print(codes, sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == f"{[0] * len(COMMANDS)} []\n"
    words = "make train evaluate export import report synth info pack align look --set --scale --as"
    for word in words.split():
        assert word in done.stdout


@pytest.mark.parametrize("arguments", [["nothing"], ["make"], ["train", "a", "--no-such"], ["evaluate", "x"]])
def test_wrong_usage_is_bad_input(arguments: list[str], capsys: Captured) -> None:
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_python_m_mobileface() -> None:
    command = [sys.executable, "-m", "mobileface", "data", "info", "missing"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing: is neither an image folder nor a .rec or .bin file\n"


@pytest.mark.parametrize("missing", ["missing.yaml", "folder.yaml"])
def test_a_recipe_that_is_not_there(tmp_path: Path, capsys: Captured, missing: str) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert main(["make", str(tmp_path / missing)]) == 2
    one_line(capsys, f"{missing}: no such recipe")


@pytest.mark.parametrize("command", [["evaluate", "--on", "x.bin"], ["report"], ["export"]])
def test_folders_that_are_no_runs(tmp_path: Path, capsys: Captured, command: list[str]) -> None:
    for path in (tmp_path / "missing", tmp_path):
        assert main([command[0], str(path), *command[1:]]) == 2
        one_line(capsys, str(path))
    assert list(tmp_path.iterdir()) == []


def test_export_knows_its_formats(trained: Path, capsys: Captured) -> None:
    assert main(["export", str(trained), "--to", "onyx"]) == 2
    one_line(capsys, "'onnx'", "found 'onyx'")


def test_debug_shows_where(recipe: Path, tmp_path: Path, capsys: Captured) -> None:
    arguments = ["train", str(recipe), "--out", str(tmp_path / "run"), "--set", "arch=none"]
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main([*arguments, "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("error: no architecture is called 'none'")


def test_warnings_are_shown(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    """In a process of its own: in this one pytest has taken the logging over."""
    faces = make_folder(tmp_path / "faces", 2, 2)
    (faces / "person-0" / "face-2.jpg").symlink_to(tmp_path / "nowhere")
    done = subprocess.run(
        [sys.executable, "-m", "mobileface", "data", "info", str(faces)], capture_output=True, text=True
    )
    assert done.stderr == (
        f"warning: {faces}: 1 file is left out (no regular file, or a link that leads nowhere), the first: "
        "person-0/face-2.jpg\n"
    )
    assert done.returncode == 0


def test_output_that_knows_only_ascii(shared_faces: Path, tmp_path: Path) -> None:
    top = tmp_path / "é\udcff"
    (top / "a").mkdir(parents=True)
    (top / "a" / "ü.jpg").write_bytes(b"bad")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "mobileface", "data", "info", str(top)]
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"/\xfc.jpg: does not decode as an image" in done.stdout
