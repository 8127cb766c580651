"""What the operations of an ML Program compute: those that networks of ours are converted to.

Parameters have the names and defaults of coremltools' MIL operations
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html). Floats are float32 tensors;
whoever runs a program rounds a float16 result. Constant integers, booleans and texts are plain Python values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from mobileface.errors import InputError

MAP_AXES = 2  # batch and channels stand before rows and columns


def _padded(x: Tensor, pad_type: str, pad: list[int] | None, value: float = 0.0) -> Tensor:
    """(B, C, H, W) with its edges; pad: top, bottom, left, right."""
    if pad_type == "valid":
        return x
    if pad_type != "custom" or pad is None or len(pad) != 4:
        raise InputError(f"padding {pad_type!r} of {pad} is not known, wanted 'valid', or 'custom' with four numbers")
    top, bottom, left, right = pad
    return functional.pad(x, (left, right, top, bottom), value=value) if any(pad) else x


def _plain(name: str, flag: bool) -> None:
    if flag:
        raise InputError(f"{name} is not known, wanted it off")


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: list[int] | int = 1,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | int = 1,
    groups: int = 1,
) -> Tensor:
    """(B, C, H, W) -> (B, D, H', W')."""
    return functional.conv2d(_padded(x, pad_type, pad), weight, bias, strides, 0, dilations, groups)


def max_pool(
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int] | int = 1,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H', W')."""
    _plain("ceil_mode", ceil_mode)
    return functional.max_pool2d(_padded(x, pad_type, pad, -torch.inf), kernel_sizes, strides)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    """(B, C, ...) -> the same shape."""
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=float(epsilon))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C) -> (..., D)."""
    return functional.linear(x, weight, bias)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """(B, C, ...) -> the same shape; alpha (C,)."""
    return torch.where(x > 0, x, x * alpha.reshape(1, -1, *[1] * (x.ndim - MAP_AXES)))


def leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    """One slope for all."""
    return torch.where(x >= 0, x, x * alpha)


def thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    """x from alpha on, else 0."""
    return torch.where(x >= alpha, x, 0.0)


def sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha x + beta, within 0..1."""
    return (x * alpha + beta).clamp(0, 1)


def reduce_mean(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The mean along axes; None: along all."""
    return x.mean(_axes(x, axes), keepdim=keep_dims)


def reduce_sum(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The sum along axes; None: along all."""
    return x.sum(_axes(x, axes), keepdim=keep_dims)


def reduce_l2_norm(x: Tensor, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
    """The root of the sum of squares along axes; None: along all."""
    return x.square().sum(_axes(x, axes), keepdim=keep_dims).sqrt()


def _axes(x: Tensor, axes: list[int] | None) -> list[int]:
    return list(range(x.ndim)) if axes is None else axes


def concat(values: list[Tensor], axis: int, interleave: bool = False) -> Tensor:
    """Side by side along an axis."""
    _plain("interleave", interleave)
    return torch.cat(values, axis)


def expand_dims(x: Tensor, axes: list[int]) -> Tensor:
    """Axes of length one put in, where the result has them."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: list[int] | None = None) -> Tensor:
    """Axes of length one taken out; None: all of them."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "abs": lambda x: x.abs(),
    "add": lambda x, y: x + y,
    "batch_norm": batch_norm,
    "cast": lambda x, dtype: x,  # every result is brought to the type that the program states for it
    "clip": lambda x, alpha, beta: x.clamp(alpha, beta),
    "concat": concat,
    "conv": conv,
    "exp": lambda x: x.exp(),
    "expand_dims": expand_dims,
    "fill_like": lambda ref_tensor, value=0.0: torch.full_like(ref_tensor, float(value)),
    "greater": lambda x, y: x > y,
    "leaky_relu": leaky_relu,
    "linear": linear,
    "log": lambda x, epsilon=1e-45: (x + epsilon).log(),
    "max_pool": max_pool,
    "maximum": lambda x, y: torch.maximum(x, y),
    "mul": lambda x, y: x * y,
    "prelu": prelu,
    "real_div": lambda x, y: x / y,
    "reduce_l2_norm": reduce_l2_norm,
    "reduce_mean": reduce_mean,
    "reduce_sum": reduce_sum,
    "relu": lambda x: x.clamp(min=0),
    "reshape": lambda x, shape: x.reshape(shape),
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid_hard": sigmoid_hard,
    "softmax": lambda x, axis=-1: x.softmax(axis),
    "squeeze": squeeze,
    "sub": lambda x, y: x - y,
    "thresholded_relu": thresholded_relu,
}
