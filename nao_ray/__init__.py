"""nao_ray: neural architecture search with NAO on a Ray cluster.

A strategy proposes genotypes from a search space; an evaluator scores each one on a task; the pool remembers
every trial.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from nao_ray.api.pool import Pool, open_pool
    from nao_ray.api.search import Search, start
    from nao_ray.api.study import Study

__version__ = "0.1.0"
__all__ = ["Pool", "Search", "Study", "__version__", "build_network", "draw", "open_pool", "start"]

_HOMES = {
    "Pool": "nao_ray.api.pool",
    "Search": "nao_ray.api.search",
    "Study": "nao_ray.api.study",
    "open_pool": "nao_ray.api.pool",
    "start": "nao_ray.api.search",
}
"""Where names are that are loaded when they are first used: `import nao_ray` takes neither torch nor ray nor pandas."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - what each is, type checkers see above
    if name not in _HOMES:
        raise AttributeError(f"module 'nao_ray' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def build_network(
    genotype: str,
    *,
    space: str,
    network: str | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    auxiliary: bool = False,
    dialect: str | None = None,
    **settings: int | bool | None,
) -> nn.Module:
    """A genotype as a stand-alone network.

    In evaluation mode a call on ``[B, C, H, W]`` returns logits ``[B, num_classes]``; in training mode, with
    `auxiliary`, a pair of logits, the auxiliary head's second. A network for text is called with tokens ``[B, T]``, and
    with what it gave of the segment before, and returns logits ``[B, T, num_classes]`` and what it carries on; its
    classes are the words of its vocabulary. What is None is as published, the network the first one of the skeleton:
    `cifar10`, `ptb`. The row of a trained child
    in a pool gives all of it: `genotype`, `space`, `network`, `num_classes`, `in_channels` and the
    size. `settings` are the network's size, by the names that its skeleton has (`cells_per_stage`, `channels`, ...),
    and deviations from the published one, those of the skeleton's `Config` (`nao_ray/skeletons`): `relu_before_head`,
    `plain_separable`, ...

    Raises:
        GenotypeError: the genotype cannot be read in this space.
        ConfigError: the space or the network is unknown, or a setting.
    """
    from nao_ray import registry
    from nao_ray.skeletons.base import with_settings

    search_space = registry.load("space", space).for_text(genotype)
    graph = search_space.lower(search_space.parse(genotype, dialect))
    skeleton, size = with_settings(search_space, settings)
    shapes = skeleton.shapes(network, num_classes=num_classes, in_channels=in_channels)
    told = {"auxiliary_weight": float(auxiliary)} if "auxiliary_weight" in type(skeleton.plain).model_fields else {}
    return skeleton.build(graph, shapes, size, skeleton.plain.model_copy(update=told))


def draw(genotype: str, *, space: str, dialect: str | None = None) -> str:
    """The cells of a genotype as a picture: one self-contained SVG with light and dark colours.

    Inputs on the left, numbered nodes, an arrow per edge with its operation on it, and lines from the states that are
    concatenated to the output. ``nao-ray describe GENOTYPE --draw FILE.png`` writes it as PNG.

    Raises:
        GenotypeError: the genotype cannot be read in this space.
        ConfigError: the space is unknown.
    """
    from nao_ray import registry
    from nao_ray.report.pictures.cells import draw_cells

    home = registry.load("space", space).for_text(genotype)
    return draw_cells(home.lower(home.parse(genotype, dialect)), genotype, home.op_names)
