"""IJB-B and IJB-C as InsightFace packs them, and the lists of IJB-S."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobileface.data.ijb import read_ijb
from mobileface.data.ijbs import read_ijbs
from mobileface.errors import InputError
from tests.face_sets import write_ijb, write_ijbs

RED, BLUE = (100, 0, 0), (0, 0, 100)
IMAGES = [(40, 7, RED, 0.5), (40, 7, BLUE, 1.0), (41, 8, RED, 0.25)]
PAIRS = [(40, 41, 1), (40, 99, 1), (41, 40, 0)]  # nobody has an image of template 99


@pytest.mark.parametrize("name", ["ijbb", "ijbc"])
def test_ijb_by_hand(tmp_path: Path, name: str) -> None:
    """Templates 40, 41, 50, 99 are 0 to 3; 50 is in a gallery alone, and empty as 99 is."""
    pairs = read_ijb(write_ijb(tmp_path, IMAGES, PAIRS, ({40: 5}, {50: 6}, {41: 5, 99: 6}), name), name)
    assert pairs.members.count == 4
    assert pairs.members.template.tolist() == [0, 0, 1]
    assert pairs.members.media is not None
    assert pairs.members.media.tolist() == [7, 7, 8]
    assert pairs.members.detector is not None
    assert pairs.members.detector.tolist() == [0.5, 1.0, 0.25]
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True)) == [
        (0, 1, True), (0, 3, True), (1, 0, False),
    ]  # fmt: skip
    assert pairs.counts == {"images": 3, "templates": 2, "pairs": 3}
    assert pairs.search is not None
    (search,) = pairs.search.searches
    assert [search.probes.tolist(), *(g.tolist() for g in search.galleries)] == [[1, 3], [0], [2]]
    assert pairs.search.identity.tolist() == [5, 5, 6, 6]


def test_loose_crops_are_aligned_by_their_points(tmp_path: Path) -> None:
    """The points are the template's, shifted: the crop is the middle of the image."""
    folder = write_ijb(tmp_path, IMAGES, PAIRS)
    crop = read_ijb(folder, "ijbb").files.crop(1)
    assert crop.shape == (112, 112, 3)
    np.testing.assert_array_equal(crop, np.full((112, 112, 3), (128, 128, 228)))


