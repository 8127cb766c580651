"""How many channels of which layer go: the fit to a budget against an obvious loop."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mobileface.arch import SEMobileFaceNet, Stage
from mobileface.errors import CheckFailed
from mobileface.zoo import ZOO
from search.budget import Budget, judge
from search.cost import cost
from search.latency import find_table
from search.prune_channels import Group, counts, fit, is_free, measure, require_reachable, resized, towards
from tests.search.pruning import chains, exactly, residuals
from tests.strategies import archs, examples


def groups_of(arch: SEMobileFaceNet, seed: int) -> list[Group]:
    rng, widths = np.random.default_rng(seed), counts(arch)
    return [Group(tuple(c), tuple(rng.exponential(size=widths[c[0]]).tolist())) for c in chains(arch)]


def slow_fit(arch: SEMobileFaceNet, groups: list[Group], budget: Budget, multiple: int) -> SEMobileFaceNet:
    """All prices anew for every cut, from plain lists; then what went last comes back."""
    left, taken = {g: len(g.importance) for g in groups}, []

    def built(counts_left: dict[Group, int]) -> SEMobileFaceNet:
        return resized(arch, {conv: n for g, n in counts_left.items() for conv in g.convs})

    def used(one: SEMobileFaceNet) -> tuple[float, float]:
        return cost(one).flops_lfrc / (budget.max_flops or 1e99), cost(one).size_mib / (budget.max_size_mib or 1e99)

    while max(used(built(left))) > 1:
        offers = []
        for g, n in left.items():
            for count in range(n - 1, 0, -1):
                if count % multiple == 0 and residuals(built({**left, g: count})) == residuals(arch):
                    now, then = used(built(left)), used(built({**left, g: count}))
                    saved = sum(a - b for a, b in zip(now, then, strict=True) if a > 1)
                    lost = sum(sorted(g.importance)[len(g.importance) - n : len(g.importance) - count])
                    offers.append((lost / saved, len(offers), g, count))
                    break
        _, _, g, count = min(offers)
        taken.append((g, left[g]))
        left[g] = count
    for g, n in reversed(taken):
        more = {**left, g: n}
        if max(used(built(more))) <= 1 and residuals(built(more)) == residuals(arch):
            left = more
    return built(left)


# Rows whose widths meet on their way down: what one may become depends on the other, and changes with it.
MEETING = SEMobileFaceNet("meeting", 6, (Stage(3, 6, 2, 2, se=False), Stage(2, 8, 2, 1, se=False)), 1, 1)


@examples(15)
@given(archs(max_stages=3, max_depth=2), st.integers(0, 99), st.sampled_from([1, 4]), st.floats(0.4, 0.95))
@example(MEETING, 0, 1, 0.4375)
def test_the_cheapest_channels_go_first(arch: SEMobileFaceNet, seed: int, multiple: int, share: float) -> None:
    groups, whole = groups_of(arch, seed), cost(arch)
    budget = Budget(max_flops=share * whole.flops_lfrc, max_size_mib=(0.5 + share / 2) * whole.size_mib)
    try:
        found = fit(arch, groups, budget, multiple)
    except CheckFailed:
        with pytest.raises(ValueError, match="empty"):
            slow_fit(arch, groups, budget, multiple)
        return
    assert found == slow_fit(arch, groups, budget, multiple)
    assert judge(found, budget)["fits"]
    for conv, count in counts(found).items():
        before = counts(arch)[conv]
        assert count == before or not is_free(conv) or (count % multiple == 0 and count < before)
    assert (found.embedding_dim, residuals(found)) == (arch.embedding_dim, residuals(arch))


@pytest.mark.parametrize(("name", "share"), [*product(["student-real", "lfrc-step5"], [0.5, 0.8])])
def test_it_ends_close_under_the_budget(name: str, share: float) -> None:
    arch = ZOO[name]
    assert isinstance(arch, SEMobileFaceNet)
    for budget in (
        Budget(max_flops=share * cost(arch).flops_lfrc),
        Budget(max_flops=share * cost(arch).macs, rule="macs"),
        Budget(max_size_mib=share * cost(arch).size_mib),
    ):
        assert 0.97 < max(measure(budget)(fit(arch, groups_of(arch, 0), budget)).values()) <= 1


def test_steps_are_equal_ratios_and_end_at_the_budget() -> None:
    arch = ZOO["student-real"]
    assert isinstance(arch, SEMobileFaceNet)
    whole = cost(arch)
    budget = Budget(max_flops=whole.flops_lfrc / 8, max_size_mib=2 * whole.size_mib, max_dim=128)
    steps = [towards(arch, budget, step / 3) for step in (1, 2, 3)]
    assert [step.max_flops for step in steps] == pytest.approx([whole.flops_lfrc / n for n in (2, 4, 8)])
    assert [step.max_size_mib for step in steps] == [2 * whole.size_mib] * 3  # it is not passed
    assert steps[-1] == budget


def test_milliseconds_are_a_limit_as_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a table by which time goes as MACs do, as many channels go as for the MACs."""

    class Table:
        def ms(self, arch: SEMobileFaceNet) -> float:
            return cost(arch).macs / 1e6

    monkeypatch.setattr("search.prune_channels.find_table", lambda name: Table())
    arch = ZOO["student-real"]
    assert isinstance(arch, SEMobileFaceNet)
    groups, allowed = groups_of(arch, 0), 0.6 * cost(arch).macs
    found = fit(arch, groups, Budget(max_ms=allowed / 1e6, latency="as-macs"))
    assert found == fit(arch, groups, Budget(max_flops=allowed, rule="macs"))


