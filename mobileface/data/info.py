"""What a folder, a .rec or a .bin holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobileface.data.faces import FaceSource
from mobileface.data.folder import FolderFaces
from mobileface.data.images import BadImage, decode
from mobileface.data.recordio import RecordFaces
from mobileface.data.verification_bin import read_bin
from mobileface.errors import InputError, visible

SHOWN = 20  # names of bad images


def describe(path: Path) -> dict[str, Any]:
    """Counts, the number and the first names of bad images, and the hash."""
    if path.suffix == ".bin":
        images, same = read_bin(path)
        bad = _bad((f"image {i}", image) for i, image in enumerate(images))
        return {"path": str(path), "pairs": len(same), "genuine": int(same.sum()), "images": len(images), **bad}
    source = open_source(path)
    counts = np.bincount(source.labels[source.labels >= 0])
    bad = _bad((source.key(i), source.read(i)) for i in range(len(source)))
    return {
        "path": str(path),
        "images": len(source),
        "identities": len(counts),
        "one_image_identities": int((counts == 1).sum()),
        "images_per_identity": {"least": int(counts.min()), "mean": float(counts.mean()), "most": int(counts.max())},
        **bad,
        "sha256": source.fingerprint(),
    }


def open_source(path: Path) -> FaceSource:
    """A .rec file or an image folder."""
    if path.suffix == ".rec":
        return RecordFaces(path)
    if path.is_dir():
        return FolderFaces(path)
    raise InputError(f"{path}: is neither an image folder nor a .rec or .bin file")


def _bad(images: Any) -> dict[str, Any]:
    names: list[str] = []
    count = 0
    for name, buffer in images:
        try:
            decode(buffer, name)
        except BadImage as error:
            count += 1
            names += [str(error)] if len(names) < SHOWN else []
    return {"bad_images": count, "bad": names}


def text(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in found.items() if key != "bad"]
    return "\n".join(visible(line) for line in lines + [f"  {name}" for name in found["bad"]])
