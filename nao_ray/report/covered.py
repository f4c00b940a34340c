"""What a search with several objectives has covered, trial by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nao_ray.metric import BY_COLUMN
from nao_ray.pareto import Aim, Front, Values, front, hypervolume, order, worst

MARKS = 60
"""Numbers of trials, evenly spread, at which the hypervolume is told."""


def aims_of(manifest: Mapping[str, Any]) -> tuple[Aim, ...]:
    """The objectives of a manifest whose config is a mapping, the metric first; () where there is the metric alone."""
    config = manifest.get("config")
    given = config.get("objectives") if isinstance(config, Mapping) else None
    aims = [Aim.parse(str(text)) for text in given or ()]
    return (*(aim for aim in aims if aim.column in BY_COLUMN), *(aim for aim in aims if aim.column not in BY_COLUMN))


def ranked(done: pd.DataFrame, aims: Sequence[Aim], count: int) -> pd.DataFrame:
    """The best completed trials by their Pareto rank, in a rank by the metric."""
    return done.iloc[order(_values(done, aims))[:count]]


def covered(done: pd.DataFrame, aims: Sequence[Aim]) -> dict[str, Any] | None:
    """`Front.plain`, and the hypervolume above its reference point after each of some numbers of trials.

    Args:
        done: completed trials in the order they were told, with `trial_id` and the columns of the objectives.
        aims: of the search; none: None.
    """
    if not aims:
        return None
    values = _values(done, aims)
    least, kept, before = worst(values), values[:0], 0
    marks = sorted({round(mark) for mark in np.linspace(1, len(values), MARKS)}) if len(values) else []
    volumes = []
    for mark in marks:
        kept = np.vstack([kept, values[before:mark]])
        kept, before = kept[front(kept)], mark
        volumes.append(hypervolume(kept, least))
    told = Front.of(done["trial_id"].to_numpy(), values, tuple(aims))
    return {**told.plain, "marks": marks, "volumes": volumes}


def _values(done: pd.DataFrame, aims: Sequence[Aim]) -> Values:
    """``[N, K]``, such that more is better; NaN where one is not known."""
    columns = [aim.signed(done[aim.column].to_numpy(dtype=np.float64, na_value=np.nan)) for aim in aims]
    return np.stack(columns, axis=1) if columns else np.zeros((len(done), 0))
