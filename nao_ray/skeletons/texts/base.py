"""Skeletons that predict the next token of a text: a language model around one recurrent cell.

See `networks/recurrent_network.py`. A skeleton writes the published sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from nao_ray.errors import ConfigError
from nao_ray.sizes import Size
from nao_ray.skeletons.base import PLAIN, Skeleton, SkeletonConfig
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.tasks.base import Shapes
from nao_ray.tasks.texts.base import TokenShapes
from nao_ray.training.alphas import AlphaOptimiser, RecurrentAlphas
from nao_ray.training.recipe import Regularisation, TextRegularisation, expect

if TYPE_CHECKING:
    from torch import Tensor

    from nao_ray.networks.recurrent_network import RecurrentConfig, RecurrentNetwork, RecurrentSupernet
    from nao_ray.networks.recurrent_relaxed import RelaxedRecurrent

NETWORKS: Mapping[str, TokenShapes] = {
    "ptb": TokenShapes(10_000, "ptb"),
    "wikitext2": TokenShapes(33_278, "wikitext2"),
    "text": TokenShapes(10_000, "text"),
}
"""Published shapes by the network's name; `text`, any other, is ours."""


class RecurrentSize(Size):
    """Of one layer. The embedding is the decoder's matrix too, so it is as wide."""

    hidden: int | None = Field(default=None, ge=1, title="H")
    """Units."""


class LanguageConfig(SkeletonConfig):
    """What one would do otherwise than the published networks."""

    decoder_bias: bool = True
    """The decoder has a bias, which begins at 0."""
    average_first: bool = False
    """Of shared weights: state 0 is averaged too, as in NAO's published code, whose final cells do not."""
    init_range: float = Field(default=0.04, gt=0)
    """Weights of a network of one genotype begin uniform in +- this, shared ones in +-0.04."""


_OF_TRAINING = (
    "dropout",
    "dropout_hidden",
    "dropout_input",
    "dropout_embedding",
    "dropout_words",
    "activation_penalty",
    "slowness_penalty",
)
C = TypeVar("C", bound=LanguageConfig)


class RecurrentSkeleton(Skeleton[C]):
    """One cell named `recurrent`, of one input."""

    Config: ClassVar[type[SkeletonConfig]] = LanguageConfig
    sizes: ClassVar[type[Size]] = RecurrentSize
    regularisation: ClassVar[type[Regularisation]] = TextRegularisation
    plain: ClassVar[Regularisation] = TextRegularisation()
    recipe: ClassVar[str] = "short_text"
    shared_recipe: ClassVar[str] = "nao_ws_rnn"
    shared_batch: ClassVar[int] = 256
    relaxed_recipe: ClassVar[str] = "darts_rnn_search"
    alphas: ClassVar[type[AlphaOptimiser]] = RecurrentAlphas

    def shapes(self, network: str | None = None, **recorded: int | None) -> TokenShapes:
        name = next(iter(self.published)) if network is None else network
        if name not in self.published:
            raise ConfigError(f"{self.name} has no network {name}; choose one of {', '.join(self.published)}")
        published = NETWORKS[name]
        words = recorded.get("num_classes")  # as pools call it
        return TokenShapes(published.vocabulary if words is None else words, name)

    def check(
        self, shapes: Shapes, size: Size | None = None, regularisation: Regularisation = PLAIN, *, shared: bool = False
    ) -> None:
        tokens = self._tokens(shapes)
        self._told(regularisation)
        full = self._size(tokens, size, shared=shared)
        for name, value in {**full.model_dump(), "vocabulary": tokens.vocabulary}.items():
            if value < 1:
                raise ConfigError(f"network {tokens.network}: {name} must be at least 1, got {value}")

    def build(
        self, graph: ArchGraph, shapes: Shapes, size: Size | None = None, regularisation: Regularisation = PLAIN
    ) -> RecurrentNetwork:
        from nao_ray.networks.recurrent_network import RecurrentNetwork

        return RecurrentNetwork(graph, self.network_config(shapes, size, regularisation))

    def supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        regularisation: Regularisation = PLAIN,
    ) -> RecurrentSupernet:
        from nao_ray.networks.recurrent_network import RecurrentSupernet
        from nao_ray.spaces.parts.recurrent_cell import RecurrentSpace

        if not isinstance(space, RecurrentSpace):
            raise ConfigError(f"space {space.name} is not derived from {RecurrentSpace.__module__}.RecurrentSpace, so "
                              "there are no shared weights for it")  # fmt: skip
        config = self.network_config(shapes, size, regularisation, shared=True)
        return RecurrentSupernet(space.activations, space.nodes, config)

    def relaxed_supernet(
        self,
        space: SearchSpace[Any],
        shapes: Shapes,
        size: Size | None = None,
        partial: int = 1,
        regularisation: Regularisation = PLAIN,
    ) -> RelaxedRecurrent:
        from nao_ray.networks.recurrent_relaxed import RelaxedRecurrent
        from nao_ray.spaces.parts.recurrent_cell import RecurrentSpace

        assert isinstance(space, RecurrentSpace), "it has alphas of a recurrent cell"
        self.check_relaxed(shapes, size, partial, regularisation)
        config = self.network_config(shapes, size, regularisation, shared=True)
        return RelaxedRecurrent(space.primitives, space.nodes, config)

    def sized(self, graph: ArchGraph, shapes: Shapes, size: Size | None = None) -> RecurrentSize:
        del graph
        return self._size(self._tokens(shapes), size, shared=False)

    def example(self, shapes: Shapes) -> Tensor:
        import torch

        return torch.empty(1, 1, dtype=torch.int64, device="meta")

    def network_config(
        self, shapes: Shapes, size: Size | None, regularisation: Regularisation, *, shared: bool = False
    ) -> RecurrentConfig:
        """What a network is told.

        Raises:
            ConfigError: as `check`.
        """
        from nao_ray.networks.recurrent_network import RecurrentConfig

        self.check(shapes, size, regularisation, shared=shared)
        tokens = self._tokens(shapes)
        hidden = self._size(tokens, size, shared=shared).hidden
        assert hidden is not None
        told = self._told(regularisation)
        dropped: dict[str, Any] = {name: getattr(told, name) for name in _OF_TRAINING}
        own = self.config.model_dump(exclude={"init_range"} if shared else None)
        return RecurrentConfig(vocabulary=tokens.vocabulary, hidden=hidden, **own, **dropped)

    def _told(self, regularisation: Regularisation) -> TextRegularisation:
        told = self.plain if regularisation == PLAIN else regularisation
        return expect(TextRegularisation, told, f"a network of {self.name}")

    def _tokens(self, shapes: Shapes) -> TokenShapes:
        if not isinstance(shapes, TokenShapes):
            raise ConfigError(f"{self.name} makes networks for text, and the task has none")
        if shapes.network not in self.published:
            raise ConfigError(f"{self.name} has no network {shapes.network}; choose one of {', '.join(self.published)}")
        return shapes

    def _size(self, tokens: TokenShapes, size: Size | None, *, shared: bool) -> RecurrentSize:
        """Without a None."""
        usual = self.shared if shared and self.shared is not None else self.published[tokens.network]
        given = {} if size is None else size.model_dump(exclude_none=True)
        return RecurrentSize.model_construct(**{**usual.model_dump(), **given})
