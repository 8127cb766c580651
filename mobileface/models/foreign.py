"""State dicts of public codes, renamed into ours; what a network was fed is folded into its first convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mobileface.arch import MAX_CHANNELS, Arch, Layer
from mobileface.arch.checks import shown
from mobileface.errors import InputError

FIRST = "stem.conv.weight"
MIDDLE = 127.5  # what our networks subtract from a pixel and divide by (`models.network.normalised`)
COUNTER = "num_batches_tracked"  # the one tensor that a file may lack: PyTorch writes it since 0.4.1
FLOATS = (torch.float32, torch.float16, torch.bfloat16)  # float32 holds each of them exactly


@dataclass(frozen=True)
class Names:
    """What a public code calls the modules of an architecture of ours.

    whole: our module -> theirs, outside of the stages. places: by stage, what stands before the layers of a unit;
    {unit} counts within the stage, {index} over all stages. unit: layer of a unit -> theirs. linear: theirs that
    gives the embedding, with a weight (D, values) where ours may be a 1x1 convolution.
    """

    whole: Mapping[str, str]
    places: tuple[str, ...]
    unit: Mapping[str, str]
    linear: str


@dataclass(frozen=True)
class Kind:
    """A public release: its architecture, its names, and what it was fed: (x - 127.5) / std, x in 0..255.

    color: "rgb" | "bgr", the order of its input channels. The embedding is as wide as the file says, not the `arch`.
    """

    arch: Arch
    names: Names
    color: str
    std: float = MIDDLE


class Slot(NamedTuple):
    """A tensor of ours, and the shape that it has in the file."""

    name: str
    shape: tuple[int, ...]
    there: tuple[int, ...]


class Misfit(NamedTuple):
    """What a file has too little, too much and in other shapes; all empty where it fits."""

    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]


def fitted(kind: Kind, found: Mapping[str, Tensor]) -> Arch:
    """The kind's architecture with the embedding's width of the file, where that can be read."""
    weight = found.get(f"{kind.names.linear}.weight")
    if weight is None or weight.ndim != 2 or not 1 <= len(weight) <= MAX_CHANNELS:
        return kind.arch
    return replace(kind.arch, embedding_dim=len(weight))


def slots(arch: Arch, names: Names) -> dict[str, Slot]:
    """Name of each tensor in the file -> ours. KeyError for a layer that `names` does not know."""
    found = {}
    for module, there, layer in _modules(arch, names):
        for leaf, shape in shapes(layer).items():
            flat = shape[:2] if there == names.linear else shape
            found[f"{there}.{leaf}"] = Slot(f"{module}.{leaf}", shape, flat)
    return found


def _modules(arch: Arch, names: Names) -> Iterator[tuple[str, str, Layer]]:
    """(our module, theirs, its layer) for each layer that has tensors."""
    index = -1
    for block in arch.walk():
        for number, name in enumerate(block.names(), block.first or 0):
            place = ""
            if block.first is not None:
                index += 1
                place = names.places[int(block.prefix.split(".")[1])].format(unit=number, index=index)
            for layer in block.layers:
                if shapes(layer):
                    module = f"{name}.{layer.name}"
                    yield module, place + names.unit[layer.name] if place else names.whole[module], layer


def shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """The tensors that a module of this layer keeps, by name: parameters and running statistics."""
    width = (layer.outputs,)
    if layer.kind in ("conv", "linear"):
        kernel = (layer.kernel, layer.kernel) if layer.kind == "conv" else ()
        return {"weight": (*width, layer.inputs // layer.groups, *kernel), **({"bias": width} if layer.bias else {})}
    if layer.kind.endswith("_norm"):
        learned = {} if layer.kind == "plain_norm" else {"weight": width, "bias": width}
        return {**learned, "running_mean": width, "running_var": width, COUNTER: ()}
    return {"weight": width} if layer.kind == "prelu" else {}


def misfit(kind: Kind, found: Mapping[str, Tensor]) -> Misfit:
    """Hold names and shapes of a file against a kind; the numbers in it are not looked at."""
    wanted = slots(fitted(kind, found), kind.names)
    return Misfit(
        [name for name in wanted if name not in found and not name.endswith(COUNTER)],
        [name for name in found if name not in wanted],
        [name for name, slot in wanted.items() if name in found and found[name].shape != slot.there],
    )


def convert(kind: Kind, found: Mapping[str, Tensor], source: str) -> tuple[Arch, dict[str, Tensor]]:
    """(architecture, state dict of ours) from a file that fits; its tensors are copied, to float32.

    The network computes what theirs did, on RGB in 0..255. What it was fed, (x - 127.5) / std, is what ours are fed
    times 127.5 / std, so that this factor on the first weights does it, and for BGR their order. It is exact at the
    borders too: with the same mean, a zero of the padding stands for the same grey in both. The weight of
    InsightFace's last batch norm, frozen at 1, is kept like any other: our layer multiplies by what is there.
    InputError for a value that is not finite, a negative variance, and types that float32 does not hold.
    """
    arch = fitted(kind, found)
    state = {}
    for name, slot in slots(arch, kind.names).items():
        value = found[name] if name in found else torch.zeros((), dtype=torch.int64)
        state[slot.name] = _checked(value, name, source).reshape(slot.shape)
    first = state[FIRST].flip(1) if kind.color == "bgr" else state[FIRST]
    state[FIRST] = (first.double() * (MIDDLE / kind.std)).float()
    return arch, state


def _checked(value: Tensor, name: str, source: str) -> Tensor:
    """A copy in float32 (or of a counter)."""
    counts = name.endswith(COUNTER)
    if value.dtype not in ((torch.int64,) if counts else FLOATS):
        wanted = "int64" if counts else "float32, float16 or bfloat16"
        raise InputError(f"{source}: {shown(name)} is of type {value.dtype}, wanted {wanted}")
    if not torch.isfinite(value).all():
        raise InputError(f"{source}: {shown(name)} holds a NaN or an infinity, wanted finite weights")
    if name.endswith("running_var") and (value < 0).any():
        raise InputError(f"{source}: {shown(name)} holds a negative variance")
    kept = value.detach().clone(memory_format=torch.contiguous_format)
    return kept if counts else kept.float()
