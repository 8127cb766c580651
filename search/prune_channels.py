"""Which channels of an SE-MobileFaceNet go so that it fits a budget: those that count least for what they cost.

Channel counts stand under the name of the convolution that gives the channels, "stages.0.1.expand.conv". No torch.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from mobileface.arch import SEMobileFaceNet
from mobileface.errors import CheckFailed, InputError
from search.budget import Budget, judge, require_fits
from search.cost import cost
from search.latency import find_table

# Kernels on phones give output channels by the eight (XNNPACK on ARM64: 8 in float, 8 or 16 in int8), and a rest takes
# as long as a whole eight. It is the floor as well. A count that is not pruned stays as it is.
MULTIPLE = 8
Loads = dict[str, float]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that can only go together: the convolutions that give them, and how much each channel counts, >= 0."""

    convs: tuple[str, ...]
    importance: tuple[float, ...]

    def least(self, count: int) -> list[int]:
        """The `count` least important channels in ascending order; of equals the last ones."""
        order = sorted(range(len(self.importance)), key=lambda channel: (self.importance[channel], -channel))
        return sorted(order[:count])


def is_free(conv: str) -> bool:
    """Whether a convolution's channels are a number of the architecture that pruning may lower.

    Not the embedding's; depthwise convolutions and SE follow the others.
    """
    return conv in ("stem.conv", "head.conv") or conv.endswith((".expand.conv", ".project.conv"))


def counts(arch: SEMobileFaceNet) -> dict[str, int]:
    """Output channels of all convolutions, in the order of the walk."""
    return {
        f"{name}.{layer.name}": layer.outputs
        for block in arch.walk()
        for name in block.names()
        for layer in block.layers
        if layer.kind == "conv"
    }


def resized(arch: SEMobileFaceNet, given: Mapping[str, int]) -> SEMobileFaceNet:
    """The architecture with these counts of free convolutions; those that are not given stay."""
    rows = []
    for number, row in enumerate(arch.stages):
        blocks = [f"stages.{number}.{block}" for block in range(row.depth)]
        hidden = tuple(given.get(f"{b}.expand.conv", old) for b, old in zip(blocks, row.hiddens(), strict=True))
        width = given.get(f"{blocks[0]}.project.conv", row.width)
        rows.append(replace(row, hidden=hidden if len(set(hidden)) > 1 else hidden[0], width=width))
    stem, head = given.get("stem.conv", arch.stem), given.get("head.conv", arch.head)
    return replace(arch, stem=stem, stages=tuple(rows), head=head)


def require_reachable(arch: SEMobileFaceNet, budget: Budget, multiple: int = MULTIPLE) -> None:
    """CheckFailed, with the least cost there is, where no pruning makes the network fit."""
    found = counts(arch)
    leasts = [
        resized(arch, {conv: min(count, floor) for conv, count in found.items() if is_free(conv)})
        for floor in (multiple, 2 * multiple)  # by some tables of milliseconds 16 channels are faster than 8
    ]
    if not any(judge(least, budget)["fits"] for least in leasts):
        _require_least(min(leasts, key=lambda least: max(measure(budget)(least).values(), default=0)), budget, multiple)


def require_prunable(arch: SEMobileFaceNet, budget: Budget) -> None:
    """CheckFailed for a budget out of reach, InputError for one that holds already."""
    require_reachable(arch, budget)
    if judge(arch, budget)["fits"]:
        raise InputError(f"{arch.name} is within the budget {budget.name}; wanted a network to prune")


def towards(arch: SEMobileFaceNet, budget: Budget, share: float) -> Budget:
    """The budget that lies between the network, share 0, and the budget, 1, by equal ratios; no limit is lower."""
    loads = measure(budget)(arch)
    return replace(
        budget, **{name: getattr(budget, name) * max(1, load) ** (1 - share) for name, load in loads.items()}
    )


