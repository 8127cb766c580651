"""Architectures: validation with its text, and the walk against the built network."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import example, given
from torch import Tensor, nn

from mobileface.arch import (
    MAX_CHANNELS,
    MAX_STAGES,
    Arch,
    SEMobileFaceNet,
    Stage,
    arch_from_dict,
)
from mobileface.errors import InputError
from mobileface.models.blocks import FeatureQuality
from mobileface.models.iresnet import ResidualUnit
from mobileface.models.mobilefacenet import Bottleneck
from mobileface.zoo import ZOO
from tests.strategies import ODD, ZOO_NAMES, archs, examples, iresnets, lgafs, unfilled

ROW: dict[str, Any] = {"hidden": 8, "width": 4, "depth": 2, "stride": 2}
PLAIN: dict[str, Any] = {"name": "p", "stem": 4, "head": 8, "embedding_dim": 5, "stages": [ROW]}


def refused(data: Any) -> str:
    with pytest.raises(InputError) as caught:
        arch_from_dict(data, "here")
    return str(caught.value)


# -- validation


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("stem", 0, "stem is 0, wanted a whole number from 1 to 8192"),
        ("stem", -3, "stem is -3, wanted a whole number from 1 to 8192"),
        ("stem", True, "stem is True, wanted a whole number"),
        ("stem", 8.0, "stem is 8.0, wanted a whole number"),
        ("stem", "8", "stem is '8', wanted a whole number"),
        ("stem", None, "stem is None, wanted a whole number"),
        ("stem", [8], "stem is a list, wanted a whole number"),
        ("head", MAX_CHANNELS + 1, "head is 8193, wanted a whole number from 1 to 8192"),
        ("embedding_dim", float("nan"), "embedding_dim is nan, wanted a whole number"),
        ("activation", "relu", "activation is 'relu', wanted one of prelu, leaky_relu, hard_swish"),
        ("stem_depthwise", 1, "stem_depthwise is 1, wanted one of True, False"),
        ("stem_depthwise", "no", "stem_depthwise is 'no', wanted one of True, False"),
        ("name", "", "name is '', wanted 1 to 100 printable characters"),
        ("name", "n" * 101, "wanted 1 to 100 printable characters"),
        ("name", "a\nb", r"name is 'a\nb', wanted 1 to 100 printable characters"),
        ("name", {"a": 1}, "name is a dict, wanted 1 to 100 printable characters"),
        ("stages", [], "number of stages is 0, wanted a whole number from 1 to 64"),
        ("stages", [ROW] * (MAX_STAGES + 1), "number of stages is 65, wanted"),
        ("stages", [{**ROW, "depth": 512}] * 5, "number of blocks is 2560, wanted a whole number from 1 to 2048"),
        ("stages", "abc", "stages is str, wanted a list of rows"),
        ("stages", [7], "stages.0: is int, wanted a table"),
        (
            "family",
            "iresnett",
            "family 'iresnett' is not known (did you mean 'iresnet'?); known: se_mobilefacenet, iresnet, lgaf",
        ),
        ("family", [1], "family a list is not known"),
        ("heads", 8, "unknown key 'heads' (did you mean 'head'?); known: name, stem, stages"),
        ("embeding_dim", 8, "(did you mean 'embedding_dim'?)"),
        ("zzz", 8, "unknown key 'zzz'; known: "),
        (5, 8, "unknown key 5; known: "),
    ],
)
def test_bad_architectures_are_refused_by_name(key: Any, value: Any, text: str) -> None:
    message = refused({**PLAIN, key: value})
    assert message.startswith("here: ")
    assert text in message


def test_what_is_huge_is_shown_short() -> None:
    assert "stem is a number of 16610 bits, wanted" in refused({**PLAIN, "stem": 10**5000})
    assert len(refused({**PLAIN, "activation": "x" * 10**6})) < 300
    assert len(refused({**PLAIN, "k" * 10**6: 1})) < 400
    assert len(refused({**PLAIN, "family": "x" * 10**6})) < 300


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("depth", 0, "depth is 0, wanted a whole number from 1 to 512"),
        ("depth", 513, "depth is 513, wanted a whole number from 1 to 512"),
        ("width", True, "width is True, wanted a whole number"),
        ("stride", 3, "stride is 3, wanted one of 1, 2"),
        ("stride", 1.0, "stride is 1.0, wanted one of 1, 2"),
        ("stride", True, "stride is True, wanted one of 1, 2"),
        ("stride", [2], "stride is a list, wanted one of 1, 2"),
        ("kernel", 7, "kernel is 7, wanted one of 3, 5"),
        ("se", 1, "se is 1, wanted one of True, False"),
        ("hidden", -1, "hidden is -1, wanted a whole number from 1 to 8192"),
        ("hidden", [8], "hidden has 1 numbers for 2 blocks; give one for each"),
        ("hidden", [8, 0], "hidden is 0, wanted a whole number"),
        ("hidden", [8, [8]], "hidden is a list, wanted a whole number"),
        ("hidden", "88", "hidden is '88', wanted a whole number"),
        ("strid", 1, "unknown key 'strid' (did you mean 'stride'?)"),
    ],
)
def test_bad_rows_are_refused_by_name(key: str, value: Any, text: str) -> None:
    message = refused({**PLAIN, "stages": [{**ROW, key: value}]})
    assert message.startswith("here: ")
    assert text in message


def test_missing_keys_are_named() -> None:
    assert refused({k: v for k, v in PLAIN.items() if k != "head"}) == "here: 'head' is missing"
    row = {k: v for k, v in ROW.items() if k != "stride"}
    assert refused({**PLAIN, "stages": [ROW, row]}) == "here: stages.1: 'stride' is missing"
    assert refused({k: v for k, v in PLAIN.items() if k != "stages"}).startswith("here: stages is NoneType")
    assert refused([PLAIN]) == "here: is list, wanted a table with the keys of an architecture"


def test_reading_leaves_its_data_alone() -> None:
    data = {**PLAIN, "family": "se_mobilefacenet", "stages": [dict(ROW)]}
    before = json.dumps(data)
    assert arch_from_dict(data) == SEMobileFaceNet("p", 4, (Stage(8, 4, 2, 2),), 8, 5)
    assert json.dumps(data) == before


# -- the walk and the network


def leaves(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules without children; a quality counts as one, statistics and all."""
    inside = [id(part) for q in net.modules() if isinstance(q, FeatureQuality) for part in list(q.modules())[1:]]
    found = [(name, part) for name, part in net.named_modules() if id(part) not in inside]
    return [(n, part) for n, part in found if isinstance(part, FeatureQuality) or not list(part.children())]


