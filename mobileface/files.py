"""Files that are whole or not there: temporary name, fsync, rename. And their hashes."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mobileface.errors import InputError

STALE_SECONDS = 3600


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there takes its name when the block ends well.

    On an error (a full disk, Ctrl-C) the temporary file is removed and the old file stays as it was. After
    kill -9 a file `.NAME.*.tmp` may be left over; a later write of the same name removes it once it is an hour old
    (a younger one may be another process's).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield where a folder of that name is to be written; it takes its place, and an older one's, when all went well.

    On an error nothing of it is left and an older folder stays as it was; what a kill leaves goes as with
    `atomic_path`. (Between the two renames a power cut leaves neither; a file has `atomic_path`.)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as made:
        yield Path(made) / path.name
        if path.exists():
            path.rename(Path(made) / "older")
        (Path(made) / path.name).rename(path)
    fsync_folder(path.parent)


def _sweep(path: Path) -> None:
    """Remove what writes of `path` that were killed left over, and writes of its own temporary file."""
    name = glob.escape(path.name)
    for stale in (*path.parent.glob(f".{name}.*.tmp"), *path.parent.glob(f"..{name}.*.tmp.*.tmp")):
        with suppress(FileNotFoundError):
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                remove(stale)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


def remove(path: Path) -> None:
    """Take away a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; InputError at once if another one holds it. A kill releases it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; wanted a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process works in it; wait for it, or give another --out") from None
        yield


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN is refused, because JSON has none."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"  # ASCII: names may hold odd bytes
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def use_cache(folder: Path | None) -> None:
    """Make `cache_folder` give `folder`, in this process and those it starts; None changes nothing."""
    if folder is not None:
        os.environ["MOBILEFACE_CACHE"] = os.fspath(folder)


def cache_folder() -> Path:
    """Where teacher embeddings and label indexes are kept: $MOBILEFACE_CACHE or the user's cache folder."""
    if chosen := os.environ.get("MOBILEFACE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobileface"
