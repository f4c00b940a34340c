"""Local search: measure every neighbour of the best architecture, move to a better one, start anew where there is none.

White, Nolen, Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021, arXiv 2005.02960,
algorithm 1: start at random, evaluate the whole neighbourhood, move to its best, stop at a local optimum.

Differs from the paper: a local optimum is followed by a new random start. Free workers do not wait: while the last
neighbours are measured, they take neighbours of the best one so far, or candidates for the next start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from nao_ray import rng as streams
from nao_ray.spaces.base import Genotype, SearchSpace
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Fidelity, Proposal, Trial


class LocalSearchConfig(StrategyConfig):
    """Settings of `LocalSearch`."""

    starts: int = Field(default=1, ge=1)
    """Random architectures of which the best is climbed from."""
    move: Literal["best", "first"] = "best"
    """To the best of all neighbours (steepest ascent), or to the first that is better."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A finished trial."""

    trial_id: int
    genotype: Genotype
    score: float | None

    @property
    def rank(self) -> tuple[float, int]:
        return (-np.inf if self.score is None else self.score, -self.trial_id)


class LocalSearch(Strategy[LocalSearchConfig]):
    """Climbs, one after the other; every architecture is asked once."""

    Config = LocalSearchConfig

    def __init__(self, space: SearchSpace[Any], config: LocalSearchConfig, seed: int, fidelity: Fidelity) -> None:
        super().__init__(space, config, seed, fidelity)
        self._told: dict[str, _Told] = {}
        self._starts: list[str] = []  # keys of random architectures that were asked and not yet climbed from
        self._summit: _Told | None = None  # the best of this climb; None: waiting for a start
        self._around: list[Genotype] = []  # its neighbours, in the order asked
        self._moves = 0
        self._used_up = False

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        if self._summit is not None:
            if draft := self._unasked(self._around, self._summit):
                return draft
            ahead = self._best_neighbour()
            if ahead is not None and (draft := self._unasked(self._ordered_neighbours(ahead), ahead)):
                return draft
        fresh = self.unasked(rng)
        self._used_up = fresh is None
        return None if fresh is None else Proposal(genotype=fresh)

    def note_asked(self, proposal: Proposal) -> None:
        if proposal.source_trial_id is None:
            self._starts.append(proposal.genotype.key)

    def observe(self, trial: Trial) -> None:
        told = _Told(trial.trial_id, trial.genotype, trial.score)
        self._told[trial.genotype.key] = told
        while self._advance():
            pass

    def observe_retry(self, trial: Trial) -> None:
        self.observe(trial)

    @property
    def done(self) -> bool:
        return self._used_up

    def _advance(self) -> bool:
        """Move, or start a climb, if what was told allows it; a function of what was asked and told alone."""
        if self._summit is None:
            finished = [self._told[key] for key in self._starts if key in self._told]
            completed = [told for told in finished if told.score is not None]
            if len(completed) < self.config.starts:
                return False
            self._starts = [key for key in self._starts if key not in self._told]
            self._go_to(max(completed, key=lambda told: told.rank))
            return True
        better = self._best_neighbour()
        if any(neighbour.key not in self._told for neighbour in self._around) and (
            better is None or self.config.move == "best"
        ):
            return False
        if better is None:
            self._summit, self._around = None, []
        else:
            self._go_to(better)
        return True

    def _go_to(self, told: _Told) -> None:
        self._summit, self._around = told, self._ordered_neighbours(told)
        self._moves += 1

    def _best_neighbour(self) -> _Told | None:
        """The best measured neighbour that is better than the summit."""
        assert self._summit is not None
        told = [self._told[neighbour.key] for neighbour in self._around if neighbour.key in self._told]
        best = max(told, key=lambda told: told.rank, default=None)
        return best if best is not None and best.rank[0] > self._summit.rank[0] else None

    def _unasked(self, neighbours: list[Genotype], source: _Told) -> Proposal | None:
        for genotype in neighbours:
            if genotype.key not in self.visited:
                return Proposal(genotype=genotype, source_trial_id=source.trial_id)
        return None

    def _ordered_neighbours(self, told: _Told) -> list[Genotype]:
        found = [genotype for genotype in neighbours(self.space, told.genotype) if not self.space.refusal(genotype)]
        order = streams.child(self.seed, "neighbours", told.trial_id).permutation(len(found))
        return [found[i] for i in order]


def neighbours(space: SearchSpace[Any], genotype: Genotype) -> list[Genotype]:
    """The architectures one token away, each once, without the architecture itself, in token order."""
    tokens, home = space.encode(genotype), space.canonical(genotype).key
    found: dict[str, Genotype] = {}
    for position, legal in enumerate(space.token_mask):
        for token in np.flatnonzero(legal):
            changed = tokens.copy()
            changed[position] = token
            neighbour = space.canonical(space.decode(changed))
            if neighbour.key != home:
                found.setdefault(neighbour.key, neighbour)
    return list(found.values())
