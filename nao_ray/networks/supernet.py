"""What every supernet is, and the batch norm mode of its scores.

See `networks/cell_supernet.py` (NAO's spaces and ENAS's micro space), `networks/darts_supernet.py`,
`networks/macro_supernet.py`, `networks/supernets_201.py` and `networks/recurrent_network.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from nao_ray.networks.cells import Computation, T
from nao_ray.spaces.base import ArchGraph


class Supernet(nn.Module):
    """Shared weights of all genotypes of a space.

    Called with a batch and a choice, an arch graph; what the choice uses is what has a gradient after a backward pass.
    """

    @abstractmethod
    def derive(self, graph: ArchGraph) -> nn.Module:
        """A stand-alone network of the supernet's layout with copies of a genotype's weights and statistics."""


@runtime_checkable
class Composed(Protocol):
    """A supernet that says what a genotype's network computes: what many have in common is computed once (`one_shot`).

    Any other is called with one genotype after the other.
    """

    def first(self, images: Tensor) -> tuple[Tensor, ...]:
        """What `values` begins with, the same for all genotypes."""
        ...

    def values(self, how: Computation[T], first: Sequence[T], graph: ArchGraph) -> list[T]:
        """What a genotype's network computes one after the other, the logits last; `how` applies, adds and joins."""
        ...


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, but batch norm by the statistics of the batch; the running ones are neither read nor written.

    How one-shot scores are taken: running statistics of shared weights mix the paths they were sampled in.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    training = network.training
    network.eval()
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        network.train(training)
