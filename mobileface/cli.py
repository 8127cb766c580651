"""The command line: parse, call one function, give back an exit code. Heavy imports wait until they are needed."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mobileface.errors import INTERRUPTED, CheckFailed, InputError, exit_code, guarded, visible

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="From a budget and face images to a trained, judged, exported face-embedding network.",
)
data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Write, pack and look at face data.")
app.add_typer(data_app, name="data")

Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks")]
DataRoot = Annotated[Path | None, typer.Option("--data", help="folder that the recipe's paths begin in")]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; runs/NAME unless told otherwise")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="phases.0.images=20000")]
Cache = Annotated[Path | None, typer.Option("--cache", help="folder for the teacher's embeddings and indexes")]
Recipe = Annotated[Path, typer.Argument(help="a plan in YAML, such as recipes/demo.yaml")]


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

    def run() -> None:
        from mobileface import factory
        from mobileface.distributed import joined
        from mobileface.files import use_cache

        use_cache(cache)
        with joined() as first:
            report = factory.make(recipe, data, out, overrides or [], _console(first))
            if first:
                print(f"report: {report}")

    raise typer.Exit(guarded(run, debug))


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

    def run() -> None:
        from mobileface import factory
        from mobileface.distributed import joined
        from mobileface.files import use_cache

        use_cache(cache)
        with joined() as first:
            done = factory.train_recipe(recipe, data, out, overrides or [], _console(first))
            if first:
                print(f"run: {done}")

    raise typer.Exit(guarded(run, debug))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="run folder or .onnx file")],
    on: Annotated[list[str], typer.Option("--on", help="lfw, cfp-fp, cfp-ff, cfp-fp:9-10, a .bin or a pairs.txt")],
    data: Annotated[Path, typer.Option("--data", help="folder that holds lfw/, cfp/, …")] = Path("."),
    scale: Annotated[float | None, typer.Option(help="foreign ONNX: (x / scale - mean) / std")] = None,
    mean: Annotated[str | None, typer.Option(help="three numbers, 0.485,0.456,0.406")] = None,
    std: Annotated[str | None, typer.Option(help="three numbers, 0.229,0.224,0.225")] = None,
    layout: Annotated[str | None, typer.Option(help="nchw or nhwc")] = None,
    color: Annotated[str | None, typer.Option(help="rgb or bgr")] = None,
    flip: Annotated[str | None, typer.Option(help="sum: add the mirrored image's embedding; none")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="threads of the runtime; all unless told")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="exit code 1 below this accuracy (0..1)")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder to write SET.json and the worst pairs to")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Debug = False,
) -> None:
    """Judge a run or an ONNX file on pairs of faces: 10-fold accuracy, TAR at FAR, EER, AUC."""

    def run() -> None:
        if min_accuracy is not None and not 0 <= min_accuracy <= 1:
            raise InputError(f"--min-accuracy is {min_accuracy:g}, wanted 0..1")
        contract, given = _contract(model, scale, mean, std, layout, color, flip)
        results = _evaluate(model, on, data, contract, given.get("flip"), threads, out, as_json)
        low = [r for r in results if min_accuracy is not None and r["accuracy"] < min_accuracy]
        if low:
            raise CheckFailed(f"{low[0]['set']}: accuracy {low[0]['accuracy']:.4f}, asked for {min_accuracy}")

    raise typer.Exit(guarded(_from_anew(run), debug))


@app.command()
def export(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="run folder")],
    to: Annotated[list[str] | None, typer.Option("--to", help="format: onnx")] = None,
    debug: Debug = False,
) -> None:
    """Write a run's network for a runtime and prove it equal on the run's own images."""

    def run() -> None:
        from mobileface import factory
        from mobileface.training.plan import parse_plan, read_plan

        if (run_folder / "arch.json").is_file() and not (run_folder / "plan.yaml").is_file():  # it was imported
            factory.export_run_folder(run_folder, None, _console(), to or ["onnx"])
            return
        plan = read_plan(run_folder / "plan.yaml")
        if to:
            chosen = {**plan.model_dump(by_alias=True, exclude_none=True), "export": {"formats": to}}
            plan = parse_plan(chosen, "--to")
        factory.export_run_folder(run_folder, plan, _console())

    raise typer.Exit(guarded(_from_anew(run), debug))


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

    raise typer.Exit(guarded(_from_anew(run), debug))


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="run folder")], debug: Debug = False) -> None:
    """Write RUN/report.html anew from what the run folder holds."""

    def run() -> None:
        from mobileface import factory
        from mobileface.report.html import write_report

        print(f"report: {write_report(run_folder, factory.run_budget)}")

    raise typer.Exit(guarded(_from_anew(run), debug))


@app.command()
def understand(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="run folders, compared with each other")],
    data: Annotated[Path | None, typer.Option("--data", help="image folder or .rec whose norms are shown")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for the page; the first RUN unless told")] = None,
    debug: Debug = False,
) -> None:
    """Show what margin and norm do: gradients by margin, norms against quality, where a network looks."""

    def run() -> None:
        from mobileface.understanding.run import understand

        with _console().status("") as status:
            page = understand(runs, data, out or runs[0], status.update)
        print(f"page: {page}")

    raise typer.Exit(guarded(_from_anew(run), debug))


@data_app.command("synth")
def data_synth(
    out: Annotated[Path, typer.Argument(help="folder for train.rec, held_out.bin, factors.csv")],
    identities: Annotated[int, typer.Option(min=2, help="people to train on")] = 200,
    images: Annotated[int, typer.Option(min=1, help="images of each")] = 40,
    held_out: Annotated[int, typer.Option(min=2, help="people to judge on")] = 60,
    pairs: Annotated[int, typer.Option(min=20, help="pairs to judge on")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    debug: Debug = False,
) -> None:
    """Write a set of procedural faces with known factors: a .rec to train on and a .bin to judge on."""

    def run() -> None:
        from mobileface.data.synthetic import write_synthetic

        if there := [name for name in ("train.rec", "held_out.bin", "factors.csv") if (out / name).exists()]:
            raise InputError(f"{out / there[0]}: is there already; wanted a folder without it")
        write_synthetic(out, identities, images, held_out, pairs, seed)
        print(f"wrote {out / 'train.rec'}, {out / 'held_out.bin'}, {out / 'factors.csv'}")

    raise typer.Exit(guarded(_from_anew(run), debug))


@data_app.command("info")
def data_info(
    path: Annotated[Path, typer.Argument(help="image folder, .rec or .bin")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Debug = False,
) -> None:
    """Count images and identities, decode every image, name the bad ones."""

    def run() -> None:
        from mobileface.data.info import describe, text

        found = describe(path)
        print(json.dumps(found) if as_json else text(found))

    raise typer.Exit(guarded(_from_anew(run), debug))


@data_app.command("pack")
def data_pack(
    source: Annotated[str, typer.Argument(help="image folder for a .rec; lfw, cfp-fp, … or a pairs.txt for a .bin")],
    to: Annotated[Path, typer.Option("--to", help="FILE.rec or FILE.bin")],
    data: Annotated[Path, typer.Option("--data", help="folder that holds lfw/, cfp/, …")] = Path("."),
    debug: Debug = False,
) -> None:
    """Pack an image folder into a .rec, or a list of pairs into a .bin."""

    def run() -> None:
        from mobileface.data.pack import pack

        print(pack(source, to, data))

    raise typer.Exit(guarded(_from_anew(run), debug))


@data_app.command("clean")
def data_clean(
    source: Annotated[Path, typer.Argument(help="image folder, one folder for each identity, or .rec")],
    model: Annotated[Path, typer.Option("--teacher", help="run folder or .onnx file that embeds the images")],
    out: Annotated[Path, typer.Option("--out", help="folder for clean.tsv, exclude.txt, summary.json, sheets")],
    threshold: Annotated[float, typer.Option(help="cosine from which on two images are joined")] = 0.4,
    least: Annotated[int, typer.Option(min=1, help="identities with fewer images are the long tail")] = 3,
    component: Annotated[int, typer.Option(min=2, help="images that make a second domain of an identity")] = 3,
    scale: Annotated[float | None, typer.Option(help="foreign ONNX: (x / scale - mean) / std")] = None,
    mean: Annotated[str | None, typer.Option(help="three numbers, 0.485,0.456,0.406")] = None,
    std: Annotated[str | None, typer.Option(help="three numbers, 0.229,0.224,0.225")] = None,
    layout: Annotated[str | None, typer.Option(help="nchw or nhwc")] = None,
    color: Annotated[str | None, typer.Option(help="rgb or bgr")] = None,
    debug: Debug = False,
) -> None:
    """Find wrong labels, other domains, poor images and the long tail of a training set by a teacher's eyes."""

    def run() -> None:
        from mobileface.cleaning.identities import Settings
        from mobileface.cleaning.run import clean
        from mobileface.data.faceset import FaceSet
        from mobileface.data.info import open_source
        from mobileface.embedders.opening import open_embedder

        settings = Settings(threshold=threshold, least=least, component=component)
        faces = FaceSet([open_source(source)])
        embedder = open_embedder(model, _contract(model, scale, mean, std, layout, color, None)[0])
        console = _console()
        with console.status("cleaning") as status:
            summary = clean(faces, embedder, out, settings, lambda n, of: status.update(f"{n:,} of {of:,} images"))
        for verdict, count in summary["verdicts"].items():
            print(f"{verdict}: {count:,}")
        for series in summary["misfiled"]:
            found = f"{series['images']} images in {series['identity']} look like {series['looks_like']}"
            print(visible(f"  {found} (component {series['component']}, mean cosine {series['mean_cosine']:.2f})"))
        print(f"wrote {out / 'clean.tsv'}, exclude.txt, summary.json and a contact sheet for each verdict")

    raise typer.Exit(guarded(_from_anew(run), debug))


