"""Architectures from plain data and from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mobileface.arch.base import Arch
from mobileface.arch.checks import MAX_NAME, shown
from mobileface.arch.iresnet import IResNet
from mobileface.arch.lgaf import LGAF
from mobileface.arch.mobilefacenet import SEMobileFaceNet
from mobileface.errors import InputError, nearest
from mobileface.plain_yaml import read_yaml

MAX_FILE_BYTES = 1 << 20

FAMILIES: dict[str, type[Arch]] = {kind.family: kind for kind in (SEMobileFaceNet, IResNet, LGAF)}


def arch_from_dict(data: Any, source: str = "arch") -> Arch:
    """Read an architecture from plain data. Raises InputError that names the key, or the nearest known one.

    Data without a `family` but with a `stem` or `stages` are those of an SE-MobileFaceNet.
    """
    if not isinstance(data, dict):
        raise InputError(f"{source}: is {type(data).__name__}, wanted a table with the keys of an architecture")
    data = dict(data)
    if not data.keys() & {"family", "stem", "stages"}:
        raise InputError(f"{source}: 'family' is missing, wanted one of {', '.join(FAMILIES)}")
    family = data.pop("family", SEMobileFaceNet.family)
    if not isinstance(family, str) or family not in FAMILIES:
        hint = nearest(family[:MAX_NAME], FAMILIES) if isinstance(family, str) else ""
        raise InputError(f"{source}: family {shown(family)} is not known{hint}; known: {', '.join(FAMILIES)}")
    try:
        return FAMILIES[family].from_dict(data, source)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(source) else f"{source}: {text}") from None


def load_arch(path: Path) -> Arch:
    """Read an architecture from a YAML or JSON file, or from a run folder's arch.json."""
    file = path / "arch.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no architecture there; wanted a YAML or JSON file, or a run folder")
    if file.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{file}: is larger than {MAX_FILE_BYTES} bytes; not an architecture")
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix == ".json" else read_yaml(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as an architecture ({error})") from None
    if isinstance(data, dict):
        data.setdefault("name", file.stem)
    return arch_from_dict(data, str(file))
