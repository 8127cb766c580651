"""Decoding against Pillow, and what is no 112x112 image."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from mobileface.data.images import MAX_BYTES, BadImage, decode, encode

Pixels = NDArray[np.uint8]
MakeFace = Callable[[int, int], Pixels]


def saved(image: Pillow.Image, kind: str, **options: object) -> bytes:
    """What Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def pixels(make_face: MakeFace) -> Pixels:
    return make_face(1, 2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_give_the_very_pixels(pixels: Pixels, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(saved(Pillow.fromarray(pixels), kind, **options), "x")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def test_jpeg_is_read_as_pillow_reads_it(pixels: Pixels) -> None:
    encoded = saved(Pillow.fromarray(pixels), "JPEG", quality=95)
    reference = np.asarray(Pillow.open(io.BytesIO(encoded))).astype(int)
    assert np.abs(decode(encoded, "x") - reference).max() <= 2  # two inverse transforms round differently
    assert np.abs(decode(memoryview(encoded), "x") - reference).max() <= 2


def test_jpeg_is_written_in_rgb_at_the_quality_asked_for(pixels: Pixels) -> None:
    read = Pillow.open(io.BytesIO(encode(pixels)))
    assert (read.format, read.mode, read.size) == ("JPEG", "RGB", (112, 112))
    assert np.abs(np.asarray(read).astype(int) - pixels).mean() < 4
    assert len(encode(pixels, 50)) < len(encode(pixels, 95))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_becomes_three_equal_channels(pixels: Pixels, kind: str) -> None:
    grey = pixels[..., 0]
    found = decode(saved(Pillow.fromarray(grey), kind), "x")
    assert found.shape == (112, 112, 3)
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0].astype(int) - grey).mean() < 6


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "1"])
def test_other_modes_of_png_are_taken(pixels: Pixels, mode: str) -> None:
    image = Pillow.fromarray(pixels).convert(mode)
    found = decode(saved(image, "PNG"), "x")
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))


def test_sixteen_bits_are_brought_to_eight(pixels: Pixels) -> None:
    encoded = cv2.imencode(".png", pixels[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(decode(encoded, "x"), pixels)


@pytest.mark.parametrize(("width", "height"), [(112, 100), (111, 112), (224, 224), (1, 1), (1000, 3)])
def test_another_size_is_refused_with_its_name(width: int, height: int) -> None:
    encoded = saved(Pillow.new("RGB", (width, height)), "PNG")
    with pytest.raises(BadImage, match=rf"^set/one\.png: is {width}x{height} px, wanted .* 112x112 px$"):
        decode(encoded, "set/one.png")


@pytest.mark.parametrize(
    "content", [b"\xff\xd8\xff", b"GIF89a", b"<html></html>", bytes(50), b"\x89PNG\r\n\x1a\n" + bytes(40)]
)
def test_what_is_no_image_is_refused(content: bytes) -> None:
    with pytest.raises(BadImage, match=r"^odd\.jpg: does not decode as an image"):
        decode(content, "odd.jpg")


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
def test_empty_and_large_files_are_not_decoded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(BadImage, match=rf"^a: holds {size} bytes, wanted .* 1 to {MAX_BYTES} bytes$"):
        decode(bytes(size), "a")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_a_truncated_image_is_refused(pixels: Pixels, kind: str, cut: float) -> None:
    encoded = saved(Pillow.fromarray(pixels), kind)
    with pytest.raises(BadImage, match=r"^half: does not decode"):
        decode(encoded[: int(len(encoded) * cut)], "half")


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_damage_gives_an_image_or_a_bad_image(make_face: MakeFace, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))
    encoded = bytearray(saved(Pillow.fromarray(make_face(0, 0)), kind))
    for place in data.draw(st.lists(st.integers(0, len(encoded) - 1), min_size=1, max_size=5)):
        encoded[place] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(encoded), "damaged").shape == (112, 112, 3)
    except BadImage as error:
        assert str(error).startswith("damaged: ")


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_give_a_bad_image(content: bytes) -> None:
    with pytest.raises(BadImage, match=r"^random: "):
        decode(content, "random")


def bomb(width: int, height: int) -> bytes:
    """A sound PNG of black pixels; deflate makes a thousandth of them."""
    packer = zlib.compressobj(6)
    rows = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize(("side", "message"), [(4000, "is 4000x4000 px"), (6000, "does not decode as an image")])
def test_a_small_file_cannot_take_gigabytes(side: int, message: str) -> None:
    """In a process of its own: OpenCV reads its limit once, and the peak of memory is the process's."""
    code = (
        "import sys, resource\n"
        "from mobileface.data.images import BadImage, decode\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode(sys.stdin.buffer.read(), 'bomb')\n"
        "except BadImage as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    content = bomb(side, side)
    assert len(content) < MAX_BYTES
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    said, kib = done.stdout.decode().splitlines()
    assert message in said
    assert int(kib) < 250_000
