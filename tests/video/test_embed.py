"""Batches across videos, and frames that have no embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobileface.embedders.contract import mirrored
from mobileface.errors import InputError
from mobileface.video.embed import BATCH, Stream
from mobileface.video.tracks import open_videos
from tests.video.made import Table, directions, write_frame, write_videos


def test_batches_go_on_from_video_to_video_and_videos_come_in_order(tmp_path: Path) -> None:
    lengths = [3, 0, BATCH, 1, 2 * BATCH + 5, 2]
    rng = np.random.default_rng(0)
    numbers = {f"v{i}": rng.integers(0, 9, length).tolist() for i, length in enumerate(lengths)}
    table = Table(directions(9))
    found = list(Stream(open_videos(write_videos(tmp_path, numbers)), table, "none"))
    assert [one.video.name for one in found] == list(numbers)
    for one, own in zip(found, numbers.values(), strict=True):
        np.testing.assert_array_equal(one.raw, table.rows[own].reshape(-1, 8))
        assert not one.faults
        assert one.usable().tolist() == list(range(len(own)))
    full, rest = divmod(sum(lengths), BATCH)
    assert table.batches[1 - 1 :] == [BATCH] * full + [rest]


def test_a_video_comes_as_soon_as_it_is_whole(tmp_path: Path) -> None:
    """Not all are held until the end: with a batch's worth of frames behind it a video has been given out."""
    numbers = {f"v{i}": [1] * 40 for i in range(20)}
    table = Table(directions(2))
    stream = iter(Stream(open_videos(write_videos(tmp_path, numbers)), table, "none"))
    next(stream)
    assert sum(table.batches) == BATCH  # the first one, and the beginning of the second


def test_bad_frames_are_faults_of_their_own(tmp_path: Path) -> None:
    rows = directions(5)
    rows[3], rows[4] = np.nan, 0
    write_videos(tmp_path, {"a": [0, 3, 1, 4], "b": [2]})
    (tmp_path / "a" / "f4.png").write_bytes(b"no image")
    (tmp_path / "a" / "f5.png").write_bytes(b"")
    found = list(Stream(open_videos(tmp_path), Table(rows), "none"))
    assert sorted(found[0].faults) == [1, 3, 4, 5]
    assert found[0].faults[1] == "its embedding has length nan, wanted above 0 and finite"
    assert found[0].faults[3] == "its embedding has length 0, wanted above 0 and finite"
    assert found[0].faults[4] == "does not decode as an image"
    assert found[0].faults[5].startswith("holds 0 bytes")
    assert found[0].usable().tolist() == [0, 2]
    np.testing.assert_array_equal(found[0].raw[[0, 2]], rows[:2])
    np.testing.assert_array_equal(found[1].raw, rows[2:3])


def test_a_model_that_has_no_finite_embedding_at_all_is_said_to(tmp_path: Path) -> None:
    write_videos(tmp_path, {"a": [0, 0, 0]})
    with pytest.raises(InputError, match=r"table.onnx: gives NaN or infinity for 3 of 3 images"):
        list(Stream(open_videos(tmp_path), Table(np.full((1, 4), np.inf)), "none"))


def test_flip_is_the_mean_with_the_mirror_image(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    image = np.full((112, 112, 3), 1, np.uint8)
    image[:, :56] = 2  # left; the table looks at the right
    import cv2

    assert cv2.imwrite(str(tmp_path / "a" / "f.png"), image)
    assert mirrored(image[None])[0, 56, 100, 0] == 2
    rows = directions(3)
    (both,) = Stream(open_videos(tmp_path), Table(rows), "sum")
    np.testing.assert_allclose(both.raw[0], (rows[1] + rows[2]) / 2, rtol=1e-6)
    (one,) = Stream(open_videos(tmp_path), Table(rows), "none")
    np.testing.assert_array_equal(one.raw[0], rows[1])


def test_the_hash_is_that_of_names_and_contents(tmp_path: Path) -> None:
    def digest(root: Path) -> str:
        stream = Stream(open_videos(root), Table(directions(5)), "none")
        for _ in stream:
            pass
        return stream.sha256()

    one, two, three, four = (tmp_path / name for name in "abcd")
    write_videos(one, {"v": [1, 2]})
    write_videos(two, {"v": [1, 2]})
    write_videos(three, {"v": [1, 3]})
    write_frame(write_videos(four, {"v": [1]}) / "v" / "g1.png", 2)
    tables = [
        ["v\tv/f0.png\t0", "v\tv/f1.png\t0"],
        ["v\tv/f0.png\t0", "v\tv/f1.png\t1"],
        ["v\tv/f0.png\t0", "w\tv/f1.png\t0"],
    ]
    for number, rows in enumerate(tables):
        (one / f"{number}.tsv").write_text("\n".join(["track\tfile\tis_noise", *rows]))
    found = [digest(root) for root in (one, two, three, four, *(one / f"{number}.tsv" for number in range(3)))]
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1  # other pixels, names, marks, another cut into videos
