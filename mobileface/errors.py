"""Errors that a person can act on, and the exit code that each of them ends the program with."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable


class MobileFaceError(Exception):
    """Base of the errors below: its text is one line that names the thing, what was found, what is wanted."""

    exit_code = 1


class CheckFailed(MobileFaceError):
    """A check failed: over budget, parity missed, accuracy asked for and not met."""

    exit_code = 1


class InputError(MobileFaceError):
    """Bad input: a file, a plan, an option or an architecture that cannot be used."""

    exit_code = 2


class NonFiniteError(MobileFaceError):
    """Training met a NaN or an infinity and stopped; the last good checkpoint stays."""

    exit_code = 3


INTERRUPTED = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint ` (did you mean 'x'?)` for the known name nearest to `name`, or an empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def guarded(command: Callable[[], int | None], debug: bool = False, goes_on: bool = False) -> int:
    """Run `command` and return its exit code; an error becomes one line on stderr.

    With `debug` the traceback is printed as well; `goes_on` is for a command that loses nothing by an interrupt.
    Errors of the operating system (a full disk, a file that is not there) count as bad input: one line as well.
    """
    try:
        return command() or 0
    except KeyboardInterrupt:
        on, anew = "what was saved stays, and the same command goes on from there", "the same command begins anew"
        print(f"interrupted; {on if goes_on else anew}", file=sys.stderr)
        return INTERRUPTED
    except (MobileFaceError, OSError, MemoryError) as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, MobileFaceError) else InputError.exit_code
    except Exception as error:  # a defect of ours: still one line, and how to see the rest
        if debug:
            traceback.print_exc()
        print(f"error: {type(error).__name__}: {one_line(error)} (a defect; --debug shows where)", file=sys.stderr)
        return 1


def run_command(command: Callable[..., object], name: str, argv: list[str] | None) -> int:
    """A command line of one command, called `name` in its help; returns the exit code."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(command)
    return exit_code(lambda: app(args=argv, prog_name=name))


def exit_code(application: Callable[[], object]) -> int:
    """Run a command-line application that ends in SystemExit (usage errors too) and return its code."""
    try:
        application()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def one_line(error: BaseException) -> str:
    """The error's text on one line, control characters shown as escapes."""
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        text = f"{error.strerror}{name}"
    else:
        text = str(error) or type(error).__name__
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """`text` with control characters and bytes that are no text as escapes: safe to print anywhere."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
