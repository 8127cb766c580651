"""The interpreter of Core ML programs against plain arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobileface.embedders.coreml_ops import OPERATIONS
from mobileface.embedders.coreml_package import read_package
from mobileface.embedders.coreml_program import Program
from mobileface.errors import InputError
from tests.embedders.coreml_packages import ct, mb, types, write

Array = NDArray[np.float32]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(0, 2, (1, 6, 9, 7)).astype(np.float32)
POSITIVE = np.abs(X) + 0.1
CHANNELS = RANDOM.normal(0, 1, 6).astype(np.float32)
VARIANCE = RANDOM.uniform(0.5, 2, 6).astype(np.float32)


def computed(path: Path, build: Callable[..., Any], **inputs: Array) -> list[NDArray[Any]]:
    """What the interpreter makes of a program, its results in their order."""
    shapes = {name: value.shape for name, value in inputs.items()}
    return list(Program(read_package(write(path, build, shapes)))(inputs).values())


def slow_conv(
    x: Array,
    weight: Array,
    bias: Array,
    stride: tuple[int, int],
    pad: list[int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.float64]:
    """One output value after the other."""
    top, bottom, left, right = pad
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    outputs, inputs, *kernel = weight.shape
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    sides = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reach, stride, strict=True)]
    result = np.zeros((1, outputs, *sides))
    for channel, row, column in itertools.product(range(outputs), *map(range, sides)):
        first = channel // (outputs // groups) * inputs
        rows = slice(row * stride[0], row * stride[0] + reach[0], dilation[0])
        columns = slice(column * stride[1], column * stride[1] + reach[1], dilation[1])
        window = padded[0, first : first + inputs, rows, columns]
        result[0, channel, row, column] = (window * weight[channel]).sum() + bias[channel]
    return result


def slow_max_pool(x: Array, kernel: tuple[int, int], stride: tuple[int, int], pad: list[int]) -> Array:
    """One output value after the other."""
    top, bottom, left, right = pad
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    rows, columns = ((n - k) // s + 1 for n, k, s in zip(padded.shape[2:], kernel, stride, strict=True))
    result = np.zeros((*x.shape[:2], rows, columns), np.float32)
    for row, column in itertools.product(range(rows), range(columns)):
        first, left = row * stride[0], column * stride[1]
        result[:, :, row, column] = padded[:, :, first : first + kernel[0], left : left + kernel[1]].max((2, 3))
    return result


@pytest.mark.parametrize(
    ("outputs", "kernel", "stride", "pad", "dilation", "groups"),
    [
        (4, (3, 3), (2, 2), [1, 1, 1, 1], (1, 1), 1),
        (6, (5, 3), (1, 2), [2, 0, 1, 0], (1, 1), 6),  # depthwise, edges that differ
        (12, (3, 2), (2, 1), [0, 3, 2, 1], (2, 3), 3),
        (2, (1, 1), (3, 2), [0, 0, 0, 0], (1, 1), 2),
    ],
)
def test_convolutions(
    tmp_path: Path, outputs: int, kernel: Any, stride: Any, pad: Any, dilation: Any, groups: int
) -> None:
    weight = RANDOM.normal(0, 1, (outputs, 6 // groups, *kernel)).astype(np.float32)
    bias = RANDOM.normal(0, 1, outputs).astype(np.float32)

    def build(x: Any) -> Any:
        return mb.conv(
            x=x, weight=weight, bias=bias, strides=stride, pad_type="custom", pad=pad, dilations=dilation, groups=groups
        )

    [found] = computed(tmp_path / "conv.mlpackage", build, x=X)
    np.testing.assert_allclose(found, slow_conv(X, weight, bias, stride, pad, dilation, groups), atol=1e-4)


def test_convolution_of_defaults(tmp_path: Path) -> None:
    weight = RANDOM.normal(0, 1, (3, 6, 2, 2)).astype(np.float32)
    [found] = computed(tmp_path / "conv.mlpackage", lambda x: mb.conv(x=x, weight=weight), x=X)
    np.testing.assert_allclose(
        found, slow_conv(X, weight, np.zeros(3, np.float32), (1, 1), [0] * 4, (1, 1), 1), atol=1e-4
    )


def softmax(x: Array, axis: int) -> NDArray[np.float64]:
    powers = np.exp(x.astype(np.float64))
    return powers / powers.sum(axis=axis, keepdims=True)


def channel(values: Array) -> Array:
    return values.reshape(1, 6, 1, 1)


# operation -> what builds it, and what it is in numpy; `x` has shape (1, 6, 9, 7)
CASES: dict[str, tuple[Callable[[Any], Any], Callable[[Array], Any]]] = {
    "abs": (lambda x: mb.abs(x=x), np.abs),
    "add": (lambda x: mb.add(x=x, y=channel(CHANNELS)), lambda x: x + channel(CHANNELS)),
    "batch_norm": (
        lambda x: mb.batch_norm(x=x, mean=CHANNELS, variance=VARIANCE, gamma=VARIANCE, beta=CHANNELS, epsilon=0.1),
        lambda x: (x - channel(CHANNELS)) / np.sqrt(channel(VARIANCE) + 0.1) * channel(VARIANCE) + channel(CHANNELS),
    ),
    "batch_norm of defaults": (
        lambda x: mb.batch_norm(x=x, mean=CHANNELS, variance=VARIANCE),
        lambda x: (x - channel(CHANNELS)) / np.sqrt(channel(VARIANCE) + 1e-5),
    ),
    "cast": (lambda x: mb.cast(x=x, dtype="int32"), lambda x: np.trunc(x).astype(np.int32)),
    "cast to fp16": (lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"), lambda x: x.astype(np.float16)),
    "clip": (lambda x: mb.clip(x=x, alpha=-0.5, beta=1.25), lambda x: np.minimum(np.maximum(x, -0.5), 1.25)),
    "concat": (lambda x: mb.concat(values=[x, x], axis=-2), lambda x: np.concatenate([x, x], 2)),
    "exp": (lambda x: mb.exp(x=x), np.exp),
    "expand_dims": (lambda x: mb.expand_dims(x=mb.squeeze(x=x, axes=[0]), axes=[-1, 0]), lambda x: x[..., None]),
    "fill_like": (lambda x: mb.fill_like(ref_tensor=x, value=2.5), lambda x: np.full_like(x, 2.5)),
    "greater": (lambda x: mb.cast(x=mb.greater(x=x, y=0.5), dtype="fp32"), lambda x: (x > 0.5).astype(np.float32)),
    "leaky_relu": (lambda x: mb.leaky_relu(x=x, alpha=1.5), lambda x: np.where(x > 0, x, 1.5 * x)),
    "linear": (
        lambda x: mb.linear(x=x, weight=X[0, 0, :5], bias=CHANNELS[:5]),
        lambda x: np.einsum("bchw,dw->bchd", x.astype(np.float64), X[0, 0, :5]) + CHANNELS[:5],
    ),
    "log": (lambda x: mb.log(x=mb.abs(x=x), epsilon=0.5), lambda x: np.log(np.abs(x) + 0.5)),
    "max_pool": (
        lambda x: mb.max_pool(x=x, kernel_sizes=[2, 3], strides=[2, 1], pad_type="custom", pad=[1, 0, 0, 2]),
        lambda x: slow_max_pool(x, (2, 3), (2, 1), [1, 0, 0, 2]),
    ),
    "maximum": (lambda x: mb.maximum(x=x, y=0.25), lambda x: np.maximum(x, 0.25)),
    "mul": (lambda x: mb.mul(x=x, y=x), lambda x: x * x),
    "prelu": (
        lambda x: mb.prelu(x=x, alpha=2 * CHANNELS),
        lambda x: np.where(x > 0, x, channel(2 * CHANNELS) * x),
    ),
    "real_div": (lambda x: mb.real_div(x=x, y=channel(VARIANCE)), lambda x: x / channel(VARIANCE)),
    "reduce_l2_norm": (
        lambda x: mb.reduce_l2_norm(x=x, axes=[-3, 3], keep_dims=True),
        lambda x: np.sqrt((x.astype(np.float64) ** 2).sum(axis=(1, 3), keepdims=True)),
    ),
    "reduce_mean": (lambda x: mb.reduce_mean(x=x, axes=[2, 3]), lambda x: x.mean(axis=(2, 3))),
    "reduce_mean of all": (lambda x: mb.reduce_mean(x=x, keep_dims=True), lambda x: x.mean(keepdims=True)),
    "reduce_sum": (lambda x: mb.reduce_sum(x=x, axes=[1]), lambda x: x.sum(axis=1)),
    "relu": (lambda x: mb.relu(x=x), lambda x: np.where(x > 0, x, 0)),
    "reshape": (lambda x: mb.reshape(x=x, shape=[1, -1, 9]), lambda x: x.reshape(1, 42, 9)),
    "select": (
        lambda x: mb.select(cond=mb.greater(x=x, y=0.0), a=x, b=X[:, ::-1].copy()),
        lambda x: np.where(x > 0, x, X[:, ::-1]),
    ),
    "sigmoid": (lambda x: mb.sigmoid(x=x), lambda x: 1 / (1 + np.exp(-x))),
    "sigmoid_hard": (lambda x: mb.sigmoid_hard(x=x, alpha=0.4, beta=0.3), lambda x: np.clip(0.4 * x + 0.3, 0, 1)),
    "softmax": (lambda x: mb.softmax(x=x, axis=1), lambda x: softmax(x, 1)),
    "squeeze": (lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[2]), axes=[-3, 0]), lambda x: x[0]),
    "sub": (lambda x: mb.sub(x=0.5, y=x), lambda x: 0.5 - x),
    "thresholded_relu": (lambda x: mb.thresholded_relu(x=x, alpha=-1.0), lambda x: np.where(x >= -1, x, 0)),
}  # fmt: skip


def test_every_operation_against_numpy(tmp_path: Path) -> None:
    """One program with all of them: building and saving takes longer than running."""
    found = computed(tmp_path / "all.mlpackage", lambda x: tuple(build(x) for build, _ in CASES.values()), x=X)
    assert len(found) == len(CASES) > 30
    for (name, (_, wanted)), value in zip(CASES.items(), found, strict=True):
        np.testing.assert_allclose(value, wanted(X), rtol=2e-5, atol=2e-5, err_msg=name, strict=False)
        assert value.shape == np.shape(wanted(X)), name
    assert {name.split(" ")[0] for name in CASES} | {"conv"} == OPERATIONS.keys()


def test_float16_is_rounded_after_every_operation(tmp_path: Path) -> None:
    third = np.float16(1 / 3)

    def build(x: Any) -> Any:
        half = mb.mul(x=mb.cast(x=x, dtype="fp16"), y=third)
        return mb.cast(x=mb.mul(x=half, y=half), dtype="fp32")

    [found] = computed(tmp_path / "half.mlpackage", build, x=200 * X)
    product = (200 * X).astype(np.float16) * third
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, (product * product).astype(np.float32))
    assert np.isinf(found).any()  # squares above 65504


def packed(values: list[int], bits: int) -> NDArray[np.uint8]:
    """Small integers in bytes, the first in the lowest bits."""
    ones = [value >> bit & 1 for value in values for bit in range(bits)]
    return np.packbits(np.array(ones, np.uint8), bitorder="little")


def test_compressed_weights_stand_for_what_they_are_made_of(tmp_path: Path) -> None:
    codes = RANDOM.integers(-128, 128, (4, 5)).astype(np.int8)
    scale, zero = np.array([0.5, 0.25, 2.0, 1.0], np.float32), np.array([3, -4, 0, 127], np.int8)
    places = RANDOM.integers(0, 4, 20).tolist()
    table = np.array([-1.5, 0.0, 0.25, 8.0], np.float32)
    mask = (np.arange(20) % 3 == 0).astype(int).tolist()
    filled = np.arange(1, 8, dtype=np.float32)
    sparse = np.zeros(20, np.float32)
    sparse[::3] = filled
    shape = np.array([4, 5], np.uint32)

    def build(x: Any) -> Any:
        weights = (
            mb.constexpr_affine_dequantize(quantized_data=codes, zero_point=zero, scale=scale, axis=0),
            mb.constexpr_lut_to_dense(indices=packed(places, 2), lut=table, shape=shape),
            mb.constexpr_sparse_to_dense(nonzero_data=filled, mask=packed(mask, 1), shape=shape),
        )
        return tuple(mb.add(x=x, y=weight) for weight in weights)

    found = computed(tmp_path / "packed.mlpackage", build, x=np.zeros((4, 5), np.float32))
    wanted = (
        (codes.astype(np.float32) - zero[:, None]) * scale[:, None],
        table[places].reshape(4, 5),
        sparse.reshape(4, 5),
    )
    assert len(found) == len(wanted)
    for value, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(value, want)


def test_blockwise_weights(tmp_path: Path) -> None:
    """iOS 18: a scale for each block of two columns."""
    codes = RANDOM.integers(-128, 128, (4, 6)).astype(np.int8)
    scale = RANDOM.uniform(0.1, 1, (4, 3)).astype(np.float32)

    def build(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale))

    path = write(tmp_path / "block.mlpackage", build, {"x": (4, 6)}, ct.target.iOS18)
    [found] = Program(read_package(path))({"x": np.zeros((4, 6), np.float32)}).values()
    np.testing.assert_allclose(found, codes * np.repeat(scale, 2, axis=1), rtol=1e-6)


LONG = np.arange(1 << 14, dtype=np.float32)
FOLDS: dict[str, Callable[[Any], Any]] = {
    "add": lambda x: mb.add(x=LONG[:2, None], y=LONG[None, :2]),
    "maximum": lambda x: mb.maximum(x=1.0, y=2.0),
    "select": lambda x: mb.select(cond=np.ones((2, 1), bool), a=LONG[None, :2], b=LONG[:2, None]),
    "concat": lambda x: mb.concat(values=[LONG[:2], LONG[:2]], axis=0),
}


@pytest.mark.parametrize("kind", FOLDS)
def test_what_coremltools_would_compute_while_reading_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two constants of a few bytes can have a sum of gigabytes; so coremltools never sees them."""
    path = write(tmp_path / "net.mlpackage", lambda x: mb.add(x=x, y=mb.reduce_mean(x=FOLDS[kind](x))), {"x": (1, 1)})
    monkeypatch.setattr("mobileface.embedders.coreml_program._load", lambda package: pytest.fail("was read"))
    with pytest.raises(InputError, match=rf"{kind} has only constants to compute with, wanted its result instead"):
        Program(read_package(path))


