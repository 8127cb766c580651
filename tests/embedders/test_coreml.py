"""Core ML packages as embedders: images in, and packages that are damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract
from mobileface.embedders.coreml import CoreMLEmbedder
from mobileface.embedders.coreml_package import read_package
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from tests.embedders.coreml_packages import ct, mb, write

RANDOM = np.random.default_rng(0)


@pytest.fixture
def images() -> NDArray[np.uint8]:
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    images[..., 0] //= 2  # red, green and blue differ in their means
    images[..., 2] //= 4
    return images


def mean(input: Any) -> Any:
    """The mean of each channel: a (1, 3) embedding that shows what the program was fed."""
    return mb.reduce_mean(x=input, axes=[2, 3], name="out")


PIXELS = {"input": (1, 3, 112, 112)}


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_image_inputs(tmp_path: Path, images: NDArray[np.uint8], color: str) -> None:
    """Scale and bias become operations of the program; the order of colours is the input's."""
    image = ct.ImageType(
        name="input",
        shape=PIXELS["input"],
        scale=1 / 50,
        bias=[-1.0, 0.5, 2.0],
        color_layout=getattr(ct.colorlayout, color),
    )
    embedder = CoreMLEmbedder(write(tmp_path / "image.mlpackage", mean, PIXELS, inputs=[image]))
    channels = images.astype(np.float64).mean(axis=(1, 2))
    channels = channels if color == "RGB" else channels[:, ::-1]
    np.testing.assert_allclose(embedder(images), channels / 50 + [-1.0, 0.5, 2.0], rtol=1e-5)
    assert embedder.contract == InputContract()
    assert embedder(images[:0]).shape == (0, 3)
    with pytest.raises(InputError, match=r"takes an image, pixels in 0\.\.255, wanted no scale"):
        CoreMLEmbedder(embedder.path, InputContract(scale=255.0))


def test_array_inputs_need_a_contract(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "array.mlpackage", mean, PIXELS)
    contract = InputContract(200.0, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), color="bgr")
    embedder = open_embedder(path, contract, threads=1)
    channels = images.astype(np.float64).mean(axis=(1, 2))[:, ::-1]
    np.testing.assert_allclose(embedder(images), (channels / 200 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7], rtol=1e-5)
    assert (embedder.dim, embedder.contract, embedder.sha256) == (3, contract, read_package(path).sha256)
    with pytest.raises(InputError, match="does not say how its input is normalised"):
        CoreMLEmbedder(path)


def test_inputs_that_are_no_face(tmp_path: Path) -> None:
    wide = ct.ImageType(name="input", shape=(1, 3, 112, 96), color_layout=ct.colorlayout.RGB)
    path = write(tmp_path / "wide.mlpackage", mean, {"input": (1, 3, 112, 96)}, inputs=[wide])
    with pytest.raises(InputError, match=r"input 'input' is an image 96x112 of colour space 20, wanted 112x112"):
        CoreMLEmbedder(path)
    path = write(tmp_path / "two.mlpackage", lambda a, b: mb.add(x=a, y=b), {"a": (1, 3), "b": (1, 3)})
    with pytest.raises(InputError, match=r"has 2 inputs \['a', 'b'\], wanted one"):
        CoreMLEmbedder(path)
    path = write(
        tmp_path / "small.mlpackage", lambda x: mb.linear(x=x, weight=np.ones((5, 7), np.float32)), {"x": (1, 7)}
    )
    with pytest.raises(InputError, match=r"small\.mlpackage: linear .* does not run"):
        CoreMLEmbedder(path, InputContract())


def test_nan_is_named(tmp_path: Path, images: NDArray[np.uint8]) -> None:
    path = write(tmp_path / "log.mlpackage", lambda input: mb.log(x=mb.sub(x=mean(input), y=1e-3)), PIXELS)
    images[1] = 0
    with pytest.raises(InputError, match=r"log\.mlpackage: gives NaN or infinity for 1 of 3 images"):
        CoreMLEmbedder(path, InputContract())(images)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound package with a weight, to be damaged."""
    weight = RANDOM.normal(0, 1, (40, 3)).astype(np.float32)
    path = tmp_path_factory.mktemp("sound") / "net.mlpackage"
    return write(path, lambda input: mb.linear(x=mean(input), weight=weight, name="embedding"), PIXELS)


FOLDER = "Data/com.apple.CoreML"


def cut(path: Path, share: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((path / "Manifest.json").read_text())
    change(content)
    (path / "Manifest.json").write_text(json.dumps(content))


def point(path: Path, name: str, to: str) -> None:
    """Let the manifest's entry of this name point elsewhere."""

    def change(content: dict[str, Any]) -> None:
        for entry in content["itemInfoEntries"].values():
            entry["path"] = to if entry["name"] == name else entry["path"]

    manifest(path, change)


