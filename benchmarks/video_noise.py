"""Videos with known noise: real face tracks, and pseudo-videos of people of whom there are many photographs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mobileface.data.degrade import at_side
from mobileface.data.images import SIZE, Image, decode
from mobileface.video.tracks import GOOD, open_videos

VIDEOS, LEAST = 2, 12  # pseudo-videos of a person, photographs that a person needs
SHOTS = {"one shot": (12,), "two shots": (8, 4)}  # frames of each photograph in a pseudo-video
SIDES = (20, 56)  # px of a face before it is made as large as a crop: its distance
SHIFT, TURN, ZOOM, LIGHT = 3.0, 4.0, 0.04, 12.0  # px, degrees, share, grey levels: deviations between frames of a shot
KINDS = ("second identity", "no face", "occlusion", "blur")  # the paper's three (Fig. 3), and blur
Key = str | tuple[str, int, str]  # a photograph; or of what a frame is made: maker, seed of its own, photograph


@dataclass(frozen=True)
class Track:
    """frames: what to embed, in order; marks: "" or the kind of noise."""

    name: str
    person: str
    frames: list[Key]
    marks: list[str]


def read_image(data: Path, name: str) -> Image:
    """A crop by its path below DATA."""
    return decode((data / name).read_bytes(), name)


def real_tracks(data: Path) -> list[Track]:
    """The tracks of noisy_tracks.tsv: frames of one person, strangers' and junk frames between them."""
    people = {}
    for line in (data / "video" / "clips.tsv").read_text().splitlines()[1:]:
        clip, person = line.split("\t")[:2]
        people[clip] = person
    return [
        Track(video.name, people[video.name], [f"video/{frame}" for frame in video.frames], list(video.marks or ()))
        for video in open_videos(data / "video" / "noisy_tracks.tsv")
    ]


def mixed_clip(data: Path) -> tuple[list[Key], list[bool]]:
    """The frames of a clip with several faces, and which are the speaker's."""
    rows = [line.split("\t") for line in (data / "video" / "hamilton_labels.tsv").read_text().splitlines()[1:]]
    return [f"video/{row[0]}" for row in rows], [row[1] != "other" for row in rows]


def photographs(data: Path) -> dict[str, list[str]]:
    """Person -> photographs: people of LFW, and of CFP those who are not among them."""
    twice = {line.split("\t")[0] for line in (data / "cfp" / "overlap_with_lfw.txt").read_text().splitlines()}
    found: dict[str, list[str]] = {}
    for folder in ("lfw", "cfp"):
        for path in sorted((data / folder).glob("*/**/*.jpg")):
            person = path.relative_to(data / folder).parts[0]
            if folder == "lfw" or person not in twice:
                found.setdefault(f"{folder}/{person}", []).append(str(path.relative_to(data)))
    return {person: photos for person, photos in found.items() if len(photos) >= LEAST}


def pseudo_videos(people: dict[str, list[str]], shots: tuple[int, ...], share: float, seed: int) -> list[Track]:
    """VIDEOS of each person, a photograph for each shot; noise frames put between them, `share` of the good ones.

    shots: the frames of each: shifted, turned and lit a little differently, from the same distance. The noise of a
    video is the beginning of a row that depends on the seed only, so more noise is the same and more. Its second
    identity is one person, in one shot.
    """
    rng, names, tracks = np.random.default_rng(seed), list(people), []
    for place, (person, every) in enumerate(people.items()):
        chosen = [every[i] for i in rng.permutation(len(every))]
        for number in range(VIDEOS):
            own = np.random.default_rng([seed, len(tracks)])
            photos = chosen[len(shots) * number : len(shots) * (number + 1)]
            good = [(_frame(photo, i), GOOD) for photo, count in zip(photos, shots, strict=True) for i in range(count)]
            strangers = people[names[(place + 1 + int(own.integers(len(names) - 1))) % len(names)]]
            stranger = strangers[own.integers(len(strangers))]
            noise = [_noise(own, photos, stranger, i) for i in range(len(good))]
            frames = good + noise[: round(share * len(good))]
            keys, marks = zip(*(frames[i] for i in own.permutation(len(frames))), strict=True)
            tracks.append(Track(f"{person}#{number}", person, list(keys), list(marks)))
    return tracks


def _noise(rng: np.random.Generator, own: list[str], stranger: str, number: int) -> tuple[Key, str]:
    kind = KINDS[rng.integers(len(KINDS))]
    if kind == "second identity":
        return _frame(stranger, number), kind
    return (kind, int(rng.integers(1 << 30)), own[rng.integers(len(own))]), kind


def _frame(photo: str, number: int) -> Key:
    return "frame", number, photo


def make_frame(data: Path, key: Key) -> Image:
    """The pixels of a frame."""
    if isinstance(key, str):
        return read_image(data, key)
    kind, seed, photo = key
    image, shot = read_image(data, photo), zlib.crc32(photo.encode())
    side = int(np.random.default_rng(shot).integers(SIDES[0], SIDES[1] + 1))
    rng = np.random.default_rng([shot, seed])
    return at_side(MAKERS[kind](rng, moved(rng, image)), side)


def moved(rng: np.random.Generator, image: Image) -> Image:
    """Another frame of the same shot."""
    middle = (SIZE - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), rng.normal(0, TURN), 1 + rng.normal(0, ZOOM))
    matrix[:, 2] += rng.normal(0, SHIFT, 2)
    turned = cv2.warpAffine(image, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE)
    return (turned + rng.normal(0, LIGHT)).clip(0, 255).astype(np.uint8)


def no_face(rng: np.random.Generator, image: Image) -> Image:
    """A corner of a crop, 20 x 20 px of background, made as large as a crop, with sensor noise."""
    top, left = rng.integers(2, size=2) * (SIZE - 20)
    patch = cv2.resize(image[top : top + 20, left : left + 20], (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return (patch + rng.normal(0, 6, patch.shape)).clip(0, 255).astype(np.uint8)


def occluded(rng: np.random.Generator, image: Image) -> Image:
    """All of the face but its forehead or its chin behind something: 60 to 80 % of the crop."""
    hidden = image.copy()
    height = int(rng.uniform(0.6, 0.8) * SIZE)
    top = int(rng.integers(SIZE - height + 1))
    hidden[top : top + height] = no_face(rng, image)[top : top + height]
    return hidden


def blurred(rng: np.random.Generator, image: Image) -> Image:
    """Out of focus: a Gaussian of 6 to 10 px."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(6, 10)), np.uint8)


MAKERS: dict[str, Callable[[np.random.Generator, Image], Image]] = {
    "frame": lambda rng, image: image,
    "no face": no_face,
    "occlusion": occluded,
    "blur": blurred,
}
