"""Every protocol by its name: find what is there, say what is not, judge one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mobileface.data.ijb import TemplatePairs, read_ijb
from mobileface.data.ijbs import read_ijbs
from mobileface.data.known_pairs import SETS, looked_for
from mobileface.data.pairs import PairSet, open_pairs
from mobileface.data.scface import read_scface
from mobileface.data.searches import IdentificationSet
from mobileface.data.tinyface import PARTS, PLACES, read_tinyface
from mobileface.embedders.contract import CHOICES, Embedder
from mobileface.errors import InputError, nearest, one_line
from mobileface.evaluation import verification
from mobileface.evaluation.searching import judge_search, judge_templates
from mobileface.evaluation.templates import DEFAULT, Fusion
from mobileface.files import write_json

ALL = "all"
REMEMBERED = 1 << 30  # bytes of embeddings kept for the sets that share images

Opened = PairSet | IdentificationSet | TemplatePairs


class Searched(NamedTuple):
    """A set of searches or templates: its folder, under any of these names, and what must be in it."""

    folders: tuple[str, ...]
    inside: tuple[str, ...]  # any of them shows that it is there
    read: Callable[[Path], IdentificationSet | TemplatePairs]


SEARCHED: dict[str, Searched] = {
    "tinyface": Searched(("tinyface", "TinyFace"), tuple(f"{p}/{PARTS[0]}".lstrip("/") for p in PLACES), read_tinyface),
    "scface": Searched(("scface", "SCface"), (".",), read_scface),
    "ijbb": Searched(("ijbb", "IJBB"), ("meta",), lambda folder: read_ijb(folder, "ijbb")),
    "ijbc": Searched(("ijbc", "IJBC"), ("meta",), lambda folder: read_ijb(folder, "ijbc")),
    "ijbs": Searched(("ijbs", "IJB-S"), ("protocols",), read_ijbs),
}
NAMES = (*SETS, *SEARCHED)


@dataclass(frozen=True)
class Absent:
    """A set that is not judged, and why: what was looked for in vain, or what is wrong with it."""

    name: str
    why: str


def open_sets(on: Sequence[str], data: Path) -> tuple[list[Opened], list[Absent]]:
    """The sets that `on` asks for. With "all", whatever of NAMES is under `data`, and every .bin that lies in it.

    A set that is asked for by name must be there and whole; "all" goes on without one that is not, and says so. Raises
    InputError where nothing is left.
    """
    opened: list[Opened] = []
    absent: list[Absent] = []
    for spec in dict.fromkeys(on):
        if spec == ALL:
            found, without = _open_all(data)
            opened += found
            absent += without
        elif not (ALL in on and spec in NAMES):  # else it is among all
            opened.append(_open(spec, data))
    if not opened and not data.is_dir():
        raise InputError(f"{data}: not found; --data says where the sets lie")
    if not opened:
        why = f"; {absent[0].name}: {absent[0].why}" if len(absent) == 1 else ""
        raise InputError(f"{data}: holds none of {', '.join(NAMES)} that can be used{why}; --data says where they lie")
    return opened, absent


def check_names(sets: Sequence[Opened]) -> None:
    """InputError for two sets whose results would be kept under one name."""
    verification.check_names(sets, "--on")  # type: ignore[arg-type]  # it needs their names alone


def judge(
    embedder: Embedder,
    sets: Sequence[Opened],
    flip: str | None = None,
    fusion: Fusion = DEFAULT,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    done: Callable[[dict[str, Any]], None] = lambda _: None,
    failed: Callable[[Absent], None] | None = None,
) -> list[dict[str, Any]]:
    """The results in order; each is handed to `done` and written to `folder` as soon as it is there.

    flip None means that of the embedder's contract. Images that several sets of pairs share are embedded once. A set
    that turns out to be unusable (an image that does not decode) is handed to `failed`, and the others go on; without
    `failed`, or where none is left, it raises InputError.
    """
    flip = embedder.contract.flip if flip is None else flip
    if flip not in CHOICES["flip"]:
        raise InputError(f"flip is {flip!r}{nearest(flip, CHOICES['flip'])}, wanted {', '.join(CHOICES['flip'])}")
    shared = Remembering(embedder) if sum(isinstance(one, PairSet) for one in sets) > 1 else embedder
    results: list[dict[str, Any]] = []
    first: InputError | OSError | None = None
    for one in sets:
        progress = _counted(say, one.name)
        verified = None
        try:
            if isinstance(one, PairSet):
                verified = verification.evaluate(shared, one, flip, progress)
                found = [verified.result]
            elif isinstance(one, TemplatePairs):
                found = judge_templates(embedder, one, flip, fusion, progress)
            else:
                found = [judge_search(embedder, one, flip, fusion, progress)]
        except (InputError, OSError) as error:
            if failed is None:
                raise
            first = first or error
            failed(_unusable(one.name, error))
            continue
        if folder is not None and verified is not None:
            verification.write_verification(verified, folder)
        elif folder is not None:
            for result in found:
                write_json(folder / f"{verification.file_name(result['set'])}.json", result)
        for result in found:
            done(result)
        results += found
    if first is not None and not results:
        raise InputError(f"no set could be judged; the first: {one_line(first)}")
    return results


def summary(result: dict[str, Any]) -> list[str]:
    """A result in one line, that of several searches in one each; behind them what of the set was not there."""
    if "accuracy" in result:
        return [verification.summary(result)]
    fused = f", {result['fusion']['variant']}" if "fusion" in result else ""
    lines = []
    if "parts" not in result:
        tar = ", ".join(f"TAR {value:.4f} at FAR {far}" for far, value in result["tar"].items())
        lines.append(
            f"{result['set']}: {tar or 'too few impostor pairs for a TAR'}, EER {result['eer']:.4f} "
            f"({result['pairs']:,} pairs of {result['templates']:,} templates, {result['empty_templates']:,} of them "
            f"empty{fused}, flip {result['flip']})"
        )
    for part in result.get("parts", []):
        rates = [f"rank {k} {rate:.4f}" for k, rate in part["rank"].items()]
        rates += [f"TPIR {rate:.4f} at FPIR {fpir}" for fpir, rate in part["tpir"].items()]
        gallery = " and ".join(f"{size:,}" for size in part["gallery"])
        lines.append(
            f"{result['set']}, {part['name']}: {', '.join(rates) or 'no probe has a mate'} ({part['probes']:,} probes, "
            f"gallery of {gallery}{fused}, flip {result['flip']})"
        )
    if missing := incomplete(result):
        lines.append(f"{result['set']}: not the whole set: {missing}")
    return lines


def incomplete(result: dict[str, Any]) -> str:
    """ "3 of 3,728 probes, 2 of 130 mugshots"; empty where the set is whole, or nobody knows."""
    missing = result.get("missing", {})
    return ", ".join(f"{part['found'] or 0:,} of {part['whole']:,} {name}" for name, part in missing.items())


class Remembering:
    """An embedder that embeds equal crops once, whatever sets they are in; at most REMEMBERED bytes are kept."""

    def __init__(self, inner: Embedder) -> None:
        self.inner = inner
        self.path, self.dim, self.sha256 = inner.path, inner.dim, inner.sha256
        self.contract, self.libraries = inner.contract, inner.libraries
        self.known: dict[bytes, NDArray[np.float32]] = {}

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 112, 112, 3) -> (B, dim)."""
        keys = [hashlib.sha256(image.tobytes()).digest() for image in images]
        new = {key: i for i, key in enumerate(keys) if key not in self.known}
        fresh: dict[bytes, NDArray[np.float32]] = {}
        if new:
            rows = self.inner(np.ascontiguousarray(images[list(new.values())]))
            fresh = {key: row.copy() for key, row in zip(new, rows, strict=True)}
        found = np.stack([fresh[key] if key in fresh else self.known[key] for key in keys])
        if (len(self.known) + len(fresh)) * self.dim * 4 <= REMEMBERED:
            self.known |= fresh
        return found


