"""How long exported files take here: `python -m export.bench FILE... [--threads 1] [--reference FILE] [--profile]`.

One image a call, the runtime alone (no decoding, no alignment). Core ML has no runtime off macOS and is not timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from export.timing import Timing, all_threads, profile, runner, take_turns
from mobileface.errors import InputError, guarded, run_command

REFERENCE = "mobilefacenet"  # of the zoo, with weights of no training: time does not depend on them
OPERATORS = 8  # that a profile prints


def bench(
    files: Annotated[list[Path], typer.Argument(help=".onnx and .tflite files")],
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="threads, may be told several times; 1 and all cores unless told")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help=f"timed beside; a plain {REFERENCE} of the first file's format unless told")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="for each file and number of threads")] = 5.0,
    profiled: Annotated[bool, typer.Option("--profile", help="time by operator, where the runtime tells it")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Median milliseconds of one image, its spread, and the ratio to a reference that takes turns with it."""

    def work() -> None:
        for file in files:
            runner(file, 1)  # says what cannot be timed, before a reference is made
        with tempfile.TemporaryDirectory() as folder:
            beside = reference or plain_reference(files[0], Path(folder))
            rows = [
                row
                for count in threads or sorted({1, all_threads()})
                for row in _rows(files, beside, count, seconds, profiled)
            ]
        if as_json:
            print(json.dumps(rows))
            return
        for row in rows:
            print(_line(row))

    raise typer.Exit(guarded(work, debug))


def _rows(files: list[Path], reference: Path, threads: int, seconds: float, profiled: bool) -> list[dict[str, Any]]:
    """The files and the reference at one number of threads."""
    *timings, against = take_turns([*files, reference], threads, seconds)
    rows = [_row(file, timing, against, threads) for file, timing in zip(files, timings, strict=True)]
    if profiled:
        rows = [{**row, "operators": profile(file, threads)} for row, file in zip(rows, files, strict=True)]
    return [*rows, _row(reference, against, against, threads)]


def _row(file: Path, timing: Timing, against: Timing, threads: int) -> dict[str, Any]:
    return {
        "file": str(file) if timing is not against else f"reference: {file.name}",
        "threads": threads,
        "calls": len(timing.milliseconds),
        **timing.summary(),
        "ratio": round(timing.median / against.median, 3),
    }


def _line(row: dict[str, Any]) -> str:
    lines = [
        f"{row['file']}: {row['median_ms']:.2f} ms ({row['lower_quartile_ms']:.2f} to {row['upper_quartile_ms']:.2f}, "
        f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}, {row['calls']} calls), "
        f"{row['ratio']:.2f} of the reference"
    ]
    if "operators" in row:
        told = sorted(row["operators"].items(), key=lambda item: -item[1])[:OPERATORS]
        lines += [f"  {name}: {ms:.2f} ms" for name, ms in told] or ["  its runtime tells no time by operator"]
    return "\n".join(lines)


def plain_reference(like: Path, folder: Path) -> Path:
    """The zoo's REFERENCE in the format of `like`, in float32."""
    import torch

    from export.formats import FORMATS, require
    from mobileface.models.build import build
    from mobileface.zoo import find_arch

    kind = next((kind for kind, made in FORMATS.items() if made.suffix == like.suffix), None)
    if kind is None:
        raise InputError(f"{like}: is of no known kind, wanted an .onnx or a .tflite file")
    try:
        require([kind])
    except InputError as error:
        raise InputError(f"the reference: {error}, or --reference FILE") from None
    path = folder / f"{REFERENCE}{like.suffix}"
    torch.manual_seed(0)
    FORMATS[kind].write(build(find_arch(REFERENCE)).eval(), path, {}, "fp32", None)
    return path


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(bench, "python -m export.bench", argv)


if __name__ == "__main__":
    sys.exit(main())
