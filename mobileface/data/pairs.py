"""Sets of image pairs to judge verification on, whatever they were read from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobileface.data.images import MAX_BYTES
from mobileface.data.known_pairs import SETS, first_folder, images_in, packed_at
from mobileface.data.lfw import Pair, read_lfw_pairs
from mobileface.data.verification_bin import read_bin
from mobileface.errors import InputError, nearest

BIN_FOLDS = 10


@dataclass(frozen=True, eq=False)
class PairSet:
    """P pairs among N images, in K folds.

    `images` are files, or encoded images in memory; `keys` their names inside the set. `identity` is None
    where it is unknown, as in a .bin file. Raises InputError unless there are pairs of both kinds and at
    least two folds: a fold's threshold comes from the other folds.
    """

    name: str
    images: tuple[Path | bytes, ...]  # N
    keys: tuple[str, ...]  # N
    first: NDArray[np.int64]  # (P,), indices into images
    second: NDArray[np.int64]  # (P,)
    same: NDArray[np.bool_]  # (P,)
    fold: NDArray[np.int64]  # (P,), 0..K-1
    identity: NDArray[np.int64] | None  # (N,)

    def __post_init__(self) -> None:
        positive = int(self.same.sum())
        if not 0 < positive < len(self.same):
            raise InputError(
                f"{self.name}: holds {positive} pairs of one person and {len(self.same) - positive} of two, "
                "wanted at least one of each"
            )
        if len(np.unique(self.fold)) < 2:
            raise InputError(f"{self.name}: holds one fold, wanted two or more (a threshold comes from the others)")

    def read(self, i: int) -> bytes:
        """The encoded image `i`; no more of a file than an image may have."""
        image = self.images[i]
        if isinstance(image, bytes):
            return image
        with image.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    def key(self, i: int) -> str:
        """The name of image `i` inside the set."""
        return self.keys[i]

    @cached_property
    def sha256(self) -> str:
        """Hex SHA-256 over the pair list and the images' names and contents; reads all images once."""
        digest = hashlib.sha256()
        columns = (self.first.tolist(), self.second.tolist(), self.same.tolist(), self.fold.tolist())
        for row in zip(*columns, strict=True):
            digest.update(repr(row).encode())
        for i, key in enumerate(self.keys):
            digest.update(key.encode("utf-8", "surrogateescape") + hashlib.sha256(self.read(i)).digest())
        return digest.hexdigest()


def open_pairs(spec: str, data_root: Path) -> PairSet:
    """Open a pair set by name or path.

    `spec` is a name in SETS (its folder lies in `data_root`, or InsightFace's .bin of it, which is taken where the list
    is not there), a path to a .bin file, or a path to a list in LFW's format whose images lie in its folder; a path may
    also be relative to `data_root`. `:9-10` or `:1,3` behind it keeps only these folds, counted from 1. Raises
    InputError for an unknown name, a bad list or missing images.
    """
    base, folds = _split_folds(spec)
    pair_set = _open_known(base, data_root) if base in SETS else _open_path(base, data_root)
    return pair_set if folds is None else select_folds(pair_set, folds, spec)


def select_folds(pair_set: PairSet, folds: Sequence[int], name: str) -> PairSet:
    """The pairs of some folds (counted from 0), and the images that they use, as a set of its own."""
    count = int(pair_set.fold.max()) + 1
    for fold in folds:
        if not 0 <= fold < count:
            raise InputError(f"{name}: asks for fold {fold + 1}, wanted 1 to {count}")
    kept = np.isin(pair_set.fold, folds)
    ends = np.stack([pair_set.first[kept], pair_set.second[kept]])
    used, ends = np.unique(ends, return_inverse=True)
    ends = ends.reshape(2, -1)
    return replace(
        pair_set,
        name=name,
        images=tuple(pair_set.images[i] for i in used),
        keys=tuple(pair_set.keys[i] for i in used),
        first=ends[0],
        second=ends[1],
        same=pair_set.same[kept],
        fold=np.unique(pair_set.fold[kept], return_inverse=True)[1],
        identity=None if pair_set.identity is None else pair_set.identity[used],
    )


