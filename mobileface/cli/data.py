"""`mobileface data`: write, pack, align, clean and look at face data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mobileface.cli.options import (
    Cache,
    Color,
    DataRoot,
    Debug,
    Json,
    Layout,
    Mean,
    Overrides,
    PairRoot,
    Recipe,
    Scale,
    Std,
    given_contract,
    new_console,
)
from mobileface.errors import InputError, guarded, visible

data_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Write, pack and look at face data.")


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

    raise typer.Exit(guarded(run, debug))


@data_app.command("info")
def data_info(
    path: Annotated[Path, typer.Argument(help="image folder, .rec or .bin")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Count images and identities, decode every image, name the bad ones."""

    def run() -> None:
        from mobileface.data.info import describe, text

        found = describe(path)
        print(json.dumps(found) if as_json else text(found))

    raise typer.Exit(guarded(run, debug))


@data_app.command("pack")
def data_pack(
    source: Annotated[str, typer.Argument(help="image folder for a .rec; lfw, cfp-fp, … or a pairs.txt for a .bin")],
    to: Annotated[Path, typer.Option("--to", help="FILE.rec or FILE.bin")],
    data: PairRoot = Path("."),
    debug: Debug = False,
) -> None:
    """Pack an image folder into a .rec, or a list of pairs into a .bin."""

    def run() -> None:
        from mobileface.data.pack import pack

        print(pack(source, to, data))

    raise typer.Exit(guarded(run, debug))


@data_app.command("clean")
def data_clean(
    source: Annotated[Path, typer.Argument(help="image folder, one folder for each identity, or .rec")],
    model: Annotated[Path, typer.Option("--teacher", help="run folder or .onnx file that embeds the images")],
    out: Annotated[Path, typer.Option("--out", help="folder for clean.tsv, exclude.txt, summary.json, sheets")],
    threshold: Annotated[float, typer.Option(help="cosine from which on two images are joined")] = 0.4,
    least: Annotated[int, typer.Option(min=1, help="identities with fewer images are the long tail")] = 3,
    component: Annotated[int, typer.Option(min=2, help="images that make a second domain of an identity")] = 3,
    scale: Scale = None,
    mean: Mean = None,
    std: Std = None,
    layout: Layout = None,
    color: Color = None,
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
        embedder = open_embedder(model, given_contract(model, scale, mean, std, layout, color, None)[0])
        console = new_console()
        with console.status("cleaning") as status:
            summary = clean(faces, embedder, out, settings, lambda n, of: status.update(f"{n:,} of {of:,} images"))
        for verdict, count in summary["verdicts"].items():
            print(f"{verdict}: {count:,}")
        for series in summary["misfiled"]:
            found = f"{series['images']} images in {series['identity']} look like {series['looks_like']}"
            print(visible(f"  {found} (component {series['component']}, mean cosine {series['mean_cosine']:.2f})"))
        print(f"wrote {out / 'clean.tsv'}, exclude.txt, summary.json and a contact sheet for each verdict")

    raise typer.Exit(guarded(run, debug))


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
        from mobileface.data.align_cut import Settings
        from mobileface.data.align_photos import align_photos
        from mobileface.data.detect import Detector

        settings, found = Settings(score, least, every), Detector(detector)
        with new_console().status("aligning") as status:
            summary = align_photos(
                source, found, out, settings, lambda n, of: status.update(f"{n:,} of {of:,} photographs")
            )
        for verdict, count in summary["verdicts"].items():
            if count:
                print(f"{verdict}: {count:,}")
        for reason in summary["unreadable"]:
            print(f"  {reason}")
        if summary["left_out"]:
            print(f"left out: {summary['left_out']}")
        print(f"{summary['photographs']:,} photographs, {summary['there_already']:,} of them from a run before")
        if gone := summary["gone"]["photographs"]:
            print(f"gone since a run before: {gone:,}; their rows and {summary['gone']['crops']:,} crops stay")
        print(visible(f"wrote {out}: crops, align.tsv, align.json"))

    raise typer.Exit(guarded(run, debug, goes_on=True))


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
        from mobileface.data.look import look, of_training
        from mobileface.data.sheet import write_png
        from mobileface.files import use_cache
        from mobileface.training.plan_views import steps
        from mobileface.training.sources import data_root, open_faces, write_synthetic_once

        if out.suffix != ".png":
            raise InputError(f"{out}: wanted --out FILE.png")
        use_cache(cache)
        plan = factory.load_plan(recipe, data, overrides or [])
        if plan.data.synthetic:
            write_synthetic_once(plan.data.synthetic, data_root(plan), new_console())
        faces = open_faces(plan)
        chosen = of_training(faces, plan.data.validate_.identities, plan.seed, plan.data.min_images)
        views = plan.phases[0].views
        write_png(out, look(faces, chosen, steps(views.clean), plan.seed, images, steps(views.degraded or ())))
        print(f"wrote {out}")

    raise typer.Exit(guarded(run, debug))
