"""What several commands share: their options, the contract they give, where they speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mobileface.errors import InputError

Debug = Annotated[bool, typer.Option("--debug", help="show tracebacks")]
DataRoot = Annotated[Path | None, typer.Option("--data", help="folder that the recipe's paths begin in")]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; runs/NAME unless told otherwise")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="phases.0.images=20000")]
Cache = Annotated[Path | None, typer.Option("--cache", help="folder for the teacher's embeddings and indexes")]
Recipe = Annotated[Path, typer.Argument(help="a plan in YAML, such as recipes/demo.yaml")]
Scale = Annotated[float | None, typer.Option(help="foreign ONNX: (x / scale - mean) / std")]
Mean = Annotated[str | None, typer.Option(help="three numbers, 0.485,0.456,0.406")]
Std = Annotated[str | None, typer.Option(help="three numbers, 0.229,0.224,0.225")]
Layout = Annotated[str | None, typer.Option(help="nchw or nhwc")]
Color = Annotated[str | None, typer.Option(help="rgb or bgr")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="run folder")]
PairRoot = Annotated[Path, typer.Option("--data", help="folder that holds lfw/, cfp/, …")]


def given_contract(
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


def _three(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} is {text!r}, wanted three numbers such as 0.5,0.5,0.5") from None


def new_console(speaks: bool = True) -> Any:
    from rich.console import Console

    return Console(soft_wrap=True, markup=False, emoji=False, quiet=not speaks)
