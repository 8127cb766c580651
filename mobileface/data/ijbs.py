"""IJB-S (NIST): people in surveillance videos, searched among stills, bookings and other videos.

    protocols/cs6_metadata.csv                            SUBJECT_ID,FILENAME,…: who is seen in `videos/4012.mp4`
    protocols/cs6_surveillance_to_single-booking_probe.csv      a video a line: probes of the first two protocols
    protocols/cs6_surveillance_to_surveillance_probe.csv        … and of the third
    protocols/galleries/cs6_surveillance_to_single_g1.csv, …_g2.csv         TEMPLATE_ID,SUBJECT_ID,FILENAME,…
    protocols/galleries/cs6_surveillance_to_booking_g1.csv, …_g2.csv
    protocols/galleries/cs6_surveillance_to_surveillance_g1.csv, …_g2.csv
    crops/SUBJECT/videos_4012_1234.jpg, crops/SUBJECT/img_17.jpg      aligned crops of 112x112 px, cut by the user

A person in a video is one template, of all crops of that person and video; a still is one, all bookings of a person are
one. What no crop was found of is an empty template. The files were not at hand: the lists were read in the public code
of Probabilistic Face Embeddings, the crops are named as there.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mobileface.data.folder import list_images
from mobileface.data.ijb import FPIRS, csv_rows, whole
from mobileface.data.image_files import ImageFiles
from mobileface.data.searches import IdentificationSet, Members, Search
from mobileface.errors import InputError

# protocol -> (its list of probes, what its galleries are called, whether a person's entries there are one template)
PROTOCOLS = {
    "surveillance to still": ("single-booking", "single", False),
    "surveillance to booking": ("single-booking", "booking", True),
    "surveillance to surveillance": ("surveillance", "surveillance", False),
}

Template = tuple[int, tuple[str, ...]]  # person, and the videos or stills that it is made of


def read_ijbs(folder: Path) -> IdentificationSet:
    """The three surveillance protocols over the crops below `folder`. Raises InputError for a list that is not there or
    not of the form above."""
    lists = folder / "protocols"
    files, crops = _crops(folder / "crops")
    seen = _people_in_videos(lists / "cs6_metadata.csv")
    number: dict[Template, int] = {}

    def numbers(templates: list[Template]) -> NDArray[np.int64]:
        return np.array([number.setdefault(template, len(number)) for template in templates], np.int64)

    searches = []
    for name, (probe_list, gallery, one_each) in PROTOCOLS.items():
        videos = [_source(row[0]) for _, row in csv_rows(lists / f"cs6_surveillance_to_{probe_list}_probe.csv")]
        probes: list[Template] = [
            (person, (video,)) for video in dict.fromkeys(videos) for person in sorted(seen[video])
        ]
        if not probes:
            raise InputError(f"{lists}: nobody is seen in the {len(videos)} probe videos of {name}")
        entries = [_gallery(lists / f"galleries/cs6_surveillance_to_{gallery}_{g}.csv", one_each) for g in ("g1", "g2")]
        one, two = map(numbers, entries)
        searches.append(Search(name, numbers(probes), (one, two)))
    pairs = [(image, t) for (person, names), t in number.items() for name in names for image in crops[person, name]]
    if not pairs:
        raise InputError(f"{files.folder}: none of its {len(files)} crops is of a person and video that the lists name")
    image, template = np.array(pairs, np.int64).T
    unused = len(files) - len(np.unique(image))
    return IdentificationSet(
        name="ijbs",
        files=files,
        identity=np.array([person for person, _ in number], np.int64),
        searches=tuple(searches),
        ranks=(1, 5, 10),
        members=Members(len(number), image, template),
        fpirs=FPIRS,
        counts={"images": len(files), "templates": len(number)},
        notes=(
            "the two galleries are one for the rates at a rank, and averaged for TPIR, as in public code",
            *([f"{unused:,} crops are in no template of these protocols"] if unused else []),
        ),
    )


def _crops(folder: Path) -> tuple[ImageFiles, defaultdict[tuple[int, str], list[int]]]:
    """The crops, and by person and "videos/4012" or "img/17" the indices of theirs."""
    keys = [entry.path for entry in list_images(folder).images]
    images: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        parts = PurePosixPath(key).stem.split("_")
        if len(parts) < 2 or key.count("/") != 1:
            raise InputError(f"{folder / key}: wanted SUBJECT/videos_4012_1234.jpg or SUBJECT/img_17.jpg")
        person = whole(key.split("/")[0], f"{folder / key}: the person's folder")
        images[person, f"{parts[0]}/{parts[1]}"].append(i)
    return ImageFiles(folder, tuple(keys)), images


def _source(name: str) -> str:
    """ "videos/4012.mp4" -> "videos/4012"."""
    return os.path.splitext(name.strip())[0]


def _people_in_videos(path: Path) -> defaultdict[str, set[int]]:
    """Who is seen in each video. The file has a row for every face of every frame: it is read as a stream."""
    seen: defaultdict[str, set[int]] = defaultdict(set)
    for number, row in csv_rows(path):
        if len(row) < 2:
            raise InputError(f"{path}: line {number} has {len(row)} columns, wanted SUBJECT_ID,FILENAME,…")
        if row[1].startswith("videos"):
            seen[_source(row[1])].add(whole(row[0], f"{path}: line {number}"))
    return seen


def _gallery(path: Path, one_each: bool) -> list[Template]:
    """A gallery's templates, in the order of its list."""
    names: defaultdict[int, list[str]] = defaultdict(list)
    for number, row in csv_rows(path):
        if len(row) < 3:
            raise InputError(f"{path}: line {number} has {len(row)} columns, wanted TEMPLATE_ID,SUBJECT_ID,FILENAME,…")
        names[whole(row[1], f"{path}: line {number}")].append(_source(row[2]))
    if not names:
        raise InputError(f"{path}: names no template")
    if one_each:
        return [(person, tuple(dict.fromkeys(own))) for person, own in names.items()]
    return [(person, (name,)) for person, own in names.items() for name in dict.fromkeys(own)]
