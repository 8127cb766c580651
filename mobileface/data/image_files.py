"""The images of a set that is judged by searching or by templates: files, and how each becomes an aligned crop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.data.align import align
from mobileface.data.folder import SUFFIXES
from mobileface.data.images import MAX_BYTES, BadImage, Image, decode
from mobileface.data.photos import read_photo
from mobileface.errors import InputError


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """N image files below a folder. Without landmarks they are aligned crops, 112x112; with them they are cut by five
    points each, x and y in px of the file: left eye, right eye, nose, left and right corner of the mouth."""

    folder: Path
    keys: tuple[str, ...]  # N, paths inside the folder
    landmarks: NDArray[np.float32] | None = None  # (N, 5, 2)

    def __len__(self) -> int:
        return len(self.keys)

    def crop(self, i: int) -> Image:
        """(112, 112, 3) RGB. Raises BadImage, with the file's name in it."""
        path = self.folder / self.keys[i]
        if self.landmarks is None:
            with path.open("rb") as file:
                return decode(file.read(MAX_BYTES + 1), str(path))
        photo, factor = read_photo(path, str(path))
        try:
            return align(photo, self.landmarks[i] / factor)
        except InputError as error:
            raise BadImage(f"{path}: {error}") from None

    def fingerprint(self, *lists: NDArray[np.generic] | None) -> str:
        """Hex SHA-256 over the files' names and sizes in their order (the lists hold indices of it), their landmarks,
        and the lists that say what is compared."""
        digest = hashlib.sha256()
        for key in self.keys:
            digest.update(f"{key}\t{(self.folder / key).stat().st_size}\n".encode("utf-8", "surrogateescape"))
        for values in (self.landmarks, *lists):
            if values is None:
                digest.update(b"none\n")
            else:
                digest.update(f"{values.dtype.str} {values.shape}\n".encode() + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


def check_there(files: ImageFiles, name: str) -> None:
    """InputError for files that a list names and that are not there."""
    missing = [key for key in files.keys if not (files.folder / key).is_file()]
    if missing:
        raise InputError(
            f"{files.folder / missing[0]}: not found; {name} misses {len(missing)} of its {len(files)} images"
        )


def images_in_folder(folder: Path) -> list[str]:
    """The names of the images that lie directly in a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name.lower().endswith(SUFFIXES) and path.is_file())


def numbered(names: Iterable[object]) -> NDArray[np.int64]:
    """A number for each name, the same for equal ones."""
    number: dict[object, int] = {}
    return np.array([number.setdefault(name, len(number)) for name in names], np.int64)