def twice(x: Any) -> Any:
    """Few values, of which coremltools follows each: twice as many with each operation."""
    x = mb.reshape(x=x, shape=[1])
    for _ in range(10):
        x = mb.concat(values=[x, x], axis=0)
    return mb.reduce_mean(x=x)


@pytest.mark.parametrize("build", [lambda x: mb.add(x=x, y=LONG), twice])
def test_too_many_values_are_refused_before_they_are_read(
    tmp_path: Path, build: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = read_package(write(tmp_path / "net.mlpackage", build, {"x": (1, 1)}))
    monkeypatch.setattr("mobileface.embedders.coreml_program._load", lambda package: pytest.fail("was read"))
    monkeypatch.setattr("mobileface.embedders.coreml_program.MOST_VALUES", 1000)
    with pytest.raises(InputError, match=r"has (1,024|16,384) values, wanted at most 1,000"):
        Program(package)
    function = package.specification.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "concat":  # stated to be of unknown length
            operation.outputs[0].type.tensorType.dimensions[0].unknown.variadic = False
    monkeypatch.setattr("mobileface.embedders.coreml_program.MOST_TOTAL", 2000)
    with pytest.raises(InputError, match=r"wanted at most (1|2),000"):
        Program(package)


def test_compressed_weights_that_are_too_large_are_not_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """iOS 18: an index stands for many values, and what the file states of the result is not to be believed."""
    indices = np.zeros((1, 64), np.uint8).astype(types.np_uint1_dtype)
    table = np.ones((1, 1, 2, 64), np.float32)

    def build(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_lut_to_dense(indices=indices, lut=table, vector_axis=np.int32(0)))

    package = read_package(write(tmp_path / "net.mlpackage", build, {"x": (1, 1)}, ct.target.iOS18))
    [found] = Program(package)({"x": np.zeros((1, 1), np.float32)}).values()
    np.testing.assert_array_equal(found, np.ones((64, 64)))
    function = package.specification.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "constexpr_lut_to_dense":
            operation.outputs[0].type.tensorType.dimensions[0].constant.size = 1
        elif operation.type == "add":
            operation.outputs[0].type.tensorType.dimensions[0].unknown.variadic = False
    monkeypatch.setattr("mobileface.embedders.coreml_program.MOST_VALUES", 1000)
    with pytest.raises(InputError, match=r"has 4,096 values, wanted at most 1,000"):
        Program(package)


@pytest.mark.parametrize("what", ["tanh", "same", "flag"])
def test_what_the_interpreter_does_not_know_is_named(tmp_path: Path, what: str) -> None:
    builds: dict[str, tuple[Callable[..., Any], str]] = {
        "tanh": (lambda x: mb.tanh(x=x), r"does not know: tanh; known: abs, add, .*thresholded_relu"),
        "same": (
            lambda x: mb.conv(x=x, weight=X[:, :, :3, :3], pad_type="same"),
            r"conv .*padding 'same' of .* is not",
        ),
        "flag": (lambda x: mb.concat(values=[x, x], axis=1, interleave=True), "interleave is not known"),
    }
    build, message = builds[what]
    with pytest.raises(InputError, match=message):
        computed(tmp_path / "odd.mlpackage", build, x=X)
