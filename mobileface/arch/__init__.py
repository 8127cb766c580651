"""Architectures as data: frozen rows of absolute channel counts, and the one walk over their layers.

Building (`models`), counting (`search.cost`) and pruning all use `Arch.walk()`; a test holds the module names of
the built network to it. Standard library only, so that a budget is checked in milliseconds.
"""

from mobileface.arch.base import Arch
from mobileface.arch.checks import MAX_CHANNELS, MAX_DEPTH, MAX_NAME, MAX_STAGES
from mobileface.arch.iresnet import IResNet
from mobileface.arch.layers import INPUT_SIZE, Block, Layer
from mobileface.arch.lgaf import LGAF
from mobileface.arch.mobilefacenet import ACTIVATIONS, SEMobileFaceNet, Stage
from mobileface.arch.reading import FAMILIES, MAX_FILE_BYTES, arch_from_dict, load_arch

__all__ = [
    "ACTIVATIONS",
    "FAMILIES",
    "INPUT_SIZE",
    "LGAF",
    "MAX_CHANNELS",
    "MAX_DEPTH",
    "MAX_FILE_BYTES",
    "MAX_NAME",
    "MAX_STAGES",
    "Arch",
    "Block",
    "IResNet",
    "Layer",
    "SEMobileFaceNet",
    "Stage",
    "arch_from_dict",
    "load_arch",
]
