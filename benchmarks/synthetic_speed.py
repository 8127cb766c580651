"""Time of one synthetic picture on one core: drawing a person once, rendering, encoding.

    python -m benchmarks.synthetic_speed      (about 15 seconds; writes results/synthetic_speed.json)

The pictures are those of a training pack: 40 of each person, so the drawing of a person's head and skin is
shared by 40. Wall time and CPU time are both given, because they differ on a machine that is busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.environment import write_result
from mobileface.data.images import encode
from mobileface.data.synthetic import Factors, render, sample

PEOPLE, IMAGES = 25, 40


def milliseconds(work: Callable[[int, int], object], first_person: int) -> dict[str, float]:
    """Mean ms a picture over PEOPLE people that were not drawn before; the best of three such runs."""
    runs = []
    for run in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        for person in range(first_person + run * PEOPLE, first_person + (run + 1) * PEOPLE):
            for index in range(IMAGES):
                work(person, index)
        count = PEOPLE * IMAGES
        runs.append(((time.perf_counter() - wall) / count * 1e3, (time.process_time() - cpu) / count * 1e3))
    best = min(runs)
    return {"wall_ms": round(best[0], 3), "cpu_ms": round(best[1], 3)}


def main() -> None:
    cv2.setNumThreads(1)
    still = Factors(yaw_degrees=20, pitch_degrees=5)
    render(10**6, still, 0)  # loads what is loaded on first use
    rows = {
        "sample, new people (draw, render)": milliseconds(sample_of, 0),
        "sample and JPEG, new people": milliseconds(lambda p, i: encode(sample_of(p, i)), 1000),
        "render, known person": milliseconds(lambda p, i: render(0, still, p * IMAGES + i), 0),
    }
    for name, row in rows.items():
        print(f"{name:36} {row['wall_ms']:.2f} ms wall, {row['cpu_ms']:.2f} ms CPU")
    settings = {"people": PEOPLE, "images_each": IMAGES, "threads": 1, "runs": "best of 3"}
    print(write_result("synthetic_speed", {"settings": settings, "ms_per_image": rows}))


def sample_of(person: int, index: int) -> np.ndarray:
    return sample(0, person, index)[0]


if __name__ == "__main__":
    main()
