"""Small Core ML packages for tests, written by coremltools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobileface.embedders.coreml_package import quiet

with quiet():
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types  # noqa: F401, for the tests


def write(
    path: Path,
    build: Callable[..., Any],
    shapes: dict[str, tuple[int, ...]],
    target: Any = None,
    **options: Any,
) -> Path:
    """A package whose program is what `build` makes of its inputs, as it stands: no pass changes it."""
    target = target or ct.target.iOS16
    specs = [mb.TensorSpec(shape=shape) for shape in shapes.values()]
    code = compile(f"lambda {', '.join(shapes)}: build({', '.join(shapes)})", "<program>", "eval")
    with quiet():
        program = mb.program(input_specs=specs, opset_version=target)(eval(code, {"build": build}))
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=target,
            pass_pipeline=ct.PassPipeline.EMPTY,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
            **options,
        )
        model.save(str(path))
    return path
