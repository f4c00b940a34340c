"""What every supernet is, and what batch norm goes by in its scores.

See `networks/cell_supernet.py` (NAO's spaces and ENAS's micro space), `networks/darts_supernet.py`,
`networks/macro_supernet.py`, `networks/supernets_201.py` and `networks/recurrent_network.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
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


Statistics = Callable[[nn.Module], AbstractContextManager[None]]
"""Puts a network in evaluation mode, with what its batch norms go by, and puts it back."""


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, but batch norm by the statistics of the batch; the running ones are neither read nor written.

    How one-shot scores are usually taken: running statistics of shared weights mix the paths they were sampled in.
    """
    norms = _norms(network)
    with running_statistics(network):
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        try:
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True


@contextmanager
def running_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation mode as of any network: batch norm by the averages kept in training, over all paths drawn."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def statistics_of_first(network: nn.Module, rows: int) -> Iterator[None]:
    """Evaluation mode, but batch norm by the statistics of the first `rows` examples of a batch, for all of it.

    Where these are training examples, each path has the statistics that its own training examples have: what
    recalibrating it for each path comes to (Guo et al., "Single Path One-Shot", ECCV 2020, arXiv 1904.00420).
    """
    norms = _norms(network)
    with running_statistics(network):
        for norm in norms:  # torch has no seam for it; the instance's own `forward` is what a module's call looks up
            vars(norm)["forward"] = partial(_by_first, norm, rows)
        try:
            yield
        finally:
            for norm in norms:
                del vars(norm)["forward"]


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def _by_first(norm: nn.BatchNorm2d, rows: int, x: Tensor) -> Tensor:
    """``[B, C, H, W]`` twice."""
    variance, mean = torch.var_mean(x[:rows], dim=(0, 2, 3), correction=0)
    return F.batch_norm(x, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)