def contiguous_folds(pairs: int, folds: int = BIN_FOLDS) -> NDArray[np.int64]:
    """Fold of each pair: blocks in the order of the pairs, the first `pairs % folds` one longer.

    This is scikit-learn's `KFold(folds, shuffle=False)`, InsightFace's protocol for .bin files. Fewer pairs
    than folds make each pair a fold.
    """
    folds = max(1, min(folds, pairs))
    sizes = [pairs // folds + (i < pairs % folds) for i in range(folds)]
    return np.repeat(np.arange(folds, dtype=np.int64), sizes)


def _open_known(name: str, data_root: Path) -> PairSet:
    known = SETS[name]
    folder = data_root / known.folder
    packed = packed_at(known, data_root)
    if packed and not (folder / known.listed).exists():
        return replace(_from_bin(packed), name=name)
    if not folder.is_dir():
        raise InputError(f"{folder}: not found, wanted {name}; --data says where {known.folder}/ lies")
    return _from_files(name, images_in(folder), known.read(folder), known.who)


def _open_path(base: str, data_root: Path) -> PairSet:
    path = next((path for path in (Path(base), data_root / base) if path.is_file()), None)
    if Path(base).suffix not in (".bin", ".txt"):
        raise InputError(
            f"{base!r} is no known pair set{nearest(base, SETS)}, wanted {', '.join(SETS)}, a .bin file "
            "or a .txt list of pairs"
        )
    if path is None:
        raise InputError(f"{base}: not found, neither here nor in {data_root} (--data)")
    if path.suffix == ".bin":
        return _from_bin(path)
    name = path.absolute().parent.name if path.name == "pairs.txt" else path.stem
    return _from_files(name, path.parent, read_lfw_pairs(path), first_folder)


def _split_folds(spec: str) -> tuple[str, list[int] | None]:
    """`lfw:1,3-5` -> ("lfw", [0, 2, 3, 4]); a spec without folds -> (spec, None)."""
    match = re.fullmatch(r"(.+):([0-9,\-]+)", spec)
    if match is None:
        return spec, None
    folds: set[int] = set()
    for part in match[2].split(","):
        bounds = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if bounds is None or int(bounds[2] or bounds[1]) < int(bounds[1]):
            raise InputError(f"{spec}: {match[2]!r} names no folds, wanted a form like :9-10 or :1,3")
        folds.update(range(int(bounds[1]) - 1, int(bounds[2] or bounds[1])))
    return match[1], sorted(folds)


def _from_files(name: str, folder: Path, pairs: list[Pair], who: Callable[[str], str] | None) -> PairSet:
    """A set of image files; `who` says whose they are from their path, None that it is not known."""
    keys = sorted({image for pair in pairs for image in pair[:2]})
    paths = tuple(folder / key for key in keys)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: not found; {name} misses {len(missing)} of its {len(paths)} images")
    index = {key: i for i, key in enumerate(keys)}
    people = None if who is None else np.unique([who(key) for key in keys], return_inverse=True)[1].astype(np.int64)
    return PairSet(
        name=name,
        images=paths,
        keys=tuple(keys),
        first=np.array([index[pair[0]] for pair in pairs], np.int64),
        second=np.array([index[pair[1]] for pair in pairs], np.int64),
        same=np.array([pair[2] for pair in pairs], np.bool_),
        fold=np.array([pair[3] for pair in pairs], np.int64),
        identity=people,
    )


def _from_bin(path: Path) -> PairSet:
    """A .bin file: images 2p and 2p + 1 are pair p; whose they are is not known."""
    images, same = read_bin(path)
    pairs = np.arange(len(same), dtype=np.int64)
    return PairSet(
        name=path.stem,
        images=tuple(images),
        keys=tuple(f"pair {i // 2 + 1}, {'second' if i % 2 else 'first'} image" for i in range(len(images))),
        first=2 * pairs,
        second=2 * pairs + 1,
        same=same,
        fold=contiguous_folds(len(same)),
        identity=None,
    )
