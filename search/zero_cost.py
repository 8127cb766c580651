"""Zero-cost scores: what networks with their initial values say of how well they could be trained. Higher is better.

Each is called with (network, images (B, 3, 112, 112) float RGB 0..255, labels (B,) from 0, generator for what it draws)
and leaves the network as it was. `benchmarks/score_rank.py` measures how well each ranks networks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobileface.losses.forward import unit
from mobileface.models.network import Network
from search.cost import cost

Measure = Callable[[Network, Tensor, Tensor, torch.Generator], float]
ACTIVATIONS = (nn.PReLU, nn.LeakyReLU, nn.Hardswish, nn.ReLU)
WHITE = 255.0  # is 1 behind the network's own normalisation
SEEING = ("naswot", "grad_norm")  # the scores that look at images
SCALE = 32.0  # of cosines in a softmax, as in our recipes for little data


def synflow(network: Network, images: Tensor, labels: Tensor, generator: torch.Generator) -> float:
    """Log of the sum of w * dR/dw over the weights of all convolutions, where all parameters have their absolute value
    and R is the sum of the outputs for an image of ones (Tanaka et al. 2020, eq. 2; summed as by Abdelfattah et al.
    2021).

    In eval mode and float64, as the first one's code, for the sum has tens of digits: the log is ours. Images, labels
    and chance have no part in it.
    """
    positive = copy.deepcopy(network).double().eval()
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
    positive(torch.full((1, *images.shape[1:]), WHITE, dtype=torch.float64)).sum().backward()
    return float(torch.stack([(weight * grad).sum() for weight, grad in _weights(positive)]).sum().log())


def naswot(network: Network, images: Tensor, labels: Tensor, generator: torch.Generator) -> float:
    """log |det K|, where K (B, B) counts the activations whose inputs have the same sign for both images (Mellor et al.
    2021, eq. 2).

    The sign of the input is ours for PReLU, LeakyReLU and hard-swish; the paper has ReLU alone. In train mode, as its
    public code: batch norms take the batch's own statistics. -inf where two images have all signs in common.
    """
    train = copy.deepcopy(network).train()
    kernel = images.new_zeros(len(images), len(images), dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        signs = (inputs[0] > 0).flatten(1).to(images.dtype) * 2 - 1  # agreeing less differing units: exact in float32
        kernel.add_((signs @ signs.T + signs.shape[1]) / 2)

    for module in train.modules():
        if isinstance(module, ACTIVATIONS):
            module.register_forward_pre_hook(count)
    with torch.no_grad():
        train(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def grad_norm(network: Network, images: Tensor, labels: Tensor, generator: torch.Generator) -> float:
    """Sum over all convolutions of the length of the loss's gradient, for one batch in train mode (Abdelfattah et al.
    2021).

    The loss is ours: normalised softmax against random class centres.
    """
    train = copy.deepcopy(network).train()
    embeddings = unit(train(images))
    classes = int(labels.max()) + 1
    centres = unit(torch.randn(classes, embeddings.shape[1], generator=generator).to(embeddings.dtype))
    F.cross_entropy(SCALE * embeddings @ centres.T, labels).backward()
    return float(torch.stack([grad.norm() for _, grad in _weights(train)]).sum())


def flops(network: Network, images: Tensor, labels: Tensor, generator: torch.Generator) -> float:
    """Work by the lfrc rule: the control that every score has to beat."""
    return float(cost(network.arch).flops_lfrc)


def params(network: Network, images: Tensor, labels: Tensor, generator: torch.Generator) -> float:
    """Trained values: the other control."""
    return float(cost(network.arch).params)


ZERO_COST: dict[str, Measure] = {
    "synflow": synflow,
    "naswot": naswot,
    "grad_norm": grad_norm,
    "flops": flops,
    "params": params,
}


def _weights(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """(weight, gradient) of each convolution and linear layer."""
    found = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    return [(weight.detach(), weight.grad) for weight in found if weight.grad is not None]
