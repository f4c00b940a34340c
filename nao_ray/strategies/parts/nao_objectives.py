"""Several objectives for NAO: a round asks for what is expected to add most to the hypervolume.

The score is predicted, as an upper confidence bound; the other objectives are counted before anything is trained. A
choice adds the hypervolume that its bound would add to what is measured, asked or chosen before it (the improvement of
SMS-EGO: Ponweiser, Wagner, Biermann, Vincze, PPSN 2008), above the worst value of each objective so far.

Legend: `M` candidates, `N` measured trials, `K` objectives, the score first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nao_ray import pareto
from nao_ray.pareto import Aim, Values
from nao_ray.spaces.base import Genotype


@dataclass(frozen=True, slots=True)
class Objectives:
    """What is aimed at besides the score, and what was reached so far."""

    aims: tuple[Aim, ...]
    figures: Callable[[Genotype], Mapping[str, float]]
    """Of a genotype, known before it is trained."""
    measured: Values
    """``[N, K]``."""

    def choose(self, bounds: Values, genotypes: Sequence[Genotype], count: int, pending: int) -> list[int]:
        """Up to `count` rows of the candidates, which come after as many `pending` ones, by what each adds.

        Args:
            bounds: ``[pending + M]`` of the score.
            genotypes: as many.
            count: how many are chosen.
            pending: of them count as reached.
        """
        values = np.column_stack([bounds, *self._others(genotypes)])
        reached = np.vstack([self.measured, values[:pending]])
        reference, candidates = pareto.worst(self.measured), values[pending:]
        is_open = np.array(np.isfinite(candidates).all(axis=1))
        chosen: list[int] = []
        while len(chosen) < count and is_open.any():
            gains = np.where(is_open, pareto.gains(candidates, reached, reference), -1.0)
            best = int(gains.argmax())
            chosen.append(best)
            is_open[best] = False
            reached = np.vstack([reached, candidates[best]])
        return chosen

    def _others(self, genotypes: Sequence[Genotype]) -> list[Values]:
        figures = [self.figures(genotype) for genotype in genotypes]
        return [np.array([aim.signed(float(of[aim.column])) for of in figures]) for aim in self.aims]
