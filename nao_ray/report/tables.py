"""The figures of a report, from the tables of a pool. Works on a pool without a single finished trial.

Legend: `n` completed trials in the order they were told, `H` width of an embedding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nao_ray.metric import BY_COLUMN, DEFAULT, PERPLEXITY, Metric, from_plain
from nao_ray.standings import Standing, Standings, after

Floats = NDArray[np.float64]


def metric_of(manifest: Mapping[str, Any], trials: pd.DataFrame) -> Metric:
    """What the trials of a pool are measured by; where its manifest does not say, perplexity if they have no other."""
    told = "metric" in manifest or trials[DEFAULT.column].notna().any()
    return from_plain(manifest.get("metric")) if told or not trials[PERPLEXITY.column].notna().any() else PERPLEXITY


def best_so_far(values: Floats, metric: Metric) -> Floats:
    """``[n]`` -> ``[n]``: the best value up to each trial."""
    best = np.maximum if metric.more_is_better else np.minimum
    return np.asarray(best.accumulate(values), dtype=np.float64) if len(values) else values


_OF_ALL = frozenset(
    {"state", "phase", "failure_kind", "failure_message", "log_index", "asked_at", "finished_at", "retry_of"}
)
"""Columns that are looked at in all trials alone."""


def completed(trials: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The trials with a score, in the order the strategy was told them."""
    is_done = (trials["state"] == "COMPLETED") & trials[metric.column].notna()
    places = _in_order(trials, is_done)
    others = BY_COLUMN.keys() - {metric.column}
    kept = [name for name in trials if name not in _OF_ALL | others]  # one copy, of what is looked at
    return trials[kept].take(places).reset_index(drop=True)


def _in_order(trials: pd.DataFrame, chosen: pd.Series[bool]) -> NDArray[np.int64]:
    """The places of some trials, in the order the strategy was told them."""
    places = np.flatnonzero(chosen.to_numpy(dtype=bool))
    return places[np.argsort(trials["log_index"].to_numpy()[places], kind="stable")]


def ranked(done: pd.DataFrame, metric: Metric, count: int) -> pd.DataFrame:
    """The best of the completed trials, best first, as the pool ranks them (`Standings`)."""
    likely = done[["trial_id", "weights_version", metric.column]].assign(rung=0)
    if is_ladder(done):
        gone_on = done["trial_id"].isin(done["parent_trial_id"].dropna())
        likely = likely.assign(rung=_rungs(done))[~gone_on]
    alone = likely.head(0) if is_ladder(done) else likely[likely["weights_version"].isna()]
    if len(alone) > count:  # then no other score counts, and few of these can be among the best
        scores = floats(alone[metric.column]) * metric.score(1.0)
        likely = alone[scores >= np.partition(scores, -count)[-count]]
    facts = zip(likely[metric.column], likely["trial_id"], likely["weights_version"], likely["rung"], strict=True)
    standings = (Standing(metric.score(v), int(k), None if pd.isna(w) else str(w), int(r)) for v, k, w, r in facts)
    best = [standing.trial_id for standing in Standings(standings, keep=count).top()]
    return done[done["trial_id"].isin(best)].set_index("trial_id", drop=False).loc[best].reset_index(drop=True)


def is_ladder(done: pd.DataFrame) -> bool:
    """Whether trials have gone on from rung to rung of a ladder of fidelities."""
    return "parent_trial_id" in done and bool(done["parent_trial_id"].notna().any())


def at_the_top(done: pd.DataFrame) -> pd.DataFrame:
    """Of a ladder the completed trials of the highest rung that was reached, which compare; else all."""
    if not is_ladder(done):
        return done
    rungs = _rungs(done)
    return done.iloc[np.flatnonzero(rungs == rungs.max())]


def predicted_rungs(fits: pd.DataFrame) -> dict[int, int]:
    """Of a ladder by round the epochs that its predictions are of; of a round that is left out: the first rung's."""
    if "rung" not in fits:
        return {}
    known = fits[fits["rung"].notna() & fits["round"].notna()]
    return dict(zip(known["round"].astype(int).tolist(), known["rung"].astype(int).tolist(), strict=True))


