"""The rows of frames.csv and videos.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobileface.errors import visible
from mobileface.files import atomic_path
from mobileface.video.clean import Cleaned
from mobileface.video.embed import Embedded

FRAMES = ("video", "frame", "status", "reason", "component", "quality", "cosine")
VIDEOS = ("row", "video", "verdict", "frames", "kept", "noise", "unreadable", "components", "quality")
STATUSES = ("kept", "noise", "unreadable")
# what became of a video; of the last two there is no feature, and a row of zeros stands for it
CLEAN, CLEANED, NONE_SIMILAR, UNREADABLE, EMPTY = (
    "clean", "cleaned", "no two frames are similar", "no frame can be used", "no frames",
)  # fmt: skip
VERDICTS = (CLEAN, CLEANED, NONE_SIMILAR, UNREADABLE, EMPTY)


class Tables:
    """frames.csv and videos.csv, a video at a time; both are there when all went well."""

    @staticmethod
    @contextmanager
    def opened(folder: Path) -> Iterator[Tables]:
        """Write into `folder`."""
        with ExitStack() as stack:
            writers = []
            for name, columns in (("frames.csv", FRAMES), ("videos.csv", VIDEOS)):
                temporary = stack.enter_context(atomic_path(folder / name))
                file = stack.enter_context(temporary.open("w", encoding="utf-8", newline=""))
                writers.append(csv.writer(file, lineterminator="\n"))
                writers[-1].writerow(columns)
            yield Tables(*writers)

    def __init__(self, frames: Any, videos: Any) -> None:
        self._frames, self._videos, self._row = frames, videos, 0

    def take(self, found: Embedded, cleaned: Cleaned) -> None:
        """cleaned: of the frames of the video that have an embedding."""
        self._frames.writerows(_frame_rows(found, cleaned))
        kept = int(cleaned.kept.sum())
        count, used = len(found.video.frames), len(cleaned.kept)
        quality = f"{cleaned.quality[cleaned.kept].mean():.4f}" if kept else ""
        components = int(cleaned.component.max(initial=-1)) + 1
        numbers = (count, kept, used - kept, count - used, components, quality)
        self._videos.writerow((self._row, visible(found.video.name), verdict(found, cleaned), *numbers))
        self._row += 1


def verdict(found: Embedded, cleaned: Cleaned) -> str:
    """One of VERDICTS."""
    if not found.video.frames:
        return EMPTY
    if not len(cleaned.kept):
        return UNREADABLE
    if cleaned.kept.all():
        return CLEAN
    return NONE_SIMILAR if cleaned.kept.sum() == 1 else CLEANED


def _frame_rows(found: Embedded, cleaned: Cleaned) -> Iterator[tuple[object, ...]]:
    name, sizes = visible(found.video.name), np.bincount(cleaned.component)
    alone = verdict(found, cleaned) == NONE_SIMILAR
    place = {number: i for i, number in enumerate(found.usable().tolist())}
    for number, frame in enumerate(found.video.frames):
        if number in found.faults:
            yield name, visible(frame), "unreadable", visible(found.faults[number]), "", "", ""
            continue
        i = place[number]
        component, reason = int(cleaned.component[i]), ""
        if component:
            tie = ": by quality, then by order" if sizes[component] == sizes[0] else ""
            reason = f"component of {sizes[component]}, the kept one has {sizes[0]}{tie}"
        elif alone:
            reason = "no two frames are similar; this one has the highest quality"
        status = "noise" if component else "kept"
        yield name, visible(frame), status, reason, component, f"{cleaned.quality[i]:.4f}", f"{cleaned.cosine[i]:.4f}"
