"""Does an architecture fit a budget? `python -m search.budget ARCH [--budget lfrc-light] [--json]`.

Exit code 0: it fits (or no budget was named), 1: over budget, 2: bad input.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import typer

from mobileface.arch import Arch
from mobileface.errors import CheckFailed, InputError, guarded, nearest, run_command
from mobileface.zoo import find_arch
from search.cost import RULES, cost, cost_by_stage
from search.latency import TABLES, find_table

CUSTOM = "custom"  # the name of a budget that has none
LIMITS = ("max_flops", "max_size_mib", "max_dim", "max_ms")


@dataclass(frozen=True)
class Budget:
    """Limits, each None where there is none: work by a named rule, float32 size in MiB, embedding width.

    max_ms: milliseconds of one image on one thread, by the latency table that `latency` names (`find_table`).
    """

    name: str = CUSTOM
    rule: str = "lfrc"
    max_flops: float | None = None
    max_size_mib: float | None = None
    max_dim: int | None = None
    max_ms: float | None = None
    latency: str | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise InputError(f"rule {self.rule!r} is not known; known: {', '.join(RULES)}")
        for name in LIMITS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < float("inf")):
                raise InputError(f"{name} is {value!r}, wanted a number above 0")
        if (self.max_ms is None) != (self.latency is None):
            there, missing = ("max_ms", "latency") if self.latency is None else ("latency", "max_ms")
            raise InputError(f"{there} is {getattr(self, there)!r} and {missing} is missing, wanted both or neither")

    def limited(self) -> bool:
        """Whether there is any limit."""
        return any(getattr(self, name) is not None for name in LIMITS)

    def in_words(self) -> str:
        """The name and what it limits, or that alone: lfrc-light (1000 MFLOPs, 20 MiB, 512 dimensions); 40 MFLOPs."""
        limits = [
            f"{value:g} {unit}"
            for value, unit in (
                (self.max_flops and self.max_flops / 1e6, "MMACs" if self.rule == "macs" else "MFLOPs"),
                (self.max_size_mib, "MiB"),
                (self.max_dim, "dimensions"),
                (self.max_ms, f"ms ({self.latency})"),
            )
            if value is not None
        ]
        said = ", ".join(limits) or "anything"
        return said if self.name == CUSTOM else f"{self.name} ({said})"


# The challenge's two tracks (ICCV 2019 LFR): 1 GFLOPs, 20 "MB" that only make sense as MiB, 512-d; and 30 GFLOPs.
BUDGETS = {
    "lfrc-light": Budget("lfrc-light", "lfrc", 1e9, 20.0, 512),
    "lfrc-large": Budget("lfrc-large", "lfrc", 30e9, None, 512),
}


# what commands that take a budget have in common
Name = Annotated[str | None, typer.Option("--budget", help=f"named budget: {', '.join(BUDGETS)}")]
MaxFlops = Annotated[float | None, typer.Option("--max-flops", help="limit on work, by --rule (94e6)")]
Rule = Annotated[str, typer.Option("--rule", help=f"how work is counted: {', '.join(RULES)}")]
MaxSize = Annotated[float | None, typer.Option("--max-size-mib", help="limit on float32 size, MiB")]
MaxDim = Annotated[int | None, typer.Option("--max-dim", help="limit on the embedding's width")]
MaxMs = Annotated[float | None, typer.Option("--max-ms", help="limit on an image's milliseconds, by --latency")]
Latency = Annotated[str | None, typer.Option("--latency", help=f"latency table: {', '.join(TABLES)}, or a file")]


def chosen_budget(name: str | None, limits: Budget) -> Budget | None:
    """The budget that a command was given, by name or by limits; None for neither, InputError for both."""
    if name is None:
        return limits if limits.limited() else None
    if limits.limited():
        raise InputError("--budget and --max-… are both given; name a budget or give limits, not both")
    found = find_budget(name)
    if found.rule != limits.rule:
        raise InputError(f"--rule {limits.rule} and --budget {name}, which counts by {found.rule}; leave --rule out")
    return found


def find_budget(budget: str | dict[str, Any]) -> Budget:
    """A budget by name, or from its keys (a plan's `budget:` table)."""
    if isinstance(budget, str):
        if budget not in BUDGETS:
            raise InputError(f"no budget is called {budget!r}{nearest(budget, BUDGETS)}; known: {', '.join(BUDGETS)}")
        return BUDGETS[budget]
    names = [field.name for field in fields(Budget)]
    for key in budget:
        if key not in names:
            raise InputError(f"budget: unknown key {key!r}{nearest(str(key), names)}; known: {', '.join(names)}")
    return Budget(**budget)


def judge(arch: Arch, budget: Budget | None, rule: str = "lfrc", latency: str | None = None) -> dict[str, Any]:
    """What the architecture costs and whether it fits: the object that `--json` prints.

    `fits` is None without a budget; `over` names each limit that is passed, as used / allowed. An architecture that
    extends another (LGAF its plain trunk) has `extra` as well: what that adds, below zero where it saves. Where the
    budget or `latency` names a table there is `ms`, predicted by it (the budget's goes first).
    """
    spent = cost(arch)
    rule = budget.rule if budget else rule
    table = (budget and budget.latency) or latency
    timed = {"ms": find_table(table).ms(arch)} if table else {}
    used = {"flops": spent.flops(rule), "size_mib": spent.size_mib, "dim": arch.embedding_dim, **timed}
    limits = {key: getattr(budget, f"max_{key}", None) for key in used}  # none without a budget
    over = {k: used[k] / limit for k, limit in limits.items() if limit is not None and used[k] > limit}
    verdict: dict[str, Any] = {
        "arch": arch.name,
        "rule": rule,
        "macs": spent.macs,
        "flops_lfrc": spent.flops_lfrc,
        "params": spent.params,
        "size_mib": spent.size_mib,
        "bytes": spent.bytes_by_precision,
        "embedding_dim": arch.embedding_dim,
        **timed,
        "budget": asdict(budget) if budget else None,
        "fits": None if budget is None else not over,
        "over": over,
    }
    if (plain := arch.plain()) is not None:
        less = cost(plain)
        verdict["extra"] = {key: getattr(spent, key) - getattr(less, key) for key in ("macs", "flops_lfrc", "params")}
    return verdict


def per_stage(arch: Arch) -> list[dict[str, Any]]:
    """Rows for tables: stage, output grid, blocks, work, parameters, float32 bytes with running statistics."""
    return [
        {
            "stage": stage,
            "grid": grid,
            "blocks": blocks,
            "macs": part.macs,
            "flops_lfrc": part.flops_lfrc,
            "params": part.params,
            "bytes": part.size_bytes,
        }
        for stage, grid, blocks, part in cost_by_stage(arch)
    ]


def require_fits(arch: Arch, budget: Budget) -> dict[str, Any]:
    """`judge`, raising CheckFailed with the numbers when the architecture is over budget."""
    verdict = judge(arch, budget)
    if not verdict["fits"]:
        raise CheckFailed(f"{arch.name} is over budget {budget.name}: {_excess(verdict)}")
    return verdict


def verify(arch: Arch) -> int:
    """Build the network and count it with fvcore; returns its MACs. Raises CheckFailed if the walk says other."""
    from search.count_built import fvcore_macs

    counted, walked = fvcore_macs(arch), cost(arch).macs
    if counted != walked:
        raise CheckFailed(f"{arch.name}: fvcore counts {counted} MACs on the built network, the walk {walked}")
    return counted


def _excess(verdict: dict[str, Any]) -> str:
    budget = verdict["budget"]
    used = {
        "flops": f"{_millions(_used_flops(verdict))} {_unit(verdict)}, allowed {_millions(budget['max_flops'] or 0)}",
        "size_mib": f"{verdict['size_mib']:.2f} MiB, allowed {budget['max_size_mib']} MiB",
        "dim": f"{verdict['embedding_dim']}-d, allowed {budget['max_dim']}-d",
        "ms": f"{verdict.get('ms', 0):.2f} ms, allowed {budget['max_ms']} ms ({budget['latency']})",
    }
    return "; ".join(f"{used[key]} ({times:.2f} times)" for key, times in verdict["over"].items())


def _millions(count: float) -> str:
    return f"{count / 1e6:.1f} M"


def _used_flops(verdict: dict[str, Any]) -> int:
    return verdict["macs"] if verdict["rule"] == "macs" else verdict["flops_lfrc"]


def _unit(verdict: dict[str, Any]) -> str:
    return "MACs" if verdict["rule"] == "macs" else "FLOPs (lfrc rule)"


def _text(verdict: dict[str, Any], rows: list[dict[str, Any]] | None) -> str:
    size = ", ".join(f"{k} {v / (1 << 20):.2f}" for k, v in verdict["bytes"].items())
    lines = [
        f"{verdict['arch']}: {verdict['flops_lfrc'] / 1e6:.1f} MFLOPs (lfrc rule), {verdict['macs'] / 1e6:.1f} MMACs",
        f"  {verdict['params'] / 1e6:.3f} M parameters, {verdict['size_mib']:.2f} MiB (fp32 with running statistics)",
        f"  exported weights in MiB: {size}; embedding {verdict['embedding_dim']}-d",
    ]
    if extra := verdict.get("extra"):
        lines.append(
            f"  {extra['flops_lfrc'] / 1e6:+.1f} MFLOPs, {extra['macs'] / 1e6:+.1f} MMACs, "
            f"{extra['params'] / 1e6:+.3f} M parameters over its plain trunk"
        )
    if "ms" in verdict:
        lines.append(f"  {verdict['ms']:.2f} ms an image on one thread, predicted")
    if rows:
        lines.append(f"  {'stage':<15}{'grid':>5}{'blocks':>8}{'MFLOPs':>10}{'%':>7}{'params':>12}{'KiB':>10}")
        for row in rows:
            share = 100 * row["flops_lfrc"] / max(1, verdict["flops_lfrc"])
            lines.append(
                f"  {row['stage']:<15}{row['grid']:>5}{row['blocks']:>8}{row['flops_lfrc'] / 1e6:>10.1f}"
                f"{share:>7.1f}{row['params']:>12,}{row['bytes'] / 1024:>10.1f}"
            )
    if verdict["budget"]:
        verdict_text = "fits" if verdict["fits"] else f"OVER: {_excess(verdict)}"
        lines.append(f"  budget {verdict['budget']['name']}: {verdict_text}")
    return "\n".join(lines)


def report(
    arch: Annotated[str, typer.Argument(help="zoo name, arch file (YAML or JSON) or run folder")],
    budget: Name = None,
    max_flops: MaxFlops = None,
    rule: Rule = "lfrc",
    max_size_mib: MaxSize = None,
    max_dim: MaxDim = None,
    max_ms: MaxMs = None,
    latency: Latency = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="where FLOPs and bytes go, by stage")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    check: Annotated[bool, typer.Option("--verify", help="build it and count with fvcore as well")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Count an architecture and hold it against a budget. Exit code 0 fits, 1 over, 2 bad input."""

    def run() -> int:
        custom = Budget(CUSTOM, rule, max_flops, max_size_mib, max_dim, max_ms, latency if max_ms else None)
        limits = chosen_budget(budget, custom)
        subject = find_arch(arch)
        verdict = judge(subject, limits, rule, latency)
        rows = per_stage(subject) if per_layer else None
        if check:
            verdict["fvcore_macs"] = verify(subject)
        print(json.dumps({**verdict, **({"per_stage": rows} if rows else {})}) if as_json else _text(verdict, rows))
        if check and not as_json:
            print("  verified: fvcore counts the same MACs on the built network")
        return 1 if verdict["fits"] is False else 0

    raise typer.Exit(guarded(run, debug))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(report, "python -m search.budget", argv)


if __name__ == "__main__":
    sys.exit(main())
