"""Make docs/synthetic.png: synthetic people in rows, factor values in columns.

    python docs/make_contact_sheet.py [--out docs/synthetic.png] [--people 8] [--seed 0]

Takes a second. Each column changes one factor and leaves the others at rest; the last three are drawn as
training pictures are.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mobileface.data.images import SIZE, Image
from mobileface.data.synthetic import Factors, render, sample

COLUMNS: list[tuple[str, Factors]] = [
    ("at rest", Factors()),
    ("yaw 30", Factors(yaw_degrees=30)),
    ("yaw 60", Factors(yaw_degrees=60)),
    ("yaw 90", Factors(yaw_degrees=90)),
    ("left 45", Factors(yaw_degrees=45, turned_left=True)),
    ("pitch 25", Factors(pitch_degrees=25)),
    ("pitch -25", Factors(pitch_degrees=-25)),
    ("expression 2", Factors(expression=2)),
    ("expression 4", Factors(expression=4)),
    ("light -80", Factors(light_azimuth_degrees=-80, light_strength=0.7)),
    ("light +80", Factors(light_azimuth_degrees=80, light_strength=0.7)),
    ("occlusion .2", Factors(occlusion=0.2)),
    ("blur 8 px", Factors(blur_px=8)),
    ("24 px", Factors(resolution_px=24)),
]
DRAWN = 3  # pictures with factors as in training
HEADER = 18  # px
GAP = 2  # px


def contact_sheet(people: int, seed: int) -> Image:
    """The sheet (H, W, 3) uint8 RGB."""
    cells: list[tuple[str, Callable[[int], Image]]] = [
        (name, lambda person, column=i, factors=factors: render((seed << 32) + person, factors, 40 + column))
        for i, (name, factors) in enumerate(COLUMNS)
    ]
    cells += [("as trained on", lambda person, index=i: sample(seed, person, index)[0]) for i in range(DRAWN)]
    side = SIZE + GAP
    sheet = np.full((HEADER + people * side, len(cells) * side - GAP, 3), 255, np.uint8)
    for column, (name, draw) in enumerate(cells):
        left = column * side
        cv2.putText(sheet, name, (left + 3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        for row in range(people):
            top = HEADER + row * side
            sheet[top : top + SIZE, left : left + SIZE] = draw(row)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a contact sheet of synthetic faces.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "synthetic.png")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sheet = contact_sheet(options.people, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(options.out), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"error: {options.out}: cannot be written as a picture")
    print(f"{options.out}: {options.people} people, {len(COLUMNS) + DRAWN} columns")


if __name__ == "__main__":
    main()
