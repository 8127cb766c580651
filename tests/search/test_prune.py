"""Pruning: dead channels go and nothing changes, what is left is an architecture, steps end within the budget."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from mobileface.arch import SEMobileFaceNet, Stage, load_arch
from mobileface.embedders.network import load_network
from mobileface.errors import CheckFailed, InputError
from mobileface.models.build import build
from mobileface.training.plan import parse_plan
from mobileface.training.whole import load_plan
from mobileface.zoo import ZOO
from search.budget import BUDGETS, Budget, judge
from search.cost import cost
from search.prune import main, prune_run
from search.prune_channels import Group, counts, fit, is_free, measure, require_reachable, resized, towards
from search.prune_graph import _sense, prune, write_network
from tests.strategies import ODD, archs, examples

MakeFolder = Callable[..., Path]
MakeData = Callable[..., dict[str, Any]]
Capture = pytest.CaptureFixture[str]
QUIET = Console(quiet=True)
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if cost(arch).macs > 2e8 else [])
    for name, arch in ZOO.items()
    if isinstance(arch, SEMobileFaceNet)
]


def pixels(count: int = 4, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def outputs(network: nn.Module, images: NDArray[np.uint8]) -> torch.Tensor:
    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2).float())


def lively(arch: SEMobileFaceNet) -> nn.Module:
    """A network as after a training: gains, shifts and slopes of its own, statistics of what it is shown."""
    network, generator = build(arch), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(("bn.weight", "bn.bias", "act.weight")):
                value += 0.2 * torch.randn(value.shape, generator=generator)
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # the mean over all images
        outputs(network.train(), pixels(8))
    return network.eval()


def chains(arch: SEMobileFaceNet) -> list[list[str]]:
    """Free convolutions whose channels are one number, by what residual connections tie; written out from the rows."""
    found, chain, width = [["head.conv"]], ["stem.conv"], arch.stem
    for number, row in enumerate(arch.stages):
        for block in range(row.depth):
            found.append([f"stages.{number}.{block}.expand.conv"])
            if not (width == row.width and (block > 0 or row.stride == 1)):
                found.append(chain)
                chain = []
            chain.append(f"stages.{number}.{block}.project.conv")
            width = row.width
    return [*found, chain]


def kill(network: nn.Module, convs: list[str], dead: list[int]) -> None:
    """Channels become zero for whatever reads them: at the last batch norm that gives them."""
    for conv in convs:
        prefix = conv.removesuffix("conv")
        names = {"stem.": ["stem_depthwise."], "head.": ["gdc."]}.get(prefix, [])
        names += [prefix.replace("expand", "depthwise")] if "expand" in prefix else []
        modules = dict(network.named_modules())
        for part in [prefix, *names]:
            if f"{part}bn" not in modules:
                continue
            for tensor in ("conv.weight", "bn.weight", "bn.bias"):
                network.get_parameter(f"{part}{tensor}").data[dead] = 0


def kill_inside(network: nn.Module, arch: SEMobileFaceNet, smaller: SEMobileFaceNet) -> None:
    """As many channels inside of SE as its narrower width leaves; the first ones."""
    for name, count in counts(arch).items():
        if name.endswith("se.reduce"):
            gone = count - counts(smaller)[name]
            for tensor in ("weight", "bias"):
                network.get_parameter(f"{name}.{tensor}").data[:gone] = 0


def residuals(arch: SEMobileFaceNet) -> list[bool]:
    return [block.residual for block in arch.walk() for _ in block.names()]


def exactly(arch: SEMobileFaceNet) -> Budget:
    return Budget("exact", max_flops=cost(arch).flops_lfrc, max_size_mib=cost(arch).size_mib)


def check_dead_channels(arch: SEMobileFaceNet, shares: Callable[[int], float], multiple: int) -> None:
    """Kill a share of each chain's channels; pruning to what is left finds just these, and nothing changes."""
    network, given = lively(arch), {}
    dead: dict[str, list[int]] = {}
    for number, chain in enumerate(chains(arch)):
        width = counts(arch)[chain[0]]
        left = max(1, round(width * shares(number)))
        left = width if left >= width else -(-left // multiple) * multiple
        if left < width:
            gone = sorted(np.random.default_rng(number).permutation(width)[: width - left].tolist())
            given |= dict.fromkeys(chain, left)
            dead |= dict.fromkeys(chain, gone)
    smaller = resized(arch, given)
    assert residuals(smaller) == residuals(arch)
    for chain in chains(arch):
        if chain[0] in dead:
            kill(network, chain, dead[chain[0]])
    kill_inside(network, arch, smaller)
    images = pixels()
    wanted, state = outputs(network, images), copy.deepcopy(network.state_dict())
    found, pruned = prune(network, arch, exactly(smaller), images, multiple=multiple)
    assert found == smaller
    assert pruned.arch == smaller
    assert sum(p.numel() for p in pruned.parameters()) == cost(smaller).params
    unit = nn.functional.normalize
    torch.testing.assert_close(unit(outputs(pruned, images)), unit(wanted), rtol=0, atol=1e-5)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_dead_channels_of_the_zoo_go_and_nothing_changes(name: str) -> None:
    arch = ZOO[name]
    assert isinstance(arch, SEMobileFaceNet)
    check_dead_channels(arch, lambda number: (0.5, 0.75, 1, 0.3)[number % 4], 4)


@examples(8)
@given(archs(max_stages=4), st.lists(st.floats(0.1, 1), min_size=1, max_size=9))
@example(ODD, [0.4, 1, 0.7])
def test_dead_channels_of_random_members_go_and_nothing_changes(arch: SEMobileFaceNet, shares: list[float]) -> None:
    rows, width = [], arch.stem
    for row in arch.stages:  # no row that begins without a residual connection could get one by narrower widths
        rows.append(dataclasses.replace(row, stride=row.stride if row.width == width else 2))
        width = row.width
    arch = dataclasses.replace(arch, stages=tuple(rows), embedding_dim=8)  # of one value only the sign would count
    check_dead_channels(arch, lambda number: shares[number % len(shares)], 1)


def test_torch_pruning_ties_what_residual_connections_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(
        "search.prune_graph.fit", lambda arch, groups, *_: seen.extend(sorted(g.convs) for g in groups) or arch
    )
    for arch in (ZOO["mobilefacenet"], ODD):
        assert isinstance(arch, SEMobileFaceNet)
        seen.clear()
        prune(lively(arch), arch, BUDGETS["lfrc-light"], pixels(1))
        assert sorted(seen) == sorted(sorted(chain) for chain in chains(arch))


def test_what_is_built_anew_gives_what_the_pruned_module_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[nn.Module] = []
    monkeypatch.setattr("search.prune_graph._sense", lambda net, *rest: inside.append(net) or _sense(net, *rest))
    arch = ZOO["tiny"]
    budget = Budget(max_flops=0.5 * cost(arch).flops_lfrc)
    found, pruned = prune(lively(arch), arch, budget, pixels())
    assert found != arch
    images = pixels(8, seed=1)
    assert torch.equal(outputs(pruned, images), outputs(inside[0], images))
    assert torch.equal(outputs(pruned, images), outputs(prune(lively(arch), arch, budget, pixels())[1], images))


def test_importance_is_the_mean_square_of_all_derivatives_of_the_unit_embedding() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.PReLU(4), nn.Flatten(), nn.Linear(4, 3))
    images = torch.randn(8, 3, 2, 2)
    _sense(network, images.repeat(500, 1, 1, 1), torch.Generator().manual_seed(0))
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    wanted = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for value in nn.functional.normalize(network(images)).flatten():
        network.zero_grad()
        value.backward(retain_graph=True)
        for name, parameter in network.named_parameters():
            wanted[name] += parameter.grad**2 / len(images)
    assert found.keys() == wanted.keys()
    for name, total in wanted.items():
        torch.testing.assert_close(found[name], total, rtol=0.2, atol=1e-5)


