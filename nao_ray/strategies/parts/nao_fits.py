"""What a fit of NAO says beside its controller: what its proposals promise, and what became of the last ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from nao_ray.controllers.measures import rank_correlation
from nao_ray.strategies.parts.nao_round import Observation
from nao_ray.trial import Proposal

_MOST_COUNTED = 100_000  # distinct genotypes scored, by their keys: a few megabytes


class Scored:
    """Distinct genotypes that the predictor was asked about in this process."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def row(self, keys: Collection[str]) -> dict[str, int | None]:
        """Columns `num_scored`, of a fit, and `num_scored_distinct`, so far; None from where counting would cost."""
        if len(self._keys) < _MOST_COUNTED:
            self._keys.update(keys)
        return {
            "num_scored": len(keys),
            "num_scored_distinct": len(self._keys) if len(self._keys) < _MOST_COUNTED else None,
        }


def outcome(index: int, known: Sequence[Observation]) -> dict[str, float | int | str | None]:
    """What became of the proposals of round `index`: columns `previous_*`, in units of the scores."""
    finished = [
        (seen.score, seen.predicted_score, seen.source_score)
        for seen in known
        if seen.round == index and seen.score is not None and seen.predicted_score is not None
    ]
    pairs = np.array([(score, predicted) for score, predicted, _ in finished], dtype=np.float64).reshape(-1, 2)
    gains = np.array(
        [(score - source, predicted - source) for score, predicted, source in finished if source is not None],
        dtype=np.float64,
    ).reshape(-1, 2)
    correlation = rank_correlation(pairs[:, 0], pairs[:, 1])
    return {
        "previous_realised_gain": float(gains[:, 0].mean()) if len(gains) else None,
        "previous_predicted_gain": float(gains[:, 1].mean()) if len(gains) else None,
        "previous_rank_correlation": None if np.isnan(correlation) else correlation,
    }


def predicted_gain(queue: Sequence[Proposal], sources: Sequence[Observation]) -> float | None:
    """Mean over the `queue` of the predicted score over that of the source trial; None: nothing has a source."""
    scores = {seen.trial_id: seen.score for seen in sources}
    gains = [
        draft.predicted_score - (scores[draft.source_trial_id] or 0.0)
        for draft in queue
        if draft.predicted_score is not None and draft.source_trial_id is not None
    ]
    return float(np.mean(gains)) if gains else None