def _open(spec: str, data: Path) -> Opened:
    if spec in SEARCHED:
        known = SEARCHED[spec]
        folder = _folder(known, data)
        if folder is None:
            raise InputError(f"{data}: holds no {_wanted(known)}, wanted {spec}; --data says where it lies")
        return known.read(folder)
    if spec not in SETS and Path(spec).suffix not in (".bin", ".txt") and ":" not in spec:
        known_names = (ALL, *NAMES)
        raise InputError(
            f"{spec!r} is no known set{nearest(spec, known_names)}, wanted {', '.join(known_names)}, a .bin file "
            "or a .txt list of pairs"
        )
    return open_pairs(spec, data)


def _open_all(data: Path) -> tuple[list[Opened], list[Absent]]:
    found: list[Opened] = []
    absent: list[Absent] = []
    known_bins = {known.packed for known in SETS.values()}
    bins = [path for path in sorted(data.glob("*.bin")) if path.name not in known_bins and path.is_file()]
    for spec in (*NAMES, *map(str, bins)):
        missing = _missing(spec, data)
        if missing is not None:
            absent.append(Absent(spec, f"not there: looked for {missing} in {data}"))
            continue
        try:
            found.append(_open(spec, data))
        except (InputError, OSError) as error:
            absent.append(_unusable(Path(spec).name, error))
    return found, absent


def _unusable(name: str, error: Exception) -> Absent:
    return Absent(name, f"cannot be used: {one_line(error)}")


def _missing(spec: str, data: Path) -> str | None:
    """What was looked for in vain; None where the set is there, in whatever state."""
    if spec in SETS:
        return looked_for(spec, data)
    if spec in SEARCHED:
        known = SEARCHED[spec]
        return None if _folder(known, data) else _wanted(known)
    return None


def _folder(known: Searched, data: Path) -> Path | None:
    folders = (data / name for name in known.folders)
    return next((f for f in folders if any((f / inside).is_dir() for inside in known.inside)), None)


def _wanted(known: Searched) -> str:
    return " or ".join(f"{name}/{inside}".removesuffix("/.") + "/" for name in known.folders for inside in known.inside)


def _counted(say: Callable[[str], None], name: str) -> verification.Progress:
    say(name)
    return lambda done, total: say(f"{name}: {done:,} of {total:,} images")