def test_a_channel_counts_by_the_weights_that_give_and_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hidden one: of the expansion, both batch norms, and the projection; squares of weights, times derivatives'."""
    found: dict[str, Any] = {}

    def sense(network: nn.Module, *rest: Any) -> None:
        _sense(network, *rest)
        found.update({n: (p.detach() ** 2 * p.grad) for n, p in network.named_parameters() if p.grad is not None})

    def fit_nothing(arch: SEMobileFaceNet, groups: list[Group], *_: Any) -> SEMobileFaceNet:
        found["importance"] = next(g.importance for g in groups if g.convs == (f"{block}.expand.conv",))
        return arch

    monkeypatch.setattr("search.prune_graph._sense", sense)
    monkeypatch.setattr("search.prune_graph.fit", fit_nothing)
    block, arch = "stages.1.0", ZOO["micro"]
    prune(lively(arch), arch, BUDGETS["lfrc-light"], pixels())
    for channel, importance in enumerate(found["importance"]):
        wanted = sum(float(found[f"{block}.{part}.bn.weight"][channel]) for part in ("expand", "depthwise"))
        wanted += float(found[f"{block}.expand.conv.weight"][channel].sum())
        wanted += float(found[f"{block}.project.conv.weight"][:, channel].sum())
        assert importance == pytest.approx(wanted, rel=1e-5)
        assert importance > 0


