"""`mobileface score`: TAR at very low FARs, over all pairs of feature files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mobileface.cli.options import Debug, Json, new_console
from mobileface.errors import guarded


def score(
    probe: Annotated[Path, typer.Argument(help="feature file: LFRC's .bin, or a float32 .npy")],
    labels: Annotated[
        list[Path], typer.Option("--labels", help="identity of each row, one a line, -1: nobody; once for each file")
    ],
    far: Annotated[str, typer.Option("--far", help="1e-8,1e-9")],
    gallery: Annotated[Path | None, typer.Argument(help="its other side; all pairs of PROBE unless given")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for scores.json and what a resume needs")] = None,
    memory: Annotated[int, typer.Option(help="MiB to use beside the features and the libraries")] = 1024,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    precision: Annotated[str, typer.Option(help="that screens: auto, bf16, fp32 or fp64; counts are exact")] = "auto",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Count TAR at FARs down to 1e-9 over all pairs of two feature files, or of one. torchrun shares the work."""

    def run() -> None:
        from mobileface.distributed import joined
        from mobileface.evaluation.at_scale import Settings, score_at_scale, summary

        settings = Settings(memory, device, precision)
        with joined() as first, new_console(first).status("reading") as status:
            result = score_at_scale(probe, gallery, labels, far, settings, out, status.update)
        if first:
            print(json.dumps(result) if as_json else "\n".join(summary(result)))

    raise typer.Exit(guarded(run, debug, goes_on=out is not None))
