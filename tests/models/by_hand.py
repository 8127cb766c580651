"""What tests of networks share: images, networks with numbers of their own, layers written out on a state dict."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mobileface.arch import Arch
from mobileface.models import build
from mobileface.models.quality import FeatureQuality

State = dict[str, Tensor]


def pixels(batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(0, 256, (batch, 3, 112, 112), generator=torch.Generator().manual_seed(0)).to(dtype)


def randomised(arch: Arch) -> nn.Module:
    """In float64 and eval mode, each batch norm, slope and bias with numbers of its own."""
    net, generator = build(arch).double(), torch.Generator().manual_seed(1)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features, generator=generator).double() / 4
            part.running_var = 0.5 + torch.rand(part.num_features, generator=generator).double()
            if part.affine:
                part.weight.data = 0.5 + torch.rand(part.num_features, generator=generator).double()
                part.bias.data.normal_(0, 0.1, generator=generator)
        elif isinstance(part, nn.PReLU):
            part.weight.data.uniform_(0, 0.5, generator=generator)
        elif isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            part.bias.data.normal_(0, 0.5, generator=generator)
    return net.eval()


def normed(x: Tensor, s: State, at: str, eps: float = 1e-5) -> Tensor:
    """Batch norm in eval mode, written out: maps (B, C, H, W) or vectors (B, C); without weight and bias 1 and 0."""
    shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
    mean, var = (s[f"{at}.{key}"].view(shape) for key in ("running_mean", "running_var"))
    x = (x - mean) / torch.sqrt(var + eps)
    return x * s[f"{at}.weight"].view(shape) + s[f"{at}.bias"].view(shape) if f"{at}.weight" in s else x


def prelu(x: Tensor, s: State, at: str) -> Tensor:
    return torch.where(x >= 0, x, x * s[f"{at}.weight"][:, None, None])


def measure(x: list[float], kind: str) -> float:
    """The norm (equation 5), or the entropy of exp |x| / sum exp |x|."""
    if kind == "energy":
        return math.sqrt(sum(v * v for v in x))
    exponents = [math.exp(abs(v)) for v in x]
    chances = [e / sum(exponents) for e in exponents]
    return -sum(p * math.log(p) for p in chances)


def with_statistics(net: nn.Module) -> nn.Module:
    """Statistics of their own for each quality, such that both kinds of indicator are neither clipped nor equal."""
    for number, part in enumerate(p for p in net.modules() if isinstance(p, FeatureQuality)):
        part.statistics.mean.fill_((4.0, 3.0)[number])
        part.statistics.std.fill_((2.0, 3.0)[number])
    return net
