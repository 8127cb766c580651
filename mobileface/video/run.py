"""Clean the videos of a source: embed, group, write what was kept, what was not and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobileface.card import versions
from mobileface.data.features import write_features
from mobileface.data.images import decode
from mobileface.embedders.contract import CHOICES, Embedder
from mobileface.errors import InputError, nearest, visible
from mobileface.files import sha256, write_json
from mobileface.video.aggregate import WEIGHTS
from mobileface.video.clean import THRESHOLD, Cleaned, clean
from mobileface.video.embed import Embedded, Progress, Stream
from mobileface.video.sheet import Most, write_sheets
from mobileface.video.sweep import Row, read_labels, table
from mobileface.video.tables import CLEAN, CLEANED, EMPTY, NONE_SIMILAR, UNREADABLE, VERDICTS, Tables, verdict
from mobileface.video.tracks import Videos

SHOWN = 20  # names of each kind in the summary
WRITTEN = ("features.bin", "videos.csv", "frames.csv", "summary.json")
NAMED = (NONE_SIMILAR, UNREADABLE, EMPTY)
LIBRARIES = ("numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Settings:
    """threshold: cosine that joins two frames (0.4: Table 5). sweep: more thresholds to compare. weights: mean or
    norm. flip: "none" as the challenge's video script has it, "sum" adds the embedding of the mirrored frame."""

    threshold: float = THRESHOLD
    sweep: tuple[float, ...] = ()
    weights: str = "mean"
    flip: str = "none"

    def __post_init__(self) -> None:
        for value in (self.threshold, *self.sweep):
            if not -1 <= value <= 1:  # NaN fails as well
                raise InputError(f"clean: threshold is {value:g}; wanted a cosine, -1 to 1")
        for name, known in (("weights", WEIGHTS), ("flip", CHOICES["flip"])):
            if (value := getattr(self, name)) not in known:
                raise InputError(f"clean: {name} is {value!r}{nearest(value, known)}; wanted {' or '.join(known)}")

    def thresholds(self) -> list[float | None]:
        """Those of the table: none (no cleaning), then all, rising."""
        return [None, *sorted({self.threshold, *self.sweep})]


DEFAULTS = Settings()


