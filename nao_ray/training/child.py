"""The network of one genotype as a task and a recipe want it."""

from __future__ import annotations

from typing import Any

from nao_ray import rng
from nao_ray.networks.derived import build
from nao_ray.networks.stacks import Stack
from nao_ray.spaces.base import ArchGraph
from nao_ray.tasks.base import Task
from nao_ray.training.recipe import Recipe


def network_for(
    task: Task[Any],
    graph: ArchGraph,
    recipe: Recipe,
    *,
    cells_per_stage: int | None,
    channels: int | None,
    seed: int,
) -> Stack:
    """A stand-alone network with fresh weights, with the heads and the dropping of the recipe.

    Args:
        task: gives stem, classes and images.
        graph: the genotype's.
        recipe: gives auxiliary head, dropout and drop path.
        cells_per_stage: N; None: the network's published one.
        channels: F; None: the network's published one.
        seed: names the weights.

    Raises:
        ConfigError: there is no such network.
    """
    with rng.torch_seeded(seed, "weights"):
        return build(
            graph,
            network=task.network,
            cells_per_stage=cells_per_stage,
            channels=channels,
            num_classes=task.num_classes,
            auxiliary=recipe.auxiliary_weight > 0,
            in_channels=task.image_shape[0],
            image_size=min(task.image_shape[1:]),
            dropout=recipe.dropout,
            drop_path=1 - recipe.drop_path_keep,
        )
