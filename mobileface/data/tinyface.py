"""TinyFace (qmul-tinyface.github.io): faces of few pixels, searched among 153,428 strangers.

`Testing_Set/` as it is shipped, or the folder of aligned crops that public code makes of it
(`aligned_pad_0.1_pad_high/`), each with `Probe/`, `Gallery_Match/` and `Gallery_Distractor/`. The number before the
first `_` of a file's name says whose it is; names of distractors say nothing. (`*_img_ID_pairs.mat` hold the same
numbers; they are not read.) The images must be aligned crops of 112x112 px: alignment decides the result.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mobileface.data.faces import UNLABELLED
from mobileface.data.image_files import ImageFiles, images_in_folder
from mobileface.data.searches import IdentificationSet, Search
from mobileface.errors import InputError

PLACES = ("aligned_pad_0.1_pad_high", "Testing_Set", "tinyface/Testing_Set", "")
PARTS = ("Probe", "Gallery_Match", "Gallery_Distractor")
OFFICIAL = {"probes": 3728, "gallery": 4443, "distractors": 153_428}


def read_tinyface(folder: Path) -> IdentificationSet:
    """The crops of TinyFace below `folder`. Raises InputError where a part is missing or a name says nothing."""
    place = next((folder / inside for inside in PLACES if (folder / inside / PARTS[0]).is_dir()), None)
    if place is None:
        raise InputError(f"{folder}: holds no {PARTS[0]} folder, wanted Testing_Set/ or {PLACES[0]}/ with it inside")
    names = {part: images_in_folder(place / part) for part in PARTS}
    for part in PARTS[:2]:
        if not names[part]:
            raise InputError(f"{place / part}: holds no image, wanted those of TinyFace")
    keys = tuple(f"{part}/{name}" for part in PARTS for name in names[part])
    people = [_person(place / key) for key in keys[: len(keys) - len(names[PARTS[2]])]]
    ends = np.cumsum([len(names[part]) for part in PARTS])
    return IdentificationSet(
        name="tinyface",
        files=ImageFiles(place, keys),
        identity=np.array([*people, *[UNLABELLED] * len(names[PARTS[2]])], np.int64),
        searches=(Search("probes", np.arange(ends[0]), (np.arange(ends[0], ends[2]),)),),
        ranks=(1, 5, 20),
        counts=dict(zip(OFFICIAL, map(len, names.values()), strict=True)),
        official=OFFICIAL,
        notes=(f"crops as they lie in {place.name}",),
    )


def _person(path: Path) -> int:
    found = re.match(r"(\d{1,9})_", path.name, re.ASCII)
    if found is None:
        raise InputError(f"{path}: wanted a name that begins with the person's number and _, such as 12_3.jpg")
    return int(found[1])
