"""Image folders: one folder for each identity, aligned 112x112 crops inside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from mobileface.data.faces import UNLABELLED, hash_names_and_sizes
from mobileface.data.images import MAX_BYTES
from mobileface.data.lists import read_names, read_scores, warn_of_strangers
from mobileface.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


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
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; wanted one folder for each identity, images inside")
        found = sorted(_images(folder))
        if not found:
            packs = sorted(path.name for path in folder.glob("*.rec"))
            hint = f", or the file {packs[0]} that is in it (in a recipe `rec`, not `folder`)" if packs else ""
            raise InputError(f"{folder}: holds no image in a folder of its own; wanted IDENTITY/image.jpg{hint}")
        kept = _chosen(found, include, exclude, folder)
        self.name = folder.name
        self.folder = folder
        self.paths = [path for path, _ in kept]
        self.sizes = [size for _, size in kept]
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


def _images(folder: Path) -> Iterator[tuple[str, int]]:
    """(path inside the folder, bytes) of each image that lies in a folder of its own."""
    seen: set[str] = set()  # real paths: a link may lead back to where it stands
    for top, folders, files in os.walk(folder, followlinks=True, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if os.path.realpath(top) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(top))
        inside = Path(top).relative_to(folder)
        if inside == Path():
            continue
        for name in files:
            if name.lower().endswith(SUFFIXES):
                yield str(PurePosixPath(inside) / name), (Path(top) / name).stat().st_size


def _unreadable(error: OSError) -> None:
    raise error


def _chosen(
    found: list[tuple[str, int]], include: Path | None, exclude: Path | None, folder: Path
) -> list[tuple[str, int]]:
    wanted, refused = (None if file is None else _listed(file, found, folder) for file in (include, exclude))

    def listed(path: str, names: dict[str, None]) -> bool:
        return path in names or path.split("/", 1)[0] in names

    kept = [
        (path, size)
        for path, size in found
        if (wanted is None or listed(path, wanted)) and (refused is None or not listed(path, refused))
    ]
    if not kept:
        lists = " and ".join(str(p) for p in (include, exclude) if p)
        raise InputError(f"{folder}: no image of {len(found)} is left by {lists}; wanted paths or identities in it")
    return kept


def _listed(file: Path, found: list[tuple[str, int]], folder: Path) -> dict[str, None]:
    """The names of a list file, some of which are identities or paths of images that were found."""
    names = read_names(file)
    known = {name for path, _ in found for name in (path, path.split("/", 1)[0])}
    strangers = [name for name in names if name not in known]
    if len(strangers) == len(names):
        raise InputError(f"{file}: names nothing in {folder}; wanted identities or image paths inside of it")
    warn_of_strangers(file, strangers, folder)
    return names
