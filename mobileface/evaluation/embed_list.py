"""A list of images or of videos as a feature file, a row for each line: what the LFRC challenge takes.

InsightFace's `challenges/iccv19-lfr`: `gen_image_feature.py` adds the embedding of the mirror image and brings the sum
to length one; `gen_video_feature.py` brings each frame's embedding to length one, without a flip, then their sum.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mobileface.card import versions
from mobileface.data.features import Features, read_features, write_features
from mobileface.data.folder import SUFFIXES
from mobileface.embedders.contract import CHOICES, Embedder
from mobileface.errors import InputError, nearest, visible
from mobileface.video.clean import clean
from mobileface.video.embed import Progress, Stream
from mobileface.video.run import name_lines
from mobileface.video.tracks import LIST, Video, Videos, inside, lines, open_videos

FLIP = {"images": "sum", "videos": "none"}  # as the challenge's scripts have it
SHOWN = 20  # names in the summary


def open_list(path: Path) -> tuple[str, Videos]:
    """("images" or "videos", what each line names), of a list file or the filelist.txt in a folder.

    Lines that end like an image are paths of images, each a video of one frame; anything else is for `open_videos`.
    What follows a tab is not looked at. Raises InputError for what is no list, and for a line that cannot be used.
    """
    listed = path / LIST if path.is_dir() else path
    if not listed.is_file():
        raise InputError(f"{listed}: no such list; wanted an image or a video a line")
    names: dict[str, None] = {}
    for where, line in lines(listed):
        name = line.partition("\t")[0].strip()
        if not name.lower().endswith(SUFFIXES):
            if names or line.split()[0].lower().endswith(SUFFIXES):
                raise InputError(f"{where} is {line[:80]!r}; wanted the path of an image, a tab before anything else")
            return "videos", open_videos(listed)
        if name in names:
            raise InputError(f"{where} names {name!r} again; wanted each once")
        names[inside(name, where)] = None
    if not names:
        raise InputError(f"{listed}: is empty; wanted an image or a video a line")
    return "images", Videos(listed.parent, list(names), lambda: (Video(name, (name,)) for name in names))


def embed_list(
    kind: str, listed: Videos, embedder: Embedder, out: Path, flip: str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the LFRC feature file `out`, unit rows in the list's order; gives counts, names, hashes.

    kind, listed: of `open_list`. flip None: that of the challenge. A line without a usable image has a row of zeros;
    it is counted and named. Memory: a batch of images, the embeddings of one video, the names.
    Raises InputError where no image can be used.
    """
    flip = FLIP[kind] if flip is None else flip
    if flip not in CHOICES["flip"]:
        raise InputError(f"flip is {flip!r}{nearest(flip, CHOICES['flip'])}; wanted {' or '.join(CHOICES['flip'])}")
    _check_out(out)
    begin = time.perf_counter()
    stream = Stream(listed, embedder, flip)
    images = unreadable = lost = 0
    faults: list[str] = []
    without: list[str] = []

    def rows() -> Iterator[Features]:
        nonlocal images, unreadable, lost
        for done, found in enumerate(stream, start=1):
            raw = found.raw[found.usable()]
            images, unreadable = images + len(found.raw), unreadable + len(found.faults)
            for number, why in sorted(found.faults.items())[: SHOWN - len(faults)]:
                faults.append(visible(f"{found.video.frames[number]}: {why}"))
            feature = clean(raw, np.array([0, len(raw)]), None).feature
            if not feature.any():
                lost += 1
                without.extend([visible(found.video.name)] * (lost <= SHOWN))
            yield feature
            if progress is not None:
                progress(done, len(listed))
        if lost == len(listed):
            first = f"; the first: {faults[0]}" if faults else ""
            raise InputError(f"none of {images} images below {listed.root} can be used{first}")

    write_features(out, rows(), len(listed), embedder.dim)
    return {
        "rows": len(listed),
        "of": kind,
        "dim": embedder.dim,
        "images": images,
        "unreadable": {"count": unreadable, "names": faults},
        "without_feature": {"count": lost, "names": without},
        "flip": flip,
        "data_sha256": stream.sha256(),
        "model": embedder.path.resolve().name,
        "model_sha256": embedder.sha256,
        "contract": {**embedder.contract.to_dict(), "flip": flip},
        "versions": versions(dict.fromkeys((*embedder.libraries, "numpy", "opencv-python-headless"))),
        "seconds": round(time.perf_counter() - begin, 3),
    }


def _check_out(out: Path) -> None:
    """Features replace features, and nothing else: a slip must not cost the list or the model."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; wanted a file for the features")
    if out.exists():
        try:
            read_features(out)
        except InputError:
            raise InputError(f"{out}: is there, and no feature file; wanted another --out") from None


def summary(result: dict[str, Any]) -> list[str]:
    """A result as lines of text."""
    unreadable, without = result["unreadable"], result["without_feature"]
    found = [
        f"{result['rows']:,} {result['of']}, {result['images'] - unreadable['count']:,} images read, "
        f"{unreadable['count']:,} unreadable; rows of {result['dim']} numbers, flip {result['flip']}",
        *name_lines("unreadable", unreadable),
    ]
    return found + (name_lines("no usable frame", without) if result["of"] == "videos" else [])
