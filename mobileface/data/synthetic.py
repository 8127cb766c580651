"""Synthetic identities: faces drawn from seeds, with every factor of the picture known. No download.

A person is an integer; so is a picture of a person. `write_synthetic` makes what a real data set consists
of: a training pack (`train.rec`), a verification set of other people (`held_out.bin`), and a table of the
factors of every picture (`factors.csv`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path

import numpy as np

from mobileface.data.images import SIZE, Image, encode
from mobileface.data.recordio import write_pack
from mobileface.data.synthetic_render import Factors, render
from mobileface.data.verification_bin import write_bin
from mobileface.errors import InputError
from mobileface.files import atomic_path

__all__ = ["Factors", "render", "sample", "sample_factors", "write_synthetic"]

VERSION = 1  # of the pictures: what is kept on a disk is drawn anew when it rises
FOLDS = 10  # of the verification protocol
COLUMNS = ["file", "key", "identity", "split", *(field.name for field in fields(Factors))]


def sample_factors(rng: np.random.Generator) -> Factors:
    """Factors as the training and verification pictures have them: mostly moderate, each with a long tail.

    Yaw has a mean of 9 degrees and is above 30 in one picture of 40; a fifth of the pictures is partly
    covered, three in ten are blurred by movement, three in ten are of low resolution. These shares are ours:
    hard enough that light and pose, not the person, decide how near two pictures are in pixels, and easy
    enough that a small network learns to tell unseen people apart in minutes.
    """
    covered, blurred, coarse = rng.random(3) < (0.2, 0.3, 0.3)
    return Factors(
        yaw_degrees=90 * float(rng.beta(1.0, 9.0)),
        turned_left=bool(rng.random() < 0.5),
        pitch_degrees=float(np.clip(rng.normal(0, 6), -25, 25)),
        expression=int(rng.choice(5, p=(0.5, 0.22, 0.13, 0.09, 0.06))),
        light_azimuth_degrees=float(rng.uniform(-90, 90)),
        light_elevation_degrees=float(rng.uniform(-20, 70)),
        light_strength=float(rng.uniform(0.1, 0.7)),
        occlusion=float(rng.uniform(0.02, 0.2)) if covered else 0.0,
        blur_px=float(rng.uniform(1, 6)) if blurred else 0.0,
        resolution_px=int(rng.integers(32, SIZE)) if coarse else SIZE,
    )


def sample(seed: int, identity: int, index: int) -> tuple[Image, Factors]:
    """Picture `index` of person `identity` in the world `seed` (each 0 or above), and its factors.

    The picture is (112, 112, 3) uint8 RGB and depends on these three numbers alone.
    """
    rng = np.random.default_rng([seed, identity, index])
    factors = sample_factors(rng)
    return render((seed << 32) + identity, factors, int(rng.integers(2**62))), factors


def write_synthetic(out: Path, identities: int, images: int, held_out: int, pairs: int, seed: int) -> None:
    """Write `out/train.rec` (with .idx and property), `out/held_out.bin` and `out/factors.csv`.

    Training: `images` pictures of each of `identities` people. Verification: `pairs` pairs of `held_out`
    other people, each picture used once. As in LFW the pairs stand in 10 blocks, each of which begins with
    its genuine half; from 20 people on no person is in two blocks. `factors.csv` has one row a picture: the
    file, the key there (record key; position in the .bin), the person's number, the split (train or
    held_out) and the factors. Raises InputError for counts that allow no such sets.
    """
    _check(identities, images, held_out, pairs, seed)
    rows: list[tuple[object, ...]] = []
    write_pack(out / "train.rec", _training(identities, images, seed, rows), identities)
    write_bin(out / "held_out.bin", _verification(identities, held_out, pairs, seed, rows))
    with atomic_path(out / "factors.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(rows)


def _check(identities: int, images: int, held_out: int, pairs: int, seed: int) -> None:
    for name, value, least in (
        ("identities", identities, 1),
        ("images", images, 1),
        ("held_out", held_out, 2),
        ("pairs", pairs, 2 * FOLDS),
        ("seed", seed, 0),
    ):
        if value < least:
            raise InputError(f"synthetic faces: {name} is {value}, wanted {least} or more")
    if pairs % (2 * FOLDS):
        raise InputError(f"synthetic faces: pairs is {pairs}, wanted a multiple of {2 * FOLDS} for 10 equal folds")


def _picture(seed: int, identity: int, index: int, rows: list[tuple[object, ...]], *place: object) -> bytes:
    """An encoded picture; its row goes to `rows` behind its place (file, key, split)."""
    image, factors = sample(seed, identity, index)
    file, key, split = place
    rows.append((file, key, identity, split, *astuple(factors)))
    return encode(image)


def _training(identities: int, images: int, seed: int, rows: list[tuple[object, ...]]) -> Iterator[tuple[int, bytes]]:
    for identity in range(identities):
        for index in range(images):
            key = identity * images + index + 1  # record 0 is the pack's header
            yield identity, _picture(seed, identity, index, rows, "train.rec", key, "train")


def _verification(
    first: int, people: int, pairs: int, seed: int, rows: list[tuple[object, ...]]
) -> Iterator[tuple[bytes, bytes, bool]]:
    """Pairs of the people `first` .. `first + people - 1`, who follow those of the training set."""
    rng = np.random.default_rng([seed, first, people, pairs])
    taken = [0] * people
    for fold in range(FOLDS):
        there = np.arange(fold, people, FOLDS) if people >= 2 * FOLDS else np.arange(people)
        for number in range(pairs // FOLDS):
            same = number < pairs // FOLDS // 2
            chosen = [int(rng.choice(there))] * 2 if same else [int(i) for i in rng.choice(there, 2, replace=False)]
            encoded = []
            for person in chosen:
                place = "held_out.bin", sum(taken), "held_out"  # images stand in the .bin as they come
                encoded.append(_picture(seed, first + person, taken[person], rows, *place))
                taken[person] += 1
            yield encoded[0], encoded[1], same
