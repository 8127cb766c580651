"""Public releases of weights that can be imported: one row each, from the definitions in their public codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mobileface.arch import Arch
from mobileface.arch.checks import shown
from mobileface.errors import InputError, nearest
from mobileface.models.foreign import Kind, Names, convert, fitted, misfit, slots
from mobileface.models.foreign_file import read_state_dict
from mobileface.zoo import ZOO

# deepinsight/insightface, recognition/arcface_torch/backbones/iresnet.py
ARCFACE = Names(
    whole={
        "stem.conv": "conv1",
        "stem.bn": "bn1",
        "stem.act": "prelu",
        "norm.bn": "bn2",
        "head.linear": "fc",
        "head.bn": "features",
    },
    places=("layer1.{unit}.", "layer2.{unit}.", "layer3.{unit}.", "layer4.{unit}."),
    unit={
        "norm": "bn1",
        "first.conv": "conv1",
        "first.bn": "bn2",
        "first.act": "prelu",
        "second.conv": "conv2",
        "second.bn": "bn3",
        "shortcut.conv": "downsample.0",
        "shortcut.bn": "downsample.1",
    },
    linear="fc",
)
# mk-minchul/AdaFace, net.py; Tencent/TFace, recognition/torchkit/backbone/model_irse.py
ADAFACE = Names(
    whole={
        "stem.conv": "input_layer.0",
        "stem.bn": "input_layer.1",
        "stem.act": "input_layer.2",
        "norm.bn": "output_layer.0",
        "head.linear": "output_layer.3",
        "head.bn": "output_layer.4",
    },
    places=("body.{index}.",) * 4,
    unit={
        "norm": "res_layer.0",
        "first.conv": "res_layer.1",
        "first.bn": "res_layer.2",
        "first.act": "res_layer.3",
        "second.conv": "res_layer.4",
        "second.bn": "res_layer.5",
        "shortcut.conv": "shortcut_layer.0",
        "shortcut.bn": "shortcut_layer.1",
    },
    linear="output_layer.3",
)
# TreB1eN/InsightFace_Pytorch, model.py, and its many copies
MOBILEFACENET = Names(
    whole={
        "stem.conv": "conv1.conv",
        "stem.bn": "conv1.bn",
        "stem.act": "conv1.prelu",
        "stem_depthwise.conv": "conv2_dw.conv",
        "stem_depthwise.bn": "conv2_dw.bn",
        "stem_depthwise.act": "conv2_dw.prelu",
        "head.conv": "conv_6_sep.conv",
        "head.bn": "conv_6_sep.bn",
        "head.act": "conv_6_sep.prelu",
        "gdc.conv": "conv_6_dw.conv",
        "gdc.bn": "conv_6_dw.bn",
        "embedding.conv": "linear",
        "embedding.bn": "bn",
    },
    places=("conv_23.", "conv_3.model.{unit}.", "conv_34.", "conv_4.model.{unit}.", "conv_45.", "conv_5.model.{unit}."),
    unit={
        "expand.conv": "conv.conv",
        "expand.bn": "conv.bn",
        "expand.act": "conv.prelu",
        "depthwise.conv": "conv_dw.conv",
        "depthwise.bn": "conv_dw.bn",
        "depthwise.act": "conv_dw.prelu",
        "project.conv": "project.conv",
        "project.bn": "project.bn",
    },
    linear="linear",
)


def _arcface(depth: int) -> Kind:
    return Kind(replace(ZOO[f"iresnet{depth}"], name=f"arcface-iresnet{depth}"), ARCFACE, "rgb")


def _mxnet(depth: int) -> Kind:
    """nizhib/pytorch-insightface: InsightFace's mxnet models with PyTorch's names; divided by 128, eps 2e-5."""
    changes = {"name": f"mxnet-iresnet{depth}", "eps": 2e-5, "dropout": 0.4}
    return Kind(replace(ZOO[f"iresnet{depth}"], **changes), ARCFACE, "rgb", std=128.0)


def _adaface(name: str, depth: int) -> Kind:
    changes = {"name": name, "shortcut": "subsample", "dropout": 0.4, "last_norm": "plain"}
    return Kind(replace(ZOO[f"iresnet{depth}"], **changes), ADAFACE, "bgr")


_KINDS = (
    _adaface("adaface-ir18", 18),
    _adaface("adaface-ir34", 34),
    _adaface("adaface-ir50", 50),
    _adaface("adaface-ir101", 100),
    _arcface(18),
    _arcface(34),
    _arcface(50),
    _arcface(100),
    _arcface(200),
    _mxnet(34),
    _mxnet(50),
    _mxnet(100),
    # its training and test images are BGR, by way of cv2.imdecode (data/data_pipe.py)
    Kind(replace(ZOO["mobilefacenet"], name="mobilefacenet-y1"), MOBILEFACENET, "bgr"),
)
KINDS: dict[str, Kind] = {kind.arch.name: kind for kind in _KINDS}

# arcface_torch's mobilefacenet.py: 64 groups on 128 channels, where ours is depthwise
MBF, MBF_TENSOR = "arcface-mbf", "conv_sep.layers.0.weight"
NO_MBF = f"{MBF}: its second layer has groups of two channels, which no architecture here has; it cannot be imported"


def find_kind(name: str, color: str | None = None) -> Kind:
    """A row by its name, `color` in place of its own. InputError that names the nearest one."""
    if name == MBF:
        raise InputError(NO_MBF)
    if name not in KINDS:
        raise InputError(f"no kind is called {shown(name)}{nearest(name, KINDS)}; known: {', '.join(KINDS)}")
    if color not in (None, "rgb", "bgr"):
        raise InputError(f"color is {shown(color)}, wanted rgb or bgr")
    return KINDS[name] if color is None else replace(KINDS[name], color=color)


def read_release(path: Path, kind: Kind) -> tuple[Arch, dict[str, Tensor]]:
    """(architecture, state dict of ours) of a file. InputError that says what does not fit, and what it fits."""
    found = read_state_dict(path)
    wrong = misfit(kind, found)
    if any(wrong):
        parts = zip(("missing", "unexpected", "of another shape"), wrong, strict=True)
        counts = ", ".join(f"{len(names)} {what} (first {shown(names[0])})" for what, names in parts if names)
        raise InputError(f"{path}: is no {kind.arch.name}; tensors: {counts}; {_hint(kind, found)}")
    return convert(kind, found, str(path))


def _hint(asked: Kind, found: Mapping[str, Tensor]) -> str:
    """Which kind it is, else which is nearest by the share of names and shapes that agree."""
    if MBF_TENSOR in found:
        return NO_MBF
    shares = {name: _share(kind, found) for name, kind in KINDS.items()}
    best = max(shares, key=lambda name: shares[name])
    if fits := [name for name, share in shares.items() if share == 1]:
        return f"it fits --as {' or '.join(fits)}"
    if shares[best] == 0:
        return "it has the names of no known kind"
    if shares[best] == shares[asked.arch.name]:
        return f"no kind is nearer ({shares[best]:.1%} fit)"
    return f"nearest: --as {best} ({shares[best]:.1%} fit)"


def _share(kind: Kind, found: Mapping[str, Tensor]) -> float:
    """Of the names that a file or a kind has, how many both have with one shape; 1 only where the file fits."""
    if not any(misfit(kind, found)):
        return 1.0
    wanted = slots(fitted(kind, found), kind.names)
    same = sum(found[name].shape == slot.there for name, slot in wanted.items() if name in found)
    return same / len(wanted.keys() | found.keys())
