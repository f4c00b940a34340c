"""A ladder of fidelities around a strategy: what it proposes trains for a few epochs, and the best of that goes on.

Asynchronous successive halving: Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar, "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020, arXiv 1810.05934, algorithm 2. Before a new architecture is asked for, the
best paused trial that is within the top `keep` of its rung, and has not gone on, does; higher rungs come first.

A rung is a trial of its own: the proposal of its parent, seed and all, with the epochs of the next rung, and the
parent's id. The strategy within is asked for first rungs alone and told of them alone, unless it ranks rungs itself
(`Strategy.ranks_rungs`), so that scores of several rungs never stand side by side unawares.

Differs from the paper: a rung is ranked by what the strategy foretells of its trials at the top, where it does
(`Strategy.foretell`), with several objectives by Pareto rank and crowding. Where the strategy ranks rungs itself,
`keep` counts all that went on: while it climbs, each new best is at the top of its rung, and every one would go on; and
what it would rather see go on than begin anything new does, due or not (`Strategy.prefers`). Once the strategy is done,
promotions go on until none is due.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from nao_ray import pareto
from nao_ray.strategies.base import Strategy, StrategyConfig
from nao_ray.trial import Diagnostics, Interim, Proposal, Trial, TrialState

_ROUNDING = 1e-9  # a third of six is two


@dataclass
class _Rung:
    """The trials of one fidelity."""

    epochs: int
    scored: list[Trial] = field(default_factory=list)
    """Best first, as far as `ranked_at` is of now."""
    gone_on: set[int] = field(default_factory=set)
    """Ids of those that were promoted."""
    asked: int = 0
    told: int = 0
    seconds: float = 0.0
    """On devices, of those told."""
    ranked_at: int = -1
    """Finished trials that were known when it was last ranked."""
    ended: set[int] = field(default_factory=set)
    """Ids of those that were promoted, and have ended there."""


class Ladder(Strategy[StrategyConfig]):
    """The strategy within, a rung at a time."""

    def __init__(self, inner: Strategy[Any], epochs: Sequence[int], keep: float) -> None:
        """As described above.

        Args:
            inner: trains alone; its fidelity is the first rung's. It has all that it is to have, but a past.
            epochs: of the rungs, ascending.
            keep: share of a rung that goes on, in (0, 1).
        """
        super().__init__(inner.space, inner.config, inner.seed, inner.fidelity)
        self.inner, self.keep = inner, keep
        self.visited = inner.visited
        self._rungs = [_Rung(each) for each in epochs]
        self._rung_of = {rung.epochs: rung for rung in self._rungs}

    # -- the seam -------------------------------------------------------------------------------------------

    def ask(self, n: int) -> list[Proposal]:
        proposals: list[Proposal] = []
        while len(proposals) < n and (promotion := self._promotion()) is not None:
            self._note_asked(promotion)
            proposals.append(promotion)
        new = self.inner.ask(n - len(proposals)) if len(proposals) < n else []
        for proposal in new:
            self._count(proposal)
        return proposals + new

    def tell(self, trials: Sequence[Trial]) -> None:
        self.inner.tell(trials)
        for trial in trials:
            self.log_position += 1
            self.num_told += trial.proposal.retry_of is None
            self._take_in(trial)

    def hear(self, interims: Sequence[Interim]) -> None:
        """Nothing: its rungs tell."""

    def _note_asked(self, proposal: Proposal) -> None:
        self.inner._note_asked(proposal)
        self._count(proposal)

    def _count(self, proposal: Proposal) -> None:
        if proposal.retry_of is not None:
            self._others.append(proposal.trial_id)
            return
        self.num_asked += 1
        self._rung_of[proposal.fidelity.epochs or 0].asked += 1
        if proposal.parent_trial_id is not None:
            below = self._below(proposal.fidelity.epochs or 0)
            below.gone_on.add(proposal.parent_trial_id)

    def _below(self, epochs: int) -> _Rung:
        return next(lower for lower, upper in pairwise(self._rungs) if upper.epochs == epochs)

    def _take_in(self, trial: Trial) -> None:
        rung = self._rung_of[trial.proposal.fidelity.epochs or 0]
        rung.told += trial.proposal.retry_of is None
        if trial.measurement is not None:
            rung.seconds += trial.measurement.device_seconds or trial.measurement.wall_seconds or 0.0
        if trial.proposal.parent_trial_id is not None:
            self._below(rung.epochs).ended.add(trial.proposal.parent_trial_id)
        if trial.state is TrialState.COMPLETED:
            rung.scored.append(trial)
            rung.ranked_at = -1

    # -- promotions -----------------------------------------------------------------------------------------

    def _promotion(self) -> Proposal | None:
        """The next rung of the best trial that is due, or None."""
        for lower, upper in reversed(list(pairwise(self._rungs))):
            trial = self._due(lower) or self._preferred(lower)
            if trial is not None:
                return replace(
                    trial.proposal,
                    trial_id=self.next_id,
                    parent_trial_id=trial.trial_id,
                    retry_of=None,
                    asked_after=self.log_position,
                    fidelity=replace(trial.proposal.fidelity, epochs=upper.epochs),
                )
        return None

    def _due(self, rung: _Rung) -> Trial | None:
        """The best of its top `keep` that has not gone on."""
        best = self._best_of(rung)
        if self.inner.ranks_rungs and len(rung.gone_on) >= len(best):
            return None
        return next((trial for trial in best if trial.trial_id not in rung.gone_on), None)

    def _preferred(self, rung: _Rung) -> Trial | None:
        """What the strategy would rather see go on than begin anything new."""
        known = sorted(rung.scored, key=lambda trial: trial.trial_id)
        paused = [trial for trial in known if trial.trial_id not in rung.gone_on]
        running = [trial for trial in known if trial.trial_id in rung.gone_on - rung.ended]
        return self.inner.prefers(paused, running) if paused else None

    def _best_of(self, rung: _Rung) -> list[Trial]:
        """The top `keep` of what has a score there, best first."""
        count = self._kept(len(rung.scored))
        if count and rung.ranked_at != self.log_position:
            self._rank(rung)
        return rung.scored[:count]

    def _kept(self, count: int) -> int:
        return math.floor(count * self.keep + _ROUNDING)

    def _rank(self, rung: _Rung) -> None:
        scored = sorted(rung.scored, key=lambda trial: trial.trial_id)
        foretold = self.inner.foretell(scored)
        scores = [trial.score or 0.0 for trial in scored] if foretold is None else foretold
        if self.inner.objectives:
            others = [(self.inner.values_of(trial) or ())[1:] for trial in scored]
            values = np.array([(score, *rest) for score, rest in zip(scores, others, strict=True)])
            rung.scored = [scored[row] for row in pareto.crowded_order(values)]
        else:
            order = sorted(range(len(scored)), key=lambda row: -scores[row])  # ties by id
            rung.scored = [scored[row] for row in order]
        rung.ranked_at = self.log_position

    # -- what is to come ------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.inner.done and self.next_id == self.log_position and self._promotion() is None

    @property
    def hopeless(self) -> str | None:
        return self.inner.hopeless

    @property
    def unguided(self) -> int:
        return self.inner.unguided

    def _expected(self) -> list[int] | None:
        """Trials of each rung in the end, if the best of each were known at once; None: as many as it is let."""
        first = self.inner.num_asked if self.inner.done else self.inner.planned
        if first is None:
            return None
        counts = [first]
        for rung in self._rungs[1:]:
            counts.append(max(rung.asked, self._kept(counts[-1])))
        return counts

    @property
    def planned(self) -> int | None:
        expected = self._expected()
        return None if expected is None else sum(expected)

    @property
    def seconds_to_come(self) -> float | None:
        expected, known = self._expected(), next((rung for rung in self._rungs if rung.told), None)
        if expected is None or known is None:
            return None
        steps = self._steps()
        an_epoch = known.seconds / known.told / steps[known.epochs]
        costs = (rung.seconds / rung.told if rung.told else an_epoch * steps[rung.epochs] for rung in self._rungs)
        left = (max(0, count - rung.told) for count, rung in zip(expected, self._rungs, strict=True))
        return sum(count * cost for count, cost in zip(left, costs, strict=True))

    def _steps(self) -> dict[int, int]:
        """Epochs that each rung trains, by those it has in all."""
        return {upper: upper - lower for lower, upper in pairwise((0, *(rung.epochs for rung in self._rungs)))}

    def diagnostics(self) -> list[Diagnostics]:
        return self.inner.diagnostics()

    # -- what a strategy writes, and the one within does -----------------------------------------------------

    def propose(self, k: int, rng: np.random.Generator) -> Proposal | None:
        return self.inner.propose(k, rng)

    def observe(self, trial: Trial) -> None:
        self.inner.observe(trial)
