"""`mobileface evaluate` and `mobileface resolutions`: a model on every protocol; one or two across resolutions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mobileface.cli.options import (
    Color,
    Debug,
    Json,
    Layout,
    Mean,
    PairRoot,
    Scale,
    Std,
    given_contract,
    new_console,
)
from mobileface.errors import CheckFailed, InputError, guarded, visible

ON = (
    "all; lfw, cfp-fp, xqlfw, sllfw, agedb, calfw, cplfw, lfw:9-10, a .bin, a pairs.txt; "
    "tinyface, scface, ijbb, ijbc, ijbs"
)
SIDES = "7,8,12,14,16,20,28,32,56,112"  # px: the octuplet loss's Tables 1 to 3, QGFace's sets of LFW


def evaluate(
    model: Annotated[Path, typer.Argument(help="run folder, .onnx, .tflite or .mlpackage")],
    on: Annotated[list[str], typer.Option("--on", help=ON)],
    data: PairRoot = Path("."),
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    color: Color = None,
    flip: Annotated[str | None, typer.Option(help="sum: add the mirrored image's embedding; none")] = None,
    templates: Annotated[
        str, typer.Option(help="N1D1: weigh by norm and detector (IJB); N0D1, N1D0, N0D1M0, …")
    ] = "N1D1",
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the runtime; all unless told")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="exit code 1 below this accuracy (0..1)")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write SET.json and the worst pairs to")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a run or an exported file on pairs of faces, in galleries, on templates; `--on all`: on all there is."""

    def run() -> None:
        if min_accuracy is not None and not 0 <= min_accuracy <= 1:
            raise InputError(f"--min-accuracy is {min_accuracy:g}, wanted 0..1")
        contract, given = given_contract(model, scale, mean, std, layout, color, flip)
        limited = min_accuracy is not None
        results = _evaluate(model, on, data, contract, given.get("flip"), templates, threads, out, as_json, limited)
        low = [r for r in results if min_accuracy is not None and r.get("accuracy", 1) < min_accuracy]
        if low:
            raise CheckFailed(f"{low[0]['set']}: accuracy {low[0]['accuracy']:.4f}, asked for {min_accuracy}")

    raise typer.Exit(guarded(run, debug))


def _evaluate(
    model: Path,
    on: list[str],
    data: Path,
    contract: Any,
    flip: str | None,
    templates: str,
    threads: int | None,
    out: Path | None,
    as_json: bool,
    limited: bool,
) -> list[dict[str, Any]]:
    """Open, judge, print, and keep the results in the run folder (or in `out`); a page of `--on all`.

    limited: there is a lowest accuracy, so that a set of pairs must be among them.
    """
    from mobileface.data.pairs import PairSet
    from mobileface.embedders.opening import open_embedder
    from mobileface.evaluation import everything
    from mobileface.evaluation.templates import parse_fusion

    fusion = parse_fusion(templates)
    embedder = open_embedder(model, contract, threads)
    is_run = model.is_dir() and model.suffix != ".mlpackage"
    folder = out or (model / "evaluation" if is_run else None)
    everywhere = everything.ALL in on
    place = out or (model if is_run else model.parent)
    if folder is not None or everywhere:
        _check_place(place)
    sets, absent = everything.open_sets(on, data)
    if limited and not any(isinstance(one, PairSet) for one in sets):
        raise InputError("--min-accuracy: only sets of pairs have an accuracy, wanted one of them")
    if folder is not None:
        everything.check_names(sets)

    def tell(one: everything.Absent) -> None:
        if not as_json:
            print(visible(f"{one.name}: {one.why}"), flush=True)

    def failed(one: everything.Absent) -> None:
        absent.append(one)
        tell(one)

    for one in absent:
        tell(one)

    def done(result: dict[str, Any]) -> None:
        if not as_json:
            print("\n".join(map(visible, everything.summary(result))), flush=True)

    with new_console(not as_json).status("") as status:
        found = everything.judge(
            embedder, sets, flip, fusion, folder, status.update, done, failed if everywhere else None
        )
    if everywhere:
        from mobileface.report.everything import write_everything

        page = write_everything(found, [(one.name, one.why) for one in absent], place)
        if not as_json:
            print(visible(f"page: {page}"))
    if as_json:
        several = {"results": found, "absent": [{"set": one.name, "why": one.why} for one in absent]}
        alone = len(found) == 1 and not everywhere
        print(json.dumps(found[0] if alone else several if absent else {"results": found}))
    if limited and not any("accuracy" in result for result in found):
        raise InputError("--min-accuracy: no set of pairs could be judged, wanted one of them")
    return found


def _check_place(folder: Path) -> None:
    """InputError where no file can be written to a folder that is there or is to be made: now, not after an hour."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{there}: is no folder that can be written to, wanted one for the results (--out)")


def resolutions(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="run folder or .onnx file; two are compared")],
    on: Annotated[list[str], typer.Option("--on", help="lfw, xqlfw, sllfw, cfp-fp, cfp-ff, a .bin or a pairs.txt")],
    out: Annotated[Path, typer.Option("--out", help="folder for resolutions.json and resolutions.html")],
    data: PairRoot = Path("."),
    sides: Annotated[str, typer.Option(help="px of a degraded image's side, 1 to 112; 112 is always measured")] = SIDES,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    color: Color = None,
    flip: Annotated[str | None, typer.Option(help="sum: add the mirrored image's embedding; none")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the runtime; all unless told")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a model, or one before and after, on pairs with one image or both at lower resolutions."""

    def run() -> None:
        from mobileface.evaluation.resolutions_run import compare, summary
        from mobileface.report.resolutions import write_resolutions

        foreign = next((model for model in models if not model.is_dir()), models[0])
        contract, _ = given_contract(foreign, scale, mean, std, layout, color, flip)
        with new_console().status("") as status:
            numbers = compare(models, on, data, sides, contract, flip, threads, out, status.update)
        page = write_resolutions(numbers, out)
        lines = map(visible, [*summary(numbers), f"page: {page}"])
        print(json.dumps(numbers) if as_json else "\n".join(lines))

    raise typer.Exit(guarded(run, debug))
