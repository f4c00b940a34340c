"""An arch graph as a stand-alone network with weights of its own.

Defaults are the published ones (Luo, Tian, Qin, Chen, Liu, NeurIPS 2018, arXiv 1808.07233; NAO_pytorch V1): CIFAR with
N = 6, F = 36, ImageNet with N = 4, F = 42. `small` is ours, for 8x8 to 28x28 grey images. The skeleton of an arch graph
says which stack repeats its cells; stacks other than NAO's have one stem and sizes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nao_ray.errors import ConfigError
from nao_ray.networks.cells_201 import CellStack
from nao_ray.networks.enas_macro import STAGES, MacroStack
from nao_ray.networks.enas_micro import MicroSearchStack, MicroStack
from nao_ray.networks.macro_supernet import MacroSearchStack
from nao_ray.networks.ops import OpOptions
from nao_ray.networks.stacks import LAYOUTS, ImageStack, Stack, StackConfig
from nao_ray.spaces.base import ArchGraph


@dataclass(frozen=True, slots=True)
class NetworkDefaults:
    """What a network has unless told otherwise."""

    stem: str
    cells_per_stage: int
    channels: int
    num_classes: int
    in_channels: int
    image_size: int


NETWORKS = {
    "cifar10": NetworkDefaults("cifar", 6, 36, 10, 3, 32),
    "cifar100": NetworkDefaults("cifar", 6, 36, 100, 3, 32),
    "imagenet": NetworkDefaults("imagenet", 4, 42, 1000, 3, 224),
    "small": NetworkDefaults("cifar", 1, 16, 10, 1, 28),
}
_FINAL: dict[str, type[ImageStack | CellStack | MacroStack]] = {
    "nao": ImageStack,
    "nas_bench_201": CellStack,
    "enas_micro": MicroStack,
    "enas_macro": MacroStack,
}
_SUPERNET: dict[str, type[ImageStack | MacroSearchStack]] = {
    "nao": ImageStack,
    "enas_micro": MicroSearchStack,
    "enas_macro": MacroSearchStack,
}
_SIZES = {  # N and F by skeleton and network; every `small` is ours
    "nas_bench_201": {"cifar10": (5, 16), "cifar100": (5, 16), "small": (1, 16)},  # arXiv 2001.00326, section 2.1
    "enas_micro": {"cifar10": (5, 36), "cifar100": (5, 36), "small": (1, 16)},  # the final script: 15 + 2 layers
    "enas_macro": {"cifar10": (8, 96), "cifar100": (8, 96), "small": (4, 16)},  # F; N is the genotype's
}


def input_shape(network: str, in_channels: int | None = None, image_size: int | None = None) -> tuple[int, int, int]:
    """``(C, H, W)`` of a network's images, the published ones unless given.

    Raises:
        ConfigError: the network is unknown.
    """
    defaults = network_defaults(network)
    size = defaults.image_size if image_size is None else image_size
    return defaults.in_channels if in_channels is None else in_channels, size, size


def build(
    graph: ArchGraph,
    *,
    network: str = "cifar10",
    cells_per_stage: int | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    auxiliary: bool = False,
    layout: str = "final",
    in_channels: int | None = None,
    image_size: int | None = None,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    count_padding: bool = True,
    relu_before_head: bool = False,
    drop_path_identity: bool = False,
    plain_separable: bool = False,
) -> Stack:
    """A network with fresh weights, drawn from torch's global generator (`rng.torch_seeded`).

    Args:
        graph: normal and reduction cell of two inputs each, the cell of NAS-Bench-201, or ENAS's macro network.
        network: `cifar10`, `cifar100`, `imagenet` or `small`; gives the stem and the defaults of the next three.
            Only NAO's stack has an `imagenet`.
        cells_per_stage: N >= 1; ENAS's macro network has the layers of its genotype, whatever this says.
        channels: F >= 1, even where a cell halves it.
        num_classes: >= 1.
        auxiliary: with the auxiliary head after the second reduction, active in training mode; NAS-Bench-201 and ENAS's
            macro network have none.
        layout: `final`, or `supernet`: as one genotype stands in the shared supernet (`networks/supernet.py`), where a
            cell ends in ReLU, conv 1x1, BN to its C channels and a macro layer adds what it skips from.
        in_channels: of the images.
        image_size: smallest side of the images, in pixels; checked only, the network takes any.
        dropout: probability of dropping a pooled feature, in [0, 1).
        drop_path: probability of dropping an edge of the last cell at the last step, in [0, 1).
        count_padding: ``*_padded`` and 2x2 pools see the zeros around the map, as the published networks do.
        relu_before_head: rectify before the global pool (the PyTorch code does not).
        drop_path_identity: drop identity edges too.
        plain_separable: ENAS's macro network builds separable convolutions as ordinary ones, as its code does.

    Raises:
        ConfigError: an unknown network, skeleton or operation, or a value out of range.
    """
    defaults = network_defaults(network, graph.skeleton)
    if graph.skeleton == "enas_macro":
        cells_per_stage = len(graph.cell("network").nodes) // STAGES
    config = StackConfig(
        stem=defaults.stem,
        cells_per_stage=defaults.cells_per_stage if cells_per_stage is None else cells_per_stage,
        channels=defaults.channels if channels is None else channels,
        num_classes=defaults.num_classes if num_classes is None else num_classes,
        in_channels=defaults.in_channels if in_channels is None else in_channels,
        auxiliary=auxiliary,
        dropout=dropout,
        drop_path=drop_path,
        drop_path_identity=drop_path_identity,
        layout=layout,
        relu_before_head=relu_before_head,
        plain_separable=plain_separable,
        ops=OpOptions(count_padding=count_padding),
    )
    check(config, network, defaults.image_size if image_size is None else image_size)
    stacks: Mapping[str, type[ImageStack | CellStack | MacroStack | MacroSearchStack]]
    stacks = _FINAL if layout == "final" else _SUPERNET
    if graph.skeleton not in stacks:
        raise ConfigError(f"{graph.skeleton} has no layout {layout}; its network is always final")
    stack, roles = stacks[graph.skeleton], dict(graph.cells)
    repeats_cells = issubclass(stack, ImageStack)
    if repeats_cells and (set(roles) != {"normal", "reduction"} or any(cell.inputs != 2 for cell in roles.values())):
        raise ConfigError(
            f"network {network} repeats a normal and a reduction cell of two inputs, got cells {', '.join(roles)}"
        )
    return stack(graph, config)


def network_defaults(network: str, skeleton: str = "nao") -> NetworkDefaults:
    """Those of a network's name, for the stack of a skeleton.

    Raises:
        ConfigError: the network is unknown, or the skeleton has none of that name.
    """
    if network not in NETWORKS:
        raise ConfigError(f"no network is named {network!r}; known: {', '.join(NETWORKS)}")
    if skeleton == "nao":
        return NETWORKS[network]
    if skeleton not in _FINAL:
        raise ConfigError(f"there is no network for {skeleton} cells yet; there is one for {', '.join(_FINAL)}")
    sizes = _SIZES[skeleton]
    if network not in sizes:
        raise ConfigError(f"{skeleton} has no network {network}; choose one of {', '.join(sizes)}")
    cells_per_stage, channels = sizes[network]
    return replace(NETWORKS[network], cells_per_stage=cells_per_stage, channels=channels)


def check(config: StackConfig, network: str, image_size: int) -> None:
    """Refuse values that no network can have.

    Raises:
        ConfigError: a value is out of range, or `layout` is unknown.
    """
    if config.layout not in LAYOUTS:
        raise ConfigError(f"network {network} has no layout {config.layout!r}; choose one of {', '.join(LAYOUTS)}")
    for name in ("cells_per_stage", "channels", "num_classes", "in_channels"):
        if getattr(config, name) < 1:
            raise ConfigError(f"network {network}: {name} must be at least 1, got {getattr(config, name)}")
    for name in ("dropout", "drop_path"):
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"network {network}: {name} must be in [0, 1), got {getattr(config, name)}")
    if image_size < 1:
        raise ConfigError(f"network {network}: image_size must be at least 1, got {image_size}")
