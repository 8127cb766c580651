"""What every exported file computes, whatever its format."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from export.int8 import Int8
from mobileface.errors import InputError
from mobileface.models.fuse import fuse

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


def folded(network: nn.Module, path: Path, precision: str, int8: Int8 | None) -> nn.Module:
    """A copy with its batch norms folded, on the CPU in float32: what every writer begins with.

    InputError unless `int8` is given where the precision is int8, and for layers to keep that are not there.
    """
    if (precision == "int8") != (int8 is not None):
        raise InputError(f"{path}: precision {precision} {'without' if int8 is None else 'with'} crops to calibrate on")
    fused = fuse(network).to("cpu", torch.float32)
    if int8 is not None:
        int8.check_names(fused)
    return fused