def of_one_rung(done: pd.DataFrame, fewest: int) -> pd.DataFrame:
    """Of a ladder the completed trials of the highest rung that has so many architectures; else all.

    Args:
        done: all rungs, with `genotype`, `epochs` and `parent_trial_id`.
        fewest: architectures that are enough; where no rung has so many, those of the fullest are given.
    """
    if not is_ladder(done):
        return done
    rungs = _rungs(done)
    counts = done["genotype"].groupby(rungs).nunique().sort_index(ascending=False)
    enough = counts[counts >= fewest]
    rung = enough.index[0] if len(enough) else counts.idxmax()
    return done.iloc[np.flatnonzero(rungs == rung)]


def _rungs(done: pd.DataFrame) -> NDArray[np.int64]:
    """``[n]``, as `Standing.rung`."""
    goes_on = done["parent_trial_id"].notna().to_numpy()
    return np.where(goes_on, np.nan_to_num(floats(done["epochs"])), 0).astype(np.int64)


def floats(values: pd.Series[Any]) -> Floats:
    """A column as numbers, NaN where it is null."""
    numbers = pd.to_numeric(values)
    if numbers.dtype == np.float64:
        return np.asarray(numbers)
    return np.asarray(numbers.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan))


def device_seconds(done: pd.DataFrame) -> Floats:
    """``[n]``: device time spent up to the end of each trial; wall time where no device time was measured.

    Training of shared weights counts like any other trial.
    """
    spent = floats(done["device_seconds"])
    wall = floats(done["wall_seconds"])
    each = np.nan_to_num(np.where(np.isnan(spent), wall, spent), copy=False)
    return np.asarray(np.cumsum(each, out=each), dtype=np.float64)


def by_round(done: pd.DataFrame, metric: Metric) -> dict[int, Floats]:
    """Scores per round; empty where the strategy knows no rounds."""
    known = done.loc[done["round"].notna(), ["round", metric.column]]
    return {int(index): floats(group[metric.column]) for index, group in known.groupby(known["round"].astype(int))}


def failures(trials: pd.DataFrame) -> list[dict[str, Any]]:
    """Per failure kind, the commonest first: `kind`, `count`, the commonest `message` and the newest `trial_id` of it.

    `retried` of them were asked for again, to an end, and `cured` of these retries were completed. Messages that differ
    in their numbers alone count as one.
    """
    again = trials[trials["retry_of"].notna()].set_index("retry_of")["state"]
    failed = trials[trials["state"] == "FAILED"].sort_values("log_index")
    found = []
    for kind, rows in failed.groupby(failed["failure_kind"].astype(object).fillna("unknown")):
        messages = rows["failure_message"].astype(object).fillna("")
        alike = messages.str.replace(r"\d+", "0", regex=True)
        ((commonest, _),) = Counter(alike).most_common(1)
        newest = np.flatnonzero(alike == commonest)[-1]
        facts = {"message": str(messages.iloc[newest]), "trial_id": int(rows["trial_id"].iloc[newest])}
        ends = again[again.index.isin(rows["trial_id"])]
        retried = {"retried": len(ends), "cured": int((ends == "COMPLETED").sum())}
        found.append({"kind": str(kind), "count": len(rows), **facts, **retried})
    return sorted(found, key=lambda row: (-row["count"], row["kind"]))


def embedding_map(done: pd.DataFrame, metric: Metric) -> tuple[Floats, Floats] | None:
    """The proposed embeddings on their two principal axes: ``[m, 2]`` and scores ``[m]``.

    None where fewer than three trials have an embedding.
    """
    with_point = done[[value is not None and hasattr(value, "__len__") for value in done["embedding"]]]
    if len(with_point) < 3:
        return None
    points = np.stack([np.asarray(value, dtype=np.float64) for value in with_point["embedding"]])
    points -= points.mean(axis=0)
    left, scale, _ = np.linalg.svd(points, full_matrices=False)
    flat = np.zeros((len(points), 2))
    flat[:, : min(2, len(scale))] = left[:, :2] * scale[:2]
    signs = np.sign(flat[np.argmax(np.abs(flat), axis=0), [0, 1]])  # an axis has no direction of its own: fix one
    return flat * np.where(signs == 0, 1, signs), floats(with_point[metric.column])


