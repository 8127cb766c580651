"""Any Core ML package with an ML Program as an embedder: on macOS by Apple's runtime, elsewhere interpreted."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mobileface.embedders.contract import InputContract
from mobileface.embedders.coreml_package import Package, quiet, read_package
from mobileface.embedders.coreml_program import Program
from mobileface.embedders.file import CONTRACT_KEY, FileEmbedder, Outputs, stored_contract
from mobileface.errors import InputError, one_line


class CoreMLEmbedder(FileEmbedder):
    """See `FileEmbedder`. Images are run one by one.

    An input of type image takes pixels in 0..255, in the order of colours that it states; its scale and bias are
    operations of the program. For an array as input `contract` says what to feed, None: the one in the metadata. On
    macOS Core ML itself runs it, with all of the device's compute units, unless `interpreted`. `threads` None means all
    cores, of the interpreter. Raises InputError for a missing, damaged or unfitting package.
    """

    libraries: tuple[str, ...] = ("coremltools", "torch", "numpy")

    def __init__(
        self,
        path: Path,
        contract: InputContract | None = None,
        threads: int | None = None,
        interpreted: bool = False,
    ) -> None:
        package = read_package(path)
        stored = dict(package.specification.description.metadata.userDefined).get(CONTRACT_KEY)
        self._input = _read_input(package)
        contract = _contract(path, self._input, contract, stored)
        if threads is not None:
            torch.set_num_threads(threads)
        real = platform.system() == "Darwin" and not interpreted
        self._runtime: Runtime = Apple(path) if real else Interpreter(package)
        super().__init__(path, package.sha256, contract, 1, stored is not None)

    def _run(self, images: NDArray[np.uint8]) -> Outputs:
        if self._input.image:
            return self._runtime.run(self._input.name, self._runtime.image(images[0], self._input.color))
        return self._runtime.run(self._input.name, self.contract.normalise(images))


@dataclass(frozen=True)
class Input:
    """The input's name, whether it is an image, and then the order of its colours: rgb or bgr."""

    name: str
    image: bool
    color: str = "rgb"


class Runtime(Protocol):
    """What executes a package."""

    def image(self, image: NDArray[np.uint8], color: str) -> Any:
        """RGB (112, 112, 3) as the runtime takes it for an input of type image."""

    def run(self, name: str, value: Any) -> dict[str, NDArray[Any]]:
        """Outputs by name, for one input."""


class Interpreter:
    """The program executed by torch; see `coreml_program`."""

    def __init__(self, package: Package) -> None:
        self._program = Program(package)

    def image(self, image: NDArray[np.uint8], color: str) -> NDArray[np.float32]:
        """Pixels 0..255 (1, 3, 112, 112), channels in that order."""
        return InputContract(color=color).normalise(image[None])

    def run(self, name: str, value: Any) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        return self._program({name: value})


class Apple:
    """Core ML itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with quiet():
                import coremltools

                self._model = coremltools.models.MLModel(str(path))
        except Exception as error:  # of no documented type
            raise InputError(f"{path}: cannot be loaded by Core ML ({one_line(error)})") from None

    def image(self, image: NDArray[np.uint8], color: str) -> Any:
        """An image; Core ML itself puts its channels into the order that the package states."""
        from PIL import Image

        return Image.fromarray(image)

    def run(self, name: str, value: Any) -> dict[str, NDArray[Any]]:
        """Outputs by name."""
        try:
            found = self._model.predict({name: value})
        except Exception as error:  # of no documented type
            raise InputError(f"{self._path}: does not run on Core ML ({one_line(error)})") from None
        return {output: np.asarray(array) for output, array in found.items()}


def _read_input(package: Package) -> Input:
    """The package's only input. InputError if it takes no such images."""
    inputs = package.specification.description.input
    if len(inputs) != 1:
        raise InputError(f"{package.path}: has {len(inputs)} inputs {[i.name for i in inputs]}, wanted one for images")
    [entry] = inputs
    if entry.type.WhichOneof("Type") == "imageType":
        image = entry.type.imageType
        colors = {image.RGB: "rgb", image.BGR: "bgr"}
        if (image.width, image.height) != (112, 112) or image.colorSpace not in colors:
            found = f"{image.width}x{image.height} of colour space {image.colorSpace}"
            raise InputError(f"{package.path}: input {entry.name!r} is an image {found}, wanted 112x112 RGB or BGR")
        return Input(entry.name, True, colors[image.colorSpace])
    if entry.type.WhichOneof("Type") != "multiArrayType":
        raise InputError(f"{package.path}: input {entry.name!r} is no image and no array, wanted one of them")
    return Input(entry.name, False)


def _contract(path: Path, entry: Input, given: InputContract | None, stored: str | None) -> InputContract:
    """What the input wants to be fed. InputError where an image is to be fed other than plain pixels."""
    if not entry.image:
        return given or stored_contract(path, stored)
    contract = given or (InputContract() if stored is None else stored_contract(path, stored))
    if replace(contract, flip="sum") != InputContract():
        raise InputError(
            f"{path}: takes an image, pixels in 0..255, wanted no scale, mean, std, layout or colour order"
        )
    return contract
