"""What a report says, and the film, of a pool; and how a page is put where people find it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from nao_ray.errors import ConfigError, PoolError, RunError
from nao_ray.metric import BY_COLUMN
from nao_ray.pool import PoolReader, write_page
from nao_ray.report.control import is_control
from nao_ray.report.facts import COLUMNS, Facts, facts, name_of
from nao_ray.report.film import render_film
from nao_ray.report.shared import is_shared
from nao_ray.report.tables import metric_of
from nao_ray.report.tracks import Track, best_trials, tracks_of, trainings
from nao_ray.spaces.base import SearchSpace

_WORDS = ("state", "failure_kind", "failure_message", "phase", "weights_version")  # few different ones
FILM = "film.html"
_FINAL = "SELECT * FROM final ORDER BY name"


def facts_of(pool: PoolReader) -> Facts:
    """What a report says of a pool, as `facts`.

    Raises:
        PoolError: a part of the pool is damaged.
    """
    fits = pool.fits()
    trained = trainings(_phases(pool, pool.trials(["trial_id", "phase"])), fits) if "seed_index" in fits else []
    trials, final = _trials(pool), pool.sql(_FINAL)
    found = facts(pool.manifest, trials, fits, _unfinished(pool, trials), final, trained)
    rows = pool.find_trials([int(row["trial"]) for row in found["best"]], ["trial_id", "genotype"])
    texts = {str(row["trial_id"]): row["genotype"] for row in rows}
    return {**found, "best": [{**row, "genotype": texts[row["trial"]]} for row in found["best"]]}


def _trials(pool: PoolReader) -> pd.DataFrame:
    """The columns that a report tells of, without genotypes, which are most of a row, where nothing is told by them."""
    trials = pool.trials(COLUMNS, rungs=True).astype(dict.fromkeys(_WORDS, "category"))
    if not is_shared(trials):
        return trials.assign(genotype=None)
    # there the same genotype is looked for among scores of several versions
    texts = pool.trials(["trial_id", "genotype"]).set_index("trial_id")["genotype"]
    return trials.assign(genotype=trials["trial_id"].map(texts).astype("category"))


def _unfinished(pool: PoolReader, trials: pd.DataFrame) -> int:
    """Trials that were asked and have no row; as `PoolReader.counts`, of a large pool in a tenth of the time."""
    events = pool.follow("events", ["kind", "trial_id"]).read()
    asked = events["trial_id"].to_numpy()[pc.equal(events["kind"], "asked").to_numpy()]
    return len(np.setdiff1d(asked, trials["trial_id"].to_numpy()))


def moves(pool: PoolReader) -> bool:
    """Whether a film of the pool has more than one moment."""
    return any(len(track.frames) > 1 for track in find_tracks(pool))


def film_page(pool: PoolReader, space: SearchSpace[Any]) -> str | None:
    """The film of a pool where something moves in it, and one picture can show all of it."""
    tracks = find_tracks(pool)
    if not any(len(track.frames) > 1 for track in tracks):
        return None
    try:
        return render_film(name_of(pool.manifest), tracks, space)
    except ConfigError:
        return None


def write_film(pool: PoolReader, space: SearchSpace[Any], out: Path | None = None) -> str:
    """Write the film of a pool; returns where it is.

    Args:
        pool: whose search is shown.
        space: the pool's.
        out: the file; default: film.html in the pool.

    Raises:
        PoolError: there is nothing to show yet, or a part of the pool is damaged.
        PoolWriteError: the pool cannot be written.
        RunError: `out` cannot be written.
    """
    tracks = find_tracks(pool)
    if not tracks:
        raise PoolError(f"{pool.url} has nothing to film yet: no training has derived a cell, and no trial has a score")
    return put_page(pool, out, FILM, render_film(name_of(pool.manifest), tracks, space))


_TOLD = ("trial_id", "log_index", "state", "phase", "weights_version", "round", "origin", "epochs", "parent_trial_id")


def find_tracks(pool: PoolReader) -> list[Track]:
    """What a film of a pool shows; may be none."""
    trials = pool.trials([*_TOLD, *BY_COLUMN])
    trials = trials[trials["phase"].notna() | ~is_control(trials, pool.manifest)]
    metric = metric_of(pool.manifest, trials)
    texts = pool.trials(["trial_id", "genotype"], ids=best_trials(trials, metric)).set_index("trial_id")["genotype"]
    return tracks_of(trials.assign(genotype=trials["trial_id"].map(texts)), _phases(pool, trials), pool.fits(), metric)


def _phases(pool: PoolReader, trials: pd.DataFrame) -> pd.DataFrame:
    """What became of each training of shared weights among `trials`."""
    columns = ["trial_id", "state", "phase", "derived_genotype", "alphas"]
    return pool.trials(columns, ids=trials["trial_id"][trials["phase"].notna()].tolist())


def put_page(pool: PoolReader, out: Path | None, name: str, page: str) -> str:
    """Write a page into the pool under `name`, or to the file `out`; returns where it is.

    Raises:
        PoolWriteError: the pool cannot be written.
        RunError: `out` cannot be written.
    """
    if out is None:
        return write_page(pool.url, page, name)
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from None
    return str(out)
