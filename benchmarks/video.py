"""Does cleaning by union-find find the noise of videos, and does it help? Table 5 of the progressive framework.

    python -m benchmarks.video DATA [--run RUN]

DATA holds `video/`, `lfw/`, `cfp/` and `teacher/mobilefacenet.onnx`; RUN is a trained run folder, judged as well.

- Real tracks: 28 of `video/noisy_tracks.tsv`, with frames of other people and junk put between their own. And a clip
  with several faces (`hamilton`): how much of its largest component is one person.
- Pseudo-videos: photographs of one person as the shots of a video of twelve frames, small and moved a little; noise of
  four kinds between them (`video_noise`), three seeds, two videos of each person. With one shot all frames are much
  alike, as in a face track; with two, cleaning may take the second for noise, for what it cannot tell apart.

Measured: precision and recall of what is removed; AUC and TAR at a FAR over all pairs of the videos' features, against
plain averaging. Beside union-find, DBSCAN and average-linkage clustering of scikit-learn at the same thresholds. Where
DBSCAN needs one sample only it *is* union-find: the partitions are compared.

Some 12 minutes for each model on a core of its own. Writes results/video.json.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN, AgglomerativeClustering

from benchmarks.environment import installed, write_result
from benchmarks.teacher import MODEL
from benchmarks.video_noise import SHOTS, Key, Track, make_frame, mixed_clip, photographs, pseudo_videos, real_tracks
from mobileface.embedders.contract import Embedder, InputContract
from mobileface.embedders.opening import open_embedder
from mobileface.unionfind import by_size, components
from mobileface.video.aggregate import aggregate
from mobileface.video.clean import Cleaned
from mobileface.video.sweep import Row, table

CONTRACT = InputContract(scale=255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # as benchmarks.teacher
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
SHARES = (0.0, 0.5)  # noise frames for each good one
SEEDS = (0, 1, 2)
BATCH = 64

Units = NDArray[np.float32]
Method = Callable[[Units, float], NDArray[np.int64]]


def dbscan(units: Units, threshold: float, least: int = 3) -> NDArray[np.int64]:
    """Clusters of DBSCAN; a frame that it calls noise is a cluster of its own."""
    found = DBSCAN(eps=1 - threshold, min_samples=least, metric="cosine").fit(units).labels_.astype(np.int64)
    alone = np.flatnonzero(found < 0)
    found[alone] = found.max() + 1 + np.arange(len(alone))
    return found


def average_linkage(units: Units, threshold: float) -> NDArray[np.int64]:
    """Agglomerative clusters whose mean distance is below 1 - threshold."""
    if len(units) < 2:
        return np.zeros(len(units), np.int64)
    settings = {"n_clusters": None, "metric": "cosine", "linkage": "average"}
    return AgglomerativeClustering(distance_threshold=1 - threshold, **settings).fit(units).labels_.astype(np.int64)


METHODS: dict[str, Method] = {"union-find": components, "DBSCAN": dbscan, "average linkage": average_linkage}


class Embeddings:
    """Raw embeddings of frames by what they are made of; each is made once."""

    def __init__(self, data: Path, embedder: Embedder) -> None:
        self.data, self.embedder = data, embedder
        self._raw: dict[Key, Units] = {}

    def of(self, keys: list[Key]) -> Units:
        """(N, D) of the frames."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._raw]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            images = np.stack([make_frame(self.data, key) for key in part])
            self._raw.update(zip(part, self.embedder(images), strict=True))
        return np.stack([self._raw[key] for key in keys])


def sweep(tracks: list[Track], raws: list[Units]) -> dict[str, Any]:
    """Rows by threshold of each method, plain averaging first, and the seconds that the grouping took."""
    units = [raw / np.linalg.norm(raw, axis=1, keepdims=True) for raw in raws]
    found: dict[str, Any] = {"videos": len(tracks), "frames": sum(map(len, raws))}
    found["no cleaning"] = _row(tracks, raws, None, [np.zeros(len(raw), np.int64) for raw in raws])
    for name, method in METHODS.items():
        seconds, found[name] = 0.0, []
        for threshold in THRESHOLDS:
            began = time.process_time()
            numbers = [method(own, threshold) for own in units]
            seconds += time.process_time() - began
            found[name].append(_row(tracks, raws, threshold, numbers))
        found[name + " seconds"] = round(seconds, 3)
        print(name, *table([found["no cleaning"], *found[name]]), sep="\n", flush=True)
    return found


