"""The architectures that a search was at, moment by moment.

Of a search that derives a cell after every epoch these, training by training, with the alphas and what was watched; of
any other one each best architecture so far.

Legend: `F` frames, `E` edges of the relaxed cells, `O` operations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nao_ray.metric import Metric
from nao_ray.report import shared, tables


@dataclass(frozen=True, slots=True)
class Frame:
    """An architecture, and when it was the one."""

    label: str
    genotype: str
    alarm: str = ""
    """The rule that went off then."""
    instead: str = ""
    """What would have been returned by that rule."""


@dataclass(frozen=True, slots=True)
class Track:
    """The architectures of one training, or of the search as a whole, in order."""

    name: str
    frames: list[Frame]
    curves: Mapping[str, list[float | None]] = field(default_factory=dict)
    """Figures frame by frame, by name."""
    alphas: NDArray[np.float64] | None = None
    """``[F, E * O]``, before the softmax; ``[F, E * (O + 1)]`` where edges have one of their own."""


def tracks_of(trials: pd.DataFrame, phases: pd.DataFrame, fits: pd.DataFrame, metric: Metric) -> list[Track]:
    """What there is to show of a pool.

    Args:
        trials: finished trials but for a random control's, with `trial_id`, `log_index`, `state`, `phase`,
            `weights_version`, the metric's column and `genotype`, which is looked at where a trial is one of
            `best_trials`.
        phases: trainings of shared weights, with `trial_id`, `state`, `phase`, `derived_genotype` and maybe `alphas`.
        fits: what the strategy wrote of itself.
        metric: what the trials are measured by.
    """
    found = trainings(phases, fits)
    rounds, alone = _ranked(trials, metric)
    if len(rounds):
        found.append(_track("best of each round, by shared weights", rounds, metric))
    if len(alone):
        found.append(_track("best so far, trained alone" if found else "best so far", alone, metric))
    return found


def best_trials(trials: pd.DataFrame, metric: Metric) -> list[int]:
    """The trials whose genotype `tracks_of` looks at."""
    return [int(number) for rows in _ranked(trials, metric) for number in rows["trial_id"]]


def _ranked(trials: pd.DataFrame, metric: Metric) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best of each version of shared weights, and each best so far of those that were trained alone."""
    done = tables.completed(trials, metric)
    alone = tables.at_the_top(shared.trained_alone(done))
    return _best_of_versions(shared.scores_of_versions(done), metric), _incumbents(alone, metric)


def trainings(phases: pd.DataFrame, fits: pd.DataFrame) -> list[Track]:
    """A track per training that derived architectures: what they were, what was watched, and alphas where there are."""
    found: dict[Any, list[tuple[int, Any]]] = {}
    for row in phases.sort_values("trial_id").to_dict("records"):
        phase = json.loads(str(row["phase"]))
        epochs = found.setdefault(phase.get("seed"), [])  # one that failed at once has its number, too
        if row["state"] == "COMPLETED" and isinstance(row["derived_genotype"], str):
            epochs.append((int(phase["last_epoch"]), row))
    numbered = enumerate(found.values())
    return [_training(f"seed {index}", epochs, _told(fits, index)) for index, epochs in numbered if epochs]


def _training(name: str, epochs: Sequence[tuple[int, Any]], told: Mapping[int, Mapping[str, Any]]) -> Track:
    """Of the rows of its phases by their last epoch, and of what was watched by epoch."""
    frames = [
        Frame(f"epoch {epoch}", str(row["derived_genotype"]), *_alarm(told.get(epoch, {}))) for epoch, row in epochs
    ]
    watched = dict.fromkeys(name for row in told.values() for name in row)
    curves = {
        str(name).replace("_", " "): [_number(told.get(epoch, {}).get(name)) for epoch, _ in epochs]
        for name in watched
        if name not in ("round", "seed_index") and not name.startswith("alarm")
    }
    known = {name: values for name, values in curves.items() if any(value is not None for value in values)}
    alphas = [row.get("alphas") for _, row in epochs]
    sizes = {len(values) if hasattr(values, "__len__") else 0 for values in alphas}
    has_alphas = len(sizes) == 1 and 0 not in sizes
    return Track(name, frames, known, np.stack([np.asarray(v, np.float64) for v in alphas]) if has_alphas else None)


def _told(fits: pd.DataFrame, index: int) -> dict[int, dict[str, Any]]:
    """What was watched in a training, by epoch."""
    if "seed_index" not in fits:
        return {}
    rows = fits[fits["seed_index"] == index].to_dict("records")
    return {int(row["round"]): {str(name): value for name, value in row.items()} for row in rows}


def _alarm(row: Mapping[str, Any]) -> tuple[str, str]:
    """The rule that went off, and what it would have returned; empty: none."""
    rule, genotype = (row.get(name) for name in ("alarm", "alarm_genotype"))
    return (rule, genotype if isinstance(genotype, str) else "") if isinstance(rule, str) and rule else ("", "")


def _number(value: Any) -> float | None:  # noqa: ANN401
    """A figure; None for anything else."""
    if value is None or isinstance(value, str | bool) or not np.isfinite(float(value)):
        return None
    return float(value)


def _incumbents(done: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The trials that were the best so far, in the order the strategy was told them."""
    scores = tables.floats(done[metric.column])
    best = tables.best_so_far(scores, metric)
    return done[np.append(True, best[1:] != best[:-1])] if len(done) else done


def _best_of_versions(scored: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The best trial of each version of the shared weights, in the order of the versions."""
    order = scored.assign(score=metric.score(1.0) * tables.floats(scored[metric.column]))
    best = order.sort_values(["score", "trial_id"], ascending=[False, True]).drop_duplicates("weights_version")
    return best.sort_values("trial_id")


def _track(name: str, rows: pd.DataFrame, metric: Metric) -> Track:
    values = tables.floats(rows[metric.column])
    when = [f"trial {number}" for number in rows["trial_id"]]
    frames = [
        Frame(f"{label}, {metric.label} {metric.text(value)}", str(genotype))
        for label, value, genotype in zip(when, values, rows["genotype"], strict=True)
    ]
    return Track(name, frames, {metric.label: [_number(value) for value in values]})