def test_a_width_does_not_become_that_of_the_row_before() -> None:
    """Else a residual connection would come up where there was none."""
    arch = SEMobileFaceNet("two", 8, (Stage(8, 16, 1, 1), Stage(8, 24, 1, 1)), 8, 8)
    alone = [Group(("stages.1.0.project.conv",), (1.0,) * 24)]
    budget = Budget(max_flops=cost(arch).flops_lfrc - 1)
    assert fit(arch, alone, budget).stages[1].width == 8


def test_budgets_out_of_reach_are_refused_with_the_least_cost() -> None:
    arch = ZOO["tiny"]
    least = resized(arch, dict.fromkeys(filter(is_free, counts(arch)), 8))
    require_reachable(arch, exactly(least))
    allowed = cost(least).flops_lfrc - 1
    wanted = rf"over budget custom: {cost(least).flops_lfrc / 1e6:.1f} M FLOPs .* leaves at least 8 channels everywhere"
    with pytest.raises(CheckFailed, match=wanted):
        require_reachable(arch, Budget(max_flops=allowed))
    with pytest.raises(CheckFailed, match="leaves at least 8 channels everywhere"):
        fit(arch, groups_of(arch, 0), Budget(max_flops=allowed))
    with pytest.raises(CheckFailed, match="64-d, allowed 32-d"):
        require_reachable(arch, Budget(max_dim=32))


@pytest.mark.parametrize("table", ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"])
def test_by_milliseconds_too_the_least_important_go(table: str) -> None:
    """Eight channels fewer may take longer by ONNX Runtime's tables: sixteen at once are looked at then."""
    arch = ZOO["mobilefacenet"]
    groups = [
        Group(group.convs, tuple(1e-6 if group.convs[0].endswith(".expand.conv") else 1.0 for _ in group.importance))
        for group in groups_of(arch, 0)
    ]
    budget = Budget(max_ms=0.75 * find_table(table).ms(arch), latency=table)
    found = fit(arch, groups, budget)
    assert judge(found, budget)["fits"]
    changed = {conv for conv, count in counts(found).items() if is_free(conv) and count < counts(arch)[conv]}
    assert changed
    assert all(conv.endswith(".expand.conv") for conv in changed)


def test_what_sixteen_channels_reach_is_not_refused() -> None:
    """By onnx-int8 they are faster than eight."""
    arch = ZOO["mobilefacenet"]
    free = [conv for conv in counts(arch) if is_free(conv)]
    least = [find_table("onnx-int8").ms(resized(arch, dict.fromkeys(free, floor))) for floor in (8, 16)]
    assert least[1] < least[0]
    budget = Budget(max_ms=1.01 * least[1], latency="onnx-int8")
    require_reachable(arch, budget)
    assert judge(fit(arch, groups_of(arch, 0), budget), budget)["fits"]
