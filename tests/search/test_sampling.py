"""Drawing within a budget against the enumeration of whole spaces, and against costs counted another way."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.arch import Arch
from mobileface.errors import CheckFailed, InputError
from search import sampling
from search.budget import BUDGETS, Budget, judge
from search.cost import MIB, cost
from search.count_built import fvcore_macs
from search.sampling import Sampler
from search.space import Genes, find_space, parse_space
from tests.search.test_space import TINY, members
from tests.strategies import examples

SPACE = parse_space(TINY, "tiny")


@cache
def all_costs(rule: str) -> dict[Genes, tuple[int, int, int]]:
    """Work, bytes and width of the embedding of every network of SPACE."""
    archs = {genes: SPACE.arch(genes) for genes in members(SPACE)}
    return {g: ((spent := cost(arch)).flops(rule), spent.size_bytes, arch.embedding_dim) for g, arch in archs.items()}


def share(rule: str, measure: int, part: float) -> int:
    """What `part` of the networks of SPACE do not cost more than."""
    return sorted(costs[measure] for costs in all_costs(rule).values())[int(part * (len(all_costs(rule)) - 1))]


def budget(work: float = 1, size: float = 1, dim: int | None = None, rule: str = "lfrc") -> Budget:
    """Limits that these shares of the networks of SPACE keep."""
    return Budget("tight", rule, share(rule, 0, work), share(rule, 1, size) / MIB, dim)


def within(limits: Budget) -> set[Genes]:
    """The networks of SPACE that fit, by the enumeration."""
    most = (limits.max_flops or 1e99, (limits.max_size_mib or 1e99) * MIB, limits.max_dim or 1e99)
    spent = all_costs(limits.rule).items()
    return {genes for genes, costs in spent if all(used <= limit for used, limit in zip(costs, most, strict=True))}


LIMITS = [
    Budget(),
    budget(work=0.3),
    budget(size=0.2),
    budget(work=0.4, size=0.2, rule="macs"),
    budget(work=0.6, size=0.5, dim=4),
    budget(work=0.02, size=0.9),
    budget(work=0.0),
    Budget(max_dim=7),
]


@pytest.mark.parametrize("limits", LIMITS)
def test_fits_is_what_the_budget_says_of_every_network(limits: Budget) -> None:
    sampler, fitting = Sampler(SPACE, limits), within(limits)
    for genes in all_costs(limits.rule):
        assert sampler.fits(genes) == (genes in fitting) == (not judge(SPACE.arch(genes), limits)["over"])
    assert sampler.bound >= len(fitting)


@pytest.mark.parametrize("rule", ["lfrc", "macs"])
@pytest.mark.parametrize("name", ["lfrc", "small", "tiny"])
def test_costs_from_tables_are_those_of_the_walk(name: str, rule: str) -> None:
    space = SPACE if name == "tiny" else find_space(name)
    sampler, rng = Sampler(space, Budget(rule=rule)), np.random.default_rng(0)
    for _ in range(300):
        spent = cost(space.arch(genes := sampler.draw(rng)))
        assert sampler.spent(genes) == (spent.flops(rule), spent.size_bytes)


def test_fvcore_counts_the_same_on_networks_that_were_drawn() -> None:
    sampler, rng = Sampler(find_space("small"), Budget(rule="macs", max_flops=30e6)), np.random.default_rng(1)
    for _ in range(3):
        genes = sampler.draw(rng)
        assert (sampler.spent(genes) or [0])[0] == fvcore_macs(sampler.space.arch(genes)) < 30e6


@pytest.mark.parametrize(("limits", "buckets"), [(LIMITS[1], 64), (LIMITS[3], 3), (LIMITS[4], 1)])
def test_every_network_that_fits_is_drawn_with_the_same_chance(
    limits: Budget, buckets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pearson's chi-square; with few buckets most of what is drawn first does not fit."""
    monkeypatch.setattr(sampling, "BUCKETS", buckets)
    sampler, rng, fitting = Sampler(SPACE, limits), np.random.default_rng(0), within(limits)
    drawn = dict.fromkeys(fitting, 0)
    for _ in range(10 * len(fitting)):
        drawn[sampler.draw(rng)] += 1
    freedom = len(fitting) - 1
    assert freedom > 100
    assert abs(sum((count - 10) ** 2 / 10 for count in drawn.values()) - freedom) < 3 * sqrt(2 * freedom)
    assert sampler.bound > len(fitting)


def test_without_limits_and_with_fine_steps_the_count_is_the_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sampler(SPACE, Budget()).bound == len(all_costs("lfrc")) == 1440
    monkeypatch.setattr(sampling, "BUCKETS", 1 << 20)  # a step is one byte
    for part in (0.0, 0.01, 0.3, 0.7):
        limits = Budget(max_size_mib=share("lfrc", 1, part) / MIB)
        assert Sampler(SPACE, limits).bound == len(within(limits))


