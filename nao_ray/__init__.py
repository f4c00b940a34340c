"""nao_ray: neural architecture search with NAO on a Ray cluster.

A strategy proposes genotypes from a search space; an evaluator scores each one on a task; the pool remembers
every trial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__version__ = "0.1.0"
__all__ = ["__version__", "build_network"]


def build_network(
    genotype: str,
    *,
    space: str,
    network: str = "cifar10",
    cells_per_stage: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    auxiliary: bool = False,
    dialect: str | None = None,
    plain_separable: bool = False,
) -> nn.Module:
    """A genotype as a stand-alone network.

    In evaluation mode a call on ``[B, C, H, W]`` returns logits ``[B, num_classes]``; in training mode, with
    `auxiliary`, a pair of logits, the auxiliary head's second. What is None is as published. The row of a trained child
    in a pool gives all of it: `genotype`, `space`, `network`, `cells_per_stage`, `channels`, `num_classes`,
    `in_channels`. `plain_separable`: ENAS's macro network has ordinary
    convolutions for separable ones, as the released code builds it.

    Raises:
        GenotypeError: the genotype cannot be read in this space.
        ConfigError: the space or the network is unknown.
    """
    from nao_ray import registry
    from nao_ray.networks.derived import build

    search_space = registry.load("space", space).for_text(genotype)
    graph = search_space.lower(search_space.parse(genotype, dialect))
    return build(
        graph,
        network=network,
        cells_per_stage=cells_per_stage,
        channels=channels,
        num_classes=num_classes,
        in_channels=in_channels,
        auxiliary=auxiliary,
        plain_separable=plain_separable,
    )
