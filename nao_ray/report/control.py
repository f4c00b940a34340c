"""Which architectures of a pool are its random control, which is there to compare with, and the best of the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nao_ray.errors import PoolError
from nao_ray.pool import PoolReader
from nao_ray.yaml_text import load_document

_log = logging.getLogger(__name__)


def is_control(trials: pd.DataFrame, manifest: Mapping[str, Any]) -> pd.Series[bool]:
    """By row, whether it is of the control: its `origin` says so, or it is of before and `darts` gave it no round."""
    of_before = trials["round"].isna() & (_strategy(manifest) == "darts")
    return of_before | (trials["origin"] == "control") if "origin" in trials else of_before


def has_control(trials: pd.DataFrame, manifest: Mapping[str, Any]) -> bool:
    """Whether architectures of the search may be of a control."""
    return _strategy(manifest) == "darts" or bool(is_control(trials, manifest).any())


def best_found(pool: PoolReader, count: int, *, with_control: bool = False) -> pd.DataFrame:
    """The best trials but for the control's, best first; where one of these beats them all, that is logged.

    Args:
        pool: of a search.
        count: how many, at most.
        with_control: the control's too.

    Raises:
        PoolError: a part is damaged, or what was completed is of the control alone.
    """
    if with_control:
        return pool.best(count)
    take = count
    while True:
        best = pool.best(take)
        control = is_control(best, pool.manifest)
        if (~control).sum() >= count or len(best) < take:
            break
        take *= 4
    found = best[~control].head(count).reset_index(drop=True)
    if len(best) and found.empty:
        raise PoolError(
            f"{pool.url} has completed no trial but those of its random control: name one, "
            f"{pool.url}:{best['trial_id'].iloc[0]}"
        )
    if len(best) and control.iloc[0]:
        _log.warning(
            "the best of all, trial %d, is of the random control; of what was found trial %d is the best, and taken",
            best["trial_id"].iloc[0],
            found["trial_id"].iloc[0],
        )
    return found


def _strategy(manifest: Mapping[str, Any]) -> object:
    config = manifest.get("config")
    sections = load_document(config) if isinstance(config, str) else config or {}
    strategy = sections.get("strategy") if isinstance(sections, Mapping) else None
    return strategy.get("name") if isinstance(strategy, Mapping) else strategy
