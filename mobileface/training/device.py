"""Where and how a network is trained: device, precision, compilation."""

from __future__ import annotations

import copy
import ctypes
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mobileface.distributed import world_size
from mobileface.errors import InputError, one_line

Network = Callable[[Tensor], Tensor]
# glibc's mallopt: M_MMAP_MAX (none of its own mapping for a large block), M_TRIM_THRESHOLD (never give back)
MALLOC = {-4: 0, -1: -1}


def pick_device() -> torch.device:
    """A GPU if there is one, with float32 that is float32 (torch lets convolutions round to TF32 otherwise)."""
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def keep_freed_memory() -> None:
    """Have glibc keep what torch frees on a CPU for the next step. By default it gives every map of activations back
    to the system, and takes it anew page by page. Nothing happens with another allocator."""
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOC.items():
            mallopt(parameter, value)


def to_device(rows: Tensor, device: torch.device) -> Tensor:
    """A small tensor on the device, without waiting for it."""
    return rows.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else rows.to(device)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Where the memory is too small, an InputError that says what makes a training smaller."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise InputError(
            f"the memory is too small ({one_line(error)[:120]}); wanted a smaller batch, a larger accumulate, or "
            "activation_checkpointing: true"
        ) from None


def pick_precision(wanted: str, device: torch.device) -> str:
    """`auto` becomes bf16 where the hardware multiplies in it, else fp32."""
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # private in torch, absent in some releases
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which the network runs; losses run outside of it, in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def compiled(
    network: nn.Module,
    wanted: str,
    sizes: Iterable[int],
    device: torch.device,
    precision: str,
    say: Callable[[str], None],
) -> tuple[Network, bool]:
    """The network as torch.compile gives it, or itself; second: whether it was compiled.

    Compiles by one forward and backward on grey images for each size of a (micro-)batch, then restores weights and
    statistics. With `auto` a failure (no C++ compiler) costs speed and one line; with `on` it is an InputError.
    """
    if wanted == "off":
        return network, False
    before, buffers = copy.deepcopy(network.state_dict()), [buffer.clone() for buffer in network.buffers()]
    faster = torch.compile(network, dynamic=False)  # for each batch size its own, whatever came before
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own internals here
            for size in sizes:
                pixels = torch.full((size, 112, 112, 3), 128, dtype=torch.uint8, device=device)
                with autocast(device, precision):
                    out = faster(pixels.permute(0, 3, 1, 2).float())
                out.float().sum().backward()
        return faster, True
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler's tool chain throws
        reason = one_line(error)[:200]
        if wanted == "on":
            raise InputError(f"compile: on, but torch.compile failed ({reason}); set compile: auto or off") from None
        torch._dynamo.reset()
        say(f"torch.compile is not available here, training goes on without it, slower ({reason})")
        return network, False
    finally:
        network.load_state_dict(before)
        for buffer, kept in zip(network.buffers(), buffers, strict=True):  # those outside of the state dict as well
            buffer.copy_(kept)
        network.zero_grad(set_to_none=True)


def over_ranks(network: Network) -> Network:
    """The network with its gradients summed over all ranks in the backward pass; itself without `torchrun`."""
    if world_size() == 1:
        return network
    assert isinstance(network, nn.Module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has another name for it, which 2.11 has not
        together = DistributedDataParallel(network, broadcast_buffers=False)
    together.register_comm_hook(None, _sum)
    return together


def _sum(state, bucket):  # type: ignore[no-untyped-def]  # torch refuses annotations that are text
    """Sum, where the default hook takes the mean: each rank's loss is a share of the whole (terms.weigh)."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


@torch.no_grad()
def mean_buffers(network: nn.Module) -> None:
    """Running statistics become their mean over all ranks: each rank's batch norms saw its own batches."""
    if world_size() == 1:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world_size()
