"""What NAO takes from trainings that are under way: where they will end, as early scores have told before.

With many workers most of what a proposal could know is still being trained. A training that has done so many epochs is
compared with the finished ones, as they stood after as many by their curves, or by what was heard of them: the place of
its score among theirs is the place of its end among their ends, by matching quantiles. How far the finished ones ended
from where they would have been placed so is the variance of that, and the process takes it as a result with so much
more noise, an observation of a cheaper fidelity. Early scores that say nothing of the end change next to nothing.

Legend: `N` finished trials, `P` pending ones of which something is said, `E` numbers of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nao_ray.controllers.gp import normal_scores
from nao_ray.controllers.gp_controller import representatives
from nao_ray.controllers.transfer import Quantiles
from nao_ray.spaces.base import Genotype
from nao_ray.strategies.parts.nao_round import Observation

Floats = NDArray[np.float64]
Courses = Mapping[int, Mapping[int, float]]
"""Scores by epochs done, by trial."""

MOST = 128
"""Trainings under way that are taken in: a fit's time grows with the cube of what it is made from."""
_FEWEST = 2
"""Finished trainings to be compared with."""
_VARIANCE, _WEIGHT = 0.5, 3
"""What the variance is taken to be before there are any, and for how many that counts."""


@dataclass(frozen=True, slots=True)
class Early:
    """What is said of trainings under way."""

    trials: tuple[Observation, ...]
    """``P``, by trial id; their score is where they will end."""
    doubt: Floats
    """``[P]``: variance of that, in units of the signal's."""

    def rest(self, pending: Mapping[int, Genotype]) -> dict[int, Genotype]:
        """Those of `pending`, by trial id, of which nothing is said."""
        said = {seen.trial_id for seen in self.trials}
        return {trial_id: genotype for trial_id, genotype in pending.items() if trial_id not in said}

    def row(self) -> dict[str, float]:
        """Columns of a fit's diagnostics: `num_early`, how many, and `early_doubt`, the mean."""
        return {"num_early": len(self.trials), "early_doubt": float(self.doubt.mean())}


def early(finished: Sequence[Observation], pending: Mapping[int, Genotype], heard: Courses) -> Early | None:
    """None where nothing is said of any.

    Args:
        finished: trials with a score, ``N``.
        pending: by trial id, what is not finished.
        heard: of trainings while they were under way, ended ones too.
    """
    latest = {trial_id: max(heard[trial_id].items()) for trial_id in pending if heard.get(trial_id)}
    if not latest or len(finished) < _FEWEST:
        return None
    epochs = sorted({done for done, _ in latest.values()})
    stood = np.array([_course(seen, heard.get(seen.trial_id, {}), epochs) for seen in finished])
    comparisons = {done: _Comparison(stood[:, k], _ends(finished)) for k, done in enumerate(epochs)}
    placed = {
        trial_id: comparisons[done].place(score) for trial_id, (done, score) in latest.items() if comparisons[done]
    }
    if not placed:
        return None
    trial_ids = sorted(placed)
    scores = np.array([placed[trial_id] for trial_id in trial_ids])
    rows = representatives(scores, MOST)
    ends = np.sort(np.concatenate([_ends(finished), scores[rows]]))
    variances = {done: comparison.variance(ends) for done, comparison in comparisons.items()}
    some = [trial_ids[row] for row in rows]
    trials = (Observation(each, pending[each], placed[each], 0, None, None) for each in some)
    return Early(tuple(trials), np.array([variances[latest[each][0]] for each in some]))


class _Comparison:
    """With the finished trainings as they stood after as many epochs; false where there are too few."""

    def __init__(self, stood: Floats, ends: Floats) -> None:
        """Of ``[N]`` scores after so many epochs, NaN where it is not known, and ``[N]`` at the end."""
        known = np.isfinite(stood)
        self._stood, self._ends = stood[known], ends[known]
        self._place = Quantiles(torch.from_numpy(self._stood), torch.from_numpy(self._ends)) if self else None

    def __bool__(self) -> bool:
        return len(self._ends) >= _FEWEST

    def place(self, score: float) -> float:
        """Where a training with this score will end."""
        return float(self._places(np.array([score]))[0])

    def variance(self, ends: Floats) -> float:
        """Of that, in normal scores among `ends`, ascending."""
        if not self:
            return _VARIANCE
        targets = normal_scores(ends)
        missed = np.interp(self._ends, ends, targets) - np.interp(self._places(self._stood), ends, targets)
        return float((np.square(missed).sum() + _VARIANCE * _WEIGHT) / (len(missed) + _WEIGHT))

    def _places(self, scores: Floats) -> Floats:
        assert self._place is not None
        found: Floats = self._place(torch.from_numpy(scores)).numpy()
        return found


def _ends(finished: Sequence[Observation]) -> Floats:
    return np.array([seen.score for seen in finished], dtype=np.float64)


def _course(seen: Observation, heard: Mapping[int, float], epochs: Sequence[int]) -> Floats:
    """``[E]``: scores of a finished training after so many epochs, linearly in between; NaN before the first known."""
    course = {**heard, **dict(seen.course)}
    if not course:
        return np.full(len(epochs), np.nan)
    if seen.epochs is not None and seen.score is not None:
        course[seen.epochs] = seen.score
    done = sorted(course)
    found: Floats = np.interp(epochs, done, [course[at] for at in done], left=np.nan)
    return found