def fit(arch: SEMobileFaceNet, groups: Iterable[Group], budget: Budget, multiple: int = MULTIPLE) -> SEMobileFaceNet:
    """The network with as many channels fewer as the budget asks.

    Again and again one group is cut to the next multiple that saves anything of the limits that are passed: the group
    that loses least importance for that. (By tables of milliseconds eight channels fewer may take longer.) What went
    last comes back as far as the budget allows. No cut makes a residual connection of a row that had none. CheckFailed
    where all groups are cut and the budget is still passed.
    """
    loads_of, residual = measure(budget), _residuals(arch)
    groups = list(groups)
    kept = [len(group.importance) for group in groups]
    lost = [_lost(group) for group in groups]

    def with_(number: int, count: int) -> SEMobileFaceNet | None:
        """The network with `count` channels in one group; None where that adds a residual connection."""
        given = {conv: kept[n] for n, group in enumerate(groups) for conv in group.convs}
        changed = resized(arch, given | dict.fromkeys(groups[number].convs, count))
        return changed if _residuals(changed) == residual else None

    def cut(number: int) -> tuple[float, int, SEMobileFaceNet] | None:
        """(importance lost for what is saved, channels kept, the network) of a group's next cut; of the smallest one
        where none saves anything."""
        vain = None
        for count in range((kept[number] - 1) // multiple * multiple, 0, -multiple):
            if (smaller := with_(number, count)) is not None:
                after = loads_of(smaller)
                saved = sum(load - after[name] for name, load in loads.items() if load > 1)
                if saved > 0:
                    return (lost[number][count] - lost[number][kept[number]]) / saved, count, smaller
                vain = vain or (float("inf"), count, smaller)
        return vain

    fitting, loads, taken = arch, loads_of(arch), []
    least = dict.fromkeys(range(len(groups)), 0.0)  # prices: they rise while channels of other groups go
    waiting = [(price, number) for number, price in least.items()]
    barred: set[int] = set()  # whose next multiple was passed over: that may change
    while max(loads.values(), default=0) > 1:
        if not waiting:
            _require_least(fitting, budget, multiple)
        price, number = heapq.heappop(waiting)
        if price != least[number]:
            continue
        found, following = cut(number), (kept[number] - 1) // multiple * multiple
        if following and (found is None or found[1] < following):
            barred.add(number)
        if found is None:
            continue
        least[number] = found[0]
        heapq.heappush(waiting, (found[0], number))
        if waiting[0] < (found[0], number):
            continue
        taken.append((number, kept[number]))
        _, kept[number], fitting = found
        loads = loads_of(fitting)
        for again in {number, *barred}:
            least[again] = 0.0
            heapq.heappush(waiting, (0.0, again))
        barred.clear()
    for number, before in reversed(taken):
        larger = with_(number, before)
        if larger is not None and max(loads_of(larger).values()) <= 1:
            kept[number], fitting = before, larger
    return fitting


def measure(budget: Budget) -> Callable[[SEMobileFaceNet], Loads]:
    """A function that gives how much of each of the budget's limits on cost a network uses; above 1 it is too much."""
    table = None if budget.latency is None else find_table(budget.latency)
    limits = {name: getattr(budget, name) for name in ("max_flops", "max_size_mib", "max_ms")}

    def loads(arch: SEMobileFaceNet) -> Loads:
        spent = cost(arch)
        used = {"max_flops": spent.flops(budget.rule), "max_size_mib": spent.size_mib}
        used |= {} if table is None else {"max_ms": table.ms(arch)}
        return {name: used[name] / limit for name, limit in limits.items() if limit is not None}

    return loads


def _require_least(least: SEMobileFaceNet, budget: Budget, multiple: int) -> None:
    try:
        require_fits(least, budget)
    except CheckFailed as error:
        floor = f"pruning leaves at least {multiple} channels everywhere, and the embedding as it is"
        raise CheckFailed(f"{error}; that is the least: {floor}") from None


def _lost(group: Group) -> list[float]:
    """By the number of channels that are kept, the importance that goes."""
    lost = [0.0]
    for value in sorted(group.importance):
        lost.append(lost[-1] + value)
    return lost[::-1]


def _residuals(arch: SEMobileFaceNet) -> list[bool]:
    return [block.residual for block in arch.walk() for _ in block.names()]
