"""`mobileface resolutions`: one or two models on pairs of faces whose images once were smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
from mobileface.errors import guarded, visible

SIDES = "7,8,12,14,16,20,28,32,56,112"  # px: the octuplet loss's Tables 1 to 3, QGFace's sets of LFW


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
