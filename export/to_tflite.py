"""A network of ours as a TFLite file that LiteRT runs fast."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.activations import rewrite_activations
from export.deployed import Deployed, folded
from export.int8 import Int8
from export.tflite_forms import join_prelu, split_global_depthwise, split_hard_swish
from export.tflite_graph import free_batch, name_values, packed, put_texts, read
from export.tflite_int8 import halved, quantised
from mobileface.arch import INPUT_SIZE
from mobileface.embedders.contract import InputContract
from mobileface.embedders.file import CONTRACT_KEY
from mobileface.embedders.tflite import TFLiteEmbedder, quiet
from mobileface.embedders.tflite_file import METADATA
from mobileface.errors import CheckFailed, InputError

# The converter starts JAX, which warns at every later fork; workers that load images never call it.
warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)


class Nhwc(nn.Module):
    """`Deployed` as TFLite has it: pixels `input` (B, 112, 112, 3) -> embedding and quality by name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.deployed = Deployed(network)

    def forward(self, input: Tensor) -> dict[str, Tensor]:
        """The converter turns the convolutions around, and no transposition stays."""
        embedding, quality = self.deployed(input.permute(0, 3, 1, 2))
        return {"embedding": embedding, "quality": quality}


def export_tflite(
    network: nn.Module, path: Path, metadata: dict[str, str], precision: str = "fp32", int8: Int8 | None = None
) -> None:
    """Write `network` (float RGB pixels 0..255 -> raw embeddings) to `path`, in fp32, fp16 or (with `int8`) int8.

    Batch norms are folded and activations rewritten in a copy; the batch is 1, and may be resized. `metadata` goes
    into the file's metadata as JSON under `mobileface`, with our input contract unless it has one. In fp16 weights
    alone are halved, but for those of the global depthwise convolution; in int8 the input, depthwise convolutions of
    more than 25 taps and the normalisation of the embedding stay float.
    InputError for slopes that are not finite, for layers to keep that are not there and for int8 without crops;
    CheckFailed for a file that does not answer, or has lost the name of a layer to keep. Such a file is the caller's
    to remove.
    """
    fused = folded(network, path, precision, int8)
    keep = int8.keep if int8 else frozenset[str]()
    with silent():
        content = split_global_depthwise(convert(rewrite_activations(fused), keep))
        content = in_precision(content, precision, int8)
    model = read(content)
    put_texts(model, METADATA, {CONTRACT_KEY: json.dumps(InputContract(layout="nhwc").to_dict()), **metadata})
    path.write_bytes(packed(model))
    check_outputs(path)


def in_precision(content: bytes, precision: str, int8: Int8 | None = None) -> bytes:
    """The file in fp32, fp16 or (with `int8`) int8, with the operators that LiteRT runs fastest in it."""
    if precision == "int8":
        assert int8 is not None
        return quantised(split_hard_swish(content), int8)
    return join_prelu(halved(content) if precision == "fp16" else content)


def convert(network: nn.Module, keep: frozenset[str] = frozenset()) -> bytes:
    """`network` as it is, in eval mode, as a file in fp32; `keep` as in `name_values`. Batch norms are not folded.

    CheckFailed where a convolution or linear layer in `keep` is not among the names of the file.
    """
    import litert_torch

    wrapped = Nhwc(network).eval()
    example = torch.full((1, INPUT_SIZE, INPUT_SIZE, 3), 127.5)
    with torch.no_grad():
        model = read(litert_torch.convert(wrapped, None, {"input": example}).model_content())
    found = name_values(model, wrapped, "deployed.network", keep)
    layers = {name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    if lost := sorted((keep & layers) - found):
        raise CheckFailed(f"{lost[0]}: shall stay float, but the converter left no layer of that name")
    free_batch(model)
    return packed(model)


@contextmanager
def silent() -> Iterator[None]:
    """What converters say of themselves, by `print`, as warnings or past Python, goes nowhere. For one thread only."""
    with quiet(), open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield


def check_outputs(path: Path) -> None:
    """Run three plain images: CheckFailed unless the file gives finite raw embeddings."""
    size = (INPUT_SIZE, INPUT_SIZE, 3)
    images = np.stack([np.full(size, value, np.uint8) for value in (30, 127, 220)])  # dark, grey, bright
    try:
        TFLiteEmbedder(path, threads=1)(images)
    except InputError as error:
        raise CheckFailed(str(error)) from None
