"""A skeleton makes a network from cells: how often they are repeated, how wide, between which stem and which head.

It is asked what can be built before anything starts, so it works without torch until it builds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError, create_model

from nao_ray import own_modules, registry
from nao_ray.config_text import complaint
from nao_ray.errors import ConfigError
from nao_ray.settings import Settings
from nao_ray.sizes import Size, read_size
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.tasks.base import Shapes
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.recipe import Regularisation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nao_ray.networks.counting import Counts
    from nao_ray.networks.supernet import Supernet


class SkeletonConfig(Settings):
    """Deviations from the published networks; the defaults are those."""


C = TypeVar("C", bound=SkeletonConfig)

PLAIN = Regularisation()
"""None: a network as it is evaluated, in whatever family (`Skeleton.plain`)."""


class Skeleton(ABC, Generic[C]):
    """A way of making a network from cells. Stateless: two of one config are interchangeable."""

    Config: ClassVar[type[SkeletonConfig]] = SkeletonConfig

    name: ClassVar[str]
    sizes: ClassVar[type[Size]]
    """Its kind of size."""
    published: ClassVar[Mapping[str, Size]]
    """By the network's name (of a task's shapes), the size of its published networks."""
    searched: ClassVar[Size]
    """Of networks trained on their own in a search that does not say."""
    shared: ClassVar[Size | None] = None
    """Size of the published shared weights; None: there is no supernet."""
    searched_shared: ClassVar[Size | None] = None
    """Of shared weights in a search that does not say, and of networks trained beside them; None: `shared`."""
    relaxed: ClassVar[Size | None] = None
    """Of the published relaxed supernet, which mixes all operations by alphas; None: there is none."""
    alphas: ClassVar[type[AlphaOptimiser]] = AlphaOptimiser
    """How alphas are trained there."""
    relaxed_in_part: ClassVar[bool] = False
    """It can mix a part of the channels alone."""
    regularisation: ClassVar[type[Regularisation]] = Regularisation
    """What it can be told of a training."""
    plain: ClassVar[Regularisation] = PLAIN
    """What `PLAIN` is there."""
    recipe: ClassVar[str] = "paper_search"
    """Of networks trained on their own in a search that does not say."""
    shared_recipe: ClassVar[str] = "paper_shared"
    """Of shared weights in such a search."""
    shared_batch: ClassVar[int] = 500
    """Validation examples at once, of a text columns, that score genotypes with shared weights in such a search."""
    relaxed_recipe: ClassVar[str] = "darts_search"
    """Of a relaxed supernet in such a search."""
    former_sizes: ClassVar[Mapping[str, str]] = {}
    """Sizes that searches of before recorded and that meant nothing: by name, why."""

    def __init_subclass__(cls, **arguments: Any) -> None:  # noqa: ANN401
        super().__init_subclass__(**arguments)
        own_modules.give_name(cls)

    def __init__(self, config: C | None = None) -> None:
        self.config: C = config if config is not None else self.Config()  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Skeleton) and (type(self), self.config) == (type(other), other.config)

    def __hash__(self) -> int:
        return hash((type(self), self.config))

    @abstractmethod
    def shapes(self, network: str | None = None, **recorded: int | None) -> Shapes:
        """What a network fits, without a task.

        Args:
            network: its name; None: the first of `published`.
            recorded: numbers that `Shapes.recorded` has beside the name; None: as published.

        Raises:
            ConfigError: there is no such network.
        """

    @abstractmethod
    def check(
        self, shapes: Shapes, size: Size | None = None, regularisation: Regularisation = PLAIN, *, shared: bool = False
    ) -> None:
        """Refuse what cannot be built.

        Args:
            shapes: of the task.
            size: of the network; None: the published one.
            regularisation: of the training.
            shared: it is about the shared weights.

        Raises:
            ConfigError: there is no such network, or a value is out of range.
        """

    @abstractmethod
    def build(
        self, graph: ArchGraph, shapes: Shapes, size: Size | None = None, regularisation: Regularisation = PLAIN
    ) -> nn.Module:
        """A network of one genotype with fresh weights, drawn from torch's global generator (`rng.torch_seeded`).

        Args:
            graph: the genotype's, of a space of this skeleton.
            shapes: of the task.
            size: what is None in it is as published for the task's network.
            regularisation: gives the auxiliary head and what is dropped.

        Raises:
            ConfigError: as `check`, or an operation is unknown.
        """

    @abstractmethod
    def sized(self, graph: ArchGraph, shapes: Shapes, size: Size | None = None) -> Size:
        """The size of the network of a genotype, without a None.

        Raises:
            ConfigError: the skeleton has no network of this name.
        """

    @abstractmethod
    def example(self, shapes: Shapes) -> Tensor:
        """A batch of one that a network is called with, on the meta device."""

    def supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        regularisation: Regularisation = PLAIN,
    ) -> Supernet:
        """Shared weights of all genotypes of a space of this skeleton; otherwise as `build`.

        Where they are `networks.supernet.Composed` too, genotypes are scored together.

        Raises:
            ConfigError: as `check`, or there are none.
        """
        raise _missing_network(space, shared=True)

    def relaxed_supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        partial: int = 1,
        regularisation: Regularisation = PLAIN,
    ) -> nn.Module:
        """All operations of a space of this skeleton, mixed by alphas it is called with; otherwise as `build`.

        `partial`: of so many parts of the channels one is mixed.

        Raises:
            ConfigError: as `check`, or there is none.
        """
        raise _missing(space, "relaxed supernet", [])

    def check_relaxed(
        self, shapes: Shapes, size: Size | None = None, partial: int = 1, regularisation: Regularisation = PLAIN
    ) -> None:
        """As `check`, of the relaxed supernet."""
        self.check(shapes, size, regularisation)
        if partial > 1 and not self.relaxed_in_part:
            raise ConfigError(
                f"partial_channels {partial}: the relaxed supernet of {self.name} mixes all channels; leave it out"
            )

    def count_shared(
        self, space: SearchSpace[Any], shapes: Shapes, size: Size | None = None
    ) -> dict[str, tuple[int, Size]]:
        """Parameters and size of a space's `shared` weights and `relaxed` supernet; what there is not is left out.

        Args:
            space: of this skeleton.
            shapes: of the task.
            size: what is None in it is as published for each of them.

        Returns:
            By name; an auxiliary head does not count, as in `count`.

        Raises:
            ConfigError: as `supernet`.
        """
        import torch

        given, told = {} if size is None else size.model_dump(exclude_none=True), self.regularisation()
        made: dict[str, tuple[nn.Module, Size]] = {}
        with torch.device("meta"):
            if self.shared is not None:
                full = self.shared.model_copy(update=given)
                made["shared"] = self.supernet(space, shapes, full, told), full
            if self.relaxed is not None and space.alpha_edges:
                full = self.relaxed.model_copy(update=given)
                with suppress(ConfigError):  # not of every network that there are shared weights of
                    made["relaxed"] = self.relaxed_supernet(space, shapes, full, regularisation=told), full
        return {
            name: (sum(p.numel() for key, p in network.named_parameters() if not key.startswith("auxiliary.")), full)
            for name, (network, full) in made.items()
        }

    def count(self, graph: ArchGraph, shapes: Shapes, size: Size | None = None) -> Counts:
        """Parameters and multiply-adds of a genotype's network; computes nothing, and nothing twice.

        Raises:
            ConfigError: as `build`.
        """
        return _count(self, graph, shapes, self.sized(graph, shapes, size))

    def num_params(self, graph: ArchGraph, shapes: Shapes, size: Size | None = None) -> int:
        """`count(...).num_params` alone, in two thirds of the time.

        Raises:
            ConfigError: as `build`.
        """
        from nao_ray.networks.counting import parameters

        return parameters(_unfilled(self, graph, shapes, self.sized(graph, shapes, size)))[0]


@lru_cache(maxsize=4096)
def _count(skeleton: Skeleton[Any], graph: ArchGraph, shapes: Shapes, size: Size) -> Counts:
    from nao_ray.networks.counting import count

    return count(_unfilled(skeleton, graph, shapes, size), skeleton.example(shapes))


def _unfilled(skeleton: Skeleton[Any], graph: ArchGraph, shapes: Shapes, size: Size) -> nn.Module:
    """A network without weights."""
    import torch

    with torch.device("meta"):
        return skeleton.build(graph, shapes, size, skeleton.regularisation())


def skeleton_of(space: SearchSpace[Any], *, shared: bool = False) -> Skeleton[Any]:
    """That of the space's networks; with `shared`, one that has a supernet.

    Raises:
        ConfigError: there is none.
    """
    if not own_modules.is_own(space.skeleton) and space.skeleton not in registry.names("skeleton"):
        raise _missing_network(space, shared=shared)
    cls = registry.load("skeleton", space.skeleton)
    if shared and cls.shared is None:
        raise _missing_network(space, shared=True)
    skeleton: Skeleton[Any] = cls()
    return skeleton


def with_settings(space: SearchSpace[Any], settings: Mapping[str, Any]) -> tuple[Skeleton[Any], Size]:
    """The skeleton of a space with deviations, and a size, from settings of both by name; None: as published.

    Raises:
        ConfigError: there is no skeleton, or no setting of this name, or not of this type.
    """
    cls = type(skeleton_of(space))
    given = {name: value for name, value in settings.items() if value is not None and name not in cls.former_sizes}
    sizes = {name: given.pop(name) for name in cls.sizes.model_fields if name in given}
    try:
        config = cls.Config(**given)
    except ValidationError as error:
        known = create_model("Known", __base__=(cls.sizes, cls.Config))
        raise complaint(error, known) from None
    return cls(config), read_size(cls.sizes, sizes)


def relaxed_skeleton_of(space: SearchSpace[Any]) -> Skeleton[Any]:
    """That of the space's networks, which has a relaxed supernet.

    Raises:
        ConfigError: there is none.
    """
    skeleton = skeleton_of(space)
    if skeleton.relaxed is None or not space.alpha_edges:
        having = [name for name in registry.names("space") if registry.load("space", name)().alpha_edges]
        raise ConfigError(f"space {space.name} has no relaxed supernet; {', '.join(having)} have one")
    return skeleton


def _missing(space: SearchSpace[Any], what: str, having: Sequence[str]) -> ConfigError:
    return ConfigError(f"space {space.name} has no {what}; spaces of the skeletons {', '.join(having)} have one")


def _skeletons() -> list[type[Skeleton[Any]]]:
    return [registry.load("skeleton", name) for name in registry.names("skeleton")]


def _missing_network(space: SearchSpace[Any], *, shared: bool) -> ConfigError:
    having = [cls.name for cls in _skeletons() if cls.shared is not None or not shared]
    return _missing(space, "shared supernet" if shared else "network yet", having)
