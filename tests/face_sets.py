"""Small made-up sets in their distributors' layouts, of one-colour images, and an embedder that sees the colour.

A direction is three whole numbers in -127..127: the image's colour is 128 more, its embedding they themselves.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mobileface.data.align import TEMPLATE
from mobileface.embedders.contract import InputContract

Direction = tuple[int, int, int]
SHIFT = 24  # px around the face of a loose crop


class Colours:
    """The mean colour of an image minus 128; flipping changes nothing, so that "sum" doubles it."""

    libraries = ("numpy",)

    def __init__(self, flip: str = "none") -> None:
        self.path, self.dim, self.sha256 = Path("/somewhere/colours.onnx"), 3, "cd" * 32
        self.contract = InputContract(flip=flip)
        self.seen = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return (images.reshape(len(images), -1, 3).astype(np.float64).mean(axis=1) - 128).astype(np.float32)


def paint(path: Path, direction: Direction, side: int = 112) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), np.add(direction, 128)[::-1], np.uint8)  # OpenCV writes BGR
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())  # what is in it counts, not what it is called


def write_tinyface(folder: Path, probes: dict[str, Direction], matches: dict[str, Direction],
                   strangers: dict[str, Direction]) -> Path:  # fmt: skip
    """folder/Testing_Set/Probe/1_1.jpg and so on; keys are names without the suffix."""
    for part, images in (("Probe", probes), ("Gallery_Match", matches), ("Gallery_Distractor", strangers)):
        (folder / "Testing_Set" / part).mkdir(parents=True, exist_ok=True)
        for name, direction in images.items():
            paint(folder / "Testing_Set" / part / f"{name}.jpg", direction)
    return folder


def write_ijb(
    folder: Path,
    images: list[tuple[int, int, Direction, float]],
    pairs: list[tuple[int, int, int]],
    lists: tuple[dict[int, int], dict[int, int], dict[int, int]] | None = None,
    name: str = "ijbb",
) -> Path:
    """images: template, medium, direction, detector's score. lists: template -> subject of the galleries and probes."""
    meta = folder / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    points = " ".join(f"{value + SHIFT:.4f}" for value in TEMPLATE.ravel())
    members, scores = [], []
    for i, (template, medium, direction, score) in enumerate(images, start=1):
        paint(folder / "loose_crop" / f"{i}.jpg", direction, 112 + 2 * SHIFT)
        members.append(f"{i}.jpg {template} {medium}\n")
        scores.append(f"{i}.jpg {points} {score}\n")
    (meta / f"{name}_face_tid_mid.txt").write_text("".join(members))
    (meta / f"{name}_name_5pts_score.txt").write_text("".join(scores))
    (meta / f"{name}_template_pair_label.txt").write_text("".join(f"{a} {b} {same}\n" for a, b, same in pairs))
    galleries = ("S1", "S2") if name == "ijbb" else ("G1", "G2")
    files = [*(f"{name}_1N_gallery_{which}.csv" for which in galleries), f"{name}_1N_probe_mixed.csv"]
    for file, owners in zip(files, lists or (), strict=False):
        rows = [f'{template},{subject},"img/{template}, a.jpg"\n' for template, subject in owners.items()]
        (meta / file).write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n" + "".join(rows))
    return folder


def write_ijbs(
    folder: Path,
    crops: dict[str, Direction],
    seen: list[tuple[int, str]],
    probes: dict[str, list[str]],
    galleries: dict[str, list[tuple[int, str]]],
) -> Path:
    """crops: by path below crops/. seen: subject and video. probes: videos, by list. galleries: by "single_g1", …"""
    lists = folder / "protocols"
    (lists / "galleries").mkdir(parents=True, exist_ok=True)
    for key, direction in crops.items():
        paint(folder / "crops" / key, direction)
    rows = [f"{subject},{name},1,2\n" for subject, name in seen]
    (lists / "cs6_metadata.csv").write_text("SUBJECT_ID,FILENAME,FACE_X,FACE_Y\n" + "".join(rows))
    for name, videos in probes.items():
        (lists / f"cs6_surveillance_to_{name}_probe.csv").write_text("FILENAME\n" + "".join(f"{v}\n" for v in videos))
    for name, entries in galleries.items():
        rows = [f"{i},{subject},{file}\n" for i, (subject, file) in enumerate(entries)]
        path = lists / "galleries" / f"cs6_surveillance_to_{name}.csv"
        path.write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n" + "".join(rows))
    return folder
