"""The shared supernet of a space, and the batch norm mode of its scores.

A supernet is called with images and an arch graph, and has `used_parameters(graph)` and `derive(graph)`; see
`networks/cell_supernet.py` (NAO's spaces and ENAS's micro space) and `networks/macro_supernet.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from nao_ray.errors import ConfigError
from nao_ray.networks.cell_supernet import CellSupernet, MicroSupernet
from nao_ray.networks.derived import check, network_defaults
from nao_ray.networks.enas_macro import STAGES
from nao_ray.networks.macro_supernet import MacroSupernet
from nao_ray.networks.stacks import StackConfig
from nao_ray.spaces.base import SearchSpace
from nao_ray.spaces.enas_macro import EnasMacro
from nao_ray.spaces.parts.cnn_cell import CnnCellSpace

Supernet = CellSupernet | MacroSupernet
"""Shared weights of all genotypes of a space."""

_SIZES = {"nao": (3, 20), "enas_micro": (2, 20), "enas_macro": (4, 36)}  # N and F by skeleton; N is the macro space's


def build(
    space: SearchSpace[Any],
    *,
    network: str = "cifar10",
    cells_per_stage: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    auxiliary: bool = False,
    in_channels: int | None = None,
    image_size: int | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    drop_path_identity: bool = True,
    reduce_last: bool = False,
) -> Supernet:
    """A supernet with fresh weights, drawn from torch's global generator (`rng.torch_seeded`).

    Args:
        space: of NAO's pairs of cells (`nao_cnn_small`, `nao_cnn_middle`, ...), `enas_micro` or `enas_macro`.
        network: `cifar10`, `cifar100`, `imagenet` or `small`; gives the stem, the classes and the input channels. Only
            NAO's stack has an `imagenet`.
        cells_per_stage: N >= 1; None: NAO's 3, ENAS's 2. The macro network has the layers of its space, whatever this
            says.
        channels: F >= 2, even; None: 20, of the macro network 36.
        num_classes: >= 1.
        auxiliary: with the auxiliary head after the second reduction, active in training mode; ENAS's macro network has
            none.
        in_channels: of the images.
        image_size: smallest side of the images, in pixels; checked only, the network takes any.
        dropout: probability of dropping a pooled feature, in [0, 1).
        drop_path: probability of dropping an edge of the last cell at the last step, in [0, 1).
        drop_path_identity: drop identity edges too, as NAO's official supernet does.
        reduce_last: reduction cells of `enas_micro` read the last layer twice, as its code does, instead of the last
            two layers; the parameters are as many.

    Raises:
        ConfigError: the space has no supernet, an unknown network, or a value out of range.
    """
    skeleton = skeleton_of(space)
    defaults = network_defaults(network, skeleton)
    default_cells, default_channels = _SIZES[skeleton]
    if isinstance(space, EnasMacro):
        cells_per_stage = space.config.layers // STAGES
    config = StackConfig(
        stem=defaults.stem,
        cells_per_stage=default_cells if cells_per_stage is None else cells_per_stage,
        channels=default_channels if channels is None else channels,
        num_classes=defaults.num_classes if num_classes is None else num_classes,
        in_channels=defaults.in_channels if in_channels is None else in_channels,
        auxiliary=auxiliary,
        dropout=dropout,
        drop_path=drop_path,
        drop_path_identity=drop_path_identity,
        layout="supernet",
        reduce_last=reduce_last,
    )
    check(config, network, defaults.image_size if image_size is None else image_size)
    if config.channels % 2:
        raise ConfigError(f"supernet: channels must be even, since reductions halve them; got {config.channels}")
    if isinstance(space, EnasMacro):
        return MacroSupernet(space.ops, space.config.layers, config)
    assert isinstance(space, CnnCellSpace)
    return (MicroSupernet if skeleton == "enas_micro" else CellSupernet)(space.ops, config)


def skeleton_of(space: SearchSpace[Any]) -> str:
    """Name of the stack that the space's networks are.

    Raises:
        ConfigError: the space has no supernet.
    """
    if isinstance(space, EnasMacro):
        return "enas_macro"
    if isinstance(space, CnnCellSpace) and space.skeleton in _SIZES:
        return space.skeleton
    raise ConfigError(
        f"space {space.name} has no shared supernet; only spaces of NAO's pairs of cells and ENAS's spaces do"
    )


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
