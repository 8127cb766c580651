"""The sets of pairs that are opened by name: where each lies under the data root, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from mobileface.data.cfp import read_cfp_pairs
from mobileface.data.cvlists import person_of, read_agedb_pairs, read_two_line_pairs
from mobileface.data.lfw import Pair, read_lfw_pairs
from mobileface.data.sllfw import read_sllfw_pairs


def first_folder(key: str) -> str:
    """Whose image it is in LFW and its kin: NAME of `NAME/NAME_0001.jpg`."""
    return key.split("/", 1)[0]


class Known(NamedTuple):
    """A set that is opened by its name: where it lies under the data root and how it is read.

    listed: the list in `folder`, or the folder of lists. read: the folder's pairs. packed: what InsightFace's .bin
    of the set is called. who: a person's name from an image's path; None where the paths do not say it.
    """

    folder: str
    listed: str
    read: Callable[[Path], list[Pair]]
    packed: str = ""
    who: Callable[[str], str] | None = first_folder


# where archives of aligned crops put them: XQLFW's; CALFW's and CPLFW's; the one of AgeDB-30 that public code names
CROPS = ("xqlfw_aligned_112", "aligned images", "agedb30_align_112")


def images_in(folder: Path) -> Path:
    """Where a set's images lie: in its folder, or in the one that its distributor ships its crops in."""
    return next((folder / crops for crops in CROPS if (folder / crops).is_dir()), folder)


def _in_file(read: Callable[[Path], list[Pair]], name: str) -> Callable[[Path], list[Pair]]:
    return lambda folder: read(folder / name)


SETS: dict[str, Known] = {
    "lfw": Known("lfw", "pairs.txt", _in_file(read_lfw_pairs, "pairs.txt"), "lfw.bin"),
    "cfp-fp": Known("cfp", "Protocol", partial(read_cfp_pairs, views="FP"), "cfp_fp.bin"),
    "cfp-ff": Known("cfp", "Protocol", partial(read_cfp_pairs, views="FF"), "cfp_ff.bin"),
    # Cross-Quality LFW (martlgap.github.io/xqlfw): 10 folds of 300 and 300 in LFW's format, images of two qualities
    "xqlfw": Known("xqlfw", "xqlfw_pairs.txt", _in_file(read_lfw_pairs, "xqlfw_pairs.txt")),
    "sllfw": Known("lfw", "pair_SLLFW.txt", _in_file(read_sllfw_pairs, "pair_SLLFW.txt")),
    "agedb": Known(
        "agedb", "agedb_30_pair.txt", _in_file(read_agedb_pairs, "agedb_30_pair.txt"), "agedb_30.bin", who=None
    ),
    "calfw": Known(
        "calfw", "pairs_CALFW.txt", _in_file(read_two_line_pairs, "pairs_CALFW.txt"), "calfw.bin", who=person_of
    ),
    "cplfw": Known(
        "cplfw", "pairs_CPLFW.txt", _in_file(read_two_line_pairs, "pairs_CPLFW.txt"), "cplfw.bin", who=person_of
    ),
}


def looked_for(name: str, data_root: Path) -> str | None:
    """What was looked for in vain below the data root, of a set in SETS; None where it is there."""
    known = SETS[name]
    if (data_root / known.folder / known.listed).exists() or packed_at(known, data_root):
        return None
    listed = f"{known.folder}/{known.listed}"
    return f"{listed}, {known.packed} or {known.folder}/{known.packed}" if known.packed else listed


def packed_at(known: Known, data_root: Path) -> Path | None:
    """The set's .bin, in the data root or in its folder."""
    places = [folder / known.packed for folder in (data_root, data_root / known.folder)] if known.packed else []
    return next((place for place in places if place.is_file()), None)
