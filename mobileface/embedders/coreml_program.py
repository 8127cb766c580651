"""An ML Program executed by torch, operation by operation: what a Core ML package says, checked on any machine.

The program and its weights are read from the package as saved; compressed weights are expanded as the file describes
them. Float16 results are rounded after every operation, sums inside of one are float32. So graph, weights and rounding
are checked; the kernels of Apple's devices, which may add up in another order or in float16, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
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
FOLDED = {"cast": "x", "concat": "values", "reshape": "x"}  # coremltools follows single unknown values through these
MOST_VALUES = 1 << 27  # of one tensor: 512 MiB in float32
MOST_TOTAL = 1 << 29  # of all tensors of a program
MOST_NUMBERS = 1 << 16  # of a constant of integers that an operation takes; longer ones are packed weights
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
        described, found = {entry.name for entry in package.specification.description.input}, set(function.inputs)
        if described != found:
            raise InputError(
                f"{self.path}: is described to take {sorted(described)}, its program takes {sorted(found)}"
            )
        self._outputs = [variable.name for variable in function.outputs]
        if others := set(self._outputs) - {step.result for step in self._steps}:
            raise InputError(f"{self.path}: output {min(others)!r} is not computed, wanted the result of an operation")

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        values: dict[str, Any] = {name: torch.from_numpy(value) for name, value in inputs.items()}

        def given(argument: Any) -> Any:
            if isinstance(argument, list):
                return [given(part) for part in argument]
            return values[argument.text] if isinstance(argument, Name) else argument

        for step in self._steps:
            try:
                arguments = {name: given(argument) for name, argument in step.arguments.items()}
                values[step.result] = TYPES[step.dtype](OPERATIONS[step.kind](**arguments))
            except (InputError, RuntimeError, TypeError, ValueError, LookupError) as error:
                raise InputError(f"{self.path}: {step.kind} {step.result!r} does not run ({one_line(error)})") from None
        return {name: values[name].numpy() for name in self._outputs}


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
    for function in functions.values():
        for block in function.block_specializations.values():
            _check_block(package.path, block, {entry.name: _stated(entry) for entry in function.inputs})


def _check_block(path: Path, block: Any, sizes: dict[str, int]) -> None:
    """Refuse what coremltools would make large while it reads: it computes whatever has no input but constants.

    sizes: of the inputs, as stated. What coremltools infers is held to what is stated, but for unknown lengths.
    """
    constants: set[str] = set()
    for operation in block.operations:
        bindings = [binding for argument in operation.inputs.values() for binding in argument.arguments]
        if operation.blocks:
            raise InputError(f"{path}: {operation.type} holds operations of its own, wanted none")
        if operation.type == "const":
            constants.update(output.name for output in operation.outputs)
        elif not operation.type.startswith(CONSTANT) and all(
            binding.WhichOneof("binding") != "name" or binding.name in constants for binding in bindings
        ):
            raise InputError(f"{path}: {operation.type} has only constants to compute with, wanted its result instead")
        for output in operation.outputs:
            if output.name in sizes:
                raise InputError(f"{path}: has two values called {output.name!r}, wanted a name for each")
            followed = operation.inputs.get(FOLDED.get(operation.type, ""))
            taken = sum(sizes.get(binding.name, 0) for binding in followed.arguments) if followed else 0
            sizes[output.name] = max(_stated(output), taken)
    _check_sizes(path, sizes)


def _check_sizes(path: Path, sizes: dict[str, int]) -> None:
    """InputError for a tensor of too many values, and for too many in all."""
    largest = max(sizes, key=sizes.__getitem__, default="")
    if sizes and sizes[largest] > MOST_VALUES:
        raise InputError(f"{path}: {largest!r} has {sizes[largest]:,} values, wanted at most {MOST_VALUES:,}")
    if (total := sum(sizes.values())) > MOST_TOTAL:
        raise InputError(f"{path}: its tensors have {total:,} values, wanted at most {MOST_TOTAL:,}")


def _stated(value: Any) -> int:
    """How many values a NamedValueType states."""
    return _size(side.constant.size for side in value.type.tensorType.dimensions if side.HasField("constant"))


def _size(shape: Iterable[Any]) -> int:
    """Values of a tensor; a length that is a symbol counts as one."""
    return prod(int(side) for side in shape if isinstance(side, int | np.integer))


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
    results = [result for operation in function.operations for result in operation.outputs]
    _check_sizes(path, {result.name: _size(result.shape) for result in results})
    for operation in function.operations:
        [result] = operation.outputs
        if operation.op_type.startswith("constexpr_"):
            constants[result.name] = _constant(operation.materialized_val_inference())
        elif operation.op_type == "const":
            constants[result.name] = _constant(result.val)
        else:
            dtype = builtin_to_string(result.dtype)
            if dtype not in TYPES:
                raise InputError(f"{path}: {result.name!r} is of type {dtype}, wanted one of {', '.join(TYPES)}")
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
    """Floats as a float32 tensor, all else as plain Python values; a long array stays one, no operation takes it."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float32))
    return array if array.size > MOST_NUMBERS else array.tolist()