def is_residual(part: nn.Module) -> bool:
    return isinstance(part, ResidualUnit) or (isinstance(part, Bottleneck) and part.residual)


def shapes_of(channels: int, grid: int) -> list[tuple[int, ...]]:
    """Of one image's map; a map of one place may be a vector."""
    return [(1, channels, grid, grid), (1, channels)] if grid == 1 else [(1, channels, grid, grid)]


def walk_matches_network(arch: Arch) -> None:
    """Names in order, channels, and the maps that hooks see."""
    net, image = unfilled(arch)
    walked = [(f"{name}.{la.name}", la) for block in arch.walk() for name in block.names() for la in block.layers]
    built = leaves(net)
    assert [name for name, _ in walked] == [name for name, _ in built]
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def note(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes.append((tuple(inputs[0].shape), tuple(output.shape)))

    for _, part in built:
        part.register_forward_hook(note)
    blocks = {name: block for block in arch.walk() for name in block.names()}
    behind: dict[nn.Module, tuple[int, ...]] = {}
    for name in blocks:
        net.get_submodule(name).register_forward_hook(lambda part, _, output: behind.update({part: output.shape}))
    with torch.inference_mode():
        net(image)
    assert len(shapes) == len(walked)  # each is used once, in this order
    for (name, layer), (before, after) in zip(walked, shapes, strict=True):
        assert after in shapes_of(layer.outputs, layer.grid), name
        assert before[1] == layer.inputs, name
    for name, block in blocks.items():
        part = net.get_submodule(name)
        assert is_residual(part) == block.residual, name
        assert tuple(behind[part]) in shapes_of(behind[part][1], block.grid), name


@pytest.mark.parametrize("name", ZOO_NAMES)
def test_walk_is_the_network_of_each_zoo_entry(name: str) -> None:
    walk_matches_network(ZOO[name])


@examples(30)
@given(archs() | iresnets() | lgafs())
@example(ODD)
def test_walk_is_the_network_of_random_members(arch: Arch) -> None:
    walk_matches_network(arch)


@examples(100)
@given(archs())
@example(ODD)
def test_equal_neighbours_are_one_block(arch: Arch) -> None:
    """Multiplicities give every block once; only equal residual blocks share a run."""
    names = [name for block in arch.walk() for name in block.names()]
    assert len(names) == len(set(names))
    wanted = [f"stages.{s}.{b}" for s, stage in enumerate(arch.stages) for b in range(stage.depth)]
    assert [name for name in names if name.startswith("stages.")] == wanted
    for block in arch.walk():
        assert block.repeat == len(block.names())
        assert block.repeat == 1 or block.residual


def test_the_walk_of_mobilefacenet_is_the_table_of_its_paper() -> None:
    """Operator, output side and channels as MobileFaceNets prints them, one stage a row."""
    last = {block.stage: block for block in ZOO["mobilefacenet"].walk()}
    rows = [(stage, block.layers[-1].grid, block.layers[-1].outputs) for stage, block in last.items()]
    assert rows == [
        ("stem", 56, 64),
        ("stages.0", 28, 64),
        ("stages.1", 28, 64),
        ("stages.2", 14, 128),
        ("stages.3", 14, 128),
        ("stages.4", 7, 128),
        ("stages.5", 7, 128),
        ("head", 7, 512),
        ("gdc", 1, 512),
        ("embedding", 1, 128),
    ]