def test_without_all_its_lists_there_is_no_search(tmp_path: Path) -> None:
    folder = write_ijb(tmp_path, IMAGES, PAIRS, ({40: 5}, {41: 6}, {41: 5}))
    (folder / "meta/ijbb_1N_gallery_S2.csv").unlink()
    assert read_ijb(folder, "ijbb").search is None


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("face_tid_mid.txt", "", "face_tid_mid.txt: has 0 bytes"),
        ("face_tid_mid.txt", "\n", "names no image"),
        ("face_tid_mid.txt", "1.jpg 40\n", "line 1 has 2 columns, wanted 3"),
        ("face_tid_mid.txt", "1.jpg 40 x\n", "line 1: 'x' is no whole number"),
        ("face_tid_mid.txt", "../1.jpg 40 7\n", r"line 1: '\.\./1\.jpg' is no plain name"),
        ("face_tid_mid.txt", "1.jpg 40 7\n", "line 2 is of 2.jpg, wanted no further line"),
        ("name_5pts_score.txt", "1.jpg 1 2 3 4 5 6 7 8 9 10 1\n", "names 1 images, wanted 3"),
        ("name_5pts_score.txt", "3.jpg 1 2 3 4 5 6 7 8 9 10 1\n", r"line 1 is of 3\.jpg, wanted 1\.jpg"),
        ("name_5pts_score.txt", "1.jpg 1 2 3 4 5 6 7 8 9 y 1\n", "line 1 holds something else than numbers"),
        ("name_5pts_score.txt", "".join(f"{i}.jpg 1 2 3 4 5 6 7 8 9 10 nan\n" for i in (1, 2, 3)), "not finite"),
        ("name_5pts_score.txt", "".join(f"{i}.jpg 1 2 3 4 5 6 7 8 9 1e300 1\n" for i in (1, 2, 3)), "not finite"),
        ("name_5pts_score.txt", "1.jpg 1 2 3" + " " * 70_000 + "\n", "line 1 has 65536 characters or more"),
        ("template_pair_label.txt", "\n\n", "has 1 columns, wanted 3"),
        ("template_pair_label.txt", "40 41\n", "has 2 columns, wanted 3"),
        ("template_pair_label.txt", "40 41 1\n40 x 0\n", "wanted 3 whole numbers a line"),
        ("template_pair_label.txt", "40 41 1\n", r"labels are \[1\], wanted 0 and 1"),
        ("1N_probe_mixed.csv", "TEMPLATE_ID,SUBJECT_ID\n", "names no template"),
        ("1N_probe_mixed.csv", "TEMPLATE_ID\n41\n", "line 2 has 1 columns"),
        ("1N_probe_mixed.csv", "a,b\n\n41,5\n41,6\n", "line 4 gives template 41 to a second person"),
        ("1N_probe_mixed.csv", "a,b\n40,6\n", "the lists of 1:N give template 40 to two people"),
        ("1N_probe_mixed.csv", "40,5\n41,6\n", "line 1 begins with '40', wanted a header"),
        ("1N_probe_mixed.csv", "a,b,c\n41,5," + "x" * 65_531 + "9,7,y\n", "line 2 has 65536 characters or more"),
        ("1N_probe_mixed.csv", 'a,b\n41,"5\n', "no readable .csv"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = write_ijb(tmp_path, IMAGES, PAIRS, ({40: 5}, {41: 6}, {41: 5}))
    (folder / "meta" / f"ijbb_{file}").write_text(text)
    with pytest.raises(InputError, match=message):
        read_ijb(folder, "ijbb")


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write_ijb(tmp_path, IMAGES, PAIRS)
    (folder / "loose_crop/2.jpg").unlink()
    with pytest.raises(InputError, match=r"loose_crop/2\.jpg: not found; ijbb misses 1 of its 3 images"):
        read_ijb(folder, "ijbb")
    write_ijb(folder, IMAGES, PAIRS)
    (folder / "meta/ijbb_template_pair_label.txt").unlink()
    with pytest.raises(InputError, match=r"template_pair_label\.txt: not found, wanted a list"):
        read_ijb(folder, "ijbb")


# person 1 is in videos 10 and 11, person 2 in 10 and 12, person 3 nowhere
SEEN = [(1, "videos/10.mp4"), (1, "videos/10.mp4"), (2, "videos/10.mp4"), (1, "videos/11.mp4"), (2, "videos/12.mp4"),
        (3, "img/5.png")]  # fmt: skip
CROPS = {"1/videos_10_0001.jpg": RED, "1/videos_10_0002.jpg": BLUE, "2/videos_12_7.jpg": BLUE, "1/img_3.jpg": RED,
         "1/img_4.jpg": BLUE, "3/img_5.jpg": RED}  # fmt: skip
PROBES = {"single-booking": ["videos/10.mp4"], "surveillance": ["videos/12.mp4", "videos/10.mp4"]}
GALLERIES = {
    "single_g1": [(1, "img/3.png"), (3, "img/5.png")],
    "single_g2": [(2, "img/6.png")],
    "booking_g1": [(1, "img/3.png"), (3, "img/5.png"), (1, "img/4.png")],
    "booking_g2": [(2, "img/6.png")],
    "surveillance_g1": [(1, "videos/11.mp4")],
    "surveillance_g2": [(2, "videos/12.mp4")],
}


def test_ijbs_by_hand(tmp_path: Path) -> None:
    one = read_ijbs(write_ijbs(tmp_path, CROPS, SEEN, PROBES, GALLERIES))
    assert one.members is not None
    owners = one.identity.tolist()
    crops = {
        t: sorted(one.files.keys[i] for i, u in zip(one.members.image, one.members.template, strict=True) if u == t)
        for t in range(one.members.count)
    }

    def described(templates: np.ndarray) -> list[tuple[int, list[str]]]:
        return [(owners[t], crops[t]) for t in templates.tolist()]

    still, booking, video = one.searches
    both = ["1/videos_10_0001.jpg", "1/videos_10_0002.jpg"]
    assert described(still.probes) == described(booking.probes) == [(1, both), (2, [])]  # no crop of 2 in video 10
    assert [described(g) for g in still.galleries] == [[(1, ["1/img_3.jpg"]), (3, ["3/img_5.jpg"])], [(2, [])]]
    assert [described(g) for g in booking.galleries] == [
        [(1, ["1/img_3.jpg", "1/img_4.jpg"]), (3, ["3/img_5.jpg"])], [(2, [])],
    ]  # fmt: skip
    assert described(video.probes) == [(2, ["2/videos_12_7.jpg"]), (1, both), (2, [])]
    assert [described(g) for g in video.galleries] == [[(1, [])], [(2, ["2/videos_12_7.jpg"])]]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("cs6_metadata.csv", "S,F\n1\n", "line 2 has 1 columns, wanted SUBJECT_ID,FILENAME"),
        ("cs6_metadata.csv", "S,F\nx,videos/10.mp4\n", "line 2: 'x' is no whole number"),
        ("cs6_metadata.csv", "S,F\n1,videos/11.mp4\n", "nobody is seen in the 1 probe videos of surveillance to still"),
        ("cs6_surveillance_to_surveillance_probe.csv", "videos/12.mp4\nvideos/10.mp4\n", "line 1 .* wanted a header"),
        ("galleries/cs6_surveillance_to_single_g2.csv", "T,S,F\n", "names no template"),
        ("galleries/cs6_surveillance_to_single_g2.csv", "T,S,F\n1,2\n", "line 2 has 2 columns"),
    ],
)
def test_bad_lists_of_ijbs_are_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    folder = write_ijbs(tmp_path, CROPS, SEEN, PROBES, GALLERIES)
    (folder / "protocols" / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_ijbs(folder)


def test_crops_in_no_template_of_ijbs_are_counted(tmp_path: Path) -> None:
    """A name that no list knows: said where some are, refused where all are."""
    folder = write_ijbs(tmp_path, {**CROPS, "3/videos_10_1.jpg": RED}, SEEN, PROBES, GALLERIES)
    assert "1 crops are in no template of these protocols" in read_ijbs(folder).notes
    other = write_ijbs(tmp_path / "other", {"1/video_10_1.jpg": RED}, SEEN, PROBES, GALLERIES)
    with pytest.raises(InputError, match="none of its 1 crops is of a person and video that the lists name"):
        read_ijbs(other)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("1/frame.jpg", "wanted SUBJECT/videos_4012_1234.jpg"),
        ("ann/img_3.jpg", "the person's folder: 'ann' is no whole"),
    ],
)
def test_crops_that_say_nothing_are_named(tmp_path: Path, key: str, message: str) -> None:
    folder = write_ijbs(tmp_path, {**CROPS, key: RED}, SEEN, PROBES, GALLERIES)
    with pytest.raises(InputError, match=message):
        read_ijbs(folder)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = write_ijbs(tmp_path, CROPS, SEEN, PROBES, GALLERIES)
    (folder / "protocols/cs6_metadata.csv").unlink()
    with pytest.raises(InputError, match=r"cs6_metadata\.csv: not found"):
        read_ijbs(folder)
