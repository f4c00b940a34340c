"""What NAO has asked and was told, in the order of the log, and how much of it a fit is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from nao_ray.spaces.base import Genotype
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.trial import Proposal, Trial

_POINTS = 16  # of a curve: what is in between is nearly on a line


class Memory:
    """Of one search."""

    def __init__(self) -> None:
        self.told: list[Observation] = []
        """First rungs, in the order told."""
        self.beside: list[Observation] = []
        """Retries and further rungs with a score, in the order told."""
        self.asked: dict[int, Genotype] = {}
        """By trial id, ascending."""
        self._beside_before: dict[int, int] = {}  # how many of them when a round began
        self._first_of_round: dict[int, int] = {}
        self._scores: dict[tuple[int, int | None], float] = {}  # by trial id and epochs

    def note_asked(self, proposal: Proposal) -> None:
        """A proposal went out."""
        self.asked[proposal.trial_id] = proposal.genotype
        self._first_of_round.setdefault(proposal.round or 0, proposal.trial_id)
        self._beside_before.setdefault(proposal.round or 0, len(self.beside))

    def observation(self, trial: Trial, values: tuple[float, ...]) -> Observation:
        """What is kept of a finished trial, `values` as of `Strategy.values_of`."""
        proposal = trial.proposal
        source, epochs = proposal.source_trial_id, proposal.fidelity.epochs
        if (score := trial.score) is not None:
            self._scores[trial.trial_id, epochs] = score
        return Observation(
            trial_id=trial.trial_id,
            genotype=proposal.genotype,
            score=score,
            round=proposal.round or 0,
            predicted_score=proposal.predicted_score,
            source_score=None if source is None else self._scores.get((source, epochs)),
            values=values,
            epochs=epochs,
            course=() if trial.measurement is None else _thinned(trial.measurement.course),
        )

    @property
    def num_scored(self) -> int:
        """Trials with a score, rungs too."""
        return len(self._scores)

    @property
    def last_round(self) -> int:
        """That something was asked in."""
        return max(self._first_of_round)

    def everything(self) -> list[Observation]:
        """All that was told, by trial id."""
        return sorted([*self.told, *self.beside], key=lambda seen: seen.trial_id)

    def beside_given(self, index: int) -> int:
        """How many of `beside` fit `index` is given."""
        if not self.beside:
            return 0
        # a round that asked nothing had its fit when the next one that asked began
        later = (number for round_, number in self._beside_before.items() if round_ >= index)
        return min(later, default=len(self.beside))

    def with_beside(self, index: int, told: Sequence[Observation]) -> list[Observation]:
        """Those `told` with what stands beside them for fit `index`, by trial id."""
        return sorted([*told, *self.beside[: self.beside_given(index)]], key=lambda seen: seen.trial_id)

    def pending(self, known: Sequence[Observation], before: int | None = None) -> dict[int, Genotype]:
        """By trial id, what was asked, before the round `before` began, and is not `known`."""
        done = {seen.trial_id for seen in known}
        first = None if before is None else self._first_of_round.get(before)
        asked = takewhile(lambda item: first is None or item[0] < first, self.asked.items())
        return {trial_id: genotype for trial_id, genotype in asked if trial_id not in done}


def _thinned(course: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    points = sorted(course.items())
    rows = sorted({round(k * (len(points) - 1) / (_POINTS - 1)) for k in range(_POINTS)}) if points else []
    return tuple(points[row] for row in rows)