def spenders(trials: pd.DataFrame) -> pd.DataFrame:
    """The completed trials, those that trained shared weights too, in the order the strategy was told them."""
    columns = ["log_index", "device_seconds", "wall_seconds"]
    return trials[columns].take(_in_order(trials, trials["state"] == "COMPLETED")).reset_index(drop=True)


def overview(trials: pd.DataFrame, done: pd.DataFrame, metric: Metric, running: int) -> list[tuple[str, str]]:
    """The headline figures, label and value, of the trials that are ranked."""
    scores = floats(done[metric.column])
    spent = spenders(trials)
    tiles = [("completed", f"{len(spent):,}"), ("failed", f"{int((trials['state'] == 'FAILED').sum()):,}")]
    if running:
        tiles.append(("unfinished", f"{running:,}"))
    if len(done) and len(done) < len(spent):
        label = after(int(done["epochs"].max())) if is_ladder(done) else "trained alone"
        tiles.append((label, f"{len(done):,}"))
    if len(done):
        best = scores.max() if metric.more_is_better else scores.min()
        tiles += [(f"best {metric.label}", metric.text(best)), ("median", metric.text(float(np.median(scores))))]
    if len(spent):
        tiles.append(("device time", duration(float(device_seconds(spent)[-1]))))
    if len(trials) and trials["finished_at"].notna().any():
        span = trials["finished_at"].max() - trials["asked_at"].min()
        tiles.append(("from first to last", duration(span.total_seconds())))
    return tiles


def search_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was searched, label and value, as far as the manifest says it."""
    config = manifest.get("config")
    sections = config if isinstance(config, Mapping) else manifest
    facts = []
    for kind in ("space", "strategy", "evaluator", "task"):
        section = sections.get(kind)
        name = section.get("name") if isinstance(section, Mapping) else section
        if name is not None:
            facts.append((kind, str(name)))
    budget = sections.get("budget")
    limits = budget if isinstance(budget, Mapping) else {}
    trials, hours = limits.get("trials"), limits.get("hours")
    given = [] if trials is None else [f"{trials:,} trials"]
    given += [] if hours is None else [duration(float(hours) * 3600)]
    return [*facts, ("budget", " or ".join(given))] if given else facts


def duration(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s``, ``5 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def fit_table(fits: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """What the controller wrote about its fits: headings, and one row per fit; columns without a value are left out."""
    if fits.empty:
        return [], []
    shown = fits.sort_values("round") if "round" in fits else fits
    names = [str(name) for name in shown.columns if shown[name].notna().any()]
    rows = [[_cell(value) for value in row] for row in shown[names].itertuples(index=False)]
    return [name.replace("_", " ") for name in names], rows


def fit_curves(fits: pd.DataFrame) -> dict[str, tuple[Floats, Floats]]:
    """Per quality of the controller in [-1, 1] its course over the rounds: rounds and values."""
    wanted = ("reconstruction", "pairwise", "correlation", "spearman", "kendall")
    curves = {}
    for name in map(str, fits.columns):
        if "loss" in name or not any(word in name for word in wanted) or not pd.api.types.is_numeric_dtype(fits[name]):
            continue
        known = fits[fits[name].notna()].sort_values("round")
        values = floats(known[name])
        if len(values) and np.abs(values).max() <= 1:
            curves[name.replace("_", " ")] = (floats(known["round"]), values)
    return curves


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted keys and texts."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "none" if value is None else str(value)))
    return rows


def _cell(value: Any) -> str:  # noqa: ANN401
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.3f}" if abs(number) < 1000 else f"{number:,.0f}"
    return str(value)
