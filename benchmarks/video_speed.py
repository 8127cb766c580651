"""How fast and in how much memory videos are cleaned whose embeddings are there: `python -m benchmarks.video_speed`.

- Many short videos: 200,000 of 64 frames, 282-d, made up, through `mobileface.video.clean.clean` a thousand at a time;
  wanted: 100,000 frames a second a core, 1 GiB. Making the embeddings is not counted. A ninth of the frames is noise.
- One long video: 10,000 frames, 282-d, through `mobileface.unionfind.components`; wanted: 60 % of the speed of the
  bare matrix product of the same pairs (the blocks on and above the diagonal) in float32, 2 GiB. Five made-up videos:
  nobody twice; one person; two and noise; a hundred; a thousand.

One thread, each part in a process of its own. Some three minutes. Writes results/video_speed.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.environment import write_result
from benchmarks.rec_open import memory_mb
from mobileface.unionfind import BLOCK, components
from mobileface.video.clean import clean

DIM, THRESHOLD = 282, 0.4
LENGTH, AT_ONCE = 64, 1000  # frames of a short video, videos
LONG, ROUNDS = 10_000, 5
# people in the long video, share of frames of nobody else
CASES = {
    "nobody twice": (0, 1.0),
    "one person": (1, 0.0),
    "two and noise": (2, 0.3),
    "a hundred": (100, 0.0),
    "a thousand": (1000, 0.0),
}
LIMITS = {"frames_per_second": 100_000, "short_peak_mb": 2**30 / 1e6, "share": 0.6, "long_peak_mb": 2**31 / 1e6}

Rows = NDArray[np.float32]


def short(videos: int) -> dict[str, Any]:
    """Clean many short videos; seconds are those of the CPU."""
    rng = np.random.default_rng(0)
    people = rng.normal(size=(AT_ONCE, 1, DIM)).astype(np.float32)
    spread = rng.normal(size=(AT_ONCE, LENGTH, DIM)).astype(np.float32)
    starts = np.arange(AT_ONCE + 1) * LENGTH
    seconds = kept = 0.0
    rounds = videos // AT_ONCE
    for _ in range(rounds):
        raw = people[rng.permutation(AT_ONCE)] + spread  # other videos each time; cosines about 0.5
        noise = rng.permutation(LENGTH)[: LENGTH // 9]
        raw[:, noise] = spread[:, noise]  # nothing in common with anything
        began = time.process_time()
        cleaned = clean(raw.reshape(-1, DIM), starts, THRESHOLD)
        seconds += time.process_time() - began
        kept += float(cleaned.kept.mean()) / rounds
    frames = rounds * AT_ONCE * LENGTH
    return {
        "videos": rounds * AT_ONCE,
        "frames": frames,
        "kept": round(kept, 4),
        "seconds": round(seconds, 2),
        "frames_per_second": round(frames / seconds),
        "short_peak_mb": round(memory_mb("VmHWM"), 1),
    }


def long(case: str) -> dict[str, Any]:
    """Group one long video, in turns with the bare product."""
    units = _video(*CASES[case])
    seconds: dict[str, list[float]] = {"product": [], "components": []}
    number = np.empty(0)
    for _ in range(ROUNDS):
        seconds["product"].append(_timed(lambda: _product(units)))
        began = time.process_time()
        number = components(units, THRESHOLD)
        seconds["components"].append(time.process_time() - began)
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "frames": LONG,
        "components": int(number.max()) + 1,
        **{f"{name}_seconds": round(value, 4) for name, value in best.items()},
        "share": round(best["product"] / best["components"], 3),
        "long_peak_mb": round(memory_mb("VmHWM"), 1),
    }


def _video(people: int, noise: float) -> Rows:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(LONG, DIM))
    own = rng.random(LONG) >= noise
    if people:
        raw[own] = 0.9 * raw[own] + rng.normal(size=(people, DIM))[rng.integers(people, size=int(own.sum()))]
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)


def _product(units: Rows) -> None:
    """All pairs once, a block at a time: what any exact method that skips nothing has to multiply."""
    for first in range(0, len(units), BLOCK):
        for second in range(first, len(units), BLOCK):
            units[first : first + BLOCK] @ units[second : second + BLOCK].T


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def in_process(*arguments: str) -> dict[str, Any]:
    """A part in a fresh process with one thread."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "benchmarks.video_speed", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads})
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(
    videos: Annotated[int, typer.Option(min=AT_ONCE, help="short videos")] = 200_000,
    part: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure, hold against the limits, write."""
    if part is not None:
        print(json.dumps(short(videos) if part == "short" else long(part)))
        return
    result: dict[str, Any] = {"dim": DIM, "threshold": THRESHOLD, "limits": LIMITS}
    result["short"] = in_process("--part", "short", "--videos", str(videos))
    result["long"] = {case: in_process("--part", case) for case in CASES}
    result["within_limits"] = (
        result["short"]["frames_per_second"] >= LIMITS["frames_per_second"]
        and result["short"]["short_peak_mb"] <= LIMITS["short_peak_mb"]
        and all(row["share"] >= LIMITS["share"] for row in result["long"].values())
        and all(row["long_peak_mb"] <= LIMITS["long_peak_mb"] for row in result["long"].values())
    )
    print(json.dumps(result, indent=2))
    print(write_result("video_speed", result))
    if not result["within_limits"]:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
