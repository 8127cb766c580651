"""Image folders: one folder for each identity, aligned 112x112 crops inside."""

from __future__ import annotations

import functools
import logging
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from mobileface.data.faces import UNLABELLED, hash_names_and_sizes
from mobileface.data.images import MAX_BYTES
from mobileface.data.lists import read_names, read_scores, warn_of_strangers
from mobileface.errors import InputError, visible

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SHOWN = 5  # other suffixes that are named

log = logging.getLogger(__name__)


class Entry(NamedTuple):
    """An image's file: its path inside the folder, bytes, time of its last change."""

    path: str
    size: int
    mtime_ns: int


@dataclass
class Listing:
    """images: sorted by path, each in a folder of its own. broken: dangling links, pipes and the like, of size 0.

    loose: images that lie directly in the folder. others: files by their other suffix, hidden ones left out.
    """

    images: list[Entry] = field(default_factory=list)
    broken: list[Entry] = field(default_factory=list)
    loose: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def left_out(self) -> str:
        """What is not among the images, for one line; empty where that is nothing."""
        ranked = sorted(self.others.items(), key=lambda pair: (-pair[1], pair[0]))
        kinds = [f"{suffix or 'no suffix'} {count:,}" for suffix, count in ranked[:SHOWN]]
        if rest := sum(count for _, count in ranked[SHOWN:]):
            kinds.append(f"others {rest:,}")
        loose = [f"{self.loose:,} directly in the folder, not in IDENTITY/"] if self.loose else []
        return visible("; ".join([*([", ".join(kinds)] if kinds else []), *loose]))


class FolderFaces:
    """`folder/IDENTITY/…/image.jpg` as a FaceSource; the first folder is the identity.

    include / exclude: list files whose first column (up to a tab) is an identity or an image path inside the
    folder; `exclude` is applied after `include`, and names that match nothing are warned of. labelled=False: identities
    are not trusted (tracks of several people), every image is UNLABELLED. scores: a list file of image path, tab,
    quality in 0..1, one for each image that is left; they are found in `scores` (N,), None without the file.
    """

    def __init__(
        self,
        folder: Path,
        include: Path | None = None,
        exclude: Path | None = None,
        labelled: bool = True,
        scores: Path | None = None,
    ) -> None:
        found = list_images(folder)
        if found.broken:
            _warn_of_broken(folder, len(found.broken), found.broken[0].path)
        kept = _chosen(found.images, include, exclude, folder)
        self.name = folder.name
        self.folder = folder
        self.paths = [entry.path for entry in kept]
        self.sizes = [entry.size for entry in kept]
        owners = [path.split("/", 1)[0] for path in self.paths]
        self.identities = sorted(set(owners)) if labelled else []
        number = {identity: i for i, identity in enumerate(self.identities)}
        labels = [number[o] for o in owners] if labelled else [UNLABELLED] * len(owners)
        self.labels = np.array(labels, np.int64)
        self.scores = None if scores is None else read_scores(scores, self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int) -> bytes:
        """The file's bytes; at most one more than `images.MAX_BYTES`, so that decoding refuses a larger one."""
        with (self.folder / self.paths[i]).open("rb") as file:
            return file.read(MAX_BYTES + 1)

    def key(self, i: int) -> str:
        """Path inside the folder, the folder's name before it."""
        return f"{self.name}/{self.paths[i]}"

    def fingerprint(self) -> str:
        """SHA-256 over sorted names and sizes."""
        return hash_names_and_sizes(zip(self.paths, self.sizes, strict=True))


def list_images(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> Listing:
    """What lies in a folder of images, links followed, hidden folders left out.

    InputError for what is no folder or holds no image in a folder of its own; OSError for a folder that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; wanted one folder for each identity, images inside")
    found = Listing()
    seen: set[str] = set()  # real paths: a link may lead back to where it stands
    for top, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(top) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(top))
        inside = PurePosixPath(Path(top).relative_to(folder))
        for name in files:
            if not name.lower().endswith(suffixes):
                if not name.startswith("."):
                    found.others[os.path.splitext(name)[1].lower()] += 1
            elif inside == PurePosixPath():
                found.loose += 1
            elif (status := _status(os.path.join(top, name))) is None:
                found.broken.append(Entry(str(inside / name), 0, 0))
            else:
                found.images.append(Entry(str(inside / name), status.st_size, status.st_mtime_ns))
    if not found.images:
        packs = sorted(path.name for path in folder.glob("*.rec"))
        hint = f", or the file {packs[0]} that is in it (in a recipe `rec`, not `folder`)" if packs else ""
        if not packs and (others := found.left_out()):
            hint = f" (found: {others})"
        raise InputError(
            f"{folder}: holds no image in a folder of its own; wanted IDENTITY/image.jpg{hint}"
            f"{'; who is unknown goes into one folder, in a recipe with labelled: false' if found.loose else ''}"
        )
    found.images.sort()
    found.broken.sort()
    return found


def _status(file: str) -> os.stat_result | None:
    """What the system says of a regular file; None for anything else: to open a pipe would wait for its writer."""
    try:
        status = os.stat(file)
    except OSError:  # mostly a link that leads nowhere, or in a circle
        return None
    return status if stat.S_ISREG(status.st_mode) else None


@functools.cache  # a run opens its sources more than once
def _warn_of_broken(folder: Path, count: int, first: str) -> None:
    what = "1 file is" if count == 1 else f"{count:,} files are"
    why = "no regular file, or a link that leads nowhere"
    log.warning("%s", visible(f"{folder}: {what} left out ({why}), the first: {first[:200]}"))


def _unreadable(error: OSError) -> None:
    raise error


def _chosen(found: list[Entry], include: Path | None, exclude: Path | None, folder: Path) -> list[Entry]:
    wanted, refused = (None if file is None else _listed(file, found, folder) for file in (include, exclude))

    def listed(path: str, names: dict[str, None]) -> bool:
        return path in names or path.split("/", 1)[0] in names

    kept = [
        entry
        for entry in found
        if (wanted is None or listed(entry.path, wanted)) and (refused is None or not listed(entry.path, refused))
    ]
    if not kept:
        lists = " and ".join(str(p) for p in (include, exclude) if p)
        raise InputError(f"{folder}: no image of {len(found)} is left by {lists}; wanted paths or identities in it")
    return kept


def _listed(file: Path, found: list[Entry], folder: Path) -> dict[str, None]:
    """The names of a list file, some of which are identities or paths of images that were found."""
    names = read_names(file)
    known = {name for path, *_ in found for name in (path, path.split("/", 1)[0])}
    strangers = [name for name in names if name not in known]
    if len(strangers) == len(names):
        raise InputError(f"{file}: names nothing in {folder}; wanted identities or image paths inside of it")
    warn_of_strangers(file, strangers, folder)
    return names