@data_app.command("align")
def data_align(
    source: Annotated[Path, typer.Argument(help="folder of photographs, one folder for each identity")],
    detector: Annotated[Path, typer.Option("--detector", help="YuNet face detector, an ONNX file")],
    out: Annotated[Path, typer.Option("--out", help="folder for the crops, align.tsv, align.json")],
    score: Annotated[float, typer.Option(min=0.3, max=1, help="least score of a face")] = 0.6,
    least: Annotated[float, typer.Option(min=1, help="least px of the shorter side of a face's box")] = 20,
    every: Annotated[bool, typer.Option("--all", help="all faces of a photograph, not the most prominent one")] = False,
    debug: Debug = False,
) -> None:
    """Find faces in photographs and cut them out, aligned, 112x112. Goes on where it was stopped."""

    def run() -> None:
        from mobileface.data.align_photos import Settings, align_photos
        from mobileface.data.detect import Detector

        found = Detector(detector)
        with _console().status("aligning") as status:
            summary = align_photos(
                source, found, out, Settings(score, least, every),
                lambda n, of: status.update(f"{n:,} of {of:,} photographs"),
            )  # fmt: skip
        for verdict, count in summary["verdicts"].items():
            if count:
                print(f"{verdict}: {count:,}")
        for reason in summary["unreadable"]:
            print(f"  {reason}")
        print(f"{summary['photographs']:,} photographs, {summary['there_already']:,} of them from a run before")
        print(visible(f"wrote {out}: crops, align.tsv, align.json"))

    raise typer.Exit(guarded(_from_anew(run), debug))