def _row(
    tracks: list[Track], raws: list[Units], threshold: float | None, numbers: list[NDArray[np.int64]]
) -> dict[str, Any]:
    people = np.unique([track.person for track in tracks], return_inverse=True)[1].astype(np.int64)
    row = Row(threshold)
    for track, raw, grouped in zip(tracks, raws, numbers, strict=True):
        quality = np.linalg.norm(raw, axis=1)
        units, number = raw / quality[:, None], by_size(grouped, quality)
        feature = aggregate(units, number == 0, np.array([0, len(raw)]))
        row.take(Cleaned(number, quality, units @ feature[0], feature), track.marks, True)
    return row.result(people)


def same_partitions(raws: list[Units]) -> dict[str, int]:
    """In how many videos, at all thresholds, DBSCAN with one sample and union-find give the same groups."""
    equal = total = 0
    for raw in raws:
        units = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        for threshold in THRESHOLDS:
            other = dbscan(units, threshold, 1)
            first = np.unique(other, return_index=True)[1]
            ours = components(units, threshold)
            equal += len(set(zip(ours.tolist(), other.tolist(), strict=True))) == len(first) == ours.max() + 1
            total += 1
    return {"equal": int(equal), "compared": total}


def speaker(embeddings: Embeddings, keys: list[Key], own: list[bool]) -> list[dict[str, Any]]:
    """Of a clip with several faces: the largest component, and how much of it is the speaker."""
    raw, mine = embeddings.of(keys), np.array(own)
    quality = np.linalg.norm(raw, axis=1)
    rows = []
    for threshold in THRESHOLDS:
        kept = by_size(components(raw / quality[:, None], threshold), quality) == 0
        rows.append(
            {
                "threshold": threshold,
                "frames": len(raw),
                "kept": int(kept.sum()),
                "of_the_speaker": int((kept & mine).sum()),
                "speaker_in_all": int(mine.sum()),
            }
        )
    return rows


def over_seeds(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of each number over the seeds, by method and threshold."""

    def spread(rows: list[dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {"threshold": rows[0]["threshold"]}
        paths = [("removal", "precision"), ("removal", "recall"), ("verification", "auc")]
        paths += [("removal", "recall_by_kind", kind) for kind in rows[0]["removal"]["recall_by_kind"]]
        paths += [("verification", "tar", far) for far in rows[0]["verification"]["tar"]]
        for path in paths:
            values = [_at(row, path) for row in rows]
            if None not in values:
                found[" ".join(path[1:])] = {"mean": statistics.mean(values), "std": statistics.stdev(values)}
        return found

    found = {"no cleaning": spread([run["no cleaning"] for run in runs])}
    for name in METHODS:
        found[name] = [spread(list(rows)) for rows in zip(*(run[name] for run in runs), strict=True)]
    return {**found, "seconds": {name: [run[name + " seconds"] for run in runs] for name in METHODS}}


def _at(row: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        row = row[key]
    return row


def judge(data: Path, embedder: Embedder) -> dict[str, Any]:
    """All of it for one model."""
    embeddings = Embeddings(data, embedder)
    tracks = real_tracks(data)
    raws = [embeddings.of(track.frames) for track in tracks]
    print(f"== {embedder.path.name}: real tracks", flush=True)
    result: dict[str, Any] = {"model": embedder.path.name, "model_sha256": embedder.sha256}
    result |= {"real": sweep(tracks, raws), "partitions": same_partitions(raws)}
    result["clip_with_several_faces"] = speaker(embeddings, *mixed_clip(data))
    people, result["pseudo"] = photographs(data), []
    for (kind, shots), share in itertools.product(SHOTS.items(), SHARES):
        runs = []
        for seed in SEEDS:
            print(f"== pseudo-videos of {kind}, noise {share}, seed {seed}", flush=True)
            tracks = pseudo_videos(people, shots, share, seed)
            runs.append(sweep(tracks, [embeddings.of(track.frames) for track in tracks]))
        shape = {"videos": runs[0]["videos"], "frames": [run["frames"] for run in runs], "people": len(people)}
        given = {"shots": kind, "noise_for_each_good_frame": share, "seeds": list(SEEDS)}
        result["pseudo"].append({**given, **shape, **over_seeds(runs)})
    return result


def main(
    data: Path, run: Annotated[Path | None, typer.Option("--run", help="a trained run folder, judged as well")] = None
) -> None:
    """Judge the teacher, and a run if there is one."""
    embedders = [open_embedder(data / MODEL, CONTRACT, 1)]
    embedders += [] if run is None else [open_embedder(run, None, 1)]
    result = {
        "scikit-learn": installed("scikit-learn"),
        "paper": "Table 5: 0.57201 without cleaning, 0.57442 at 0.4 (iQIYI-VID, TPR at FPR 1e-4)",
        "models": [judge(data, embedder) for embedder in embedders],
    }
    print(json.dumps(result, indent=2))
    print(write_result("video", result))


if __name__ == "__main__":
    typer.run(main)
