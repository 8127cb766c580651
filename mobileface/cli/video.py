"""`mobileface clean`: the noise frames of videos, and one feature for each video out of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mobileface.cli.options import Color, Debug, Json, Layout, Mean, Scale, Std, given_contract, new_console
from mobileface.errors import CheckFailed, guarded, visible


def clean(
    source: Annotated[Path, typer.Argument(metavar="VIDEOS", help="folder of frame folders, filelist.txt or .tsv")],
    model: Annotated[Path, typer.Option("--model", help="run folder, .onnx, .tflite or .mlpackage")],
    out: Annotated[Path | None, typer.Option("--out", help="folder for features.bin, *.csv, sheets, summary")] = None,
    threshold: Annotated[float, typer.Option(help="cosine from which on two frames are joined")] = 0.4,
    sweep: Annotated[str | None, typer.Option(help="more thresholds to compare: 0.3,0.4,0.5,0.6")] = None,
    labels: Annotated[Path | None, typer.Option(help="TSV video, identity: the table says how pairs are told")] = None,
    weights: Annotated[
        str, typer.Option(help="of the frames in a feature: mean, or norm (of the embeddings)")
    ] = "mean",
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    color: Color = None,
    flip: Annotated[str, typer.Option(help="none, or sum: add the mirrored frame's embedding")] = "none",
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the runtime; all unless told")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the noise frames of videos by union-find; make one feature of each video's other frames."""

    def run() -> None:
        from mobileface.embedders.opening import open_embedder
        from mobileface.video.run import Settings, clean_videos, parse_sweep, text, without_feature
        from mobileface.video.tracks import open_videos

        settings = Settings(threshold, parse_sweep(sweep) if sweep is not None else (), weights, flip)
        contract = given_contract(model, scale, mean, std, layout, color, None)[0]
        videos = open_videos(source)
        embedder = open_embedder(model, contract, threads)
        with new_console(not as_json).status("cleaning") as status:
            summary = clean_videos(
                videos, embedder, settings, out, labels, lambda n, of: status.update(f"{n:,} of {of:,} videos")
            )
        print(json.dumps(summary) if as_json else "\n".join(map(visible, text(summary))))
        if out is not None and not as_json:
            sheets = ", sheets of noise" if summary["noise"] else ""
            print(visible(f"wrote {out}: features.bin, videos.csv, frames.csv, summary.json{sheets}"))
        if lost := without_feature(summary):
            rest = "their rows of features.bin are zero" if out is not None else "they have no feature"
            raise CheckFailed(f"{lost} of {len(videos)} videos have no frame that can be used; {rest}")

    raise typer.Exit(guarded(run, debug))