def test_large_spaces_hold_as_many_networks_as_their_choices_say() -> None:
    """A stage has one way to have no blocks, and every combination of choices with them."""
    for name in ("lfrc", "small"):
        space, wanted = find_space(name), 1
        sizes = {gene.name: len(gene.choices) for gene in space.genes}
        for stage in range(4):
            blocks = (sizes[f"stages.{stage}.depth"] - 1) * sizes[f"stages.{stage}.hidden"] * 4
            width = sizes[f"stages.{stage}.width"]
            wanted *= (
                1 + width * blocks
                if stage == 0
                else width * sizes[f"stages.{stage}.reduction.hidden"] * 4 * (1 + blocks)
            )
        for gene in ("stem", "stem_depthwise", "activation", "head", "embedding_dim"):
            wanted *= sizes[gene]
        assert Sampler(space, Budget()).bound == pytest.approx(wanted, rel=1e-12)


def test_a_thousand_networks_within_the_challenge_are_a_thousand() -> None:
    sampler, rng = Sampler(find_space("lfrc"), BUDGETS["lfrc-light"]), np.random.default_rng(0)
    drawn = [sampler.draw(rng) for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert all(judge(sampler.space.arch(genes), sampler.budget)["fits"] for genes in drawn[::20])


def test_the_same_seed_draws_the_same() -> None:
    def all_three(seed: int) -> list[Genes]:
        sampler, rng = Sampler(find_space("small"), Budget(max_flops=100e6)), np.random.default_rng(seed)
        drawn = [sampler.draw(rng) for _ in range(5)]
        drawn += [sampler.mutate(genes, rng) for genes in drawn]
        return [*drawn, *(sampler.cross(a, b, rng) for a, b in pairwise(drawn))]

    assert all_three(3) == all_three(3)
    assert all_three(3) != all_three(4)


SHARES = st.floats(0, 1)


@examples(60)
@given(SHARES, SHARES, st.sampled_from([None, 4, 8]), st.integers(0, 2**32))
def test_what_is_made_fits_and_is_in_the_space(work: float, size: float, dim: int | None, seed: int) -> None:
    limits, rng = budget(work, size, dim), np.random.default_rng(seed)
    fitting = within(limits)
    if not fitting:
        with pytest.raises(CheckFailed):
            Sampler(SPACE, limits).draw(rng)
        return
    sampler = Sampler(SPACE, limits)
    a, b = sampler.draw(rng), sampler.draw(rng)
    child, mutant = sampler.cross(a, b, rng), sampler.mutate(a, rng)
    assert {a, b, child, mutant} <= fitting
    assert mutant != a or len(fitting) == 1
    assert sampler.cross(a, a, rng) == a
    active = [place for place in range(len(a)) if place not in {*SPACE.idle(a), *SPACE.idle(b), *SPACE.idle(child)}]
    assert all(child[place] in (a[place], b[place]) for place in active)


def test_mutants_are_all_that_differ_in_one_gene() -> None:
    sampler, rng = Sampler(SPACE, limits := budget(work=0.5)), np.random.default_rng(0)
    genes = next(genes for genes in iter(lambda: sampler.draw(rng), None) if not SPACE.idle(genes))
    near = {
        SPACE.canonical((*genes[:place], choice, *genes[place + 1 :]))
        for place, gene in enumerate(SPACE.genes)
        for choice in range(len(gene.choices))
    }
    assert {sampler.mutate(genes, rng) for _ in range(300)} == (near & within(limits)) - {genes}


def test_blocks_that_come_to_be_have_any_genes() -> None:
    """The genes that mean nothing are 0; a mutant with blocks there has others as well."""
    sampler, rng = Sampler(SPACE, Budget()), np.random.default_rng(0)
    depth, hidden = SPACE.places["stages.0.depth"], SPACE.places["stages.0.hidden"]
    genes = next(genes for genes in iter(lambda: sampler.draw(rng), None) if genes[depth] == 1)
    grown = [mutant for mutant in (sampler.mutate(genes, rng) for _ in range(400)) if mutant[depth] == 0]
    assert 0.2 < np.mean([mutant[hidden] for mutant in grown]) < 0.8


def test_a_crossover_takes_from_both_alike() -> None:
    sampler, rng = Sampler(SPACE, Budget()), np.random.default_rng(0)
    a, b = tuple(0 for _ in SPACE.genes), tuple(len(gene.choices) - 1 for gene in SPACE.genes)
    b = SPACE.canonical(b)
    free = [place for place, (x, y) in enumerate(zip(a, b, strict=True)) if x != y and place not in SPACE.idle(b)]
    children = [sampler.cross(a, b, rng) for _ in range(400)]
    stem = SPACE.places["stem"]
    assert stem in free
    for place in (stem, SPACE.places["head"], SPACE.places["embedding_dim"]):
        assert 0.4 < np.mean([child[place] for child in children]) < 0.6


# -- budgets that nothing keeps


def test_the_least_costs_are_named_where_nothing_fits() -> None:
    spent = all_costs("lfrc").values()
    work, size = (min(costs[measure] for costs in spent) for measure in (0, 1))
    for limits, said in (
        (
            Budget("b", max_flops=work - 1),
            f"{work / 1e6:.2f} M of work by rule lfrc, allowed {(work - 1) / 1e6:.2f} M",
        ),
        (Budget("b", max_size_mib=(size - 4) / MIB), f"{size / MIB:.3f} MiB, allowed {(size - 4) / MIB:g} MiB"),
        (
            Budget("b", max_flops=1e9, max_size_mib=1e-6),
            f"{work / 1e6:.2f} M of work by rule lfrc, allowed 1000.00 M; {size / MIB:.3f} MiB, allowed 1e-06 MiB",
        ),
    ):
        with pytest.raises(CheckFailed) as caught:
            Sampler(SPACE, limits)
        assert str(caught.value) == f"no network of tiny fits budget b; the least that any has: {said}"
    for limits in (Budget(max_flops=work), Budget(max_size_mib=size / MIB)):
        assert Sampler(SPACE, limits).draw(np.random.default_rng(0)) in within(limits)
    with pytest.raises(CheckFailed, match=r"fits budget b; the narrowest embedding is 4-d, allowed 3-d$"):
        Sampler(SPACE, Budget("b", max_dim=3))


def test_limits_that_are_kept_by_different_networks_only() -> None:
    """A narrow stage in front saves work at the reduction, and its batch norms take bytes."""
    first = {"width": [4], "depth": [0, 1], "hidden": [10], "se": [False]}
    second = {"width": [4], "reduction": {"hidden": [56]}, "depth": [0], "hidden": [1]}
    plain = {"name": "two", "stem": [8], "stages": [first, second], "head": [4], "embedding_dim": [4]}
    space = parse_space(plain, "two")
    without, with_stage = sorted((cost(space.arch(genes)) for genes in members(space)), key=lambda spent: spent.params)
    assert without.macs > with_stage.macs
    with pytest.raises(CheckFailed, match=r"^no network of two fits budget custom; the least that any has: "):
        Sampler(space, Budget("custom", "macs", with_stage.macs, without.size_mib))
    assert Sampler(space, Budget("custom", "macs", without.macs, without.size_mib)).bound == 1


def test_where_nothing_else_fits_a_mutant_is_the_network_itself() -> None:
    sampler, rng = Sampler(SPACE, budget(size=0.0)), np.random.default_rng(0)
    (only,) = within(sampler.budget)
    assert sampler.draw(rng) == sampler.mutate(only, rng) == sampler.cross(only, only, rng) == only


def test_parents_that_do_not_fit_have_children_that_do() -> None:
    sampler, rng = Sampler(SPACE, budget(work=0.1)), np.random.default_rng(0)
    dear = max(all_costs("lfrc"), key=lambda genes: all_costs("lfrc")[genes])
    assert not sampler.fits(dear)
    assert sampler.fits(sampler.cross(dear, dear, rng))
    assert sampler.fits(sampler.mutate(dear, rng))


def test_genes_that_are_none_of_the_space_do_not_fit() -> None:
    sampler = Sampler(SPACE, Budget())
    genes = sampler.draw(np.random.default_rng(0))
    assert sampler.fits(genes)
    assert not sampler.fits((9, *genes[1:]))


def test_spaces_of_too_many_choices_are_refused() -> None:
    many = list(range(1, 65))
    blocks = {"hidden": many, "depth": many, "kernel": [3, 5], "se": [True, False]}
    space = parse_space({**TINY, "stages": [{"width": many, "reduction": {"hidden": [1]}, **blocks}]}, "x")
    with pytest.raises(InputError) as caught:
        sampling.parts(space, "lfrc")
    assert str(caught.value) == (
        "tiny: stages.0.hidden, stages.0.kernel, stages.0.se, stages.0.depth have 2,097,152 combinations with what "
        "comes before, wanted 1,048,576 or less; leave out choices"
    )


# -- latency


class Table:
    """A stand-in for measured latencies: a millisecond for 100 channels of head and embedding."""

    def ms(self, arch: Arch) -> float:
        return (getattr(arch, "head", 0) + arch.embedding_dim) / 100


def test_a_limit_on_latency_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "find_table", lambda name: {"made-up": Table()}[name])
    sampler, rng = Sampler(SPACE, Budget(max_ms=0.17, latency="made-up")), np.random.default_rng(0)
    drawn = [sampler.draw(rng) for _ in range(200)]
    drawn += [sampler.mutate(genes, rng) for genes in drawn] + [sampler.cross(drawn[0], one, rng) for one in drawn]
    found = {(arch.head, arch.embedding_dim) for arch in map(SPACE.arch, drawn)}
    assert found == {(8, 4), (8, 8)}


def test_a_latency_that_nothing_keeps_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "find_table", lambda name: Table())
    monkeypatch.setattr(sampling, "MOST_DRAWS", 200)
    sampler = Sampler(SPACE, Budget("b", max_ms=0.1, latency="made-up"))
    with pytest.raises(CheckFailed) as caught:
        sampler.draw(np.random.default_rng(0))
    assert str(caught.value) == (
        "none of 200 networks drawn from tiny fits budget b of 0.1 ms (made-up); "
        "the fastest within the other limits took 0.12 ms"
    )