@data_app.command("look")
def data_look(
    recipe: Recipe,
    out: Annotated[Path, typer.Option("--out", help="FILE.png")],
    data: DataRoot = None,
    images: Annotated[int, typer.Option(min=1, max=200, help="crops to show, spread over the training set")] = 8,
    overrides: Overrides = None,
    cache: Cache = None,
    debug: Debug = False,
) -> None:
    """Draw a sheet of training crops and of what the first phase's augmentation makes of them."""

    def run() -> None:
        from mobileface import factory
        from mobileface.data.look import look
        from mobileface.data.sheet import write_png
        from mobileface.files import use_cache
        from mobileface.training.plan_views import steps

        if out.suffix != ".png":
            raise InputError(f"{out}: wanted --out FILE.png")
        use_cache(cache)
        plan = factory.load_plan(recipe, data, overrides or [])
        if plan.data.synthetic:
            factory.write_synthetic_once(plan.data.synthetic, factory.data_root(plan), _console())
        write_png(out, look(factory.open_faces(plan), steps(plan.phases[0].views.clean), plan.seed, images))
        print(f"wrote {out}")

    raise typer.Exit(guarded(_from_anew(run), debug))


def _from_anew(command: Callable[[], None]) -> Callable[[], int]:
    """A command that keeps nothing to go on from: interrupted, it says so. (`guarded` speaks for those that do.)"""

    def run() -> int:
        try:
            command()
        except KeyboardInterrupt:
            print("interrupted; the same command begins anew", file=sys.stderr)
            return INTERRUPTED
        return 0

    return run


