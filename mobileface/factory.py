"""The main flow: plan -> budget -> training -> evaluation -> export -> parity -> report.

With `cli`, the only file of this package that imports `search` and `export`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from export.formats import WEB, label, require
from export.images import crops_for
from export.metadata import NOT_STATED
from export.run import described, export_run
from mobileface.arch import Arch, load_arch
from mobileface.card import versions
from mobileface.data.pairs import open_pairs
from mobileface.distributed import first_then_others, rank
from mobileface.embedders.contract import InputContract
from mobileface.embedders.opening import open_embedder
from mobileface.errors import InputError
from mobileface.evaluation.verification import check_names, evaluate, file_name, write_verification
from mobileface.files import sha256, write_json
from mobileface.training.plan import Export, Plan, read_plan
from mobileface.training.sources import data_root, write_synthetic_once
from mobileface.training.whole import find_plan_arch, load_plan, now, train_run
from search.budget import find_budget, judge, per_stage, require_fits


def make(recipe: Path, data: Path | None, out: Path | None, overrides: list[str], console: Console) -> Path:
    """Everything, from a recipe to a report; returns the report's path.

    What is asked for at the end (sets, exporters) is looked for at the beginning. Training goes on where it was
    stopped, and results that are there for the same weights are not computed again.
    """
    plan = load_plan(recipe, data, overrides)
    budget_verdict(plan, find_plan_arch(plan))
    with first_then_others():
        check_stations(plan, console)
    run = train_plan(plan, out, console)
    if rank() > 0:
        return run / "report.html"  # the first rank goes on alone
    root = data_root(plan)
    sets = [_resolved(spec, root) for spec in plan.evaluate]
    judge_phases(run, sets, root, console)
    results = [judge_model(run, run, spec, root, console) for spec in sets]
    for entry in export_run_folder(run, plan.export, console):
        if entry["format"] == WEB:
            continue
        file, name = run / "export" / entry["file"], label(entry["format"], entry["precision"])
        results += [judge_model(run, file, spec, root, console, name) for spec in sets]
    return finish_report(run, results)


def train_recipe(recipe: Path, data: Path | None, out: Path | None, overrides: list[str], console: Console) -> Path:
    """Only the training; returns the run folder."""
    return train_plan(load_plan(recipe, data, overrides), out, console)


def check_stations(plan: Plan, console: Console) -> None:
    """InputError now for what would be missing after the training: a set to judge on, a package to export with."""
    if plan.data.synthetic:
        write_synthetic_once(plan.data.synthetic, data_root(plan), console)
    root = data_root(plan)
    check_names([open_pairs(_resolved(spec, root), root) for spec in plan.evaluate], "evaluate")
    require(plan.export.formats)


def train_plan(plan: Plan, out: Path | None, console: Console) -> Path:
    """Budget check, data, teacher, training and card; returns the run folder."""
    arch = find_plan_arch(plan)
    verdict = budget_verdict(plan, arch)
    return train_run(plan, arch, out or Path("runs") / plan.name, {**verdict, "per_stage": per_stage(arch)}, console)


def budget_verdict(plan: Plan, arch: Arch) -> dict[str, Any]:
    """`search.budget`'s verdict; over budget is a CheckFailed, before anything was spent."""
    if plan.budget is None:
        return judge(arch, None)
    budget = plan.budget if isinstance(plan.budget, str) else plan.budget.model_dump()
    return require_fits(arch, find_budget(budget))


def run_budget(run: Path) -> dict[str, Any]:
    """The budget of a run folder by its plan and architecture, as its card will hold it."""
    plan, arch = read_plan(run / "plan.yaml"), load_arch(run / "arch.json")
    return {**budget_verdict(plan, arch), "per_stage": per_stage(arch)}