def respecify(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the specification."""
    specification = read_package(path).specification
    change(specification)
    (path / FOLDER / "model.mlmodel").write_bytes(specification.SerializeToString())


def far_weights(specification: Any) -> None:
    function = specification.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        value = operation.attributes.get("val")
        if value is not None and value.WhichOneof("value") == "blobFileValue":
            value.blobFileValue.offset = 1 << 40


def forget_main(specification: Any) -> None:
    specification.mlProgram.functions["other"].CopyFrom(specification.mlProgram.functions["main"])
    del specification.mlProgram.functions["main"]


def edit(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the operations of `main`."""

    def main(specification: Any) -> Any:
        function = specification.mlProgram.functions["main"]
        return change(function.block_specializations[function.opset])

    return lambda path: respecify(path, main)


def repeated(block: Any) -> None:
    """Two operations give one name."""
    block.operations.extend([block.operations[-1]])


def nested(block: Any) -> None:
    """What is not known, inside of what is."""
    block.operations[-1].blocks.add().operations.add().type = "fill"


def lost(block: Any) -> None:
    """The output is a constant."""
    [name] = [op.outputs[0].name for op in block.operations if "axes" in op.outputs[0].name]
    block.outputs[0] = name


def pipe(path: Path) -> None:
    """Whoever opens it waits for ever."""
    (path / FOLDER / "weights/weight.bin").unlink()
    os.mkfifo(path / FOLDER / "weights/weight.bin")


def second(path: Path) -> None:
    """A second entry for the model."""

    def change(content: dict[str, Any]) -> None:
        entries = content["itemInfoEntries"]
        entries["again"] = entries[content["rootModelIdentifier"]]

    manifest(path, change)


def many(path: Path) -> None:
    for number in range(1001):
        (path / f"folder{number}").mkdir()


def huge(specification: Any) -> None:
    function = specification.mlProgram.functions["main"]
    for side in function.inputs[0].type.tensorType.dimensions:
        side.constant.size = 1 << 20


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda p: (p / "Manifest.json").unlink(), "Manifest.json cannot be read"),
    "manifest cut": (lambda p: cut(p / "Manifest.json"), "Manifest.json cannot be read"),
    "manifest of depth": (lambda p: (p / "Manifest.json").write_text("[" * 100_000), "Manifest.json cannot be read"),
    "manifest a list": (lambda p: (p / "Manifest.json").write_text("[]"), "Manifest.json cannot be read"),
    "entries no objects": (lambda p: manifest(p, lambda c: c.update(itemInfoEntries={"a": 1})), "cannot be read"),
    "model outside": (lambda p: point(p, "model.mlmodel", "../../outside"), "names no root model that lies in"),
    "model at a root": (lambda p: point(p, "model.mlmodel", "/etc/passwd"), "names no root model that lies in"),
    "weights outside": (lambda p: point(p, "weights", "../.."), "names weights that do not lie in"),
    "model gone": (lambda p: (p / FOLDER / "model.mlmodel").unlink(), "names no root model that lies in"),
    "model empty": (lambda p: (p / FOLDER / "model.mlmodel").write_bytes(b""), "of type None, wanted an mlProgram"),
    "model cut": (lambda p: cut(p / FOLDER / "model.mlmodel"), "is no Core ML model"),
    "model a page": (lambda p: (p / FOLDER / "model.mlmodel").write_bytes(b"<html>no"), "is no Core ML model"),
    "another kind": (lambda p: respecify(p, lambda s: s.neuralNetwork.SetInParent()), "of type neuralNetwork, wanted"),
    "no function": (lambda p: respecify(p, forget_main), r"has the functions \['other'\], wanted one called main"),
    "weights gone": (lambda p: shutil.rmtree(p / FOLDER / "weights"), "is no ML Program that can be read"),
    "weights cut": (lambda p: cut(p / FOLDER / "weights/weight.bin"), "is no ML Program that can be read"),
    "weights a stub": (lambda p: cut(p / FOLDER / "weights/weight.bin", 0.01), "is no ML Program that can be read"),
    "weights empty": (lambda p: (p / FOLDER / "weights/weight.bin").write_bytes(b""), "is no ML Program that can"),
    "weights noise": (
        lambda p: (p / FOLDER / "weights/weight.bin").write_bytes(RANDOM.bytes(700)),
        "is no ML Program that can be read",
    ),
    "weights far away": (lambda p: respecify(p, far_weights), "is no ML Program that can be read"),
    "root nowhere": (lambda p: manifest(p, lambda c: c.update(rootModelIdentifier="x")), "Manifest.json cannot be"),
    "two models": (second, "Manifest.json cannot be read .two entries have one name"),
    "a pipe": (pipe, "holds .*weight.bin, no file and no folder, wanted files only"),
    "many folders": (many, "holds more than 1000 files"),
    "one name for two": (edit(repeated), "has two values called 'embedding', wanted a name for each"),
    "nested": (edit(nested), "linear holds operations of its own, wanted none"),
    "output a constant": (edit(lost), "output .*axes.* is not computed, wanted the result of an operation"),
    "another input": (
        lambda p: respecify(p, lambda s: setattr(s.description.input[0], "name", "photo")),
        r"is described to take \['photo'\], its program takes \['input'\]",
    ),
    "huge": (lambda p: respecify(p, huge), "is no ML Program|wanted at most"),
    "a link": (lambda p: (p / "link").symlink_to("/etc"), "holds a link, link, wanted files only"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_packages(tmp_path: Path, whole: Path, what: str) -> None:
    damage, message = DAMAGE[what]
    path = tmp_path / "net.mlpackage"
    shutil.copytree(whole, path)
    assert CoreMLEmbedder(path, InputContract()).dim == 40
    damage(path)
    with pytest.raises(InputError, match=rf"net\.mlpackage: .*({message})") as caught:
        open_embedder(path, InputContract())
    assert "\n" not in str(caught.value)


def test_what_is_no_package(tmp_path: Path, whole: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mlpackage: not found, wanted an \.mlpackage folder"):
        CoreMLEmbedder(tmp_path / "none.mlpackage")


def test_hash_is_of_what_the_package_means(tmp_path: Path, whole: Path) -> None:
    """Of every file, and of which is the model and where the weights are; not of the manifest's identifiers."""
    path = tmp_path / "net.mlpackage"
    shutil.copytree(whole, path)

    def rename(content: dict[str, Any]) -> None:
        names = {old: f"new {old}" for old in content["itemInfoEntries"]}
        content["itemInfoEntries"] = {names[old]: entry for old, entry in content["itemInfoEntries"].items()}
        content["rootModelIdentifier"] = names[content["rootModelIdentifier"]]

    digests = {read_package(whole).sha256}
    manifest(path, rename)
    assert {read_package(path).sha256} == digests
    weights = path / FOLDER / "weights/weight.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    digests.add(read_package(path).sha256)
    weights.rename(weights.with_name("other.bin"))
    digests.add(read_package(path).sha256)
    respecify(path, lambda specification: setattr(specification.description.metadata, "author", "another"))
    digests.add(read_package(path).sha256)
    shutil.copy(path / FOLDER / "model.mlmodel", path / FOLDER / "other.mlmodel")
    digests.add(read_package(path).sha256)
    point(path, "model.mlmodel", "com.apple.CoreML/other.mlmodel")
    digests.add(read_package(path).sha256)
    point(path, "weights", "com.apple.CoreML")
    digests.add(read_package(path).sha256)
    assert len(digests) == 7


def test_the_model_is_the_manifests_root(tmp_path: Path, whole: Path) -> None:
    """Another file that is named as models usually are is not taken."""
    path = tmp_path / "net.mlpackage"
    shutil.copytree(whole, path)

    def change(content: dict[str, Any]) -> None:
        entries = content["itemInfoEntries"]
        entries["other"] = {**entries[content["rootModelIdentifier"]], "path": "com.apple.CoreML/other.mlmodel"}
        entries[content["rootModelIdentifier"]]["name"] = "first.mlmodel"

    (path / FOLDER / "other.mlmodel").write_bytes(b"")
    manifest(path, change)
    assert CoreMLEmbedder(path, InputContract()).dim == 40


class FakeModel:
    """Stands for Core ML, which runs on macOS only; this says nothing of the real one."""

    fed: list[dict[str, Any]]

    def __init__(self, path: str) -> None:
        self.path, self.fed = path, []

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self.fed.append(inputs)
        if np.asarray(inputs["input"]).max() == 0:
            raise RuntimeError("no\ndevice")
        return {"embedding": np.float32([[0.6, 0.8]]), "quality": np.float32([5.0])}


def test_on_macos_the_real_runtime_is_used(
    tmp_path: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = ct.ImageType(name="input", shape=PIXELS["input"], color_layout=ct.colorlayout.BGR)
    path = write(tmp_path / "image.mlpackage", mean, PIXELS, inputs=[image])
    respecify(path, lambda s: s.description.metadata.userDefined.update({"mobileface.contract": "{}"}))
    plain = write(tmp_path / "array.mlpackage", mean, PIXELS)
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr(ct.models, "MLModel", FakeModel)
    embedder = CoreMLEmbedder(path)
    np.testing.assert_allclose(embedder(images), [[3, 4]] * 3, rtol=1e-6)
    model = embedder._runtime._model
    assert model.path == str(path)
    assert [np.asarray(fed["input"]).tolist() for fed in model.fed[1:]] == images.tolist()  # Core ML changes colours
    with pytest.raises(InputError, match=r"does not run on Core ML \(no device\)"):
        embedder(np.zeros_like(images))
    array = CoreMLEmbedder(plain, InputContract(scale=2.0))
    interpreted = CoreMLEmbedder(path, interpreted=True)
    np.testing.assert_allclose(interpreted(images), images.mean(axis=(1, 2))[:, ::-1], rtol=1e-5)
    assert array(images).shape == (3, 2)  # a foreign file's unit vectors stay
    np.testing.assert_array_equal(array._runtime._model.fed[1]["input"], InputContract(scale=2.0).normalise(images[:1]))

    def refuses(path: str) -> None:
        raise RuntimeError("of another\nmachine")

    monkeypatch.setattr(ct.models, "MLModel", refuses)
    with pytest.raises(InputError, match=r"cannot be loaded by Core ML \(of another machine\)"):
        CoreMLEmbedder(path)
