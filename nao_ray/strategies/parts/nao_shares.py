"""The share of NAO's proposals that does not go by its process: what is asked blindly where it does not predict.

A process that ranks what it left out no better than chance leads nowhere in particular, and the same mistake is made
in every fit. Then up to half of the proposals are blind: with equal odds a neighbour of one of the best, as local
search would ask, or a random one. How well the process ranks is Spearman's rho of its leave-one-out predictions, by the
upper end of its interval (Fisher's z, one standard error), so that a few results are no reason to be blind.

A process may also rank what is known and be wrong where it leads. A prediction is a median, which a score reaches as
often as not; where clearly fewer of the last proposals reached theirs, exploiting no longer pays, and a share is blind
until it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.parts.nao_round import Observation, fresh
from nao_ray.trial import Proposal

MOST = 0.5
"""Share where the process does not rank at all."""
ENOUGH = 0.5
"""Rank correlation from which on nothing is asked blindly."""

RECENT = 20
"""Proposals of the process that tell whether it keeps what it promises."""

_FEWEST = 10
"""Results from which on the interval means something."""


def blind_share(correlation: float, count: int) -> float:
    """In [0, MOST], of a rank correlation that `count` left-out results have; NaN, as of equal scores, is none."""
    if count < _FEWEST:
        return 0.0
    rho = 0.0 if math.isnan(correlation) else min(max(correlation, -0.999), 0.999)
    highest = math.tanh(math.atanh(rho) + 1 / math.sqrt(count - 3))
    return MOST * min(max(1 - highest / ENOUGH, 0.0), 1.0)


def reached_share(known: Sequence[Observation]) -> float | None:
    """In [0, 1]: of the last RECENT proposals of the process, those whose score came to the predicted one; 0.5 is fair.

    None: there are fewer. `known` is by trial id; blind proposals have no prediction.
    """
    promised = [
        seen.score >= seen.predicted_score
        for seen in known
        if seen.score is not None and seen.predicted_score is not None
    ]
    return sum(promised[-RECENT:]) / RECENT if len(promised) >= RECENT else None


def unpaid_share(reached: float | None) -> float:
    """In [0, MOST], of a `reached_share`, by the upper end of its interval: one standard error of RECENT fair ones."""
    highest = 1.0 if reached is None else reached + 0.5 / math.sqrt(RECENT)
    return MOST * max(1 - highest / 0.5, 0.0)


def with_blind(
    queue: Sequence[Proposal],
    share: float,
    space: SearchSpace[Any],
    sources: Sequence[Observation],
    taken: set[str],
    generator: np.random.Generator,
) -> list[Proposal]:
    """The queue, with a blind proposal before some of it: `share` of the places, at random.

    Args:
        queue: of a round, best first.
        share: in [0, 1].
        space: of the search.
        sources: the best trials.
        taken: keys that are not proposed again; grows.
        generator: of this round's shares.
    """
    mixed: list[Proposal] = []
    for draft in queue:
        if generator.random() < share:
            origins = [source.genotype for source in sources] if generator.random() < 0.5 else []
            genotype: Genotype | None = fresh(space, origins, taken, generator)
            if genotype is not None:
                taken.add(genotype.key)
                mixed.append(Proposal(genotype=genotype, round=draft.round))
        mixed.append(draft)
    return mixed[: len(queue)]
