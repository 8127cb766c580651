"""Clean a training set with a teacher: embed, judge, write what to leave out and why."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.cleaning.identities import DEFAULTS, KEEP, VERDICTS, Judged, Settings, judge
from mobileface.cleaning.sheet import write_sheets
from mobileface.data.faces import UNLABELLED
from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces
from mobileface.data.images import BadImage, decode
from mobileface.data.recordio import RecordFaces
from mobileface.embedders.contract import Embedder, embed_with_flip
from mobileface.errors import InputError, visible
from mobileface.files import atomic_path, write_json

BATCH = 64
SHOWN = 20  # names of each kind in the summary
COLUMNS = ("key", "identity", "verdict", "cosine", "norm", "component")

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True, eq=False)
class Embedded:
    """index: (N,) int64 into the face set, the images that were embedded. raw: (N, D) float32. corrupt: the error of
    each image that was not, by its index."""

    index: NDArray[np.int64]
    raw: NDArray[np.float32]
    corrupt: dict[int, str]


def clean(
    faces: FaceSet, embedder: Embedder, out: Path, settings: Settings = DEFAULTS, progress: Progress | None = None
) -> dict[str, Any]:
    """Judge every labelled image of `faces` and write the result into the folder `out`; returns the summary.

    clean.tsv     a row for each image that was judged: key, identity, verdict, cosine to the centre of the person,
                  norm, number of its component (0 = the person)
    exclude.txt   path (of a .rec: FILE.rec:KEY) and reason of each image that is not kept, corrupt ones as well; a
                  source takes it as its `exclude` list. Several labelled sources get a list each, in their order:
                  exclude-1.txt, exclude-2.txt. (A list of a set without a fault names nothing, which a source
                  refuses: leave it out)
    summary.json  counts by verdict, settings and levels, hashes of data and model; see `summarise`
    VERDICT.png   contact sheets

    Unlabelled images are not judged. Memory: N x D x 4 bytes of embeddings, beside what `judge` needs.
    Raises InputError for an `out` that is a file or lies in a source's folder (the sheets would be faces of the set),
    for a set without labels, where no image can be read, and for embeddings without a length.
    """
    begin = time.perf_counter()
    _check_out(faces, out)
    found = embed(faces, embedder, progress)
    labels = faces.labels[found.index]
    judged = judge(found.raw, labels, settings)
    names = {int(label): identity_name(faces, i) for label, i in zip(labels, found.index.tolist(), strict=True)}
    _write_table(out / "clean.tsv", faces, found.index, judged, [names[label] for label in labels.tolist()])
    unlisted = _write_lists(out, faces, found, judged)
    write_sheets(
        out, judged, labels, names.__getitem__, lambda n: faces.key(int(found.index[n])).rsplit("/", 1)[-1],
        lambda n: _read(faces, int(found.index[n])),
    )  # fmt: skip
    summary = {
        **summarise(faces, embedder, found, judged, settings, names),
        "not_listed": _some(unlisted),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    write_json(out / "summary.json", summary)
    return summary


def embed(faces: FaceSet, embedder: Embedder, progress: Progress | None = None) -> Embedded:
    """Embedding of each labelled image plus that of its mirror image.

    Raises InputError where no image has a label, none can be read, or an embedding has no length.
    """
    index = np.flatnonzero(faces.labels != UNLABELLED)
    if not len(index):
        raise InputError(f"cleaning: none of {len(faces)} images has a label; wanted identities to compare within")
    raw = np.empty((len(index), embedder.dim), np.float32)
    good = np.ones(len(index), bool)
    corrupt: dict[int, str] = {}
    for start in range(0, len(index), BATCH):
        images, rows = [], []
        for row, i in enumerate(index[start : start + BATCH].tolist(), start):
            try:
                images.append(_read(faces, i))
                rows.append(row)
            except BadImage as error:
                corrupt[i], good[row] = str(error), False
        if images:
            both = embed_with_flip(embedder, np.stack(images))
            lengths = np.linalg.norm(both, axis=1)
            if not (np.isfinite(lengths) & (lengths > 0)).all():
                raise InputError(
                    f"{embedder.path}: gives embeddings of a length from {lengths.min():g} to {lengths.max():g}; "
                    "wanted above 0 and finite (wrong scale, mean or std?)"
                )
            raw[rows] = both
        if progress is not None:
            progress(min(start + BATCH, len(index)), len(index))
    if not good.any():
        raise InputError(
            f"cleaning: none of {len(index)} images can be read; the first: {next(iter(corrupt.values()))}"
        )
    return Embedded(index[good], raw if good.all() else raw[good], corrupt)


def identity_name(faces: FaceSet, i: int) -> str:
    """SOURCE/IDENTITY of image `i`: the name of its folder, or the label in the record."""
    source, j = faces.locate(i)
    if isinstance(source, FolderFaces):
        return f"{source.name}/{source.identities[source.labels[j]]}"
    label = source.raw_labels[j] if isinstance(source, RecordFaces) else source.labels[j]
    return f"{source.name}/{label}"


def summarise(
    faces: FaceSet, embedder: Embedder, found: Embedded, judged: Judged, settings: Settings, names: dict[int, str]
) -> dict[str, Any]:
    """What summary.json holds: counts, levels, and which series of images was filed under another's name.

    poor_joined and poor_alone under `norms` are the levels in units of the norm; null where all norms are equal.
    """
    counts = np.bincount(judged.verdict, minlength=len(VERDICTS)).tolist()
    kept = faces.labels[found.index[judged.verdict == KEEP]]
    levels = {
        name: judged.median - getattr(settings, name) * judged.deviation if judged.deviation > 0 else None
        for name in ("poor_joined", "poor_alone")
    }
    return {
        "images": len(faces),
        "unlabelled": int((faces.labels == UNLABELLED).sum()),
        "corrupt": _some(list(found.corrupt.values())),
        "identities": len(names),
        "identities_kept": len(np.unique(kept)),
        "verdicts": {**dict(zip(VERDICTS, counts, strict=True)), "corrupt": len(found.corrupt)},
        "misfiled": [
            {
                "identity": names[series.label],
                "component": series.component,
                "images": series.images,
                "looks_like": names[series.person],
                "mean_cosine": round(series.cosine, 4),
            }
            for series in judged.misfiled
        ],
        "settings": asdict(settings),
        "norms": {"median": judged.median, "deviation": judged.deviation, **levels},
        "data_sha256": faces.fingerprint(),
        "model": embedder.path.resolve().name,
        "model_sha256": embedder.sha256,
        "contract": {**embedder.contract.to_dict(), "flip": "sum"},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in dict.fromkeys((*embedder.libraries, "numpy"))},
        },
    }


def _some(names: list[str]) -> dict[str, Any]:
    return {"count": len(names), "names": [visible(name) for name in names[:SHOWN]]}


def _read(faces: FaceSet, i: int) -> NDArray[np.uint8]:
    return decode(faces.read(i), faces.key(i))


def _check_out(faces: FaceSet, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; wanted a folder for the result")
    for source in faces.sources:
        if isinstance(source, FolderFaces) and out.resolve().is_relative_to(source.folder.resolve()):
            raise InputError(f"{out}: lies in the image folder {source.folder}; wanted a folder outside of it")


def _write_table(path: Path, faces: FaceSet, index: NDArray[np.int64], judged: Judged, names: list[str]) -> None:
    """Rows in the set's order; characters that would break a row are shown as escapes."""

    def rows() -> Iterable[str]:
        yield "\t".join(COLUMNS) + "\n"
        for n, i in enumerate(index.tolist()):
            verdict = VERDICTS[judged.verdict[n]]
            numbers = f"{judged.cosine[n]:.4f}\t{judged.norm[n]:.4f}\t{judged.component[n]}"
            yield f"{visible(faces.key(i))}\t{visible(names[n])}\t{verdict}\t{numbers}\n"

    _write_lines(path, rows())


