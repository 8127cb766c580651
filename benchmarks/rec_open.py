"""How long a .rec of 6 million images takes to open, and how much memory: `python -m benchmarks.rec_open`.

Makes a pack in InsightFace's layout with tiny images (350 MB with its .idx, in a temporary folder) and opens
it in fresh processes: the first builds the index, the others find it in the cache. Takes half a minute.
A real pack of that many images has 30 to 60 GB: its first open also has to read a page for each record from
the disk; the cached open does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import write_result

PER_IDENTITY = 70  # images; MS1MV2 has 5.8 M images of 85,742 identities
CACHED_OPENS = 5
READS = 100_000
LIMITS = {"seconds": 3.0, "rss_growth_mb": 200.0}


def make_pack(rec: Path, count: int) -> None:
    """A pack as `write_pack` makes it, but written by blocks: each image takes 8 bytes."""
    identities = -(-count // PER_IDENTITY)
    fields = [
        ("magic", "<u4"),
        ("length", "<u4"),
        ("flag", "<u4"),
        ("label", "<f4"),
        ("id", "<u8"),
        ("id2", "<u8"),
    ]
    records = np.zeros(1 + count + identities, np.dtype([*fields, ("data", "<f4", 2)]))
    records["magic"], records["length"] = 0xCED7230A, 32
    records["id"] = np.arange(len(records))
    records["label"][1 : count + 1] = np.arange(count) // PER_IDENTITY
    records["data"][1 : count + 1] = 1
    described = np.r_[0, count + 1 : len(records)]
    records["flag"][described] = 2
    starts = np.minimum(1 + PER_IDENTITY * np.arange(identities + 1), count + 1)
    records["data"][count + 1 :] = np.stack([starts[:-1], starts[1:]], axis=1)
    records["data"][0], records["id2"][0] = (count + 1, len(records)), 1
    records.tofile(rec)
    with rec.with_suffix(".idx").open("w") as idx:
        for start in range(0, len(records), 100_000):
            keys = range(start, min(start + 100_000, len(records)))
            idx.write("".join(f"{key}\t{key * records.itemsize}\n" for key in keys))


def memory_mb(entry: str) -> float:
    """VmRSS (resident now) or VmHWM (at most so far) of this process in MB (10^6 bytes)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry)) * 1024 / 1e6


def open_once(rec: Path, cache: Path) -> dict[str, float]:
    """Open, and read at random; called in a process of its own."""
    from mobileface.data.recordio import RecordFaces

    before = memory_mb("VmRSS")
    start = time.perf_counter()
    faces = RecordFaces(rec, cache)
    seconds = time.perf_counter() - start
    growth, peak = memory_mb("VmRSS") - before, memory_mb("VmHWM") - before
    np.bincount(faces.labels)
    with_labels = memory_mb("VmRSS") - before
    order = np.random.default_rng(0).integers(0, len(faces), READS).tolist()
    start = time.perf_counter()
    for i in order:
        faces.read(i)
    read_us = (time.perf_counter() - start) / READS * 1e6
    return {
        "images": len(faces),
        "identities": faces.num_identities,
        "seconds": round(seconds, 4),
        "rss_growth_mb": round(growth, 1),
        "peak_growth_mb": round(peak, 1),
        "rss_growth_once_labels_are_read_mb": round(with_labels, 1),
        "read_us": round(read_us, 3),
    }


def in_process(rec: Path, cache: Path) -> dict[str, Any]:
    """`open_once` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.rec_open", "--open", str(rec), "--cache", str(cache)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(count: int, folder: Path) -> dict[str, Any]:
    """First and cached opens, with an .idx; and the first open without one."""
    rec = folder / "train.rec"
    make_pack(rec, count)
    sizes = {"rec_mb": rec.stat().st_size / 1e6, "idx_mb": rec.with_suffix(".idx").stat().st_size / 1e6}
    first = in_process(rec, folder / "cache")
    cached = [in_process(rec, folder / "cache") for _ in range(CACHED_OPENS)]
    worst = {key: max(run[key] for run in cached) for key in LIMITS}
    rec.with_suffix(".idx").unlink()
    return {
        **{name: round(size, 1) for name, size in sizes.items()},
        "first": first,
        "cached": cached,
        "cached_worst": worst,
        "limits": LIMITS,
        "within_limits": all(worst[key] <= limit for key, limit in LIMITS.items()),
        "first_without_idx": in_process(rec, folder / "cache"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6_000_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(open_once(options.open, options.cache)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.images, Path(folder))
    print(json.dumps(result, indent=2))
    print(write_result("rec_open", result))
    return 0 if result["within_limits"] else 1


if __name__ == "__main__":
    sys.exit(main())
