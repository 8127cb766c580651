"""Each protocol on a small made-up set whose answers are computed by hand, from image files to the result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobileface.data.ijb import read_ijb
from mobileface.data.ijbs import read_ijbs
from mobileface.data.scface import read_scface
from mobileface.data.tinyface import read_tinyface
from mobileface.evaluation.searching import judge_search, judge_templates
from mobileface.evaluation.templates import DEFAULT, Fusion
from tests.face_sets import Colours, paint, write_ijb, write_ijbs, write_tinyface

X, Y, Z = (100, 0, 0), (0, 100, 0), (0, 0, 100)
XY = (60, 80, 0)  # 0.6 to X, 0.8 to Y
COMMON = {
    "model",
    "model_sha256",
    "set",
    "protocol",
    "data_sha256",
    "images",
    "flip",
    "contract",
    "versions",
    "seconds",
}


def test_tinyface_by_hand(tmp_path: Path) -> None:
    """Probe 1 (X) ties with a distractor: rank 2. Probe 2 (Y): first. Probe 3 has no mate. Probe 4 (Z): its mate XY
    scores 0, and so do X, Y, X of others, with which it ties: rank 5 of 5."""
    folder = write_tinyface(
        tmp_path, {"1_1": X, "2_1": Y, "3_1": X, "4_1": Z}, {"1_2": X, "2_2": Y, "4_2": XY}, {"d": X, "e": Z}
    )
    embedder, seen = Colours(), []
    one = read_tinyface(folder)
    result = judge_search(embedder, one, "none", DEFAULT, lambda done, total: seen.append((done, total)))
    (part,) = result["parts"]
    # 4_1 finds distractor e (1.0) first, then the three entries it ties with, then its mate
    assert part["rank"] == {"1": 1 / 3, "5": 1.0, "20": 1.0}
    assert part["cmc"] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3, 1.0])
    assert (part["probes"], part["mated"], part["unmated"], part["gallery"]) == (4, [3], [1], [5])
    assert result["missing"] == {
        "probes": {"found": 4, "whole": 3728},
        "gallery": {"found": 3, "whole": 4443},
        "distractors": {"found": 2, "whole": 153_428},
    }
    assert result.keys() >= COMMON
    assert "fusion" not in result  # no templates
    assert (embedder.seen, seen) == (9, [(9, 9)])
    assert result["versions"]["numpy"] == np.__version__


def test_scface_by_hand(tmp_path: Path) -> None:
    """Mugshots X, Y, Z. At d1 person 2 looks like Z; at d3 both are right; at d2 one of two."""
    looks = {"001_frontal": X, "002_frontal": Y, "003_frontal": Z, "002_cam1_1": Z, "001_cam2_2": X, "003_cam2_2": XY,
             "001_cam4_3": X, "002_cam5_3": XY}  # fmt: skip
    for name, direction in looks.items():
        paint(tmp_path / f"{name}.jpg", direction)
    result = judge_search(Colours(), read_scface(tmp_path), "none", DEFAULT)
    assert {part["name"][:2]: part["rank"]["1"] for part in result["parts"]} == {"d1": 0.0, "d2": 0.5, "d3": 1.0}


IMAGES = [
    (1, 10, X, 1.0), (1, 10, (0, 50, 0), 1.0), (1, 11, Y, 0.5),  # (50, 25) + (0, 50) with all weights
    (2, 20, X, 1.0),
    (3, 30, Y, 1.0),
]  # fmt: skip
PAIRS = [(1, 3, 1), (1, 2, 0), (2, 9, 1), (9, 3, 0), (2, 3, 0)]  # template 9 is empty
LISTS = ({2: 100, 9: 300}, {3: 200}, {1: 100, 9: 300, 3: 200})


@pytest.mark.parametrize(
    ("fusion", "variant"),
    [
        (DEFAULT, "N1D1F1"),  # template 1 is (50, 25) + (0, 50)
        (Fusion(detector_weighted=False), "N1D0F1"),  # (50, 25) + (0, 100)
        (Fusion(norm_weighted=False), "N0D1F1"),  # (0.5, 0.5) + (0, 0.5)
        (Fusion(detector_weighted=False, media_averaged=False), "N1D0F1"),  # (100, 50) + (0, 100)
    ],
)
def test_ijb_pairs_by_hand(tmp_path: Path, fusion: Fusion, variant: str) -> None:
    """Genuine: 1-3, the highest, and 2-9 whose one side is empty, a miss. Impostors: 1-2, 9-3 (empty), 2-3 (0)."""
    pairs = read_ijb(write_ijb(tmp_path, IMAGES, PAIRS, LISTS), "ijbb")
    result, search = judge_templates(Colours(), pairs, "none", fusion)
    assert (result["pairs"], result["templates"], result["empty_templates"]) == (5, 4, 1)
    assert result["tar"] == {}  # three impostor pairs cannot resolve a FAR of 0.1
    assert result["tpr_nearest"]["1e-1"] == 0.5
    assert result["auc"] == pytest.approx((3 + 0.5) / 6)  # 1-3 beats all three, 2-9 ties with 9-3
    assert (result["fusion"]["variant"], result["fusion"]["media_averaged"]) == (variant, fusion.media_averaged)
    assert result.keys() >= COMMON | {"eer", "roc", "histogram"}
    assert search["set"] == "ijbb-1n"


def test_ijb_search_by_hand(tmp_path: Path) -> None:
    """Gallery 1: 2 (X, person 100) and 9 (empty, 300). Gallery 2: 3 (Y, 200). Probes 1, 9, 3.

    In gallery 1 probe 1 is mated with the only entry that scores: rank 1; the empty probe is found at no rank. In
    gallery 2 probe 3 finds itself. (0.5 + 1) / 2.
    """
    pairs = read_ijb(write_ijb(tmp_path, IMAGES, PAIRS, LISTS), "ijbb")
    embedder = Colours()
    _, search = judge_templates(embedder, pairs, "none", DEFAULT)
    (part,) = search["parts"]
    assert part["rank"] == {"1": 0.75, "5": 0.75, "10": 0.75}
    assert (part["mated"], part["unmated"], part["empty_probes"], part["empty_entries"]) == ([2, 1], [1, 2], 1, 1)
    assert part["tpir"] == {}
    assert embedder.seen == 5  # both protocols share the embeddings
    assert "the mean of two galleries" in search["protocol"]


def test_the_hash_of_a_search_is_of_weights_too(tmp_path: Path) -> None:
    """The detector's scores and the media change the result, and so the data's hash."""
    hashes = set()
    for i, (medium, score) in enumerate([(10, 1.0), (12, 1.0), (10, 0.5)]):
        images = [(1, medium, X, score), *IMAGES[1:]]
        pairs = read_ijb(write_ijb(tmp_path / str(i), images, PAIRS, LISTS), "ijbb")
        hashes |= {result["data_sha256"] for result in judge_templates(Colours(), pairs, "none", DEFAULT)}
    assert len(hashes) == 6


def test_the_flip_is_added_to_every_image(tmp_path: Path) -> None:
    pairs = read_ijb(write_ijb(tmp_path, IMAGES, PAIRS), "ijbb")
    embedder = Colours()
    (result,) = judge_templates(embedder, pairs, "sum", DEFAULT)
    assert (result["flip"], result["fusion"]["variant"], embedder.seen) == ("sum", "N1D1F2", 10)


def test_ijbs_by_hand(tmp_path: Path) -> None:
    """Twenty people, videos p and 100 + p of person p; the first ten are in gallery 1, 20 is in none.

    Everybody's colours are X in both; person 1's are Y. So person 1 is found, all others tie with each other.
    """
    look = {p: Y if p == 1 else X for p in range(1, 21)}
    crops = {f"{p}/videos_{v}_1.jpg": look[p] for p in look for v in (p, 100 + p)}
    crops |= {f"{p}/img_{p}.jpg": look[p] for p in look if p != 2}  # person 2's still was not found
    seen = [(p, f"videos/{v}.mp4") for p in look for v in (p, 100 + p)]
    stills = [(p, f"img/{p}.png") for p in look if p < 20]
    videos = [(p, f"videos/{100 + p}.mp4") for p in look if p < 20]
    probes = {name: [f"videos/{p}.mp4" for p in look] for name in ("single-booking", "surveillance")}
    galleries = {f"{kind}_g{g}": rows[:10] if g == 1 else rows[10:]
                 for kind, rows in (("single", stills), ("booking", stills), ("surveillance", videos))
                 for g in (1, 2)}  # fmt: skip
    result = judge_search(Colours(), read_ijbs(write_ijbs(tmp_path, crops, seen, probes, galleries)), "none", DEFAULT)
    still, booking, video = result["parts"]
    # 19 mated of 20 probes; only person 1 is first. Gallery 1: 10 probes with no mate all score 1 with somebody (0.1
    # lets one of them pass, but they tie): the threshold is above 1, nobody is identified. Gallery 2 has no Y, so that
    # person 1 scores 0 there; nine others tie at 1: nobody.
    assert still["rank"]["1"] == booking["rank"]["1"] == pytest.approx(1 / 19)
    assert video["rank"]["1"] == pytest.approx(1 / 19)
    assert still["mated"] == video["mated"] == [19]
    assert still["unmated"] == [10, 11]
    assert still["tpir"] == video["tpir"] == {"1e-1": 0.0}  # 0.01 of ten probes is none: left out
    assert (still["empty_entries"], video["empty_entries"]) == (1, 0)
    # each of the others ties with all X: stills are 19, but for Y and the empty one 17, so that its rank is 17
    assert still["cmc"][15:18] == pytest.approx([1 / 19, 18 / 19, 18 / 19])
    assert video["cmc"][16:18] == pytest.approx([1 / 19, 1.0])
    assert result["fusion"] == {
        "variant": "N1D0F1", "norm_weighted": True, "detector_weighted": False, "media_averaged": False,
    }  # fmt: skip
    assert "two galleries as one for the ranks" in result["protocol"]
