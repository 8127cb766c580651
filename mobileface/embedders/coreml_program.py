"""An ML Program executed by torch, operation by operation: what a Core ML package says, checked on any machine.

The program and its weights are read from the package as saved; compressed weights are expanded as the file describes
them. Float16 results are rounded after every operation, sums inside of one are float32. So graph, weights and rounding
are checked; the kernels of Apple's devices, which may add up in another order or in float16, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobileface.embedders.coreml_ops import OPERATIONS
from mobileface.embedders.coreml_package import Package, quiet
from mobileface.errors import InputError, one_line

CONSTANT = ("const", "constexpr_")  # prefixes of what holds a value and computes nothing
MOST_VALUES = 1 << 27  # of one tensor: 512 MiB in float32
TYPES: dict[str, Callable[[Tensor], Tensor]] = {
    "fp16": lambda x: x.half().float(),
    "fp32": lambda x: x.float(),
    "int32": lambda x: x.int(),
    "bool": lambda x: x.bool(),
}


@dataclass(frozen=True)
class Name:
    """An argument that an earlier operation computes."""

    text: str


@dataclass(frozen=True)
class Step:
    """One operation: its type, its arguments by parameter, and its result's name and type."""

    kind: str
    arguments: dict[str, Any]
    result: str
    dtype: str


class Program:
    """The function `main` of a package: arrays by name -> results by name. InputError for what is not understood.

    constants: every value that the file holds, by name, compressed weights as what they stand for.
    """

    def __init__(self, package: Package) -> None:
        self.path = package.path
        _check_operations(package)
        with quiet():
            function = _load(package)
            try:
                self._steps, self.constants = _steps(package.path, function)
            except (AttributeError, TypeError, ValueError, IndexError) as error:
                raise InputError(f"{self.path}: is damaged ({one_line(error)})") from None
        self._outputs = [variable.name for variable in function.outputs]

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        values: dict[str, Any] = {name: torch.from_numpy(value) for name, value in inputs.items()}

        def given(argument: Any) -> Any:
            if isinstance(argument, list):
                return [given(part) for part in argument]
            return values[argument.text] if isinstance(argument, Name) else argument

        for step in self._steps:
            arguments = {name: given(argument) for name, argument in step.arguments.items()}
            try:
                values[step.result] = TYPES[step.dtype](OPERATIONS[step.kind](**arguments))
            except (InputError, RuntimeError, TypeError, ValueError, IndexError) as error:
                raise InputError(f"{self.path}: {step.kind} {step.result!r} does not run ({one_line(error)})") from None
        return {name: (values | self.constants)[name].numpy() for name in self._outputs}


def _check_operations(package: Package) -> None:
    """Refuse what is not understood before coremltools builds it: some operations make values of any size."""
    functions = package.specification.mlProgram.functions
    if "main" not in functions:
        raise InputError(f"{package.path}: has the functions {sorted(functions)}, wanted one called main")
    blocks = [block for function in functions.values() for block in function.block_specializations.values()]
    kinds = {operation.type for block in blocks for operation in block.operations}
    if unknown := sorted(kind for kind in kinds if kind not in OPERATIONS and not kind.startswith(CONSTANT)):
        raise InputError(
            f"{package.path}: holds operations that the interpreter does not know: {', '.join(unknown)}; "
            f"known: {', '.join(OPERATIONS)}"
        )


def _load(package: Package) -> Any:
    """The function `main` as coremltools' MIL, its constants as numpy arrays."""
    from coremltools.converters.mil.frontend.milproto.load import load

    version = package.specification.specificationVersion
    try:
        program = load(package.specification, specification_version=version, file_weights_dir=str(package.weights))
        return program.functions["main"]
    except Exception as error:  # whatever a damaged file makes of the library
        raise InputError(f"{package.path}: is no ML Program that can be read ({one_line(error)})") from None


def _steps(path: Path, function: Any) -> tuple[list[Step], dict[str, Any]]:
    """The operations that compute something, and the values of the others by name."""
    from coremltools.converters.mil.mil.types import builtin_to_string

    constants: dict[str, Any] = {}
    steps = []
    for operation in function.operations:
        [result] = operation.outputs
        if operation.op_type.startswith("constexpr_"):
            constants[result.name] = _constant(operation.materialized_val_inference())
        elif operation.op_type == "const":
            constants[result.name] = _constant(result.val)
        else:
            dtype, shape = builtin_to_string(result.dtype), result.shape
            if dtype not in TYPES:
                raise InputError(f"{path}: {result.name!r} is of type {dtype}, wanted one of {', '.join(TYPES)}")
            if all(isinstance(side, int | np.integer) for side in shape) and np.prod(shape, dtype=float) > MOST_VALUES:
                raise InputError(f"{path}: {result.name!r} has shape {shape}, wanted at most {MOST_VALUES:,} values")
            arguments = {name: _argument(value, constants) for name, value in operation.inputs.items()}
            steps.append(
                Step(operation.op_type, {k: v for k, v in arguments.items() if v is not None}, result.name, dtype)
            )
    return steps, constants


def _argument(value: Any, constants: dict[str, Any]) -> Any:
    """A constant's value, the name of a computed one, a list of such, or None."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        return [_argument(part, constants) for part in value]
    return constants[value.name] if value.name in constants else Name(value.name)


def _constant(value: Any) -> Any:
    """Floats as a float32 tensor, all else as plain Python values."""
    array = np.asarray(value)
    return torch.from_numpy(array.astype(np.float32)) if array.dtype.kind == "f" else array.tolist()
