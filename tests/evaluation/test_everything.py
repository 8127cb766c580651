"""What is there is found, what is not is said, equal images are embedded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobileface.data.pairs import PairSet
from mobileface.data.verification_bin import write_bin
from mobileface.errors import InputError
from mobileface.evaluation import everything
from mobileface.evaluation.everything import NAMES, Absent, Remembering, judge, open_sets, summary
from tests.data.pair_rows import image
from tests.face_sets import Colours, paint, write_ijb, write_tinyface

X, Y = (100, 0, 0), (0, 100, 0)


def write_some(root: Path) -> Path:
    """A TinyFace, an IJB-B whose meta/ is empty, AgeDB-30 as .bin, another .bin."""
    write_tinyface(root / "tinyface", {"1_1": X}, {"1_2": X}, {"d": Y})
    (root / "ijbb/meta").mkdir(parents=True)
    pairs = [(image(p), image(p + (0 if p % 2 else 100)), p % 2 == 1) for p in range(20)]
    write_bin(root / "agedb_30.bin", pairs)
    write_bin(root / "vgg2_fp.bin", pairs)
    return root


def test_all_is_what_is_there(tmp_path: Path) -> None:
    found, absent = open_sets(["all", "tinyface"], write_some(tmp_path))
    assert [one.name for one in found] == ["agedb", "tinyface", "vgg2_fp"]
    assert {one.name for one in absent} == set(NAMES) - {"agedb", "tinyface"}
    why = {one.name: one.why for one in absent}
    assert why["lfw"] == f"not there: looked for lfw/pairs.txt, lfw.bin or lfw/lfw.bin in {tmp_path}"
    assert why["scface"] == f"not there: looked for scface/ or SCface/ in {tmp_path}"
    assert why["ijbb"].startswith("cannot be used: ")
    assert "ijbb_face_tid_mid.txt: not found" in why["ijbb"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("all", "holds none of lfw, .* that can be used; --data"),
        ("tinyface", "holds no tinyface/aligned_pad_0.1_pad_high/Probe/ or .*, wanted tinyface"),
        ("ijbc", "holds no ijbc/meta/ or IJBC/meta/, wanted ijbc"),
        ("tinyfase", r"'tinyfase' is no known set \(did you mean 'tinyface'\?\), wanted all, lfw"),
    ],
)
def test_nothing_there(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_sets([spec], tmp_path)


def test_one_set_that_cannot_be_used_is_no_answer_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ijbb_face_tid_mid"):
        open_sets(["ijbb"], write_some(tmp_path))


def test_results_come_one_by_one_and_are_kept(tmp_path: Path) -> None:
    found, _ = open_sets(["all"], write_some(tmp_path / "data"))
    seen: list[str] = []
    results = judge(Colours(), found, folder=tmp_path / "out", done=lambda result: seen.append(result["set"]))
    assert seen == [result["set"] for result in results] == ["agedb", "tinyface", "vgg2_fp"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "agedb.json", "agedb.worst.json", "tinyface.json", "vgg2_fp.json", "vgg2_fp.worst.json",
    }  # fmt: skip
    with pytest.raises(InputError, match="flip is 'both'"):
        judge(Colours(), found, "both")


def test_a_set_that_turns_out_to_be_unusable_stops_no_other(tmp_path: Path) -> None:
    """TinyFace as it is shipped: nothing of it is an aligned crop, which shows only when it is read."""
    root = write_some(tmp_path / "data")
    paint(root / "tinyface/Testing_Set/Probe/1_1.jpg", X, side=20)
    found, _ = open_sets(["all"], root)
    without: list[Absent] = []
    results = judge(Colours(), found, folder=tmp_path / "out", failed=without.append)
    assert [result["set"] for result in results] == ["agedb", "vgg2_fp"]
    assert not (tmp_path / "out/tinyface.json").exists()
    (one,) = without
    assert one.name == "tinyface"
    assert one.why.startswith("cannot be used: ")
    assert "Probe/1_1.jpg: is 20x20 px, wanted an aligned crop" in one.why
    with pytest.raises(InputError, match="is 20x20 px"):
        judge(Colours(), found)
    alone = [one for one in found if one.name == "tinyface"]
    with pytest.raises(InputError, match=r"no set could be judged; the first: .* is 20x20 px"):
        judge(Colours(), alone, failed=without.append)


def test_summaries(tmp_path: Path) -> None:
    images = [(1, 1, X, 1.0), (2, 2, X, 1.0), *((t, t, Y, 1.0) for t in range(3, 13))]
    pairs = [(1, 2, 1), *((1, t, 0) for t in range(3, 13)), (1, 99, 1)]
    write_ijb(tmp_path / "ijbc", images, pairs, ({2: 1}, {3: 2}, {1: 1, 4: 2}), "ijbc")
    write_tinyface(tmp_path / "tinyface", {"1_1": X}, {"2_2": X}, {})
    found, _ = open_sets(["ijbc", "tinyface"], tmp_path)
    lines = [line for result in judge(Colours(), found) for line in summary(result)]
    assert lines == [
        "ijbc: TAR 0.5000 at FAR 1e-1, EER 0.5000 (12 pairs of 13 templates, 1 of them empty, N1D1F1, flip none)",
        "ijbc: not the whole set: 12 of 469,375 images, 12 of 15,658,489 pairs",
        "ijbc-1n, mixed media: rank 1 1.0000, rank 5 1.0000, rank 10 1.0000 (2 probes, gallery of 1 and 1, N1D1F1, "
        "flip none)",
        "tinyface, probes: no probe has a mate (1 probes, gallery of 1, flip none)",
        "tinyface: not the whole set: 1 of 3,728 probes, 1 of 4,443 gallery, 0 of 153,428 distractors",
    ]


def test_equal_images_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (5, 112, 112, 3), np.uint8)
    inner = Colours()
    shared = Remembering(inner)
    np.testing.assert_array_equal(shared(crops[[0, 1, 0]]), Colours()(crops[[0, 1, 0]]))
    assert inner.seen == 2
    np.testing.assert_array_equal(shared(crops[[1, 2, 3, 1]]), Colours()(crops[[1, 2, 3, 1]]))
    assert inner.seen == 4
    monkeypatch.setattr(everything, "REMEMBERED", 0)  # nothing new is kept
    for _ in range(2):
        np.testing.assert_array_equal(shared(crops), Colours()(crops))
    assert inner.seen == 6


def test_sets_that_share_images_share_embeddings(tmp_path: Path) -> None:
    """vgg2_fp.bin holds the images of agedb_30.bin: 30 different ones (those of a pair of one person are equal)."""
    found, _ = open_sets(["all"], write_some(tmp_path))
    pairs = [one for one in found if isinstance(one, PairSet)]
    assert len(pairs) == 2
    embedder = Colours()
    both = judge(embedder, pairs)
    assert embedder.seen == 30
    alone = [judge(Colours(), [one])[0] for one in pairs]
    for result in (*both, *alone):
        del result["seconds"]
    assert both == alone
