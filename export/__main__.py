"""Export a run folder and prove the files equal: `python -m export RUN --to onnx coreml tflite --precision fp32 int8`.

Exit code 0: written and proven, 1: a file is not the network or is over the budget, 2: bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from export.arguments import repeated
from mobileface.errors import guarded, run_command


def export(
    run: Annotated[Path, typer.Argument(help="run folder, in front of --to: arch.json and model.safetensors")],
    to: Annotated[list[str], typer.Option(help="formats: onnx, coreml, tflite, web")],
    precision: Annotated[list[str] | None, typer.Option(help="fp32 (unless told), fp16, int8")] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write to; RUN/export unless told")] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="crops to compare on and for int8's ranges: folder or .bin; the run's unless told"),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Export a run's network. Exit code 0 written and proven equal, 1 not equal or too large, 2 bad input."""

    def work() -> int:
        from export.images import crops_for
        from export.run import described, export_run

        precisions, folder = precision or ["fp32"], out or run / "export"
        crops = crops_for(run, images, precisions)

        def say(result: dict[str, Any]) -> None:
            print(described(result, folder), flush=True)

        export_run(run, to, crops, folder, precisions=precisions, say=say)
        return 0

    raise typer.Exit(guarded(work, debug))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_command(export, "python -m export", repeated(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
