"""A set is cleaned from end to end, with a teacher whose embeddings are written into the images."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.cleaning.identities import Settings, judge
from mobileface.cleaning.run import BATCH, clean, embed, identity_name
from mobileface.data.faceset import FaceSet
from mobileface.data.folder import FolderFaces
from mobileface.data.images import MAX_BYTES
from mobileface.data.recordio import RecordFaces, write_pack
from mobileface.embedders.contract import InputContract
from mobileface.errors import InputError

DIM = 8


class Painted:
    """The embedding is read off the image: grey value 20 a + n of its left half means axis a, length 10 + n / 10.

    A mirrored image has that value in its right half, and gets the same axis with a length of 10.
    """

    path = Path("teacher.onnx")
    dim = DIM
    sha256 = "0" * 64
    contract = InputContract(flip="none")
    libraries: tuple[str, ...] = ("numpy",)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(images))
        out = np.zeros((len(images), DIM), np.float32)
        for row, image in enumerate(images):
            left, right = int(image[56, 10, 0]), int(image[56, 100, 0])
            out[row, max(left, right) // 20] = 10 + left % 20 / 10 if left else 10
        return out


def paint(axis: int, n: int = 16) -> bytes:
    image = np.zeros((112, 112, 3), np.uint8)
    image[:, :56] = 20 * axis + n
    return cv2.imencode(".png", image)[1].tobytes()


def write(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """ann: twenty, one more that is poor, a stranger, three of bob's. bob: four, two that are corrupt. carl: two.
    dora: four, three in another domain. Norms are 10.65 to 10.95, of the poor image 10."""
    top = tmp_path / "set"
    for k in range(20):
        write(top, **{f"ann__{k:02}.png": paint(1, 13 + k % 7)})
    write(top, **{"ann__poor.png": paint(1, 0), "ann__stranger.png": paint(5, 16)})
    write(top, **{f"ann__x{k}.png": paint(2, 14 + 2 * k) for k in range(3)})
    write(top, **{f"bob__{k}.png": paint(2, 14 + k) for k in range(4)})
    write(top, **{"bob__broken.png": b"\x89PNG and no more", "bob__large.png": bytes(MAX_BYTES + 10)})
    write(top, **{f"carl__{k}.png": paint(3, 15 + k) for k in range(2)})
    write(top, **{f"dora__{k}.png": paint(4, 14 + k) for k in range(4)})
    write(top, **{f"dora__y{k}.png": paint(6, 14 + 2 * k) for k in range(3)})
    return top


EXPECTED = {
    **{f"ann/{k:02}.png": "keep" for k in range(20)},
    "ann/poor.png": "poor-quality",
    "ann/stranger.png": "wrong-label",
    **{f"ann/x{k}.png": "wrong-label" for k in range(3)},
    **{f"bob/{k}.png": "keep" for k in range(4)},
    **{f"carl/{k}.png": "long-tail" for k in range(2)},
    **{f"dora/{k}.png": "keep" for k in range(4)},
    **{f"dora/y{k}.png": "other-domain" for k in range(3)},
}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_a_set_is_cleaned(folder: Path, tmp_path: Path) -> None:
    faces, out, seen = FaceSet([FolderFaces(folder)]), tmp_path / "out", []
    summary = clean(faces, Painted(), out, progress=lambda done, total: seen.append((done, total)))
    rows = table(out / "clean.tsv")
    assert list(rows[0]) == ["key", "identity", "verdict", "cosine", "norm", "component"]
    assert {row["key"].removeprefix("set/"): row["verdict"] for row in rows} == EXPECTED
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    one = {row["key"]: row for row in rows}
    assert one["set/ann/stranger.png"] == {
        "key": "set/ann/stranger.png",
        "identity": "set/ann",
        "verdict": "wrong-label",
        "cosine": "0.0000",
        "norm": "10.8000",  # half of 11.6 and 10
        "component": "2",
    }
    assert float(one["set/ann/poor.png"]["norm"]) == 10
    assert seen == [(len(faces), len(faces))]
    assert sorted(path.name for path in out.iterdir()) == [
        "clean.tsv",
        "exclude.txt",
        "long-tail.png",
        "other-domain.png",
        "poor-quality.png",
        "summary.json",
        "wrong-label.png",
    ]
    assert json.loads((out / "summary.json").read_text()) == summary


def test_the_summary(folder: Path, tmp_path: Path) -> None:
    faces = FaceSet([FolderFaces(folder)])
    summary = clean(faces, Painted(), tmp_path / "out", Settings(least=2))
    assert summary["images"] == len(EXPECTED) + 2
    assert summary["verdicts"] == {
        "keep": 30,
        "long-tail": 0,
        "wrong-label": 4,
        "other-domain": 3,
        "poor-quality": 1,
        "corrupt": 2,
    }
    assert sum(summary["verdicts"].values()) == summary["images"]
    assert (summary["identities"], summary["identities_kept"], summary["unlabelled"]) == (4, 4, 0)
    assert summary["corrupt"]["count"] == 2
    assert "bob/broken.png" in summary["corrupt"]["names"][0]
    assert "bob/large.png" in summary["corrupt"]["names"][1]
    assert summary["misfiled"] == [
        {"identity": "set/ann", "component": 1, "images": 3, "looks_like": "set/bob", "mean_cosine": 1.0}
    ]
    assert summary["settings"] == {
        "threshold": 0.4,
        "least": 2,
        "component": 3,
        "poor_joined": 2.5,
        "poor_alone": 1.5,
    }
    norms = summary["norms"]
    assert norms["poor_joined"] == pytest.approx(norms["median"] - 2.5 * norms["deviation"])
    assert norms["poor_alone"] == pytest.approx(norms["median"] - 1.5 * norms["deviation"])
    assert summary["data_sha256"] == faces.fingerprint()
    assert (summary["model"], summary["model_sha256"]) == ("teacher.onnx", "0" * 64)
    assert summary["contract"]["flip"] == "sum"  # whatever the embedder is judged with
    assert set(summary["versions"]) == {"python", "numpy"}


def test_the_exclude_list_leaves_what_is_kept(folder: Path, tmp_path: Path) -> None:
    clean(FaceSet([FolderFaces(folder)]), Painted(), tmp_path / "out")
    left = FolderFaces(folder, exclude=tmp_path / "out" / "exclude.txt")
    assert left.paths == sorted(path for path, verdict in EXPECTED.items() if verdict == "keep")
    reasons = dict(line.split("\t") for line in (tmp_path / "out" / "exclude.txt").read_text().splitlines()[1:])
    assert reasons["bob/broken.png"] == reasons["bob/large.png"] == "corrupt"
    assert {p: r for p, r in reasons.items() if r != "corrupt"} == {p: v for p, v in EXPECTED.items() if v != "keep"}


def test_a_cleaned_set_is_clean(folder: Path, tmp_path: Path) -> None:
    """Of images: the levels of the norm are those of what is left."""
    clean(FaceSet([FolderFaces(folder)]), Painted(), tmp_path / "out")
    left = FaceSet([FolderFaces(folder, exclude=tmp_path / "out" / "exclude.txt")])
    again = clean(left, Painted(), tmp_path / "again", Settings(poor_joined=100, poor_alone=1.5))
    assert again["verdicts"]["keep"] == len(left)


def test_embeddings_are_those_of_the_image_and_its_mirror_image(folder: Path) -> None:
    faces, teacher = FaceSet([FolderFaces(folder)]), Painted()
    found = embed(faces, teacher)
    keys = [faces.key(i) for i in found.index]
    assert sorted(faces.key(i) for i in found.corrupt) == ["set/bob/broken.png", "set/bob/large.png"]
    assert len(keys) == len(EXPECTED)
    row = keys.index("set/ann/03.png")
    assert found.raw[row].tolist() == pytest.approx([0, 11.6 + 10] + [0] * 6)
    judged = judge(found.raw, faces.labels[found.index])
    assert judged.norm[row] == pytest.approx(10.8)
    assert teacher.batches[::2] == teacher.batches[1::2]
    assert max(teacher.batches) <= BATCH


def test_names_that_a_list_cannot_hold(tmp_path: Path) -> None:
    top = tmp_path / "set"
    odd = ["ann\nbob/1.png", "ann\nbob/2.png", "#no/1.png", " carl/1.png", "da\tn/1.png", "e\rf/1.png"]
    plain = ["bob/caf\udce9.png", "good one/1.png"]
    for name in odd + plain:
        write(top, **{name.replace("/", "__"): paint(1)})
    write(top, **{f"ann__{k}.png": paint(2) for k in range(3)})
    source = FolderFaces(top)
    summary = clean(FaceSet([source]), Painted(), tmp_path / "out")
    assert summary["verdicts"]["long-tail"] == len(odd + plain)
    assert summary["not_listed"]["count"] == len(odd)
    assert all(name.isprintable() for name in summary["not_listed"]["names"])
    left = FolderFaces(top, exclude=tmp_path / "out" / "exclude.txt")
    assert sorted(left.paths) == sorted(odd + [f"ann/{k}.png" for k in range(3)])
    rows = table(tmp_path / "out" / "clean.tsv")
    assert len(rows) == len(source)
    assert {row["verdict"] for row in rows} == {"keep", "long-tail"}
    assert "set/ann\\nbob/1.png" in {row["key"] for row in rows}


def test_several_sources_get_a_list_each(folder: Path, tmp_path: Path) -> None:
    second = write(tmp_path / "more", **{f"ann__{k}.png": paint(7) for k in range(4)}, **{"ann__4.png": paint(3)})
    loose = write(tmp_path / "loose", **{"x__0.png": paint(3)})
    faces = FaceSet([FolderFaces(folder), FolderFaces(loose, labelled=False), FolderFaces(second)])
    summary = clean(faces, Painted(), tmp_path / "out")
    assert summary["unlabelled"] == 1
    assert summary["identities"] == 5
    assert (tmp_path / "out" / "exclude-2.txt").read_text().splitlines()[1:] == ["ann/4.png\twrong-label"]
    assert len((tmp_path / "out" / "exclude-1.txt").read_text().splitlines()) == 1 + 10 + 2
    assert not (tmp_path / "out" / "exclude.txt").exists()
    assert {row["identity"] for row in table(tmp_path / "out" / "clean.tsv")} == {
        *(f"set/{name}" for name in ("ann", "bob", "carl", "dora")),
        "more/ann",
    }
    assert not any(row["key"].startswith("loose") for row in table(tmp_path / "out" / "clean.tsv"))


def test_unlabelled_images_beside_one_source_leave_its_list_its_name(folder: Path, tmp_path: Path) -> None:
    loose = write(tmp_path / "loose", **{"x__0.png": paint(3)})
    clean(FaceSet([FolderFaces(loose, labelled=False), FolderFaces(folder)]), Painted(), tmp_path / "out")
    assert len((tmp_path / "out" / "exclude.txt").read_text().splitlines()) == 1 + 10 + 2


def test_records(tmp_path: Path) -> None:
    rec = tmp_path / "pack" / "train.rec"
    rec.parent.mkdir()
    write_pack(rec, [(3, paint(1))] * 4 + [(3, paint(2))] + [(5, paint(2))] * 4)
    faces = FaceSet([RecordFaces(rec)])
    summary = clean(faces, Painted(), tmp_path / "out")
    assert summary["verdicts"]["wrong-label"] == 1
    assert (tmp_path / "out" / "exclude.txt").read_text().splitlines()[1:] == ["train.rec:5\twrong-label"]
    assert identity_name(faces, 0) == "pack/train.rec/3"


def test_a_second_run_replaces_the_first(folder: Path, tmp_path: Path) -> None:
    faces = FaceSet([FolderFaces(folder)])
    first = clean(faces, Painted(), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    again = clean(faces, Painted(), tmp_path / "out")
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    before.pop("summary.json"), after.pop("summary.json")
    assert before == after
    clean(faces, Painted(), tmp_path / "out", Settings(least=1))
    assert not (tmp_path / "out" / "long-tail.png").exists()


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    faces = FaceSet([FolderFaces(folder)])
    teacher = Painted()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(folder)
    cases: list[tuple[Any, Path, str]] = [
        (faces, tmp_path / "file", r"file: is a file; wanted a folder for the result"),
        (faces, folder / "clean", r"clean: lies in the image folder .*set; wanted a folder outside of it"),
        (faces, tmp_path / "link" / "clean", r"lies in the image folder"),
        (FaceSet([FolderFaces(folder, labelled=False)]), tmp_path / "out", r"none of 40 images has a label"),
    ]
    for case, out, text in cases:
        with pytest.raises(InputError, match=text):
            clean(case, teacher, out)
    assert teacher.batches == []  # said before anything is embedded
    broken = write(tmp_path / "broken", **{f"a__{k}.png": b"no image" for k in range(3)})
    with pytest.raises(InputError, match=r"none of 3 images can be read; the first: broken/a/0\.png: does not decode"):
        clean(FaceSet([FolderFaces(broken)]), teacher, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "text"), [(0.0, "from 0 to 0"), (np.inf, "from inf to inf")])
def test_a_teacher_without_lengths(folder: Path, tmp_path: Path, value: float, text: str) -> None:
    class Broken(Painted):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.full((len(images), DIM), value, np.float32)

    with pytest.raises(InputError, match=rf"teacher\.onnx: gives embeddings of a length {text}; wanted above 0"):
        clean(FaceSet([FolderFaces(folder)]), Broken(), tmp_path / "out")
