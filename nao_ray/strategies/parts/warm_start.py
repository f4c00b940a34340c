"""What earlier pools give a search of NAO: its first proposals, and what its process starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nao_ray.controllers.base import one_thread
from nao_ray.controllers.gp_controller import GpConfig, features_of, views_of
from nao_ray.controllers.pretraining import Pretrained
from nao_ray.controllers.transfer import Source
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Earlier


class WarmStart:
    """Earlier pools of one space, learnt once: encoder and descriptors are those of the search, and shared."""

    def __init__(self, space: SearchSpace[Any], earlier: Sequence[Earlier]) -> None:
        self._space, self._earlier = space, earlier
        self._sources: list[Source] | None = None

    def __bool__(self) -> bool:
        return bool(self._earlier)

    def bests(self) -> list[Genotype]:
        """The best of each pool within the constraints, each once: what is asked before anything else is known."""
        found = (self._best(pool) for pool in self._earlier)
        return list(dict.fromkeys(genotype for genotype in found if genotype is not None))

    def _best(self, pool: Earlier) -> Genotype | None:
        order = np.argsort(-np.array(pool.scores), kind="stable")
        genotypes = (Genotype(self._space.name, pool.genotypes[row]) for row in order)
        return next((genotype for genotype in genotypes if not self._space.refusal(genotype)), None)

    def sources(self, pretrained: Pretrained, config: GpConfig) -> list[Source]:
        """What a fit may start from."""
        if self._sources is None:
            with one_thread():
                self._sources = [self._learnt(pool, pretrained, config) for pool in self._earlier]
        return self._sources

    def _learnt(self, pool: Earlier, pretrained: Pretrained, config: GpConfig) -> Source:
        tokens = np.stack([self._space.encode(Genotype(self._space.name, key)) for key in pool.genotypes])
        features = features_of(self._space, pretrained, tokens, config)
        scores = np.array(pool.scores, dtype=np.float64)
        return Source.of(pool.pool, features, scores, views_of(pretrained, config))
