"""SCface (scface.org): 130 people seen by surveillance cameras from three distances, searched among their mugshots.

Files are told by their names, wherever they lie below the folder: `001_frontal.jpg` is person 1's mugshot,
`001_cam3_2.jpg` what camera 3 saw at the second distance (1: 4.2 m, 2: 2.6 m, 3: 1.0 m). Cameras 6 and 7 see infrared
and are left out, as are all other files; so is camera 8, whose images are infrared mugshots. The images must be aligned
crops of 112x112 px. All 130 people are judged; papers that train on 50 of them judge the other 80.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mobileface.data.folder import SUFFIXES
from mobileface.data.image_files import ImageFiles, numbered
from mobileface.data.searches import IdentificationSet, Search
from mobileface.errors import InputError

DISTANCES = {1: "d1, 4.2 m", 2: "d2, 2.6 m", 3: "d3, 1.0 m"}
OFFICIAL = {"mugshots": 130, **{f"d{number}": 650 for number in DISTANCES}}
NAME = re.compile(r"(\d{3})_(?:frontal|cam[1-5]_([123]))")


def read_scface(folder: Path) -> IdentificationSet:
    """The crops of SCface below `folder`. Raises InputError for a name that is there twice, or a kind that is not."""
    found: dict[str, Path] = {}
    named = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and NAME.fullmatch(p.stem.lower()))
    for path in filter(Path.is_file, named):
        if (other := found.setdefault(path.stem.lower(), path)) != path:
            raise InputError(f"{path}: {other} has the same name, wanted one crop of each image")
    stems = sorted(found)
    parts = [NAME.fullmatch(stem) for stem in stems]
    distance = np.array([int(part[2] or 0) for part in parts if part], np.int64)
    gallery = np.flatnonzero(distance == 0)
    probes = {number: np.flatnonzero(distance == number) for number in DISTANCES}
    if not len(gallery) or not any(map(len, probes.values())):
        raise InputError(
            f"{folder}: holds {len(gallery)} mugshots and {len(stems) - len(gallery)} camera images, "
            "wanted 001_frontal.jpg and 001_cam1_1.jpg and so on"
        )
    return IdentificationSet(
        name="scface",
        files=ImageFiles(folder, tuple(found[stem].relative_to(folder).as_posix() for stem in stems)),
        identity=numbered(stem[:3] for stem in stems),
        searches=tuple(Search(DISTANCES[n], own, (gallery,)) for n, own in probes.items() if len(own)),
        ranks=(1, 5, 10),
        counts={"mugshots": len(gallery), **{f"d{number}": len(own) for number, own in probes.items()}},
        official=OFFICIAL,
        notes=("cameras 1 to 5 (infrared left out), all people, no fine-tuning on any of them",),
    )
