"""Options that take several words."""

from __future__ import annotations

import pytest

from export.arguments import repeated


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("RUN --to onnx", "RUN --to onnx"),
        ("RUN --to onnx coreml tflite", "RUN --to onnx --to coreml --to tflite"),
        ("RUN --to onnx --precision fp32 int8", "RUN --to onnx --precision fp32 --precision int8"),
        ("--to onnx tflite --out DIR RUN", "--to onnx --to tflite --out DIR RUN"),
        ("RUN --to onnx --to coreml tflite --debug", "RUN --to onnx --to coreml --to tflite --debug"),
        ("RUN --images DIR", "RUN --images DIR"),
        ("", ""),
    ],
)  # fmt: skip
def test_further_words_get_an_option_of_their_own(given: str, wanted: str) -> None:
    assert repeated(given.split()) == wanted.split()
