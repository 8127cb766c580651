"""`--to onnx tflite` as `--to onnx --to tflite`: an option that takes several words, which the parser cannot say."""

from __future__ import annotations

from collections.abc import Sequence

SEVERAL = ("--to", "--precision")


def repeated(arguments: Sequence[str], options: Sequence[str] = SEVERAL) -> list[str]:
    """The arguments with each further word behind one of `options` given an option of its own, up to the next option.

    A folder must stand before such an option, or behind another one.
    """
    found: list[str] = []
    option, words = "", 0
    for word in arguments:
        if word.startswith("-"):
            option, words = (word, 0) if word in options else ("", 0)
        elif option:
            words += 1
            if words > 1:
                found.append(option)
        found.append(word)
    return found
