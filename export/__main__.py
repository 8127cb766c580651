"""Export a run folder and prove the file equal: `python -m export RUN --to onnx [--out DIR] [--images DIR]`.

Exit code 0: written and proven, 1: the file is not the network or is over the budget, 2: bad input.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mobileface.errors import exit_code, guarded


def export(
    run: Annotated[Path, typer.Argument(help="run folder: arch.json and model.safetensors")],
    to: Annotated[list[str], typer.Option(help="format, once for each: onnx")],
    out: Annotated[Path | None, typer.Option(help="folder to write to; RUN/export unless told")] = None,
    images: Annotated[
        Path | None, typer.Option(help="crops to compare on: a folder or a .bin; synthetic faces unless told")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Export a run's network. Exit code 0 written and proven equal, 1 not equal or too large, 2 bad input."""

    def work() -> int:
        from export.images import parity_images
        from export.run import export_run

        for result in export_run(run, to, parity_images(images), out):
            parity, size_mib = result["parity"], result["bytes"] / (1 << 20)
            batches = " and ".join(map(str, parity["batches"]))
            print(
                f"{(out or run / 'export') / result['file']}: {size_mib:.2f} MiB; equal to the network on "
                f"{parity['images']} images at batch {batches} (largest difference {parity['max_abs']:.1e}, "
                f"least cosine {parity['min_cosine']:.9g})"
            )
        return 0

    raise typer.Exit(guarded(work, debug))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(export)
    return exit_code(lambda: app(args=argv, prog_name="python -m export"))


if __name__ == "__main__":
    sys.exit(main())
