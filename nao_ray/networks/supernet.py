"""What every supernet is, and the batch norm mode of its scores.

A supernet is called with a batch and a choice, an arch graph, and has `derive(graph)`; what a choice uses is what has a
gradient after its backward pass. See `networks/cell_supernet.py` (NAO's spaces and ENAS's micro space),
`networks/darts_supernet.py`, `networks/macro_supernet.py`, `networks/supernets_201.py` and
`networks/recurrent_network.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from nao_ray.networks.cell_supernet import CellSupernet
from nao_ray.networks.macro_supernet import MacroSupernet
from nao_ray.networks.recurrent_network import RecurrentSupernet
from nao_ray.networks.supernets_201 import SummingSupernet

Supernet = CellSupernet | MacroSupernet | SummingSupernet | RecurrentSupernet
"""Shared weights of all genotypes of a space."""


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
