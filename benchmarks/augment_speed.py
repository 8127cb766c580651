"""Images a second that one core augments with AdaFace's set: crop, low resolution, photometric, flip.

    python -m benchmarks.augment_speed      (about 20 seconds; writes results/augment_speed.json)

uint8 crops of 112x112x3 in memory (synthetic faces), each step with its probability in the plan (p = 0.2, flip 0.5);
reading and decoding are not in it (`benchmarks/loading.py`). A generator is made for each image, as the loader does.
Median of passes after one that is not counted, OpenCV on one thread. Beside it: each step alone on every image.
Exit code 1 below the limit; with NO_RESULT set nothing is written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2

from benchmarks.environment import write_result
from benchmarks.loading import rates
from mobileface.data.augment import INTERPOLATIONS, Step, apply, generator
from mobileface.data.images import Image
from mobileface.data.synthetic import sample
from mobileface.training.plan_views import Views, steps

ADAFACE = Views.model_validate(
    {
        "clean": [
            "crop_paste",
            {"kind": "low_resolution", "least": 0.2, "interpolations": list(INTERPOLATIONS)},
            "photometric",
            "flip",
        ]
    }
)
FACES, IMAGES, PASSES = 64, 4000, 9
LIMIT = 3000  # images a second


def speed(faces: Sequence[Image], chosen: Sequence[Step]) -> dict[str, float]:
    """Images a second, by wall and by CPU time."""

    def augmented() -> Iterator[Image]:
        for position in range(IMAGES):
            yield apply(faces[position % len(faces)], chosen, generator(0, position))

    return rates(augmented, IMAGES, PASSES)


def measure() -> dict[str, Any]:
    """The whole set, then each of its steps with probability 1."""
    cv2.setNumThreads(1)
    faces = [sample(0, person, 0)[0] for person in range(FACES)]
    chosen = steps(ADAFACE.clean)
    whole = speed(faces, chosen)
    alone = {name: speed(faces, [(name, 1.0, strength)]) for name, _, strength in chosen}
    return {
        "settings": {"view": ADAFACE.model_dump(), "images": IMAGES, "passes": PASSES, "threads": 1},
        **whole,
        "each_alone_on_every_image": alone,
        "limit": LIMIT,
        "within_limit": whole["images_per_s"] >= LIMIT,
    }


def main() -> int:
    result = measure()
    print(json.dumps(result, indent=2))
    if "NO_RESULT" not in os.environ:
        print(write_result("augment_speed", result))
    return 0 if result["within_limit"] else 1


if __name__ == "__main__":
    sys.exit(main())
