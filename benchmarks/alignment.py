"""How near `mobileface data align` comes to given crops, and how fast: `python -m benchmarks.alignment FOLDER YUNET`.

    python -m benchmarks.alignment DATA/lfw DATA/detector/yunet_n_640_640.onnx     (about two minutes)

Photographs of 1200x900 px with known landmarks are made of aligned crops (FOLDER: one folder for each identity): each
is laid on coloured noise at a random place, 60 to 600 px large, upright or tilted by up to 30 degrees. Deviation: mean
distance, in px of the crop, between the template's points and where they lie in the crop that was cut; after the first
look of the detector, and after the second. The given crops have landmarks of another detector, so it is never 0.
How fast: what the command does with a photograph, from its JPEG in the system's cache to the JPEG of its crop in
memory; neither the writing of files nor the first read from a disk is in it.
Seed 0, one thread; writes results/alignment.json unless NO_RESULT is set.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.environment import write_result
from mobileface.data.align import TEMPLATE, similarity
from mobileface.data.align_cut import Settings, chosen, cut
from mobileface.data.align_table import COLUMNS, POINTS, verdict_of
from mobileface.data.detect import Detector
from mobileface.data.folder import Entry, FolderFaces
from mobileface.data.images import SIZE, Image, decode, encode
from mobileface.data.photos import read_photo
from mobileface.errors import guarded

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


def points(row: list[str]) -> NDArray[np.float64]:
    """(5, 2) landmarks of a row of align.tsv."""
    columns = [COLUMNS.index(f"{point}_{axis}") for point in POINTS for axis in "xy"]
    return np.array([float(row[column]) for column in columns]).reshape(5, 2)


def measure(faces: FolderFaces, detector: Detector, degrees: float, images: int) -> dict[str, Any]:
    """Photographs of `images` crops, spread over the folder."""
    rng, settings = np.random.default_rng(0), Settings()
    looks: dict[str, list[float]] = {"first_look": [], "second_look": []}
    wall = cpu = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.jpg"
        for i in np.linspace(0, len(faces) - 1, images).astype(int).tolist():
            photo, given = photograph(decode(faces.read(i), faces.key(i)), degrees, rng)
            path.write_bytes(encode(photo))
            began = time.perf_counter(), time.process_time()
            [row], _ = cut(path.parent, Entry(path.name, path.stat().st_size, 0), detector, settings)
            wall, cpu = wall + time.perf_counter() - began[0], cpu + time.process_time() - began[1]
            if verdict_of(row) == "aligned":
                pixels, _ = read_photo(path, path.name)
                first = chosen(detector.find(pixels, settings.score), pixels.shape, settings)[2][0]
                for name, landmarks in (("first_look", first.landmarks), ("second_look", points(row))):
                    looks[name].append(deviation(similarity(landmarks), given))
    return {
        "photographs": images,
        "aligned": len(looks["first_look"]),
        "deviation_px": {
            name: {"median": round(float(np.median(px)), 2), "p95": round(float(np.percentile(px, 95)), 2)}
            for name, px in looks.items()
        },
        "jpeg_to_crop_jpeg_per_s": round(images / wall, 1),
        "jpeg_to_crop_jpeg_per_cpu_s": round(images / cpu, 1),
    }


def main(folder: Path, detector: Path, images: int = 400) -> None:
    """Upright and tilted photographs, written to results/alignment.json."""
    raise typer.Exit(guarded(lambda: run(folder, detector, images)))


def run(folder: Path, detector: Path, images: int) -> None:
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