def _write_lists(out: Path, faces: FaceSet, found: Embedded, judged: Judged) -> list[str]:
    """Write the exclude lists; returns the keys of images whose path cannot stand in one."""
    cut = {int(i): VERDICTS[v] for i, v in zip(found.index, judged.verdict, strict=True) if v != KEEP}
    cut |= dict.fromkeys(found.corrupt, "corrupt")
    unlisted = []
    labelled = [n for n, source in enumerate(faces.sources) if (source.labels != UNLABELLED).any()]
    for number, n in enumerate(labelled, 1):
        source, first = faces.sources[n], int(faces.starts[n])
        lines = [f"# {visible(source.name)}: left out by cleaning; path, reason\n"]
        for j in range(len(source)):
            if reason := cut.get(first + j):
                path = source.paths[j] if isinstance(source, FolderFaces) else source.key(j)
                if _listable(path):
                    lines.append(f"{path}\t{reason}\n")
                else:
                    unlisted.append(source.key(j))
        _write_lines(out / ("exclude.txt" if len(labelled) == 1 else f"exclude-{number}.txt"), lines)
    return unlisted


def _listable(path: str) -> bool:
    """Would a list file's line give this path again? Half a name could exclude an identity."""
    return path == path.strip() and not path.startswith("#") and not set(path) & set("\t\n\r")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file,
    ):
        file.writelines(lines)
