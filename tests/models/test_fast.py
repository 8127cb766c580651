"""The faster layers are torch's own: values, gradients, types and names."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mobileface.models.fast import PReLU, StridedDepthwise


def problem(shape: tuple[int, ...], seed: int, channels_last: bool = False) -> tuple[Tensor, Tensor]:
    """Input with some exact zeros, and a gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    x, grad = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    x[x.abs() < 0.1] = 0
    if channels_last and len(shape) == 4:
        x, grad = (t.to(memory_format=torch.channels_last) for t in (x, grad))
    return x, grad


def gradients(layer: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Output, gradient of the input, gradients of the parameters."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    out = layer(x)
    out.backward(grad.to(out.dtype))
    found = [out.detach(), x.grad, *(p.grad for p in layer.parameters())]
    return [tensor for tensor in found if tensor is not None]


@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 5),
    size=st.lists(st.integers(1, 4), max_size=2),
    seed=st.integers(0, 2**16),
    last=st.booleans(),
)
@settings(deadline=None)
def test_prelu_is_torchs(batch: int, channels: int, size: list[int], seed: int, last: bool) -> None:
    x, grad = problem((batch, channels, *size), seed, last)
    ours, theirs = PReLU(channels).double(), nn.PReLU(channels).double()
    with torch.no_grad():
        ours.weight.normal_(generator=torch.Generator().manual_seed(seed))  # negative slopes and above one as well
    theirs.load_state_dict(ours.state_dict())
    for got, wanted in zip(gradients(ours, x, grad), gradients(theirs, x, grad), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)


def test_prelu_keeps_the_layout() -> None:
    x, grad = problem((2, 3, 4, 5), 0, channels_last=True)
    for tensor in gradients(PReLU(3).double(), x, grad)[:2]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_prelus_gradient_is_that_of_finite_differences() -> None:
    layer = PReLU(3).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, (x,)), (x, layer.weight)
    )


def test_prelu_in_bf16_keeps_the_types() -> None:
    layer = PReLU(4)
    x, grad = problem((8, 4, 6, 6), 0, channels_last=True)
    wanted = gradients(copy.deepcopy(layer).double(), x, grad)
    out, by_x, by_slope = gradients(layer, x.bfloat16(), grad.bfloat16())
    assert (out.dtype, by_x.dtype, by_slope.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    for got, right in zip((out, by_x, by_slope), wanted, strict=True):
        assert (got.double() - right).abs().max() < 0.02 * right.abs().max()


def test_without_gradients_it_is_torchs_own_layer() -> None:
    x = torch.randn(2, 3, 4, 4)
    layer = PReLU(3)
    with torch.no_grad():
        graph = torch.export.export(layer.eval(), (x,)).graph_module.code
    assert "prelu" in graph
    assert "_PReLU" not in graph


def depthwise() -> StridedDepthwise:
    torch.manual_seed(0)
    return StridedDepthwise(6, 6, 3, 2, 1, groups=6, bias=False)


def test_a_strided_depthwise_convolution_is_torchs() -> None:
    x, grad = problem((2, 6, 9, 9), 1)
    ours = depthwise().double()
    theirs = nn.Conv2d(6, 6, 3, 2, 1, groups=6, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    grad = grad[:, :, :5, :5]
    for got, wanted in zip(gradients(ours, x, grad), gradients(theirs, x, grad), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 2, 9), (3, 2, 8), (5, 2, 8), (7, 3, 10), (3, (1, 2), 7)])
def test_under_autocast_the_stride_is_taken_afterwards(kernel: int, stride: int | tuple[int, int], side: int) -> None:
    torch.manual_seed(0)
    layer = StridedDepthwise(6, 6, kernel, stride, kernel // 2, groups=6, bias=False)
    plain = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False).double()
    plain.load_state_dict({"weight": layer.weight.detach().double()})
    x = problem((2, 6, side, side), 2, channels_last=True)[0].bfloat16()
    grad = problem(tuple(plain(x.double()).shape), 3, channels_last=True)[0].bfloat16()
    wanted = gradients(plain, x.double(), grad.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, x, grad)
    assert [t.dtype for t in found] == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in found[:2])
    for got, right in zip(found, wanted, strict=True):
        assert (got.double() - right).abs().max() < 0.01 * right.abs().max()


@pytest.mark.parametrize("layer", [PReLU(6), depthwise()])
def test_names_are_torchs(layer: nn.Module) -> None:
    assert list(layer.state_dict()) == ["weight"]
