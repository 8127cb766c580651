"""A Core ML package as its files say: an .mlpackage is a folder with a manifest, a specification and weights."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobileface.errors import InputError, one_line
from mobileface.files import sha256

MANIFEST = "Manifest.json"
MODEL = "model.mlmodel"
WEIGHTS = "weights"
MOST_FILES = 1000
MOST_MANIFEST = 1 << 20  # bytes
MOST_MODEL = 1 << 28  # bytes: weights are kept beside it


@dataclass(frozen=True)
class Package:
    """A package that holds an ML Program: its specification (a Model protobuf) and where its weights lie.

    sha256: of the files and of what the manifest makes of them.
    """

    path: Path
    specification: Any
    weights: Path
    sha256: str


def read_package(path: Path) -> Package:
    """Open a package. InputError for one that is damaged, holds no ML Program, or points outside of itself."""
    if not path.is_dir():
        raise InputError(f"{path}: not found, wanted an .mlpackage folder")
    files = package_files(path)
    root, named = _manifest(path)
    model = path / "Data" / root
    if model not in files:
        raise InputError(f"{path}: {MANIFEST} names no root model that lies in the package, wanted one")
    if (size := model.stat().st_size) > MOST_MODEL:
        raise InputError(f"{path}: {MODEL} has {size:,} bytes, wanted at most {MOST_MODEL:,}")
    weights = Path(named.get(WEIGHTS, WEIGHTS))  # an empty folder, or none, where a program has no weights
    if weights.is_absolute() or ".." in weights.parts:
        raise InputError(f"{path}: {MANIFEST} names weights that do not lie in the package, wanted them inside")
    specification = _parsed(path, model.read_bytes())
    if (kind := specification.WhichOneof("Type")) != "mlProgram":
        raise InputError(f"{path}: holds a model of type {kind}, wanted an mlProgram")
    return Package(path, specification, path / "Data" / weights, _sha256(path, files, model, path / "Data" / weights))


def package_files(path: Path) -> list[Path]:
    """All files of a package, sorted. InputError for links and pipes, and for more parts than a package has."""
    files: list[Path] = []
    folders = [path]
    for folder in folders:  # it grows meanwhile
        for part in folder.iterdir():
            if part.is_symlink():
                raise InputError(f"{path}: holds a link, {part.relative_to(path)}, wanted files only")
            if not (part.is_file() or part.is_dir()):
                raise InputError(f"{path}: holds {part.relative_to(path)}, no file and no folder, wanted files only")
            (files if part.is_file() else folders).append(part)
            if len(files) + len(folders) > MOST_FILES:
                raise InputError(f"{path}: holds more than {MOST_FILES} files, wanted an .mlpackage")
    return sorted(files)


def _sha256(path: Path, files: list[Path], model: Path, weights: Path) -> str:
    """Hex SHA-256 over names and hashes of the files, and which of them are model and weights.

    The manifest itself is left out, for its identifiers are drawn by lot.
    """
    parts = [(sha256(file), file) for file in files if file != path / MANIFEST]
    parts += [("model", model), ("weights", weights)]
    lines = "".join(f"{found}  {part.relative_to(path).as_posix()}\n" for found, part in parts)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence coremltools and what it imports: progress bars, versions that it was not tested with, missing parts."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _manifest(path: Path) -> tuple[str, dict[str, str]]:
    """Where Manifest.json says that the root model lies, and all its entries: where they lie, by name."""
    try:
        with (path / MANIFEST).open("rb") as file:
            content = json.loads(file.read(MOST_MANIFEST))
        entries = content["itemInfoEntries"]
        named = {str(entry["name"]): str(entry["path"]) for entry in entries.values()}
        if len(named) < len(entries):
            raise ValueError("two entries have one name")
        return str(entries[content["rootModelIdentifier"]]["path"]), named
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: {MANIFEST} cannot be read ({one_line(error)}), wanted an .mlpackage") from None


def _parsed(path: Path, content: bytes) -> Any:
    try:
        with quiet():
            from coremltools.proto import Model_pb2
    except ImportError:
        raise InputError(f"{path}: coremltools is missing, wanted: pip install 'mobileface[coreml]'") from None
    from google.protobuf.message import DecodeError

    try:
        return Model_pb2.Model.FromString(content)
    except DecodeError as error:
        raise InputError(f"{path}: {MODEL} is no Core ML model ({one_line(error)})") from None
