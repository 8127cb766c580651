"""The command line: parse, call one function, give back an exit code. Heavy imports wait until they are needed."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from export.arguments import repeated
from mobileface.cli.data import data_app
from mobileface.cli.embed import embed
from mobileface.cli.evaluation import evaluate, resolutions
from mobileface.cli.options import (
    Cache,
    DataRoot,
    Debug,
    Out,
    Overrides,
    Recipe,
    RunFolder,
    new_console,
)
from mobileface.cli.scale import score
from mobileface.cli.video import clean
from mobileface.errors import exit_code, guarded, visible

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="From a budget and face images to a trained, judged, exported face-embedding network.",
)
app.add_typer(data_app, name="data")


@app.command()
def make(
    recipe: Recipe,
    data: DataRoot = None,
    out: Out = None,
    overrides: Overrides = None,
    cache: Cache = None,
    debug: Debug = False,
) -> None:
    """Do everything: budget, training, evaluation, export, parity, report. Goes on where it was stopped."""
    _on_every_rank("make", "report", (recipe, data, out, overrides or []), cache, debug)


@app.command()
def train(
    recipe: Recipe,
    data: DataRoot = None,
    out: Out = None,
    overrides: Overrides = None,
    cache: Cache = None,
    debug: Debug = False,
) -> None:
    """Only the budget check and the training."""
    _on_every_rank("train_recipe", "run", (recipe, data, out, overrides or []), cache, debug)


def _on_every_rank(function: str, made: str, arguments: tuple[Any, ...], cache: Path | None, debug: bool) -> None:
    """Call a function of `factory` together with the other processes of a torchrun; the first one says what it made."""

    def run() -> None:
        from mobileface import factory
        from mobileface.distributed import joined
        from mobileface.files import use_cache

        use_cache(cache)
        with joined() as first:
            done = getattr(factory, function)(*arguments, new_console(first))
            if first:
                print(f"{made}: {done}")

    raise typer.Exit(guarded(run, debug, goes_on=True))


app.command()(evaluate)
app.command()(resolutions)
app.command()(embed)
app.command()(score)
app.command()(clean)


@app.command()
def export(
    run_folder: RunFolder,
    to: Annotated[list[str] | None, typer.Option("--to", help="formats: onnx, coreml, tflite, web")] = None,
    precision: Annotated[list[str] | None, typer.Option("--precision", help="fp32, fp16, int8")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="crops to compare on and for int8's ranges: a folder or a .bin")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a run's network for runtimes and prove it equal on the run's own images; its plan's formats unless told."""

    def run() -> None:
        from mobileface import factory
        from mobileface.training.plan import parse_export, read_plan

        told = {"formats": to} if to else {}
        told |= {"precisions": precision} if precision else {}
        if not (run_folder / "plan.yaml").is_file():  # it was imported
            factory.export_run_folder(run_folder, parse_export(told, "export"), new_console(), images)
            return
        plan = read_plan(run_folder / "plan.yaml")
        chosen = parse_export({**plan.export.model_dump(), **told}, "export")
        factory.export_run_folder(run_folder, chosen, new_console(), images)

    raise typer.Exit(guarded(run, debug))


@app.command("import")
def import_weights(
    file: Annotated[Path, typer.Argument(help="state dict of a public code: .pth, .pt, .ckpt or .safetensors")],
    kind: Annotated[str, typer.Option("--as", help="what it is: adaface-ir50, arcface-iresnet50, mobilefacenet-y1, …")],
    out: Annotated[Path, typer.Option("--out", help="run folder to write")],
    color: Annotated[str | None, typer.Option(help="rgb or bgr, where it was not trained as its kind says")] = None,
    licence: Annotated[str | None, typer.Option(help="of the weights, for the model card")] = None,
    debug: Debug = False,
) -> None:
    """Turn public weights into a run folder: to judge, to export, to learn from, like any other."""

    def run() -> None:
        from mobileface import factory

        print(visible(factory.import_release(file, kind, out, color, licence)))

    raise typer.Exit(guarded(run, debug))


@app.command()
def report(run_folder: RunFolder, debug: Debug = False) -> None:
    """Write RUN/report.html anew from what the run folder holds."""

    def run() -> None:
        from mobileface import factory
        from mobileface.report.html import write_report

        print(f"report: {write_report(run_folder, factory.run_budget)}")

    raise typer.Exit(guarded(run, debug))


@app.command()
def understand(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders, compared with each other")],
    data: Annotated[Path | None, typer.Option("--data", help="image folder or .rec, for norms of real faces")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for the page; the first RUN unless told")] = None,
    debug: Debug = False,
) -> None:
    """Show what margin and norm do: gradients by margin, norms against quality, where a network looks."""

    def run() -> None:
        from mobileface.understanding.run import understand

        with new_console().status("") as status:
            page = understand(runs, data, out or runs[0], status.update)
        print(f"page: {page}")

    raise typer.Exit(guarded(run, debug))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (design: 0 done, 1 check, 2 input, 3 not finite, 130)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what no terminal can show
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="warning: %(message)s")
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["export"]:
        arguments = repeated(arguments)
    return exit_code(lambda: app(args=arguments, prog_name="mobileface"))
