"""Ranks and sums over them. Without a process group there is one rank, and sums change nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Return whether a process group is active."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Return whether this is the process that writes files and messages."""
    return rank() == 0


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elementwise sum of `tensor` over all ranks, without gradient. The argument is unchanged; without a
    process group, it is the result."""
    if not is_distributed():
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


@contextmanager
def distributed(
    backend: str | None = None, *, init_method: str = "env://", rank: int = -1, world_size: int = -1
) -> Iterator[None]:
    """Join the process group and leave it at the end.

    By default, rank, size and address are those that `torchrun` put into the environment. The backend is NCCL on CUDA,
    where each process uses the device of its local rank, and Gloo elsewhere. Another `init_method` (such as
    `file:///shared/meeting-point`) needs the rank and the world size.
    """
    backend = backend or ("nccl" if torch.cuda.is_available() else "gloo")
    if backend == "nccl":
        torch.cuda.set_device(dist.get_node_local_rank(fallback_rank=0))
    dist.init_process_group(backend, init_method=init_method, rank=rank, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