# -- how many channels go


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


# -- what cannot be done


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


@pytest.mark.parametrize("name", ["iresnet-micro", "lgaf-micro"])
def test_other_families_are_one_clear_line(name: str, tmp_path: Path, capsys: Capture) -> None:
    arch = ZOO[name]
    with pytest.raises(InputError, match=f"{name}: is of the family {arch.family}; wanted se_mobilefacenet"):
        prune(build(arch), arch, Budget(max_flops=1), pixels(1))
    write_network(tmp_path / "run", arch, build(arch))
    assert main([str(tmp_path / "run"), "--budget", "lfrc-light"]) == 2
    assert capsys.readouterr().err == f"error: {name}: is of the family {arch.family}; wanted se_mobilefacenet\n"


# -- steps, each with its training


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """As good as trained."""
    write_network(tmp_path / "run", ZOO["micro"], lively(ZOO["micro"]))
    return tmp_path / "run"


@pytest.fixture
def recipe(tmp_path: Path, shared_faces: Path, make_plan_data: MakeData) -> Path:
    data = make_plan_data(shared_faces, phase={"images": 16, "name": "recover", "terms": ["distillation"]})
    data |= {"start": "it", "teacher": {"model": "it", "online": True}, "name": "toy"}
    data["phases"].append({"name": "finish", "images": 24})
    del data["arch"]
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


LESS = Budget(max_flops=0.75 * cost(ZOO["micro"]).flops_lfrc)


def finished(run: Path, recipe: Path, out: Path) -> Path:
    return prune_run(run, LESS, 2, load_plan(recipe, None, []), out, QUIET)


