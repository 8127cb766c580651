"""Atomic files: whole under their name, or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mobileface import files
from mobileface.errors import InputError


def test_a_finished_block_gives_the_file_its_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with files.atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_full_disk_at_fsync_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_left_overs_of_a_killed_write_are_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    stale, young = tmp_path / ".file.txt.abc.tmp", tmp_path / ".file.txt.def.tmp"
    stale.write_text("half")
    young.write_text("another process's")
    os.utime(stale, (0, 0))
    (tmp_path / ".other.txt.abc.tmp").write_text("not ours")
    with files.atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == [young.name, ".other.txt.abc.tmp", "file.txt"]


@pytest.mark.parametrize("write", [files.atomic_path, files.atomic_folder])
def test_folders_and_temporary_files_of_temporary_files_are_removed_too(tmp_path: Path, write: Any) -> None:
    names = [".net[1].onnx.abc.tmp", "..net[1].onnx.abc.tmp.def.tmp", ".other-net[1].onnx.abc.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("half")
        os.utime(tmp_path / name, (0, 0))
    with write(tmp_path / "net[1].onnx") as temporary:
        temporary.touch()
    assert sorted(p.name for p in tmp_path.iterdir()) == [names[2], "net[1].onnx"]


def test_json_refuses_nan_and_takes_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    assert not path.exists()
    odd = os.fsdecode(b"caf\xe9 <b>.jpg")
    files.write_json(path, {"name": odd})
    assert json.loads(path.read_text()) == {"name": odd}


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process works in it")
    with files.locked(tmp_path), refused, files.locked(tmp_path):
        pytest.fail("held twice")
    with files.locked(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    assert files.sha256(path) == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOBILEFACE_CACHE", "/chosen")
    assert files.cache_folder() == Path("/chosen")
    monkeypatch.delenv("MOBILEFACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_folder() == Path("/xdg/mobileface")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "mobileface"


def fill(folder: Path, text: str) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text(text)


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for text in ("first", "second one"):
        with files.atomic_folder(tmp_path / "packages" / "net.mlpackage") as made:
            assert made.name == "net.mlpackage"
            fill(made, text)
        assert (tmp_path / "packages/net.mlpackage/inner/a.txt").read_text() == text
    assert [path.name for path in (tmp_path / "packages").iterdir()] == ["net.mlpackage"]
    assert files.size_of(tmp_path / "packages") == len("second one")
    assert files.size_of(tmp_path / "packages/net.mlpackage/inner/a.txt") == len("second one")


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_keeps_the_old_folder_and_leaves_nothing_else(tmp_path: Path, error: BaseException) -> None:
    fill(tmp_path / "old", "kept")
    with pytest.raises(type(error)), files.atomic_folder(tmp_path / "old") as made:
        fill(made, "half")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old/inner/a.txt").read_text() == "kept"


def test_remove_takes_files_folders_and_what_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "folder", "x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    files.remove(tmp_path / "link")
    assert (tmp_path / "folder/inner/a.txt").exists()
    for name in ("folder/inner/a.txt", "folder", "folder"):
        files.remove(tmp_path / name)
        assert not (tmp_path / name).exists()
