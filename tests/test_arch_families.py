"""IR-ResNets and LGAFs as data: what is refused, with its text, and what their walks hold."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.arch import FAMILIES, LGAF, Arch, IResNet, Layer, arch_from_dict
from mobileface.errors import InputError, one_line
from tests.strategies import archs, examples, iresnets, lgafs, only_global

PLAIN: dict[str, Any] = {"family": "iresnet", "name": "p", "depths": [1, 2, 1, 1], "widths": [4, 6, 8, 12]}
HEADED: dict[str, Any] = {**PLAIN, "family": "lgaf", "embedding_dim": 8}
LOCAL = {"global_features": False, "attention": False}
GLOBAL = {"local_features": False, "attention": False}
SUM, IAFF = {"attention": False}, {"fusion": "iaff"}
OTHERS: dict[str, list[Any]] = {
    "heads": [1, 2, 3, 4],
    "quality": ["energy", "entropy"],
    "fusion": ["add", "concat", "iaff"],
    "lanet": ["map", "printed"],
    "dropout": [0.0, 0.4],
    "last_norm": ["bias", "plain"],
}


def refused(data: Any) -> str:
    with pytest.raises(InputError) as caught:
        arch_from_dict(data, "here")
    message = str(caught.value)
    assert message.startswith("here: ")
    assert message == one_line(caught.value)
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("name", "", "name is '', wanted 1 to 100 printable characters"),
        ("depths", [1, 2, 1], "depths is 3 numbers, wanted a list of 4 whole numbers"),
        ("depths", [1, 2, 1, 0], "depths is 0, wanted a whole number from 1 to 512"),
        ("depths", [1, 2, 1, 513], "depths is 513, wanted a whole number from 1 to 512"),
        ("depths", [1, 2, 1, [1]], "depths is a list, wanted a whole number"),
        ("depths", "1234", "depths is '1234', wanted a list of 4 whole numbers"),
        ("depths", None, "depths is None, wanted a list of 4 whole numbers"),
        ("widths", [4, 6, 8, 8193], "widths is 8193, wanted a whole number from 1 to 8192"),
        ("widths", [4, 6, 8, True], "widths is True, wanted a whole number"),
        ("widths", [1] * 10**6, "widths is 1000000 numbers, wanted a list of 4"),
        ("embedding_dim", 10**1000, "embedding_dim is a number of 3322 bits, wanted"),
        ("shortcut", "maxpool", "shortcut is 'maxpool', wanted one of conv, subsample"),
        ("shortcut", ["conv"], "shortcut is a list, wanted one of conv, subsample"),
        ("dropout", 1, "dropout is 1, wanted a number from 0 to below 1"),
        ("dropout", -0.1, "dropout is -0.1, wanted a number"),
        ("dropout", float("nan"), "dropout is nan, wanted a number"),
        ("dropout", True, "dropout is True, wanted a number"),
        ("dropout", 10**1000, "dropout is a number of 3322 bits, wanted a number"),
        ("last_norm", "none", "last_norm is 'none', wanted one of bias, plain"),
        ("eps", 0, "eps is 0, wanted a number from 1e-12 to below 1"),
        ("eps", "1e-5", "eps is '1e-5', wanted a number from 1e-12"),
        ("depth", [1, 2, 1, 1], "unknown key 'depth' (did you mean 'depths'?)"),
        ("stages", [], "unknown key 'stages'"),
        ("heads", 4, "unknown key 'heads'"),
    ],
)
def test_bad_residual_networks_are_refused_by_name(key: str, value: Any, text: str) -> None:
    assert text in refused({**PLAIN, key: value})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"heads": 3}, "heads is 3, wanted a divisor of embedding_dim 8"),
        ({"heads": 16}, "heads is 16, wanted a divisor of embedding_dim 8"),
        ({"heads": 0}, "heads is 0, wanted a whole number from 1"),
        ({"quality": "norm"}, "quality is 'norm', wanted one of energy, entropy"),
        ({"heads": 65}, "heads is 65, wanted a whole number from 1 to 64"),
        ({"fusion": "sum"}, "fusion is 'sum', wanted one of add, concat, iaff"),
        ({"lanet": "gap"}, "lanet is 'gap', wanted one of map, printed"),
        ({"local_features": 1}, "local_features is 1, wanted one of True, False"),
        ({"attention": "yes"}, "attention is 'yes', wanted one of True, False"),
        ({"local_features": False}, "attention is True, wanted False without both local_features and global_features"),
        ({"global_features": False}, "attention is True, wanted False without both"),
        (
            {"local_features": False, "global_features": False, "attention": False},
            "local_features and global_features are False, wanted one of them or both",
        ),
        (SUM | {"fusion": "iaff"}, "fusion is 'iaff', wanted the default 'add': nothing reads it without attention"),
        (SUM | {"quality": "entropy"}, "quality is 'entropy', wanted the default 'energy': nothing reads it without"),
        (IAFF | {"quality": "entropy"}, "wanted the default 'energy': nothing reads it with fusion 'iaff'"),
        (GLOBAL | {"heads": 2}, "heads is 2, wanted the default 4: nothing reads it without local_features"),
        (GLOBAL | {"lanet": "printed"}, "wanted the default 'map': nothing reads it without local_features"),
        (LOCAL | {"dropout": 0.4}, "dropout is 0.4, wanted the default 0.0: nothing reads it without global_features"),
        (LOCAL | {"last_norm": "plain"}, "wanted the default 'bias': nothing reads it without global_features"),
        ({"depths": [1]}, "depths is 1 numbers, wanted a list of 4"),
        ({"atention": False}, "unknown key 'atention' (did you mean 'attention'?)"),
    ],
)
def test_bad_fusion_networks_are_refused_by_name(changes: dict[str, Any], text: str) -> None:
    assert text in refused({**HEADED, **changes})


def test_a_width_that_the_heads_do_not_divide_is_for_the_global_feature_alone() -> None:
    assert arch_from_dict({**HEADED, **GLOBAL, "embedding_dim": 510}).embedding_dim == 510
    assert "heads is 4, wanted a divisor of embedding_dim 510" in refused({**HEADED, **LOCAL, "embedding_dim": 510})


@examples(100)
@given(lgafs(), st.data())
def test_what_an_architecture_accepts_is_read(arch: LGAF, data: st.DataObject) -> None:
    """Another value of any setting is another network, or refused."""
    name = data.draw(st.sampled_from([*OTHERS]))
    value = data.draw(st.sampled_from([value for value in OTHERS[name] if value != getattr(arch, name)]))
    try:
        other = dataclasses.replace(arch, **{name: value})
    except InputError:
        return
    assert list(other.walk()) != list(arch.walk())


def test_what_is_missing_is_named() -> None:
    without = {key: value for key, value in PLAIN.items() if key != "family"}
    assert refused(without) == "here: 'family' is missing, wanted one of se_mobilefacenet, iresnet, lgaf"
    assert refused({"family": "iresnet", "name": "p"}) == "here: 'depths' is missing"
    assert refused({"family": "lgaf", "depths": [1, 1, 1, 1]}) == "here: 'name' is missing"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@examples(200)
@given(st.sampled_from([PLAIN, HEADED]), st.data())
def test_any_value_gives_an_architecture_or_one_line(plain: dict[str, Any], data: st.DataObject) -> None:
    names = [f.name for f in dataclasses.fields(FAMILIES[plain["family"]])]
    changed = {**plain, data.draw(st.sampled_from(names) | st.text(max_size=5)): data.draw(ANYTHING)}
    try:
        arch = arch_from_dict(changed, "here")
    except InputError as error:
        assert str(error).startswith("here: ")
        assert len(one_line(error)) < 500
    else:
        assert arch_from_dict(json.loads(json.dumps(arch.to_dict()))) == arch
        assert list(arch.walk())


def test_families_are_those_of_the_classes() -> None:
    assert list(FAMILIES) == ["se_mobilefacenet", "iresnet", "lgaf"]
    assert all(kind.family == name and issubclass(kind, Arch) for name, kind in FAMILIES.items())


@examples(100)
@given(iresnets() | lgafs())
def test_every_unit_is_walked_once(arch: IResNet) -> None:
    names = [name for block in arch.walk() for name in block.names()]
    assert len(names) == len(set(names))
    wanted = [f"stages.{s}.{unit}" for s, depth in enumerate(arch.depths) for unit in range(depth)]
    assert [name for name in names if name.startswith("stages.")] == wanted
    assert all(block.repeat == len(block.names()) for block in arch.walk())
    assert [block.residual for block in arch.walk()] == [block.stage.startswith("stages.") for block in arch.walk()]


@examples(50)
@given(lgafs())
def test_only_the_global_feature_is_the_plain_network(arch: LGAF) -> None:
    only = only_global(arch)
    plain = only.plain()
    assert type(plain) is IResNet
    assert [b._replace(stage="") for b in only.walk()] == [b._replace(stage="") for b in plain.walk()]


@examples(50)
@given(archs() | iresnets())
def test_only_an_lgaf_extends_another_network(arch: Arch) -> None:
    assert arch.plain() is None


def shortcuts(arch: IResNet) -> dict[str, list[Layer]]:
    """Layers beside the residual sum, by unit."""
    found = {}
    for block in arch.walk():
        for name in block.names():
            found[name] = [layer for layer in block.layers if layer.name.startswith("shortcut.")]
    return {name: layers for name, layers in found.items() if layers}


def test_shortcuts_of_both_conventions() -> None:
    """InsightFace: a convolution wherever a unit has a stride. AdaFace: 64 -> 64 with stride 2 is a subsampling."""
    ours = IResNet("p", (2, 2, 2, 2))
    assert list(shortcuts(ours)) == [f"stages.{s}.0" for s in range(4)]
    assert all([layer.kind for layer in layers] == ["conv", "batch_norm"] for layers in shortcuts(ours).values())
    theirs = shortcuts(dataclasses.replace(ours, shortcut="subsample"))
    assert theirs["stages.0.0"] == [Layer("shortcut.pool", "max_pool", 64, 64, 56, 1, 2)]
    rest = {name: layers for name, layers in theirs.items() if name != "stages.0.0"}
    assert rest == {name: layers for name, layers in shortcuts(ours).items() if name != "stages.0.0"}


def test_a_network_without_dropout_has_no_such_layer() -> None:
    kinds = [layer.kind for block in IResNet("p", (1, 1, 1, 1)).walk() for layer in block.layers]
    assert "dropout" not in kinds
    assert kinds[-3:] == ["flatten", "linear", "bias_norm"]
    dropped = IResNet("p", (1, 1, 1, 1), dropout=0.4, last_norm="plain")
    kinds = [layer.kind for block in dropped.walk() for layer in block.layers]
    assert kinds[-5:] == ["pre_norm", "dropout", "flatten", "linear", "plain_norm"]