def _contract(
    model: Path,
    scale: float | None,
    mean: str | None,
    std: str | None,
    layout: str | None,
    color: str | None,
    flip: str | None,
) -> tuple[Any, dict[str, Any]]:
    """(the input contract that the options give, or None for the file's own; what was given)."""
    from mobileface.embedders.contract import InputContract

    options = {"scale": scale, "mean": mean, "std": std, "layout": layout, "color": color, "flip": flip}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    for key in ("mean", "std"):
        if key in given:
            given[key] = _three(f"--{key}", str(given[key]))
    asked = [key for key in given if key != "flip"]
    if asked and model.is_dir():
        raise InputError(f"{model}: a run folder takes RGB in 0..255 and needs no contract; leave --{asked[0]} out")
    missing = [key for key in ("scale", "mean", "std") if key not in given]
    if asked and missing:
        raise InputError(f"--{missing[0]} is missing: an input contract needs --scale, --mean and --std")
    return (InputContract.from_dict(given) if "scale" in given else None), given


def _evaluate(
    model: Path,
    on: list[str],
    data: Path,
    contract: Any,
    flip: str | None,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> list[dict[str, Any]]:
    """Open, judge, print, and keep the results in the run folder (or in `out`)."""
    from mobileface.data.pairs import open_pairs
    from mobileface.embedders.opening import open_embedder
    from mobileface.evaluation import verification

    embedder = open_embedder(model, contract, threads)
    folder = out or (model / "evaluation" if model.is_dir() else None)
    pair_sets = [open_pairs(spec, data) for spec in on]
    if folder is not None:
        verification.check_names(pair_sets, "--on")
    results = []
    for pair_set in pair_sets:
        found = verification.evaluate(embedder, pair_set, flip)
        results.append(found.result)
        if folder is not None:
            verification.write_verification(found, folder)
        if not as_json:
            print(visible(verification.summary(found.result)))
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 else {"results": results}))
    return results


def _three(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is {text!r}, wanted three numbers such as 0.5,0.5,0.5") from None


def _console(speaks: bool = True) -> Any:
    from rich.console import Console

    return Console(soft_wrap=True, markup=False, emoji=False, quiet=not speaks)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (design: 0 done, 1 check, 2 input, 3 not finite, 130)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what no terminal can show
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="warning: %(message)s")
    return exit_code(lambda: app(args=argv, prog_name="mobileface"))
