"""Verification .bin files against pickle itself, and against files that want to do harm."""

from __future__ import annotations

import builtins
import itertools
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobileface.data import pickled_names, plain_pickle, verification_bin
from mobileface.data.verification_bin import read_bin, write_bin
from mobileface.errors import InputError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
IMAGES = [b"\xff\xd8one", b"", b"\x00\n\\'\"\xe9three", bytes(range(256)) * 2]
SAME = [True, False]

in_one_folder = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, data: bytes) -> Path:
    path = folder / "set.bin"
    path.write_bytes(data)
    return path


def refused(folder: Path, data: bytes, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_bin(written(folder, data))
    text = str(caught.value)
    assert "set.bin" in text
    assert "\n" not in text
    for word in words:
        assert word in text


@in_one_folder
@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300), st.booleans()), min_size=1, max_size=5))
def test_what_is_written_is_read_and_pickle_agrees(tmp_path: Path, pairs: list[tuple[bytes, bytes, bool]]) -> None:
    path = tmp_path / "pairs.bin"
    write_bin(path, iter(pairs))
    images, same = read_bin(path)
    assert same.dtype == np.bool_
    assert (images, same.tolist()) == pickle.loads(path.read_bytes())
    assert images == [image for first, second, _ in pairs for image in (first, second)]
    assert same.tolist() == [is_same for *_, is_same in pairs]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(images=st.lists(st.binary(max_size=300), min_size=1, max_size=4), arrays=st.booleans())
