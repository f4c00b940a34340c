"""A closed list of architectures as a search space: every strategy runs on a table of a few hundred of a large space.

What is not listed stands for the listed one nearest to it, by the number of tokens that differ, as twins do elsewhere:
so whatever a strategy makes, random or decoded, is one of the list. A mutant is one of the `_NEAR` nearest of the list.

Legend: `N` listed, `L` tokens per genotype.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nao_ray import registry
from nao_ray.bench._cells_101 import Cells101
from nao_ray.bench._nlp_space import NlpRecipes
from nao_ray.spaces.base import ArchGraph, Genotype, SearchSpace, SpaceConfig, Tokens

_NEAR = 10
"""Architectures among which a mutant is drawn."""


class ListedConfig(SpaceConfig):
    """Which space, and which of its architectures."""

    of: Literal["darts_cnn", "nas_bench_nlp", "nas_bench_101"]
    path: str
    """Parquet file whose column `arch_str` lists them."""


class Listed(SearchSpace[ListedConfig]):
    """The architectures of a file, each once."""

    name: ClassVar[str] = "nao_ray.bench._listed:Listed"
    Config: ClassVar[type[SpaceConfig]] = ListedConfig
    dialects: ClassVar[tuple[str, ...]] = ("tokens",)

    def __init__(self, config: ListedConfig) -> None:
        super().__init__(config)
        inner = {"nas_bench_nlp": NlpRecipes, "nas_bench_101": Cells101}.get(config.of)
        self.inner: SearchSpace[Any] = (inner or registry.load("space", config.of))()
        self._places: dict[str, int] = {}  # of what was looked up, in the list

    @cached_property
    def listed(self) -> list[Genotype]:
        """``[N]``, in canonical form, in the order of the file."""
        texts = pq.read_table(self.config.path, columns=["arch_str"])["arch_str"].to_pylist()
        found = dict.fromkeys(self.inner.canonical(self.inner.parse(text)) for text in texts)
        return [self._mine(genotype) for genotype in found]

    @cached_property
    def _tokens(self) -> Tokens:
        """``[N, L]``."""
        return np.stack([self.encode(genotype) for genotype in self.listed])

    def _mine(self, genotype: Genotype) -> Genotype:
        return Genotype(self.name, genotype.key)

    def _its(self, genotype: Genotype) -> Genotype:
        return Genotype(self.inner.name, genotype.key)

    @property
    def length(self) -> int:
        return self.inner.length

    @property
    def vocabulary(self) -> int:
        return self.inner.vocabulary

    @property
    def tokens_per_step(self) -> int:
        return self.inner.tokens_per_step

    @property
    def token_mask(self) -> NDArray[np.bool_]:
        return self.inner.token_mask

    @property
    def num_genotypes(self) -> int:
        return self.inner.num_genotypes

    @property
    def num_architectures(self) -> int:
        return len(self.listed)

    def sample(self, rng: np.random.Generator) -> Genotype:
        return self.listed[int(rng.integers(len(self.listed)))]

    def mutate(self, genotype: Genotype, rng: np.random.Generator) -> Genotype:
        place = self._place(genotype)
        far = (self._tokens != self._tokens[place]).sum(axis=1)
        near = np.argsort(far, kind="stable")
        near = near[near != place][:_NEAR]
        return self.listed[int(rng.choice(near))]

    def encode(self, genotype: Genotype) -> Tokens:
        return self.inner.encode(self._its(genotype))

    def decode(self, tokens: Tokens) -> Genotype:
        return self._mine(self.inner.decode(tokens))

    def canonical(self, genotype: Genotype) -> Genotype:
        return self.listed[self._place(genotype)]

    def _place(self, genotype: Genotype) -> int:
        """Where the nearest one stands in the list."""
        if genotype.key not in self._places:
            tokens = self.inner.encode(self.inner.canonical(self._its(genotype)))
            self._places[genotype.key] = int((self._tokens != tokens).sum(axis=1).argmin())
        return self._places[genotype.key]

    def twins(self, tokens: Tokens, rng: np.random.Generator) -> Tokens:
        return self.inner.twins(tokens, rng)

    def lower(self, genotype: Genotype) -> ArchGraph:
        return self.inner.lower(self._its(genotype))

    def read(self, text: str, dialect: str) -> Genotype:
        del dialect
        return self._mine(self.inner.parse(text))
