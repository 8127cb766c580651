"""The optimizer of a phase, from its plan."""

from __future__ import annotations

import torch
from torch import nn

from mobileface.training.plan_phases import Optimizer


def make_optimizer(settings: Optimizer, network: nn.Module, terms: nn.Module) -> torch.optim.Optimizer:
    """Weight decay on tensors of two dimensions or more: not on batch norms, biases and slopes of PReLU.

    What asks for no gradient (a batch norm's weight that stays 1) is left out.
    """
    parameters = [p for p in (*network.parameters(), *terms.parameters()) if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, settings.lr, settings.momentum, fused=True)
    if settings.kind == "adagrad":
        return torch.optim.Adagrad(groups, settings.lr, eps=1.0, fused=True)
    return torch.optim.AdamW(groups, settings.lr, fused=True)
