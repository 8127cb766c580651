"""Several processes as one: what the rest of the code asks of torch.distributed, and nothing without it.

Without `torchrun` every function here is the identity. The two operations with a gradient follow one rule: each
rank calls backward() on its own part of the loss, and what arrives at a tensor is the gradient of the *sum* of all
parts. So gradients are summed over ranks, never averaged; a mean is made by the weights of the loss.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from mobileface.errors import InputError, MobileFaceError, one_line


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def shard(count: int, ranks: int | None = None, own: int | None = None) -> range:
    """The share of `count` things that rank `own` of `ranks` holds: contiguous, the first ones one longer."""
    ranks = world_size() if ranks is None else ranks
    own = rank() if own is None else own
    size, rest = divmod(count, ranks)
    start = own * size + min(own, rest)
    return range(start, start + size + (own < rest))


@contextmanager
def joined() -> Iterator[bool]:
    """Join the other processes that `torchrun` started, for as long as the block lasts; gives whether this is the
    first of them, which writes and speaks for all.

    gloo on CPUs, nccl on GPUs (each rank takes the GPU of its local rank). InputError where there are more local
    ranks than GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield True
        return
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise InputError(f"torchrun starts rank {local} here, found {gpus} GPUs; wanted one for each rank")
        torch.cuda.set_device(local)
    # the other ranks wait while the first one asks the teacher or writes faces: that may take hours
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=datetime.timedelta(days=1))
    try:
        yield rank() == 0
    except RuntimeError as error:
        if (
            "peer" in str(error) or "imed out" in str(error) or isinstance(error, dist.DistNetworkError)
        ):  # gloo's words for it
            raise MobileFaceError(f"rank {rank()}: another rank has stopped ({one_line(error)[:120]})") from None
        raise
    finally:
        dist.destroy_process_group()


@contextmanager
def first_then_others() -> Iterator[bool]:
    """The first rank runs the block alone (True), then all others do (False): what it has written they find."""
    if rank() > 0:
        barrier()
    yield rank() == 0
    if rank() == 0:
        barrier()


# -- with a gradient


def gather(x: Tensor) -> Tensor:
    """(B, ...) of each rank -> (world * B, ...), by rank; B must be the same on each (see `check_equal`)."""
    return x if world_size() == 1 else _Gather.apply(x)


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of every rank's x; the same on each."""
    return x if world_size() == 1 else _Sum.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        whole = x.new_empty((world_size() * len(x), *x.shape[1:]))
        dist.all_gather(list(whole.chunk(world_size())), x.contiguous())
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduced(x, dist.ReduceOp.SUM)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _all_reduced(grad, dist.ReduceOp.SUM)


def _all_reduced(x: Tensor, operation: Any) -> Tensor:
    whole = x.detach().clone().contiguous()
    dist.all_reduce(whole, operation)
    return whole


# -- without


@torch.no_grad()
def max_over_ranks(x: Tensor) -> Tensor:
    """The largest of every rank's x, element by element; no gradient."""
    return x.detach() if world_size() == 1 else _all_reduced(x, dist.ReduceOp.MAX)


@torch.no_grad()
def gather_rows(x: Tensor, total: int) -> Tensor:
    """Shards (as `shard` cuts them) of a tensor of `total` rows -> the whole, on the first rank's CPU; the others get
    no row. One shard at a time, so that no GPU holds the whole."""
    if world_size() == 1:
        return x.detach().cpu()
    whole = torch.empty((total if rank() == 0 else 0, *x.shape[1:]), dtype=x.dtype)
    for r in range(world_size()):
        rows = shard(total, own=r)
        part = x.detach().contiguous() if r == rank() else x.new_empty((len(rows), *x.shape[1:]))
        if len(rows):
            dist.broadcast(part, r)
        if rank() == 0:
            whole[rows.start : rows.stop] = part
    return whole


def texts_of_all_ranks(texts: list[str], device: torch.device | str = "cpu") -> list[str]:
    """What every rank has to say, by rank, the same list on each."""
    if not any_rank(bool(texts), device):
        return texts
    parts: list[list[str]] = [[] for _ in range(world_size())]
    if world_size() == 1:
        return texts
    dist.all_gather_object(parts, texts)
    return [text for part in parts for text in part]


def any_rank(flag: bool, device: torch.device | str = "cpu") -> bool:
    """True where it is true on one rank or more."""
    return flag if world_size() == 1 else bool(max_over_ranks(torch.tensor(int(flag), device=device)))


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def check_equal(number: int, what: str) -> None:
    """InputError, on every rank, unless all ranks hold the same number."""
    numbers = of_all_ranks(number)
    if len(set(numbers)) > 1:
        raise InputError(f"{what}: {numbers} over the ranks; wanted the same on each")


def of_all_ranks(number: int) -> list[int]:
    """The whole number that each rank holds, by rank."""
    if world_size() == 1:
        return [number]
    own = torch.tensor([number], device="cuda" if dist.get_backend() == "nccl" else "cpu")
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return [int(part) for part in parts]


@torch.no_grad()
def sum_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Each parameter's gradient becomes the sum over all ranks (of those that hold one; none counts as zero)."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