@in_one_folder
def test_every_protocol(tmp_path: Path, protocol: int, images: list[bytes], arrays: bool) -> None:
    images = images * 2
    held: list[Any] = [np.frombuffer(image, np.uint8).copy() for image in images] if arrays else images
    data = pickle.dumps((held, [True] * (len(images) // 2)), protocol)
    found, same = read_bin(written(tmp_path, data))
    assert found == images
    assert same.all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_things_that_files_hold(tmp_path: Path, protocol: int) -> None:
    """Arrays as cv2.imencode gave them, (n,) or (n, 1); NumPy bools; an array of bools; tuples."""
    arrays: list[Any] = [np.frombuffer(image, np.uint8) for image in IMAGES]
    arrays[0] = arrays[0].reshape(-1, 1)
    for same in ([np.True_, np.False_], np.array(SAME), tuple(SAME)):
        images, found = read_bin(written(tmp_path, pickle.dumps((tuple(arrays), same), protocol)))
        assert images == IMAGES
        assert found.tolist() == SAME
    if protocol < 4:  # names are plain lines there, so that NumPy 1's are easily put in
        data = pickle.dumps([arrays, [np.True_, np.False_]], protocol).replace(b"numpy._core.", b"numpy.core.")
        assert b"numpy.core." in data
        assert read_bin(written(tmp_path, data))[0] == IMAGES


def test_images_that_are_one_object_are_read_twice(tmp_path: Path) -> None:
    image = b"shared" * 10
    array = np.frombuffer(image, np.uint8)
    assert read_bin(written(tmp_path, pickle.dumps(([image, image], [True]))))[0] == [image] * 2
    assert read_bin(written(tmp_path, pickle.dumps(([array, array], [True]), 2)))[0] == [image] * 2


def python2_string(value: bytes, protocol: int) -> bytes:
    if protocol == 0:
        return b"S" + repr(value)[1:].encode() + b"\n"
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


@pytest.mark.parametrize("protocol", [0, 2])
def test_files_of_python_2(tmp_path: Path, protocol: int) -> None:
    strings = [python2_string(image, protocol) for image in IMAGES]
    if protocol == 0:
        items = b"".join(string + b"p%d\na" % i for i, string in enumerate(strings, start=2))
        data = b"((lp0\n" + items + b"(lp1\nI01\naI00\natp9\n."
    else:
        items = b"".join(string + b"q" + bytes([i]) for i, string in enumerate(strings, start=2))
        data = b"\x80\x02]q\x00(" + items + b"e]q\x01(\x88\x89e\x86q\x09."
    assert pickle.loads(data, encoding="bytes") == (IMAGES, SAME)
    images, same = read_bin(written(tmp_path, data))
    assert (images, same.tolist()) == (IMAGES, SAME)


def python2_array(kind: bytes = b"u1", data: bytes = b"abc", state: bytes = b"NNN") -> bytes:
    """One array as Python 2's cPickle writes it with protocol 2 (memo left out)."""
    dtype = b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|" + state + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return empty + b"(K\x01K\x03\x85" + dtype + b"\x89U" + bytes([len(data)]) + data + b"tb"


def with_item(item: bytes) -> bytes:
    """A set of one pair whose first image is what `item` pushes."""
    return b"\x80\x02](" + item + b"U\x01xe](\x88e\x86."


def test_arrays_of_python_2(tmp_path: Path) -> None:
    assert read_bin(written(tmp_path, with_item(python2_array())))[0] == [b"abc", b"x"]
    refused(tmp_path, with_item(python2_array(kind=b"O8")), "'O8'", "u1")
    refused(tmp_path, with_item(python2_array(kind=b"i4")), "'i4'")
    refused(tmp_path, with_item(python2_array(data=b"ab")), "2 bytes")
    refused(tmp_path, with_item(python2_array(state=b"](NeNN")), "parts")


class Call:
    """Something that has itself pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("way", ["system", "eval", "exec", "mkdir", "open"])
@pytest.mark.parametrize("place", ["whole", "image", "flag"])
def test_nothing_is_run(tmp_path: Path, protocol: int, way: str, place: str) -> None:
    mark = tmp_path / "ran"
    call = {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(builtins.eval, f"open({str(mark)!r}, 'w').close()"),
        "exec": Call(builtins.exec, f"import os; os.mkdir({str(mark)!r})"),
        "mkdir": Call(os.mkdir, str(mark)),
        "open": Call(open, str(mark), "w"),
    }[way]
    whole = {"whole": call, "image": ([call, b"x"], [True]), "flag": ([b"x", b"y"], [call])}[place]
    data = pickle.dumps(whole, protocol)
    refused(tmp_path, data, "names", "not run")
    assert not mark.exists()
    opened = pickle.loads(data)  # the file is a real attack: pickle runs it
    assert mark.exists()
    if way == "open":
        (opened if place == "whole" else opened[0][0] if place == "image" else opened[1][0]).close()


@pytest.mark.parametrize(
    "item",
    [
        b"\x8c\x02os\x8c\x06system\x93\x8c\x05false\x85R",  # STACK_GLOBAL
        b"\x8c\x05numpy\x8c\x0adtype.mro\x93)R",  # attributes by a dotted name
        b"X\x08\x00\x00\x00builtinsX\x04\x00\x00\x00eval\x93X\x01\x00\x00\x001\x85R",
        b"cposix\nsystem\nU\x05false\x85R",
        b"cnumpy\nload\nU\x01x\x85R",
        b"cnumpy.core.multiarray\nfromstring\nU\x01x\x85R",
        b"c_codecs\ndecode\nU\x01x\x85R",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x05\x00\x00\x00rot13tR",
        b"c_codecs\nencode\n(X\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1tR",
        b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R",  # bytes(2 GB)
        b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R",
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nU\x02u1\x85RU\x01atR",
        b"(cos\nsystem\no",  # OBJ
        b"(ios\nsystem\n",  # INST
        b"cos\nsystem\n)\x81",  # NEWOBJ
        b"cnumpy\ndtype\n)\x81",
        b"cnumpy\ndtype\nNb",
        b"cnumpy\ndtype\n}b",
        b"c_codecs\nencode\n(K\x01tb",  # a state for a function
        b"\x82\x01",  # extension registry
        b"U\x01xQ",  # persistent id
        b"Px\n",
        b"\x97",  # a buffer from outside
        b"}",
        b"G@\x00\x00\x00\x00\x00\x00\x00",
        b"K\x01",
        b"N",
        b"X\x01\x00\x00\x00x",  # text is no image
        b"]",
        b"cnumpy\nndarray\n",
        b"I1e9\n",
        b"I" + b"9" * 30 + b"\n",
        b"Sx\n",
        b"S'\\q'\n",
        b"h\x07",
        b"R",
        b"b",
        b"a",
        b"t",
        b"e",
    ],
)
def test_other_instructions_are_refused(tmp_path: Path, item: bytes) -> None:
    refused(tmp_path, with_item(item))


def test_every_name_is_one_of_ours() -> None:
    for call in pickled_names.NAMES.values():
        assert call.function.__module__ == pickled_names.__name__


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((IMAGES, [True]), ["4 images", "1 pairs"]),
        ((IMAGES[:3], SAME), ["3 images", "2 pairs"]),
        (([], []), ["0 images"]),
        ((IMAGES, [1, 0]), ["True or False"]),
        ((IMAGES, b"\1\0"), ["bytes", "list"]),
        ((IMAGES, np.array([1, 0], np.uint8)), ["Array"]),
        ((b"ab", [True]), ["bytes", "list"]),
        ((["text", b"x"], [True]), ["image 0", "str"]),
        (([b"x", np.zeros(2, np.float32)], [True]), ["'f4'"]),
        (([b"x", np.array([b"y"], object)], [True]), ["'O8'"]),
        (([b"x", np.zeros(2, "u1,u1")], [True]), ["dtype"]),
        (([b"x", np.array([True])], [True]), ["image 1", "Array"]),
        ((IMAGES, [np.int64(1), np.int64(0)]), ["'i8'"]),
        ((IMAGES, SAME, 3), ["tuple", "pair"]),
        (b"no pair", ["bytes"]),
        ({"bins": IMAGES}, ["instruction"]),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_values_are_refused(tmp_path: Path, value: Any, words: list[str], protocol: int) -> None:
    refused(tmp_path, pickle.dumps(value, protocol), *words)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, protocol: int) -> None:
    arrays = [IMAGES[0], np.frombuffer(IMAGES[2], np.uint8)]
    data = pickle.dumps((arrays, [True]), protocol)
    for length in range(1, len(data)):
        refused(tmp_path, data[:length])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(seed=st.data())
@in_one_folder
def test_damage_is_refused_or_harmless(tmp_path: Path, protocol: int, seed: st.DataObject) -> None:
    arrays = [IMAGES[0], np.frombuffer(IMAGES[2], np.uint8)]
    data = bytearray(pickle.dumps((arrays, [np.True_]), protocol))
    for _ in range(seed.draw(st.integers(1, 3))):
        data[seed.draw(st.integers(0, len(data) - 1))] = seed.draw(st.integers(0, 255))
    try:
        images, same = read_bin(written(tmp_path, bytes(data)))
    except InputError:
        return
    assert [type(image) for image in images] == [bytes] * 2
    assert same.shape == (1,)


@given(st.binary(min_size=1, max_size=60))
@in_one_folder
def test_noise_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError):
        read_bin(written(tmp_path, data))


def test_small_files_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, with_item(b"U\x01xr\xff\xff\xff\xffj\xff\xff\xff\xfe"), "not kept")  # a memo of 64 GB
    refused(tmp_path, with_item(b"\x8e" + b"\xff" * 8), "cut off")
    refused(tmp_path, with_item(b"T" + b"\xff" * 4), "cut off")
    text = b"X\xe8\x03\x00\x00" + b"y" * 1000 + b"q\x00X\x06\x00\x00\x00latin1\x86q\x01q\x03"
    encodes = b"c_codecs\nencode\nq\x02h\x01R" + b"h\x02h\x01R" * 50
    refused(tmp_path, with_item(text + encodes), "more bytes than the file")
    laughs = b"]q\x00(" + b"".join(b"](" + b"h\x00" * 10 + b"eq\x00" for _ in range(40)) + b"e"
    refused(tmp_path, with_item(laughs), "image 0 is a list")
    refused(tmp_path, with_item(laughs + b"\x85cnumpy\ndtype\nh\x00R"))
    monkeypatch.setattr(plain_pickle, "MAX_STEPS", 100)
    refused(tmp_path, with_item(b"N" * 200), "more than 100")


def test_size_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(tmp_path, b"", "0 bytes")
    data = pickle.dumps((IMAGES, SAME))
    monkeypatch.setattr(verification_bin, "MAX_BYTES", len(data))
    assert read_bin(written(tmp_path, data))[0] == IMAGES
    refused(tmp_path, data + b"x", f"{len(data) + 1} bytes")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "set.bin"
    write_bin(path, [(b"a", b"b", True)])
    before = path.read_bytes()
    with pytest.raises(InputError, match="no pairs"):
        write_bin(path, [])

    def broken() -> Any:
        yield b"a", b"b", True
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bin(path, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_instructions_agree_with_pickletools() -> None:
    """Each instruction is one that Python knows, and none of them is one that builds foreign objects."""
    import pickletools

    known = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
    names = {known[code] for code in plain_pickle.STEPS}
    builders = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4"}
    assert not names & builders
    used = itertools.chain.from_iterable(
        (opcode.code.encode("latin-1") for opcode, _, _ in pickletools.genops(pickle.dumps((IMAGES, SAME), protocol)))
        for protocol in PROTOCOLS
    )
    assert set(used) <= plain_pickle.STEPS.keys() | {b"."}