def import_release(file: Path, name: str, out: Path, color: str | None, licence: str | None) -> str:
    """Public weights become the run folder `out`, all of it or nothing; returns a line that says what it is.

    name, color: a row of `releases.KINDS`, and its order of channels unless None. The card keeps the file's name and
    SHA-256, and as `contract` what the network was fed before that was folded into its weights.
    """
    from mobileface.models.foreign import MIDDLE
    from mobileface.releases import find_kind, read_release
    from mobileface.training import checkpoint

    kind = find_kind(name, color)
    if out.exists():
        raise InputError(f"{out}: is there already; give another --out")
    arch, state = read_release(file, kind)
    contract = InputContract(mean=(MIDDLE,) * 3, std=(kind.std,) * 3, color=kind.color)
    source = {"file": file.name, "sha256": sha256(file), "kind": name, "contract": contract.to_dict()}
    card = {
        "name": name,
        "created": now(),
        "arch": arch.to_dict(),
        "budget": {**judge(arch, None), "per_stage": per_stage(arch)},
        "source": source,
        "licence": licence or NOT_STATED,
        "versions": versions(),
        "results": [],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".importing-") as folder:
        made = Path(folder) / "run"
        write_json(made / "arch.json", arch.to_dict())
        checkpoint.save(made / "model.safetensors", state, {"source": source})
        write_json(made / "card.json", card)
        made.rename(out)
    return (
        f"wrote {out}: {name} from {file.name}, {arch.embedding_dim}-d, trained on {kind.color} as "
        f"(x - {MIDDLE}) / {kind.std}; licence: {card['licence']}"
    )


# -- judging, export, report


def _resolved(spec: str, root: Path) -> str:
    """A set's name as it is; a file's path under the data root if it lies there."""
    return os.fspath(root / spec) if (root / spec).is_file() else spec


def judge_phases(run: Path, sets: list[str], root: Path, console: Console) -> None:
    """The best weights of every phase on every set, kept in the phase's folder and, in short, in the card: the ladder.

    Nothing for a plan of one phase.
    """
    from mobileface.training.loop import phase_folder

    card = json.loads((run / "card.json").read_text(encoding="utf-8"))
    phases = card["training"].get("phases", [])
    for number, phase in enumerate(phases):
        folder = phase_folder(run, number, phase["name"])
        results = [judge_model(folder, folder, spec, root, console) for spec in sets]
        phase["results"] = [{key: result[key] for key in ("set", "accuracy", "std")} for result in results]
    if phases:
        write_json(run / "card.json", card)


def judge_model(run: Path, model: Path, spec: str, root: Path, console: Console, exported: str = "") -> dict[str, Any]:
    """Evaluate the run's network or one of its exported files on one set; kept under run/evaluation.

    exported: the file's name among the run's exports ("onnx-int8"); empty for the network itself.
    A result that is there for the same weights is not computed again.
    """
    embedder = open_embedder(model)
    pair_set = open_pairs(spec, root)
    name = file_name(pair_set.name) + (f".{exported}" if exported else "")
    kept = run / "evaluation" / f"{name}.json"
    if kept.exists():
        result = json.loads(kept.read_text(encoding="utf-8"))
        wanted = (embedder.sha256, pair_set.sha256, embedder.contract.flip)
        found = (result["model_sha256"], result["data_sha256"], result["flip"])
        if found == wanted and "single_thresholds" in result:
            return result
    with console.status(f"judging {model.name} on {spec}"):
        verification = evaluate(embedder, pair_set)
    write_verification(verification, run / "evaluation", name)
    result = verification.result
    console.print(
        f"{pair_set.name}: accuracy {result['accuracy']:.4f} +- {result['std']:.4f} ({model.name})", highlight=False
    )
    return result


def export_run_folder(run: Path, chosen: Export, console: Console, images: Path | None = None) -> list[dict[str, Any]]:
    """Export to the chosen formats and precisions, each through the parity gate, on the run's faces or `images`."""
    if not chosen.formats:
        return []

    def say(entry: dict[str, Any]) -> None:
        console.print(f"export: {described(entry, run / 'export')}", highlight=False, soft_wrap=True)

    with console.status("export"):
        crops = crops_for(run, images, chosen.precisions)
        return export_run(run, chosen.formats, crops, precisions=chosen.precisions, say=say)


def finish_report(run: Path, results: list[dict[str, Any]]) -> Path:
    """Put the results into the card and write report.html."""
    from mobileface.report.html import write_report

    card = json.loads((run / "card.json").read_text(encoding="utf-8"))
    card["results"] = [{key: r[key] for key in ("set", "accuracy", "std", "model")} for r in results]
    write_json(run / "card.json", card)
    return write_report(run)
