"""What every exported file computes, whatever its format."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST_NORM = 1e-12  # as torch.nn.functional.normalize: a zero embedding stays zero instead of becoming NaN


class Deployed(nn.Module):
    """What an exported file computes: pixels (B, 3, 112, 112), float RGB 0..255 -> embedding, quality.

    embedding (B, D) has unit length; quality (B,) is the norm before normalisation, so that their product is
    the raw embedding. A zero embedding stays zero, with quality 0.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """`input` is the graph's name for the pixels."""
        raw = self.network(input)
        norm = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        return raw / norm.clamp_min(LEAST_NORM), norm.squeeze(1)
