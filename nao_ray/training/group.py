"""Several processes that train one set of shared weights: their gradients, averaged every step.

Each worker computes its shard of the batch with a genotype of its own, so a step sees as many paths as there are
workers. What it moves is the mean of their gradients; a weight that a worker's path does not have counts there as
zero, so the expected gradient is that of one worker, and its variance smaller. Weight decay and clipping follow the
union: a weight is decayed whenever any of the workers used it.

Legend: `P` parameters of the supernet, `W` workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nao_ray.training.failures import PeerLostError

_PATIENCE = timedelta(minutes=5)
"""How long a worker waits for the others before it gives up; one that is known to be dead ends them at once."""


@contextmanager
def meeting(
    rank: int, size: int, address: str, device: torch.device, *, owns_device: bool = True
) -> Iterator[Averager | None]:
    """The group of `size` workers that meet at ``host:port``, while the block runs; None for a worker on its own.

    NCCL where each worker has a GPU to itself, otherwise gloo: NCCL refuses two members on one GPU.

    Raises:
        PeerLostError: a member is gone or cannot be reached.
    """
    if size == 1:
        yield None
        return
    backend = "nccl" if device.type == "cuda" and owns_device else "gloo"
    with _with_peers():
        dist.init_process_group(backend, init_method=f"tcp://{address}", rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield Averager(size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _with_peers() -> Iterator[None]:
    """What goes wrong within is a peer's end: gloo says RuntimeError, NCCL DistBackendError, which is one."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise PeerLostError(f"the group of workers broke: {error}") from error


class Averager:
    """Puts the gradients of a group of `size` workers together; to be called by all of them, step by step."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: dict[str, int] = {}
        self._named: dict[str, nn.Parameter] = {}

    def watch(self, net: nn.Module) -> None:
        """Whose parameters these are; before the first step."""
        self._named = dict(net.named_parameters())
        self._order = {name: index for index, name in enumerate(self._named)}

    def __call__(self, used: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """The parameters that any worker used, each with the mean of their gradients; see `trainer.Averager`."""
        mine = {name: parameter for name, parameter in used.items() if parameter.grad is not None}
        union = self._used_by_any(mine)
        parts = [
            parameter.grad.flatten() if parameter.grad is not None else torch.zeros_like(parameter).flatten()
            for parameter in union.values()
        ]
        together = torch.cat(parts)
        with _with_peers():
            dist.all_reduce(together)
        together /= self._size
        for parameter, part in zip(union.values(), torch.split(together, [len(part) for part in parts]), strict=True):
            parameter.grad = part.view_as(parameter)
        return union

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the workers' values; NaN for all where one has NaN."""
        value = value.clone()
        with _with_peers():
            dist.all_reduce(value)
        return value / self._size

    def _used_by_any(self, mine: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        device = next(iter(self._named.values())).device
        flags: Tensor = torch.zeros(len(self._order), dtype=torch.uint8)
        flags[[self._order[name] for name in mine]] = 1
        flags = flags.to(device)
        with _with_peers():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return {name: self._named[name] for name, flag in zip(self._order, flags.tolist(), strict=True) if flag}
