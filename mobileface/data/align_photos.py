"""A folder of whole photographs into a folder of aligned crops, and a table of what became of each photograph."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobileface.data.align import similarity
from mobileface.data.align_table import VERDICTS, Row, Table, make_row, read_table, size_of, verdict_of, write_table
from mobileface.data.detect import Detector, Face
from mobileface.data.folder import FolderFaces
from mobileface.data.images import SIZE, BadImage, encode
from mobileface.data.photos import read_photo, view
from mobileface.errors import InputError, visible
from mobileface.files import atomic_path, locked, write_json

SAVE_EVERY = 2000  # photographs; a kill costs the table no more than these
SHOWN = 20  # unreadable photographs that are named
MAX_SUMMARY = 1 << 20  # characters

Progress = Callable[[int, int], None]  # photographs done, photographs in all


@dataclass(frozen=True)
class Settings:
    """score: least one of the detector, 0..1. least: px, shorter side of a face's box in the photograph.

    every: all such faces of a photograph, not the most prominent one alone.
    """

    score: float = 0.6
    least: float = 20.0
    every: bool = False


def align_photos(
    source: Path, detector: Detector, out: Path, settings: Settings, progress: Progress | None = None
) -> dict[str, Any]:
    """Cut the faces of SOURCE/IDENTITY/…/photo out, into the same folders under `out`; returns the summary.

    align.tsv   a row for each crop, or one with the reason why there is none (`align_table.py`)
    align.json  the summary: rows by verdict, names of photographs that could not be read, settings

    A photograph that align.tsv knows, with as many bytes and with its crops in place, is not looked at again; Ctrl-C
    writes the table, so the next run goes on. Crops and rows of photographs that are gone stay. InputError for an
    `out` that lies in the source, holds other things, or was written with other settings or another detector.
    """
    photos = FolderFaces(source)
    sizes = dict(zip(photos.paths, photos.sizes, strict=True))
    _check_names(photos.paths, settings)
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies in the folder of photographs {source}; wanted a folder outside of it")
    how = {"score": settings.score, "least": settings.least, "all": settings.every, "detector_sha256": detector.sha256}
    with locked(out):
        before = _before(out, how)
        table = {path: rows for path, rows in before.items() if _stands(path, rows, sizes, out, settings)}
        waiting = [path for path in photos.paths if path not in table]
        there = len(photos.paths) - len(waiting)
        _save(out, table, how)
        try:
            for number, path in enumerate(waiting, start=1):
                for n in range(1, len(before.get(path, [])) + 1):  # it had other bytes
                    (out / crop_name(path, n, settings)).unlink(missing_ok=True)
                table[path] = _one(source, path, sizes[path], detector, out, settings)
                if number % SAVE_EVERY == 0:
                    _save(out, table, how)
                if progress is not None:
                    progress(there + number, len(photos.paths))
        finally:
            summary = _save(out, table, how)
    return {**summary, "there_already": there}


def crop_name(path: str, n: int, settings: Settings) -> str:
    """Where the n-th face (from 1) of a photograph goes: its own name with .jpg behind what is no JPEG's name."""
    if settings.every:
        return f"{path}.{n}.jpg"
    return path if path.lower().endswith((".jpg", ".jpeg")) else f"{path}.jpg"


def chosen(faces: list[Face], shape: tuple[int, ...], settings: Settings) -> tuple[str, str, list[Face]]:
    """(verdict, reason, faces to cut out; or the best of those that are refused) in a photograph of (H, W, 3).

    Where several faces pass, the one of the largest box area times (1 - distance of its centre from the photograph's
    / half the diagonal): whom a photograph is of is large and in the middle. `every` keeps all, in this order.
    """
    if not faces:
        return "no-face", "", []
    if not (known := [face for face in faces if face.score >= settings.score]):
        best = max(faces, key=lambda face: face.score)
        return "below-score", f"score {best.score:.2f}, wanted {settings.score:g}", [best]
    half = np.array(shape[1::-1]) / 2

    def prominence(face: Face) -> float:
        away = np.linalg.norm(face.box[:2] + face.box[2:] / 2 - half) / np.linalg.norm(half)
        return float(face.box[2] * face.box[3] * max(0.0, 1 - away))

    known.sort(key=prominence, reverse=True)
    if not (large := [face for face in known if min(face.box[2:]) >= settings.least]):
        side = min(known[0].box[2:])
        return "too-small", f"shorter side {side:.0f} px, wanted {settings.least:g}", known[:1]
    return "aligned", "", large if settings.every else large[:1]


