"""`mobileface embed`: a list of images or videos as a feature file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mobileface.cli.options import Color, Debug, Json, Layout, Mean, Scale, Std, given_contract, new_console
from mobileface.errors import CheckFailed, guarded, visible


def embed(
    source: Annotated[Path, typer.Argument(metavar="LIST", help="paths of images, or of videos' folders, one a line")],
    model: Annotated[Path, typer.Option("--model", help="run folder, .onnx, .tflite or .mlpackage")],
    out: Annotated[Path, typer.Option("--out", help="feature file to write, LFRC's .bin")],
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    color: Color = None,
    flip: Annotated[
        str | None, typer.Option(help="sum (images, unless told) or none (videos): add the mirrored embedding")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the runtime; all unless told")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a feature for each image or video of a list, as the LFRC challenge takes them; `score` reads them."""

    def run() -> None:
        from mobileface.embedders.opening import open_embedder
        from mobileface.evaluation.embed_list import embed_list, open_list, summary

        contract = given_contract(model, scale, mean, std, layout, color, None)[0]
        kind, listed = open_list(source)
        embedder = open_embedder(model, contract, threads)
        with new_console(not as_json).status("embedding") as status:
            result = embed_list(
                kind, listed, embedder, out, flip, lambda n, of: status.update(f"{n:,} of {of:,} {kind}")
            )
        print(json.dumps(result) if as_json else "\n".join(map(visible, [*summary(result), f"wrote {out}"])))
        if lost := result["without_feature"]["count"]:
            first = result["without_feature"]["names"][0]
            raise CheckFailed(
                f"{lost} of {len(listed)} {kind} have no feature, their rows are zero; the first: {first}"
            )

    raise typer.Exit(guarded(run, debug))