@pytest.mark.usefixtures("no_workers")
def test_from_a_run_to_a_smaller_one_in_steps(
    run: Path, recipe: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [str(run), "--max-flops", str(LESS.max_flops), "--recipe", str(recipe), "--steps", "2"]
    arguments += ["--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said, last = capsys.readouterr().out, tmp_path / "out" / "2"
    assert f"run: {last}; to judge and export it: mobileface make {last}/plan.yaml --out {last}" in said
    before, whole = [line for line in said.splitlines() if "AUC" in line and "step" in line], cost(ZOO["micro"])
    assert len(before) == 2
    assert before[0].startswith(f"step 1 of 2: {whole.flops_lfrc / 1e6:.1f} -> ")
    arches = [load_arch(tmp_path / "out" / name / "arch.json") for name in ("1", "2")]
    assert cost(arches[1]).flops_lfrc < cost(arches[0]).flops_lfrc <= 0.75**0.5 * whole.flops_lfrc
    assert judge(arches[1], LESS)["fits"]
    assert load_network(last).arch == arches[1]
    card = json.loads((last / "card.json").read_text())
    assert (card["teacher"]["path"], card["start"]["path"]) == ("run", "2-start")
    assert (card["budget"]["fits"], card["training"]["images_seen"]) == (True, 40)
    assert json.loads((tmp_path / "out" / "1" / "card.json").read_text())["training"]["images_seen"] == 16

    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    monkeypatch.setattr("mobileface.training.loop.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("search.prune_graph.prune", lambda *_: pytest.fail("pruned again"))
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")} == weights


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers")
def test_a_pruning_that_was_stopped_goes_on_to_the_same_weights(
    run: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = load_network(finished(run, recipe, tmp_path / "once")).state_dict()
    with monkeypatch.context() as patch:

        def stopped(folder: Path, *_: Any) -> None:
            if folder.name == "2-start":
                raise KeyboardInterrupt
            write_network(folder, *_)

        patch.setattr("search.prune_graph.write_network", stopped)
        with pytest.raises(KeyboardInterrupt):
            finished(run, recipe, tmp_path / "twice")
    assert (tmp_path / "twice" / "1" / "card.json").exists()
    twice = load_network(finished(run, recipe, tmp_path / "twice")).state_dict()
    assert all(torch.equal(tensor, twice[name]) for name, tensor in once.items())


@pytest.mark.usefixtures("no_workers")
def test_a_folder_of_another_pruning_is_left_alone(run: Path, recipe: Path, tmp_path: Path) -> None:
    plan, out = load_plan(recipe, None, []), tmp_path / "out"
    prune_run(run, LESS, 1, plan, out, QUIET)
    with pytest.raises(InputError, match="holds a pruning with another steps; give another --out"):
        prune_run(run, LESS, 3, plan, out, QUIET)
    with pytest.raises(InputError, match="another budget"):
        prune_run(run, dataclasses.replace(LESS, max_size_mib=1), 1, plan, out, QUIET)
    with pytest.raises(InputError, match=r"holds a run of another plan \(seed=5 there, seed=9 here\)"):
        prune_run(run, LESS, 1, plan.model_copy(update={"seed": 9}), out, QUIET)
    for content in ("{", "[]"):
        (out / "prune.json").write_text(content)
        with pytest.raises(InputError, match="give another --out"):
            prune_run(run, LESS, 1, plan, out, QUIET)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and holds no prune\.json"):
        finished(run, recipe, tmp_path / "full")


@pytest.mark.usefixtures("no_workers")
def test_what_failed_before_a_training_can_be_mended(run: Path, recipe: Path, tmp_path: Path, capsys: Capture) -> None:
    """In the same folder: images that are not there, then a teacher; at last even the budget is another."""
    arguments = [str(run), "--recipe", str(recipe), "--out", str(tmp_path / "out"), "--max-flops"]
    assert main([*arguments, "3e6", "--set", "data.train.0.folder=nowhere"]) == 2
    assert "nowhere: is not a folder" in capsys.readouterr().err
    assert main([*arguments, "3e6", "--set", "teacher.model=nobody"]) == 2
    assert "teacher.model: nobody: not found" in capsys.readouterr().err
    assert main([*arguments, str(LESS.max_flops), "--steps", "1"]) == 0, capsys.readouterr().err
    begun = load_arch(tmp_path / "out" / "1-start" / "arch.json")
    assert 0.95 * (LESS.max_flops or 0) < cost(begun).flops_lfrc <= (LESS.max_flops or 0)
    assert load_arch(tmp_path / "out" / "1" / "arch.json") == begun


def test_without_torch_pruning_it_says_what_to_install(
    run: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.prune_graph.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"torch-pruning is missing, wanted: pip install 'mobileface\[search\]'"):
        finished(run, recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        ([], 2, "wanted one of --budget NAME, or limits"),
        (["--budget", "lfrc-light", "--max-flops", "1e6"], 2, "wanted one of --budget NAME, or limits"),
        (["--budget", "lfrc"], 2, "no budget is called 'lfrc'"),
        (["--budget", "lfrc-light", "--rule", "macs"], 2, "which counts by lfrc; leave --rule out"),
        (["--budget", "lfrc-light"], 2, "micro is within the budget lfrc-light; wanted a network to prune"),
        (["--max-flops", "1e4"], 1, "pruning leaves at least 8 channels everywhere"),
        (["--max-flops", "1e6", "--set", "arch=micro", "--set", "start="], 2, "wanted start, a word"),
    ],
)
def test_bad_input_is_one_line(
    run: Path, recipe: Path, arguments: list[str], code: int, wanted: str, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    assert main([str(run), "--recipe", str(recipe), "--out", str(out), *arguments]) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert wanted in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_the_recipe_in_the_repository_is_one_for_pruning() -> None:
    plan = load_plan(Path(__file__).parents[2] / "recipes" / "prune-real.yaml", Path("/data"), [])
    assert plan.teacher is not None
    assert plan.teacher.model == plan.start
    assert (plan.data.root, [phase.name for phase in plan.phases]) == ("/data", ["recover", "finish"])
    assert plan == parse_plan(yaml.safe_load(plan.to_yaml()), "again")