def _one(source: Path, path: str, size: int, detector: Detector, out: Path, settings: Settings) -> list[Row]:
    """Judge one photograph and write its crops."""
    try:
        photo = read_photo(source / path, path)
    except BadImage as error:
        return [make_row(path, size, "unreadable", reason=str(error))]
    found = detector.find(photo, settings.score)
    passed = sum(face.score >= settings.score for face in found)
    verdict, reason, faces = chosen(found, photo.shape, settings)
    if verdict != "aligned":
        refused = faces[0] if faces else None
        return [make_row(path, size, verdict, "", reason, passed, photo.shape, refused)]
    rows = []
    for n, face in enumerate(faces, start=1):
        name = crop_name(path, n, settings)
        try:
            face = detector.again(photo, face)
            crop = view(photo, similarity(face.landmarks), SIZE)
        except InputError as error:
            rows.append(make_row(path, size, "bad-landmarks", "", str(error), passed, photo.shape, face))
            continue
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(encode(crop))
        rows.append(make_row(path, size, "aligned", name, "", passed, photo.shape, face))
    return rows


def _check_names(paths: list[str], settings: Settings) -> None:
    named: dict[str, str] = {}
    for path in paths:
        crop = crop_name(path, 1, settings)
        if (other := named.setdefault(crop, path)) != path:
            raise InputError(f"{other} and {path} would both become {crop}; rename one of them")


def _before(out: Path, how: dict[str, Any]) -> Table:
    """The table of an earlier run that was made in the same way; nothing where `out` is new."""
    if not (out / "align.tsv").exists():
        if [path for path in out.iterdir() if not path.name.startswith(".") and path.name != "align.json"]:
            raise InputError(f"{out}: is not empty and holds no align.tsv; give another --out")
        return {}
    try:
        with (out / "align.json").open(encoding="utf-8") as file:
            then = dict(json.loads(file.read(MAX_SUMMARY))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{out}: its align.json cannot be read; give another --out") from None
    if other := [f"{key}={then.get(key)} there, {value} here" for key, value in how.items() if then.get(key) != value]:
        raise InputError(f"{out}: was written in another way ({other[0]}); give another --out")
    return read_table(out / "align.tsv")


def _stands(path: str, rows: list[Row], sizes: dict[str, int], out: Path, settings: Settings) -> bool:
    """Whether rows of an earlier run still hold: the photograph has as many bytes, or is gone, and the crops exist."""
    if sizes.get(path, size_of(rows[0])) != size_of(rows[0]):
        return False
    crops = [n for n, row in enumerate(rows, start=1) if verdict_of(row) == "aligned"]
    return path not in sizes or all((out / crop_name(path, n, settings)).is_file() for n in crops)


def _save(out: Path, table: Table, how: dict[str, Any]) -> dict[str, Any]:
    """Write both files; returns the summary."""
    rows = [row for rows in table.values() for row in rows]
    counts = Counter(verdict_of(row) for row in rows)
    summary = {
        "photographs": len(table),
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "unreadable": [visible(row[-1]) for row in rows if verdict_of(row) == "unreadable"][:SHOWN],
        "settings": how,
    }
    write_json(out / "align.json", summary)  # first: a table without settings could not be gone on with
    write_table(out / "align.tsv", table)
    return summary
