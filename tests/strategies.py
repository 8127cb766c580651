"""Random architectures, small enough to build and run in milliseconds."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from torch import Tensor, nn

from mobileface.arch import ACTIVATIONS, LGAF, Arch, IResNet, SEMobileFaceNet, Stage
from mobileface.models.build import network
from mobileface.zoo import ZOO
from search.cost import cost


def examples(count: int) -> settings:
    """So many random examples, however busy the machine is."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# the whole zoo for parametrize, its large networks among the slow tests
ZOO_NAMES = [pytest.param(n, marks=[pytest.mark.slow] if cost(arch).macs > 1e9 else []) for n, arch in ZOO.items()]


def unfilled(arch: Arch) -> tuple[nn.Module, Tensor]:
    """The network in eval mode and a black image; a large one on torch's meta device, where nothing is computed."""
    with torch.device("meta" if cost(arch).macs > 1e9 else "cpu"):
        return network(arch).eval(), torch.zeros(1, 3, 112, 112)


CHANNELS = st.integers(1, 24)
WIDTHS = st.sampled_from([1, 6, 8, 17, 32])  # few, so that neighbouring rows are often equal; 32: SE with two inside


@st.composite
def stages(draw: DrawFn, max_depth: int = 3) -> Stage:
    """A row; its hidden width is one number, or one for each block as after pruning."""
    depth = draw(st.integers(1, max_depth))
    each = st.lists(st.sampled_from([3, 5, 16]), min_size=depth, max_size=depth).map(tuple)
    hidden = draw(CHANNELS | each)
    stride, kernel = draw(st.sampled_from([1, 2])), draw(st.sampled_from([3, 5]))
    return Stage(hidden, draw(WIDTHS), depth, stride, kernel, draw(st.booleans()))


def archs(max_stages: int = 5, max_depth: int = 3) -> SearchStrategy[SEMobileFaceNet]:
    """Members of the design space. From the fourth reduction on, maps have odd sides (7, 4, 2, 1)."""
    rows = st.lists(stages(max_depth), min_size=1, max_size=max_stages).map(tuple)
    return st.builds(
        SEMobileFaceNet,
        st.just("random"),
        stem=CHANNELS | WIDTHS,
        stages=rows,
        head=CHANNELS,
        embedding_dim=CHANNELS,
        stem_depthwise=st.booleans(),
        activation=st.sampled_from(ACTIVATIONS),
    )


# local_features, global_features, attention
ABLATIONS = ((True, False, False), (False, True, False), (True, True, False), (True, True, True))


def trunks() -> dict[str, SearchStrategy[Any]]:
    """The fields that IR-ResNet and LGAF share; widths are few, so that neighbours are often equal."""
    return {
        "depths": st.tuples(*[st.integers(1, 2)] * 4),
        "widths": st.tuples(*[st.sampled_from([1, 4, 6, 9])] * 4),
        "embedding_dim": st.integers(1, 12),
        "shortcut": st.sampled_from(["conv", "subsample"]),
        "dropout": st.sampled_from([0.0, 0.4]),
        "last_norm": st.sampled_from(["bias", "plain"]),
        "eps": st.sampled_from([1e-5, 2e-5]),
    }


def iresnets() -> SearchStrategy[IResNet]:
    """Small IR-ResNets of all conventions."""
    return st.builds(IResNet, st.just("random"), **trunks())


@st.composite
def lgafs(draw: DrawFn) -> LGAF:
    """Small LGAFs of all settings that go together: those that nothing reads stay at their defaults."""
    settings = {key: draw(strategy) for key, strategy in trunks().items()}
    local_features, global_features, attention = draw(st.sampled_from(ABLATIONS))
    if local_features:
        dim = settings["embedding_dim"]
        settings["heads"] = draw(st.sampled_from([heads for heads in range(1, dim + 1) if dim % heads == 0]))
        settings["lanet"] = draw(st.sampled_from(["map", "printed"]))
    if not global_features:
        del settings["dropout"], settings["last_norm"]
    if attention:
        settings["fusion"] = draw(st.sampled_from(["add", "concat", "iaff"]))
    if attention and settings["fusion"] != "iaff":
        settings["quality"] = draw(st.sampled_from(["energy", "entropy"]))
    ablation = {"local_features": local_features, "global_features": global_features, "attention": attention}
    return LGAF("random", **settings, **ablation)


def only_global(arch: LGAF) -> LGAF:
    """The same without all that makes it an LGAF."""
    off = dict.fromkeys(("local_features", "attention"), False)
    return LGAF(**dataclasses.asdict(arch.plain()), **off)


# All that the paper's tables compare, and our settings beside them; the first is the paper's.
LGAF_SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {},
    "local": {"global_features": False, "attention": False},
    "local-printed": {"global_features": False, "attention": False, "lanet": "printed"},
    "global": {"local_features": False, "attention": False},
    "sum": {"attention": False},
    "entropy": {"quality": "entropy"},
    "concat": {"fusion": "concat"},
    "concat-entropy": {"fusion": "concat", "quality": "entropy"},
    "iaff": {"fusion": "iaff"},
    "printed": {"lanet": "printed"},
    "b=2": {"heads": 2},
    "b=8": {"heads": 8},
    "b=16": {"heads": 16},
    "adaface": {"shortcut": "subsample", "dropout": 0.4, "last_norm": "plain", "eps": 2e-5},
}


# Those that together hold every operator of LGAF: what an exporter sees of the others is there as well.
LGAF_OPERATORS = ("local-printed", "concat-entropy", "iaff", "b=2", "adaface")


def lgaf_setting(name: str) -> LGAF:
    """`lgaf-micro` with one of LGAF_SETTINGS."""
    micro = ZOO["lgaf-micro"]
    assert isinstance(micro, LGAF)
    return dataclasses.replace(micro, name=name, **LGAF_SETTINGS[name])


# Odd maps, a reduction of a 1x1 map, pruned rows: what random members seldom show.
ODD = SEMobileFaceNet(
    "odd",
    9,
    (
        Stage((4, 7), 9, 2, 2, 5),  # 28x28
        Stage(6, 9, 3, 2, 3, se=False),  # 14x14
        Stage(5, 16, 1, 2),  # 7x7
        Stage((8, 8, 3), 16, 3, 2, 5),  # 4x4
        Stage(8, 33, 1, 2),  # 2x2
        Stage(8, 33, 2, 2),  # 1x1
        Stage(8, 33, 2, 2, 5),  # 1x1 again
    ),
    13,
    11,
    stem_depthwise=True,
    activation="hard_swish",
)
