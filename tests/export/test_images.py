"""Where the crops come from that files are compared on."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from export.images import FEW, crops_for, parity_images
from mobileface.data.images import encode
from mobileface.data.verification_bin import write_bin
from mobileface.errors import InputError

Pixels = NDArray[np.uint8]
PLAN = "name: my-student\narch: micro\ndata: {train: [{folder: faces}], licence: CC0}\n"


def test_where_crops_come_from(run: Path, tmp_path: Path, images: Pixels) -> None:
    """Those named; else the run's own; else synthetic ones, which do for float alone."""
    write_bin(tmp_path / "set.bin", [(encode(images[0]), encode(images[1]), True)] * 5)
    named = crops_for(run, tmp_path / "set.bin", ["int8"])
    assert (named.source, len(named.images)) == ("set.bin, by --images", 10)
    assert crops_for(run, None, ["fp32"]).source == "synthetic faces"
    with pytest.raises(InputError, match="int8 takes its ranges from faces; the run has no plan that names its faces"):
        crops_for(run, None, ["fp32", "int8"])
    for person in range(5):
        for i in range(8):
            path = tmp_path / "faces" / str(person) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", images[(person + i) % 9])[1].tobytes())
    (run / "plan.yaml").write_text(PLAN.replace("data: {", f"data: {{root: {tmp_path}, "))
    (tmp_path / "faces/0/bad.png").write_text("no image")
    own = crops_for(run, None, ["int8"])
    assert (own.source, own.images.shape) == ("the training set", (40, 112, 112, 3))
    assert len(crops_for(run, None, ["fp32"]).images) in (FEW - 1, FEW)
    shutil.rmtree(tmp_path / "faces")
    with pytest.raises(InputError, match=r"the run.s own faces are not at hand: .* wanted --images"):
        crops_for(run, None, ["int8"])


def test_images_of_a_folder_and_of_a_bin(tmp_path: Path, images: Pixels) -> None:
    for i in range(40):
        image = np.full((112, 112, 3), 5 * i, np.uint8)
        path = tmp_path / "faces" / f"person {i % 3}" / f"{i:02}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (tmp_path / "faces" / "readme.txt").write_text("no image")
    found = parity_images(tmp_path / "faces")
    assert found.shape == (FEW, 112, 112, 3)
    assert len(np.unique(found[:, 0, 0, 0])) == FEW
    write_bin(tmp_path / "set.bin", [(encode(images[0]), encode(images[1]), True)] * 5)
    assert parity_images(tmp_path / "set.bin").shape == (10, 112, 112, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no image, wanted aligned"):
        parity_images(tmp_path / "empty")
    (tmp_path / "empty" / "cut.jpg").write_bytes(encode(images[0])[:50])
    with pytest.raises(InputError, match=r"cut\.jpg: does not decode"):
        parity_images(tmp_path / "empty")


def test_synthetic_images_are_the_same_every_time() -> None:
    first = parity_images()
    assert (first.shape, first.dtype) == ((FEW, 112, 112, 3), np.uint8)
    np.testing.assert_array_equal(first, parity_images())
    assert len(np.unique(first.reshape(FEW, -1), axis=0)) == FEW
