"""Count a built network with fvcore, the independent check on the walk's closed form."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from mobileface.arch import INPUT_SIZE, Arch
from mobileface.errors import InputError
from search.cost import cost

MOST_MIB = 4096  # of weights, to be built here; IR-ResNet200 has 453


def fvcore_macs(arch: Arch) -> int:
    """MACs that fvcore counts with batch norm, pooling and element-wise operators off (extra `search`).

    InputError for a network of more than MOST_MIB, which is built with memory.
    """
    if (size := cost(arch).size_mib) > MOST_MIB:
        raise InputError(f"--verify: {arch.name} takes {size:,.0f} MiB to build, wanted {MOST_MIB:,} or less")
    import torch

    from mobileface.models.build import network

    def nothing(inputs: Any, outputs: Any) -> int:
        return 0

    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore uses torch.jit, which torch calls deprecated
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError:
            raise InputError("--verify: fvcore is missing, wanted: pip install 'mobileface[search]'") from None
        counter = FlopCountAnalysis(network(arch).eval(), torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE))
        for name in ("batch_norm", "adaptive_avg_pool2d", "mean"):
            counter.set_op_handle(f"aten::{name}", nothing)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(counter.total())
