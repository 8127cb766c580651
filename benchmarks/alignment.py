"""How near `mobileface data align` comes to given crops, and how fast: `python -m benchmarks.alignment FOLDER YUNET`.

    python -m benchmarks.alignment DATA/lfw DATA/detector/yunet_n_640_640.onnx     (about two minutes)

Photographs of 1200x900 px with known landmarks are made of aligned crops (FOLDER: one folder for each identity): each
is laid on coloured noise at a random place, 60 to 600 px large, upright or tilted by up to 30 degrees. Deviation: mean
distance, in px of the crop, between the template's points and where they lie in the crop that was cut; after the first
look of the detector, and after the second. The given crops have landmarks of another detector, so it is never 0.
Seed 0, one thread; writes results/alignment.json unless NO_RESULT is set.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.environment import write_result
from mobileface.data.align import TEMPLATE, similarity
from mobileface.data.align_photos import Settings, chosen
from mobileface.data.detect import Detector
from mobileface.data.folder import FolderFaces
from mobileface.data.images import SIZE, Image, decode
from mobileface.data.photos import view

WIDTH, HEIGHT = 1200, 900  # px
SMALLEST, LARGEST = 60, 600  # px, side of the crop in the photograph
DEGREES = {"upright": 0.0, "tilted": 30.0}


def photograph(crop: Image, degrees: float, rng: np.random.Generator) -> tuple[Image, NDArray[Any]]:
    """(photograph, (2, 3) matrix from its px to the crop's)."""
    side = np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST)))
    angle = np.radians(rng.uniform(-degrees, degrees))
    turn = side / SIZE * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = rng.uniform((side * 0.7, side * 0.7), (WIDTH - side * 0.7, HEIGHT - side * 0.7))
    placed = np.column_stack([turn, centre - turn @ np.full(2, (SIZE - 1) / 2)])
    coarse = rng.integers(0, 256, (HEIGHT // 50, WIDTH // 50, 3), dtype=np.uint8)
    photo = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    inside = cv2.warpAffine(np.full((SIZE, SIZE), 255, np.uint8), placed, (WIDTH, HEIGHT)) > 127
    photo[inside] = cv2.warpAffine(crop, placed, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)[inside]
    return np.asarray(photo, np.uint8), cv2.invertAffineTransform(placed)


def deviation(found: NDArray[np.float64], given: NDArray[Any]) -> float:
    """Mean distance, px of the crop, of the template's points from where they lie in the crop of `found`."""
    inverse = cv2.invertAffineTransform(given)
    points = (TEMPLATE @ inverse[:, :2].T + inverse[:, 2]) @ found[:, :2].T + found[:, 2]
    return float(np.linalg.norm(points - TEMPLATE, axis=1).mean())


def measure(faces: FolderFaces, detector: Detector, degrees: float, images: int) -> dict[str, Any]:
    """Photographs of `images` crops, spread over the folder."""
    rng = np.random.default_rng(0)
    looks: dict[str, list[float]] = {"first_look": [], "second_look": []}
    wall = cpu = 0.0
    for i in np.linspace(0, len(faces) - 1, images).astype(int).tolist():
        photo, given = photograph(decode(faces.read(i), faces.key(i)), degrees, rng)
        began = time.perf_counter(), time.process_time()
        verdict, _, found = chosen(detector.find(photo, Settings.score), photo.shape, Settings())
        if verdict == "aligned":
            again = detector.again(photo, found[0])
            view(photo, similarity(again.landmarks), SIZE)
        wall, cpu = wall + time.perf_counter() - began[0], cpu + time.process_time() - began[1]
        if verdict == "aligned":
            looks["first_look"].append(deviation(similarity(found[0].landmarks), given))
            looks["second_look"].append(deviation(similarity(again.landmarks), given))
    return {
        "photographs": images,
        "aligned": len(looks["first_look"]),
        "deviation_px": {
            name: {"median": round(float(np.median(px)), 2), "p95": round(float(np.percentile(px, 95)), 2)}
            for name, px in looks.items()
        },
        "photographs_per_s": round(images / wall, 1),
        "photographs_per_cpu_s": round(images / cpu, 1),
    }


def main(folder: Path, detector: Path, images: int = 400) -> None:
    """Upright and tilted photographs, written to results/alignment.json."""
    cv2.setNumThreads(1)
    faces, yunet = FolderFaces(folder), Detector(detector)
    rows = {name: measure(faces, yunet, degrees, images) for name, degrees in DEGREES.items()}
    result = {
        "source": folder.name, "photograph_px": [WIDTH, HEIGHT], "crop_px_in_it": [SMALLEST, LARGEST],
        "tilted_degrees": DEGREES["tilted"], "threads": 1, "detector_sha256": yunet.sha256, "rows": rows,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if "NO_RESULT" not in os.environ:
        print(write_result("alignment", result))


if __name__ == "__main__":
    typer.run(main)
