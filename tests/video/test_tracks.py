"""What folders, lists and tables give, line by line, and what cannot be used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mobileface.data.images import MAX_BYTES, BadImage
from mobileface.errors import InputError
from mobileface.video import tracks
from mobileface.video.tracks import LIST, MAX_LINE, Video, Videos, open_videos
from tests.video.made import write_frame, write_videos


def listed(folder: Path, text: str | bytes, name: str = LIST) -> Videos:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return open_videos(folder / name)


def test_a_folder_gives_videos_and_frames_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in (
        "clip10/f9.JPG",
        "clip10/f10.jpg",
        "clip9/a.png",
        "clip10/.f1.jpg",
        "clip10/notes.txt",
        ".trash/a.jpg",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose.jpg").write_bytes(b"")
    videos = open_videos(tmp_path)
    expected = [
        Video("clip9", ("clip9/a.png",)),
        Video("clip10", ("clip10/f9.JPG", "clip10/f10.jpg")),
        Video("empty", ()),
    ]
    assert list(videos) == expected
    assert list(videos) == expected  # again: a walk is no iterator that is used up
    assert (len(videos), videos.names, videos.marked) == (3, ["clip9", "clip10", "empty"], False)


def test_names_of_equal_numbers_have_one_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order the file system lists them in."""
    write_videos(tmp_path, {"v1": [1], "v01": [1]})
    for name in ("v1/1.png", "v1/01.png", "v1/001.png"):
        write_frame(tmp_path / name, 1)
    real = os.scandir
    for turn in (False, True):

        @contextlib.contextmanager
        def listing(path: Path, turn: bool = turn) -> Iterator[list[os.DirEntry[str]]]:
            with real(path) as entries:
                yield sorted(entries, key=lambda entry: entry.name, reverse=turn)

        monkeypatch.setattr(tracks.os, "scandir", listing)
        videos = list(open_videos(tmp_path))
        assert [video.name for video in videos] == ["v01", "v1"]
        assert videos[1].frames == ("v1/001.png", "v1/01.png", "v1/1.png", "v1/f0.png")


def test_a_list_of_videos_is_the_challenges(tmp_path: Path) -> None:
    write_videos(tmp_path, {"0144610": [1, 2], "deep/0144611": [3]})
    text = "0144610 17\n\ndeep/0144611\r\nlost\n"
    expected = [
        Video("0144610", ("0144610/f0.png", "0144610/f1.png")),
        Video("deep/0144611", ("deep/0144611/f0.png",)),
        Video("lost", ()),
    ]
    assert list(listed(tmp_path, text)) == expected
    assert list(open_videos(tmp_path)) == expected  # the list in a folder is what it holds


def test_a_list_of_frames_keeps_its_order_and_reads_none_of_them(tmp_path: Path) -> None:
    videos = listed(tmp_path, "b/2.jpg 0.9\nb/1.jpg\na/x/1.png\n")
    assert list(videos) == [Video("b", ("b/2.jpg", "b/1.jpg")), Video("a/x", ("a/x/1.png",))]


def test_a_table_marks_frames_and_may_repeat_them(tmp_path: Path) -> None:
    rows = ["track\torder\tfile\tis_noise\tnoise_kind", "a\t0\ta/1.jpg\t0\t-", "a\t1\tb/9.jpg\t1\tother"]
    videos = listed(tmp_path, "\n".join([*rows, "a\t2\tb/9.jpg\t1\t", "b\t0\tb/9.jpg\t0\t-"]), "noisy.tsv")
    marked = Video("a", ("a/1.jpg", "b/9.jpg", "b/9.jpg"), ("", "other", "noise"))
    assert list(videos) == [marked, Video("b", ("b/9.jpg",), ("",))]
    assert videos.marked
    plain = listed(tmp_path, "file\ttrack\na/1.jpg\tv\n", "plain.tsv")
    assert list(plain) == [Video("v", ("a/1.jpg",))]
    assert not plain.marked


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a\nb\na\n", r"line 3 names video 'a' again"),
        ("a\na\n", r"line 2 names 'a' again"),
        ("a/1.jpg\nb/1.jpg\na/2.jpg\n", r"line 3 names video 'a' again; wanted each once, its lines together"),
        ("a/1.jpg\na/2.jpg\na/1.jpg\n", r"line 3 names 'a/1.jpg' again"),
        ("a\nb/1.jpg\n", r"line 2 names a frame, the lines above it do not"),
        ("b/1.jpg\na\n", r"line 2 names a video, the lines above it do not"),
        ("1.jpg\n", r"line 1 is '1.jpg', a frame of no video"),
        ("../a\n", r"line 1 is '\.\./a'; wanted a path below the list's own folder"),
        ("/etc\n", r"line 1 is '/etc'; wanted a path below the list's own folder"),
        ("a\\b\n", r"wanted a path below the list's own folder"),
        (b"a\n\xff\n", r"line 2 is no UTF-8"),
        (b"a" * (MAX_LINE + 1), r"line 1 is longer than"),
        ("\n", r"list\.txt: is empty"),
    ],
)
def test_a_bad_list_is_named_by_line(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        listed(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"has no column 'track'"),
        ("track\tis_noise\n", r"has no column 'file'"),
        ("track\tfile\na\n", r"line 2 has 1 columns; wanted 2"),
        ("track\tfile\tis_noise\na\ta/1.jpg\t2\n", r"line 2 has is_noise '2'; wanted 0 or 1"),
        ("track\tfile\na\t../1.jpg\n", r"line 2 is '\.\./1\.jpg'; wanted a path below"),
        ("track\tfile\n", r"bad\.tsv: is empty"),
    ],
)
def test_a_bad_table_is_named_by_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        listed(tmp_path, text, "bad.tsv")


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no video; wanted VIDEO/frame.jpg"):
        open_videos(tmp_path)
    with pytest.raises(InputError, match=r"lost: not found; wanted a folder of frame folders"):
        open_videos(tmp_path / "lost")
    (tmp_path / "film.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"film.mp4: is of no known kind"):
        open_videos(tmp_path / "film.mp4")


def test_a_frame_that_cannot_be_read_says_why_and_is_never_waited_for(tmp_path: Path) -> None:
    write_frame(tmp_path / "a" / "1.png", 7)
    os.mkfifo(tmp_path / "a" / "2.png")
    (tmp_path / "a" / "3.png").write_bytes(b"x" * (MAX_BYTES + 9))
    videos = open_videos(tmp_path)
    assert videos.read("a/1.png") == (tmp_path / "a" / "1.png").read_bytes()
    with pytest.raises(BadImage, match=r"^a/2.png: is no regular file"):
        videos.read("a/2.png")
    assert len(videos.read("a/3.png")) == MAX_BYTES + 1
    with pytest.raises(BadImage, match=r"^a/4.png: cannot be read \(No such file"):
        videos.read("a/4.png")


def test_a_long_list_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While videos are gone through, no more lines are read than those of the present video and one."""
    (tmp_path / LIST).write_text("".join(f"v{i // 10}/{i}.jpg\n" for i in range(1000)))
    videos, read = open_videos(tmp_path), 0
    real = tracks.lines

    def counted(path: Path):  # type: ignore[no-untyped-def]
        nonlocal read
        for line in real(path):
            read += 1
            yield line

    monkeypatch.setattr(tracks, "lines", counted)
    walk = iter(videos)
    assert next(walk).frames == tuple(f"v0/{i}.jpg" for i in range(10))
    assert read == 11
    assert next(walk).name == "v1"
    assert read == 21
