"""A folder of whole photographs into a folder of aligned crops, and a table of what became of each photograph."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from mobileface.data.align_cut import Settings, crop_name, cut
from mobileface.data.align_table import (
    MAX_PHOTOS,
    VERDICTS,
    Row,
    Table,
    begin_table,
    photo_of,
    read_part,
    read_table,
    rows_of,
    text_of,
    verdict_of,
    write_table,
)
from mobileface.data.detect import Detector
from mobileface.data.folder import Entry, list_images
from mobileface.data.photos import PHOTO_SUFFIXES
from mobileface.errors import InputError, visible
from mobileface.files import atomic_path, locked, write_json

PART = "align.tsv.part"  # rows of the run at work, in the order in which they were found
SHOWN = 20  # unreadable photographs that are named
MAX_SUMMARY = 1 << 20  # characters

Progress = Callable[[int, int], None]  # photographs done, photographs in all


def align_photos(
    source: Path, detector: Detector, out: Path, settings: Settings, progress: Progress | None = None
) -> dict[str, Any]:
    """Cut the faces of SOURCE/IDENTITY/…/photo out, into the same folders under `out`; returns the summary.

    align.tsv       a row for each crop, or one with the reason why there is none (`align_table.py`)
    align.json      the summary: rows by verdict, names of photographs that could not be read, settings
    align.tsv.part  while it works: a kill costs one photograph

    A photograph that align.tsv knows, with as many bytes, the same time of change and its crops in place, is not looked
    at again unless it was unreadable; Ctrl-C writes the table, so the next run goes on. Crops and rows of photographs
    that are gone stay. InputError for an `out` that lies in the source, holds other things, or was written from another
    source, with other settings or another detector.
    """
    listing = list_images(source, PHOTO_SUFFIXES)
    photos = {entry.path: entry for entry in sorted([*listing.images, *listing.broken])}
    _check_names(photos, settings)
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies in the folder of photographs {source}; wanted a folder outside of it")
    how = {
        "source": str(source.resolve()),
        "score": settings.score,
        "least": settings.least,
        "all": settings.every,
        "detector_sha256": detector.sha256,
    }
    _check_out(out, how)  # before a lock is left in a folder that is somebody's
    with locked(out):
        table = _before(out, how)
        if (most := len(photos.keys() | table.keys())) > MAX_PHOTOS:
            raise InputError(f"{out}: would name {most:,} photographs, wanted at most {MAX_PHOTOS:,} in one --out")
        waiting = [photo for photo in photos.values() if not _stands(photo, table.get(photo.path), out, settings)]
        for photo in waiting:  # before the rows go: a crop of other bytes, or one that a kill left without a row
            _remove_crops(photo.path, len(rows_of(table.pop(photo.path, ""))), out, settings)
        there = len(photos) - len(waiting)
        _save(out, table, photos, how)
        try:
            with begin_table(out / PART) as part:
                for number, photo in enumerate(waiting, start=there + 1):
                    rows = text_of(_one(source, photo, detector, out, settings))
                    table[photo.path] = rows
                    part.write(rows)
                    part.flush()
                    if progress is not None:
                        progress(number, len(photos))
        finally:
            summary = _save(out, table, photos, how)
    return {**summary, "there_already": there, "left_out": listing.left_out()}


def _one(source: Path, photo: Entry, detector: Detector, out: Path, settings: Settings) -> list[Row]:
    """Judge one photograph and write its crops."""
    rows, crops = cut(source, photo, detector, settings)
    for name, crop in crops.items():
        with atomic_path(out / name) as temporary:
            temporary.write_bytes(crop)
    return rows


def _check_names(photos: dict[str, Entry], settings: Settings) -> None:
    for path in photos:
        crop = crop_name(path, 1, settings)
        if crop != path and crop in photos and crop_name(crop, 1, settings) == crop:
            raise InputError(f"{path} and {crop} would both become {crop}; rename one of them")


def _check_out(out: Path, how: dict[str, Any]) -> None:
    """InputError for a folder that holds other things or was written in another way."""
    if not (out / "align.tsv").exists():
        names = [path.name for path in out.iterdir()] if out.exists() else []
        if [name for name in names if not name.startswith(".") and name != "align.json"]:
            raise InputError(f"{out}: is not empty and holds no align.tsv; give another --out")
        return
    try:
        with (out / "align.json").open(encoding="utf-8") as file:
            then = dict(json.loads(file.read(MAX_SUMMARY))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{out}: its align.json cannot be read; give another --out") from None
    if other := [f"{key}={then.get(key)} there, {value} here" for key, value in how.items() if then.get(key) != value]:
        raise InputError(f"{out}: was written in another way ({other[0]}); give another --out")


def _before(out: Path, how: dict[str, Any]) -> Table:
    """The table of earlier runs that were made in the same way; nothing where `out` is new."""
    _check_out(out, how)
    if not (out / "align.tsv").exists():
        return {}
    return read_table(out / "align.tsv") | read_part(out / PART)


def _stands(photo: Entry, text: str | None, out: Path, settings: Settings) -> bool:
    """Whether rows of an earlier run still hold: the photograph was read and is the same, and its crops exist."""
    rows = rows_of(text or "")
    verdicts = Counter(verdict_of(row) for row in rows)
    if not rows or photo_of(rows[0]) != photo or verdicts["unreadable"]:
        return False
    return all((out / crop_name(photo.path, n, settings)).is_file() for n in range(1, verdicts["aligned"] + 1))


def _remove_crops(path: str, known: int, out: Path, settings: Settings) -> None:
    """Remove a photograph's crops: as many as it had rows, and what follows them in number."""
    for n in count(1):
        try:
            (out / crop_name(path, n, settings)).unlink()
        except FileNotFoundError:
            if n > known:
                return


def _save(out: Path, table: Table, photos: dict[str, Entry], how: dict[str, Any]) -> dict[str, Any]:
    """Write both files; returns the summary, of photographs that are in the source; others are `gone`."""
    counts, gone = Counter[str](), Counter[str]()
    unreadable: list[str] = []
    for path, text in table.items():
        rows = rows_of(text)
        (counts if path in photos else gone).update(verdict_of(row) for row in rows)
        if path in photos and verdict_of(rows[0]) == "unreadable" and len(unreadable) < SHOWN:
            unreadable.append(visible(rows[0][-1]))
    there = len(photos.keys() & table.keys())
    summary = {
        "photographs": there,
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "gone": {"photographs": len(table) - there, "crops": gone["aligned"]},
        "unreadable": unreadable,
        "settings": how,
    }
    write_json(out / "align.json", summary)  # first: a table without settings could not be gone on with
    write_table(out / "align.tsv", table)
    (out / PART).unlink(missing_ok=True)
    return summary