def parse_sweep(text: str) -> tuple[float, ...]:
    """ "0.3,0.4" -> (0.3, 0.4). Raises InputError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--sweep is {text[:80]!r}, wanted cosines such as 0.3,0.4,0.5") from None


def clean_videos(
    videos: Videos,
    embedder: Embedder,
    settings: Settings = DEFAULTS,
    out: Path | None = None,
    labels: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Clean every video; returns the summary and, with `out`, writes into that folder:

    features.bin   LFRC feature file, a row for each video in their order; zeros where no frame can be used
    videos.csv     row, name, verdict and counts of each video
    frames.csv     each frame: kept, noise or unreadable, why, component, quality, cosine to the video's feature
    noise-N.png    contact sheets of the videos with the most noise, see `sheet`
    summary.json   counts, the sweep, names of videos that need a look, settings, hashes, versions

    labels: a TSV video -> identity; the sweep then says how well the videos' people are told apart. Its hash is kept.
    Memory: the embeddings of one video and a batch of frames; with labels a feature of each video and threshold.
    Raises InputError where no frame of any video can be used.
    """
    begin = time.perf_counter()
    if out is not None:
        _check_out(videos, out, labels)
    people = {} if labels is None else read_labels(labels, videos)
    run = _Run(Stream(videos, embedder, settings.flip), settings, people, progress)
    with nullcontext() if out is None else Tables.opened(out) as tables:
        if out is None:
            for _ in run.features(None):
                pass
        else:
            write_features(out / "features.bin", run.features(tables), len(videos), embedder.dim)
    summary = {
        **run.summary(people if labels is not None else None),
        "settings": {**asdict(settings), "sweep": list(settings.sweep)},
        "data_sha256": run.stream.sha256(),
        "labels_sha256": None if labels is None else sha256(labels),
        "model": embedder.path.resolve().name,
        "model_sha256": embedder.sha256,
        "contract": {**embedder.contract.to_dict(), "flip": settings.flip},
        "versions": versions(dict.fromkeys((*embedder.libraries, *LIBRARIES))),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    if out is not None:
        write_sheets(out, run.most.strips(), lambda frame: decode(videos.read(frame), frame))
        write_json(out / "summary.json", summary)
    return summary


class _Run:
    """What is counted on the way."""

    def __init__(self, stream: Stream, settings: Settings, people: dict[str, int], progress: Progress | None) -> None:
        self.stream, self.settings, self.people, self.progress = stream, settings, people, progress
        self.rows = [Row(threshold) for threshold in settings.thresholds()]
        self.most = Most()
        self.verdicts: Counter[str] = Counter()
        self.named: dict[str, list[str]] = {verdict: [] for verdict in NAMED}
        self.frames = self.unreadable = 0
        self.faults: list[str] = []

    def features(self, tables: Tables | None) -> Iterator[NDArray[np.float32]]:
        """A feature for each video."""
        for done, found in enumerate(self.stream, start=1):
            cleaned = self._clean(found)
            kind = verdict(found, cleaned)
            self.verdicts[kind] += 1
            if kind in NAMED and len(self.named[kind]) < SHOWN:
                self.named[kind].append(visible(found.video.name))
            self.frames += len(found.video.frames)
            self.unreadable += len(found.faults)
            names = [f"{found.video.frames[i]}: {why}" for i, why in sorted(found.faults.items())]
            self.faults += [visible(name) for name in names[: SHOWN - len(self.faults)]]
            self.most.take(found.video.name, [found.video.frames[i] for i in found.usable()], cleaned)
            if tables is not None:
                tables.take(found, cleaned)
            yield cleaned.feature
            if self.progress is not None:
                self.progress(done, len(self.stream.videos))
        if self.unreadable == self.frames:
            raise InputError(self._nothing())

    def _nothing(self) -> str:
        videos = self.stream.videos
        if self.frames:
            return f"none of {self.frames} frames below {videos.root} can be used; the first: {self.faults[0]}"
        first = visible(str(videos.root / videos.names[0]))
        return f"none of {len(videos)} videos holds an image; looked in {first}"

    def _clean(self, found: Embedded) -> Cleaned:
        """At each threshold; what `settings.threshold` gives is handed on."""
        usable = found.usable()
        raw, starts = found.raw[usable], np.array([0, len(usable)])
        marks = None if found.video.marks is None else [found.video.marks[i] for i in usable]
        labelled = found.video.name in self.people
        chosen = None
        for row in self.rows:
            cleaned = clean(raw, starts, row.threshold, self.settings.weights)
            row.take(cleaned, marks, labelled)
            chosen = cleaned if row.threshold == self.settings.threshold else chosen
        assert chosen is not None
        return chosen

    def summary(self, people: dict[str, int] | None) -> dict[str, Any]:
        """Counts, the sweep, and names."""
        identity = None
        if people is not None:
            identity = np.array([people[name] for name in self.stream.videos.names if name in people], np.int64)
        chosen = next(row for row in self.rows if row.threshold == self.settings.threshold)
        return {
            "videos": len(self.stream.videos),
            "verdicts": {kind: self.verdicts[kind] for kind in VERDICTS},
            "names": {kind: {"count": self.verdicts[kind], "names": names} for kind, names in self.named.items()},
            "frames": self.frames,
            "kept": chosen.kept,
            "noise": chosen.noise,
            "unreadable": {"count": self.unreadable, "names": self.faults},
            "labelled": None if people is None else len(people),
            "sweep": [row.result(identity) for row in self.rows],
        }


def without_feature(summary: dict[str, Any]) -> int:
    """How many videos have no feature."""
    return int(summary["verdicts"][UNREADABLE] + summary["verdicts"][EMPTY])


def text(summary: dict[str, Any]) -> list[str]:
    """A summary as lines of text."""
    found = [
        f"{summary['videos']:,} videos, {summary['frames']:,} frames: {summary['kept']:,} kept, "
        f"{summary['noise']:,} noise, {summary['unreadable']['count']:,} unreadable",
        f"  {summary['verdicts'][CLEAN]:,} videos without noise, {summary['verdicts'][CLEANED]:,} cleaned",
    ]
    for kind, videos in summary["names"].items():
        if videos["count"]:
            more = ", ..." if videos["count"] > len(videos["names"]) else ""
            found.append(f"  {kind}: {videos['count']:,} ({', '.join(videos['names'])}{more})")
    found += name_lines("unreadable", summary["unreadable"])
    if summary["labelled"] is not None:
        found.append(f"  {summary['labelled']:,} of {summary['videos']:,} videos have a label")
    return found + table(summary["sweep"])


def name_lines(kind: str, found: dict[str, Any]) -> list[str]:
    """A line for each of `names`, and one that says how many more there are."""
    more = found["count"] - len(found["names"])
    return [*(f"  {kind}: {name}" for name in found["names"]), *([f"  {kind}: and {more:,} more"] if more else [])]


def _check_out(videos: Videos, out: Path, labels: Path | None) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; wanted a folder for the result")
    if labels is not None and labels.resolve().parent == out.resolve() and labels.name in WRITTEN:
        raise InputError(f"{labels}: would be replaced by the result; wanted another folder for it")
    if videos.holds(out):
        raise InputError(f"{out}: lies in the folder of the videos, {videos.root}; wanted a folder outside of it")
