"""Spaces as data: the paper's networks are members, distinct genes are distinct networks, files are read with care."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import search.space
from mobileface.arch import Layer, SEMobileFaceNet, Stage
from mobileface.errors import InputError
from mobileface.zoo import ZOO
from search.cost import cost
from search.space import Genes, Space, find_space, key, parse_space
from search.space_tables import MAX_CHOICES, SPACES
from tests.strategies import examples

STEPS = [f"lfrc-step{step}" for step in range(6)]
TINY: dict[str, Any] = {  # 1440 networks
    "name": "tiny",
    "stem": [2, 4],
    "activation": ["prelu", "hard_swish"],
    "stages": [
        {"width": [2, 4], "depth": [1, 0], "hidden": [4, 6], "se": [True, False]},
        {"width": [4, 8], "reduction": {"hidden": [4]}, "depth": [0, 2], "hidden": [4, 8], "kernel": [3, 5]},
    ],
    "head": [8, 16],
    "embedding_dim": [4, 8],
}


def members(space: Space) -> list[Genes]:
    """All of them, by trying every combination of choices."""
    found = []
    for genes in itertools.product(*(range(len(gene.choices)) for gene in space.genes)):
        try:
            space.arch(genes)
        except InputError:
            continue
        found.append(genes)
    return found


def layers(arch: SEMobileFaceNet) -> list[tuple[bool, tuple[Layer, ...]]]:
    """What is computed, in order, however the blocks are spread over rows."""
    return [(block.residual, block.layers) for block in arch.walk() for _ in range(block.repeat)]


def of(name: str) -> SEMobileFaceNet:
    found = ZOO[name]
    assert isinstance(found, SEMobileFaceNet)
    return found


def renamed(arch: SEMobileFaceNet, name: str) -> SEMobileFaceNet:
    return dataclasses.replace(arch, name=name)


def genes_of(space: Space) -> st.SearchStrategy[Genes]:
    return st.tuples(*(st.integers(0, len(gene.choices) - 1) for gene in space.genes)).map(space.canonical)


@pytest.mark.parametrize("name", [*STEPS, "mobilefacenet"])
@pytest.mark.parametrize("se", [None, True, False])
def test_the_papers_networks_are_members_with_se_and_without(name: str, se: bool | None) -> None:
    space, arch = find_space("lfrc"), of(name)
    if se is not None:
        arch = dataclasses.replace(arch, stages=tuple(dataclasses.replace(row, se=se) for row in arch.stages))
    found = space.arch(space.genes_of(arch))
    assert renamed(found, name) == arch
    assert found.name == f"lfrc-{key(arch)[:8]}"


def test_small_holds_the_trained_student_and_a_small_step_5() -> None:
    small = find_space("small")
    assert renamed(small.arch(small.genes_of(of("student-real"))), "student-real") == of("student-real")
    rows = tuple(
        Stage(hidden, width, depth, stride)
        for hidden, width, depth, stride in (
            (28, 12, 1, 1),
            (56, 28, 1, 2),
            (56, 28, 3, 1),
            (128, 64, 1, 2),
            (128, 64, 8, 1),
            (256, 128, 1, 2),
            (128, 128, 12, 1),
        )
    )
    half = SEMobileFaceNet("half", 12, rows, 256, 128)
    assert renamed(small.arch(small.genes_of(half)), "half") == half
    assert 20e6 < cost(half).flops_lfrc < 200e6


def test_a_network_is_found_however_its_blocks_are_spread_over_rows() -> None:
    """`tiny` has rows of two blocks with a stride; the space a row for the first and one for the second."""
    small, arch = find_space("small"), of("tiny")
    found = small.arch(small.genes_of(arch))
    assert found.stages != arch.stages
    assert layers(found) == layers(arch)
    pruned = dataclasses.replace(
        arch, stages=(arch.stages[0], *(dataclasses.replace(row, hidden=row.hiddens()) for row in arch.stages[1:]))
    )
    assert small.genes_of(pruned) == small.genes_of(arch)


@pytest.mark.parametrize("name", SPACES)
@examples(60)
@given(st.data())
def test_networks_have_the_genes_that_they_were_made_from(name: str, data: st.DataObject) -> None:
    space = find_space(name)
    genes = data.draw(genes_of(space))
    assert space.genes_of(space.arch(genes)) == genes


def test_distinct_genes_are_distinct_networks() -> None:
    space = parse_space(TINY, "tiny")
    found = members(space)
    # stem, activation; the first stage with no block or one of 2 * 2 * 2; the second with none or two of 2 * 2
    assert len(found) == 2 * 2 * (1 + 8) * 2 * (1 + 4) * 2 * 2 == 1440
    archs = [space.arch(genes) for genes in found]
    assert len({key(arch) for arch in archs}) == len({str(layers(arch)) for arch in archs}) == len(found)
    everything = itertools.product(*(range(len(gene.choices)) for gene in space.genes))
    assert {space.canonical(genes) for genes in everything} == set(found)


@pytest.mark.parametrize(
    ("place", "choice", "said"),
    [
        ("stem", 2, "stem: choice 2 given, wanted 0 to 1"),
        ("stem", -1, "stem: choice -1 given, wanted 0 to 1"),
        ("stages.0.hidden", 1, "stages.0.hidden: choice 1 given for blocks that are not there, wanted 0"),
        (None, 0, "17 genes given, tiny has 18"),
    ],
)
def test_genes_that_are_none_of_the_space(place: str | None, choice: int, said: str) -> None:
    space = parse_space(TINY, "tiny")
    genes = [0] * len(space.genes)
    genes[space.places["stages.0.depth"]] = 1  # no block
    if place:
        genes[space.places[place]] = choice
    with pytest.raises(InputError) as caught:
        space.arch(tuple(genes) if place else tuple(genes[1:]))
    assert str(caught.value) == said


def swapped(arch: SEMobileFaceNet, row: int, **fields: Any) -> SEMobileFaceNet:
    rows = list(arch.stages)
    rows[row] = dataclasses.replace(rows[row], **fields)
    return dataclasses.replace(arch, name="x", stages=tuple(rows))


STEP5 = of("lfrc-step5")
OUTSIDE = [
    (swapped(STEP5, 6, depth=29), r"x is not in lfrc: stages.3.depth is 29, wanted one of 0, 1, .* 28"),
    (swapped(STEP5, 3, hidden=249), r"x is not in lfrc: stages.2.reduction.hidden is 249, wanted one of 128, .* 384"),
    (swapped(STEP5, 2, width=58), r"x: the blocks of stages.1 differ, those of lfrc are equal"),
    (swapped(STEP5, 0, hidden=(56, 58)), r"x: the blocks of stages.0 differ, those of lfrc are equal"),
    (dataclasses.replace(STEP5, name="x", stem=25), r"x is not in lfrc: stem is 25, wanted one of 16, 24, .* 64"),
    (dataclasses.replace(STEP5, name="x", stages=STEP5.stages[:5]), r"x has 2 blocks of stride 2, networks of lfrc 3"),
    (ZOO["iresnet-micro"], r"iresnet-micro is a network of iresnet, wanted one of se_mobilefacenet"),
]


@pytest.mark.parametrize(("arch", "said"), OUTSIDE)
def test_networks_outside_the_space_are_refused_by_the_gene(arch: SEMobileFaceNet, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}$"):
        find_space("lfrc").genes_of(arch)


def test_a_space_without_a_stage_at_56_px() -> None:
    space = parse_space({**TINY, "stages": TINY["stages"][1:]}, "x")
    genes = tuple(len(gene.choices) - 1 for gene in space.genes)
    arch = space.arch(genes)
    assert [row.stride for row in arch.stages] == [2, 1]
    assert space.genes_of(arch) == genes
    with pytest.raises(InputError, match=r"^lfrc-step5 has blocks before the first of stride 2, tiny has none there$"):
        space.genes_of(STEP5)


@pytest.mark.parametrize("name", ["lfrc-step5", "iresnet50", "lgaf-micro"])
def test_the_key_is_the_hash_of_all_but_the_name(name: str) -> None:
    arch = ZOO[name]
    data = json.loads(json.dumps(arch.to_dict()))
    del data["name"]
    wanted = hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert key(arch) == key(dataclasses.replace(arch, name="other")) == wanted
    assert key(dataclasses.replace(arch, embedding_dim=2 * arch.embedding_dim)) != wanted


def test_hidden_widths_that_are_equal_are_one_number_to_the_key() -> None:
    assert key(swapped(STEP5, 0, hidden=(56, 56))) == key(STEP5) != key(swapped(STEP5, 0, hidden=(56, 57)))


# -- files


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("suffix", "dump"), [("yaml", yaml.safe_dump), ("json", json.dumps)])
def test_spaces_go_through_files(name: str, suffix: str, dump: Any, tmp_path: Path) -> None:
    file = tmp_path / f"space.{suffix}"
    file.write_text(dump(find_space(name).to_dict()))
    assert find_space(str(file)) == find_space(name)


def test_the_example_of_the_documentation_is_a_space(tmp_path: Path) -> None:
    paragraphs = (search.space.__doc__ or "").split("\n\n")
    (example,) = [paragraph for paragraph in paragraphs if paragraph.startswith("    name:")]
    file = tmp_path / "example.yaml"
    file.write_text(textwrap.dedent(example))
    space = find_space(str(file))
    assert (space.name, len(space.genes)) == ("narrow", 18)
    assert parse_space(space.to_dict(), "again") == space
    file.write_text(textwrap.dedent(example).replace("name: narrow", ""))
    assert find_space(str(file)).name == "example"


def changed(path: str, value: Any) -> dict[str, Any]:
    """TINY with another value at a dotted path; None takes the key away."""
    data = json.loads(json.dumps(TINY))
    *parents, last = path.split(".")
    table = data
    for name in parents:
        table = table[int(name)] if name.isdigit() else table[name]
    table[last] = value
    if value is None:
        del table[last]
    return data


HOSTILE = [
    (changed("stern", [4]), "unknown key 'stern' (did you mean 'stem'?); known here: activation, "),
    (changed("stages.0.widht", [4]), "unknown key 'stages.0.widht' (did you mean 'width'?); known here: depth, "),
    (changed("stages.1.reduction.strides", [2]), "unknown key 'stages.1.reduction.strides'; known here: hidden, "),
    (changed("head", None), "'head' is missing"),
    (changed("stem", []), "stem: wanted a list of 1 or more, found an empty list"),
    (changed("stem", list(range(1, 6001))), f"stem: wanted a list of at most {MAX_CHOICES}, found a list of 6000"),
    (changed("stem", 24), "stem: wanted a list such as [24], found 24"),
    (changed("stem", [8, 16, 8]), "stem: 8 stands there twice, wanted each choice once"),
    (changed("stem", [8, "16"]), "stem.1: wanted a whole number, found '16'"),
    (changed("stem", [8, 16.5]), "stem.1: wanted a whole number, found 16.5"),
    (changed("stem", [True]), "stem.0: wanted a whole number, found true"),
    (changed("stem", [0]), "stem.0: wanted 1 or more, found 0"),
    (changed("stem", [10**30]), "stem.0: wanted at most 8192, found 1000000000000000000000000000000"),
    (changed("stages.0.depth", [-1]), "stages.0.depth.0: wanted 0 or more, found -1"),
    (changed("stages.0.se", ["yes"]), "stages.0.se.0: wanted true or false, found 'yes'"),
    (changed("stages.1.kernel", [3, 7]), "stages.1.kernel.1: wanted 3 or 5, found 7"),
    (
        changed("activation", ["relu"]),
        "activation.0: wanted prelu, leaky_relu or hard_swish, found 'relu' (did you mean 'prelu'?)",
    ),
    (changed("stages.1.reduction", None), "stages: stage 1 has no reduction, which only the first of several may be "),
    (changed("stages", [TINY["stages"][0]]), "stages: stage 0 has no reduction, which only the first of several "),
    (changed("stages", [TINY["stages"][1]] * 9), "stages: wanted a list of at most 6, found a list of 9"),
    (changed("stages", [{**TINY["stages"][1], "depth": [512]}] * 5), "stages: 2565 blocks in the deepest network, "),
    (changed("name", "../x"), "name: wanted a name of letters, digits"),
    ([1, 2], "holds list, wanted a table of keys such as stem, stages, head"),
    (None, "holds NoneType, wanted a table of keys such as stem, stages, head"),
]


@pytest.mark.parametrize(("data", "said"), HOSTILE)
def test_bad_spaces_end_in_one_line(data: Any, said: str, tmp_path: Path) -> None:
    file = tmp_path / "space.json"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        find_space(str(file))
    assert str(caught.value).startswith(f"{file}: {said}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files_that_are_no_spaces(tmp_path: Path) -> None:
    for name, content, said in (
        ("a.yaml", b"stem: [1\n  - : {", "cannot be read as a space"),
        ("b.yaml", b"stem: &a [1]\nhead: *a", "anchors, aliases and tags"),
        ("c.yaml", b"\xff\xfe\x00", "cannot be read as a space"),
        ("d.yaml", b"[" * 60_000, "cannot be read as a space"),
        ("e.yaml", b" " * (1 << 17), "is larger than"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=said) as caught:
            find_space(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        find_space(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="is no file"):
        find_space(str(tmp_path))
    with pytest.raises(InputError, match=r"no space is called 'lfrk' \(did you mean 'lfrc'\?\); known: lfrc, small"):
        find_space("lfrk")
