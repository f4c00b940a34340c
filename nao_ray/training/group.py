"""Several processes that train one set of weights: their gradients, averaged every step.

Each worker computes its shard of the batch with a genotype of its own, so a step sees as many paths as there are
workers. What it moves is the mean of their gradients; a weight that a worker's path does not have counts there as
zero, so the expected gradient is that of one worker, and its variance smaller. Weight decay and clipping follow the
union: a weight is decayed whenever any of the workers used it.

A full training by several is a `Team`: all compute one network, which is all of the supernet that there is.

Which weights that are is known without asking the device: draws are named by seed, so each worker knows what all use in
a step, and what has a gradient after a genotype's backward pass was told once, by whoever used it first.

Legend: `P` parameters of the supernet, `W` workers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
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

    NCCL where each worker has a GPU to itself, otherwise gloo: NCCL refuses two members on one GPU. What is on the host
    goes through gloo.

    Raises:
        PeerLostError: a member is gone or cannot be reached.
    """
    if size == 1:
        yield None
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" and owns_device else "gloo"
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
        self._named: dict[str, nn.Parameter] = {}
        self._names: list[str] = []
        self._order: dict[str, int] = {}
        self._chosen: Sequence[Hashable] = ()
        self._used: dict[Hashable, Tensor] = {}  # by what is chosen: ``[P]``, which parameters get a gradient

    def watch(self, net: nn.Module) -> None:
        """Whose parameters these are; before the first step."""
        self._named = dict(net.named_parameters())
        self._names = list(self._named)
        self._order = {name: index for index, name in enumerate(self._names)}

    def expect(self, chosen: Sequence[Hashable]) -> None:
        """What each worker computes in the next step, by rank: genotypes, or whatever says which weights are used."""
        assert len(chosen) == self._size, chosen
        self._chosen = chosen

    def __call__(self, used: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """The parameters that any worker used, each with the mean of their gradients; see `Trainer`."""
        mine = {name: parameter.grad for name, parameter in used.items() if parameter.grad is not None}
        if any(choice not in self._used for choice in self._chosen):
            self._tell(mine)
        union = {name: self._named[name] for name in self._union()}
        like = next(iter(union.values()))
        together = like.new_zeros(sum(parameter.numel() for parameter in union.values()))
        parts, start = {}, 0
        for name, parameter in union.items():
            parts[name] = together.as_strided(parameter.size(), parameter.stride(), start)
            start += parameter.numel()
        torch._foreach_copy_([parts[name] for name in mine], list(mine.values()))
        with _with_peers():
            dist.all_reduce(together)
        together /= self._size
        for name, parameter in union.items():
            parameter.grad = parts[name]
        return union

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the workers' values; NaN for all where one has NaN."""
        return self.sum(value) / self._size

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the workers' values; the same to the bit for all."""
        value = value.clone()
        with _with_peers():
            dist.all_reduce(value)
        return value

    def _tell(self, mine: Mapping[str, Tensor]) -> None:
        """Tell each other what has a gradient: from host to host, no device is waited for."""
        flags = torch.zeros(len(self._names), dtype=torch.uint8)
        flags[[self._order[name] for name in mine]] = 1
        everyone = [torch.empty_like(flags) for _ in range(self._size)]
        with _with_peers():
            dist.all_gather(everyone, flags)
        self._used.update(zip(self._chosen, everyone, strict=True))

    def _union(self) -> list[str]:
        flags = torch.stack([self._used[choice] for choice in self._chosen]).amax(0)
        return [self._names[index] for index in flags.nonzero().flatten().tolist()]


class Team(Averager):
    """A group of workers that train one network, each with its part of every batch.

    What has a gradient is told in the first step and stays as it is: no step asks for what it does not use. Statistics
    of batch norms are each worker's own, of its part, and those of the first one are kept; or they are the whole
    batch's, see `recipe.sync_batch_norm`.
    """

    def __init__(self, rank: int, size: int) -> None:
        """Of the worker `rank` of `size`, which have met already."""
        super().__init__(size)
        self.rank, self.size = rank, size
        self.expect([None] * size)

    def watch(self, net: nn.Module) -> None:
        super().watch(net)
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                tensor.copy_(self.of_first(tensor.flatten()).view(tensor.shape))

    def of_first(self, value: Tensor) -> Tensor:
        """The first worker's, where all have one of this shape."""
        value = value.detach().clone(memory_format=torch.contiguous_format)
        with _with_peers():
            dist.broadcast(value, 0)
        return value

    def bytes_of_first(self, data: bytes | None) -> bytes | None:
        """The first worker's, whatever the others have."""
        length = int(self.of_first(torch.tensor(-1 if data is None else len(data))))
        if length < 0:
            return None
        mine = torch.empty(length, dtype=torch.uint8) if self.rank else torch.frombuffer(data, dtype=torch.uint8)
        return self.of_first(mine).numpy().tobytes()
