"""What a report says of a pool beside its charts: plain values and texts, ready to show, for the page of a pool."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nao_ray import yaml_text
from nao_ray.memory import release
from nao_ray.metric import BY_COLUMN, Metric
from nao_ray.report import derived, shared, tables
from nao_ray.report.control import is_control
from nao_ray.report.covered import aims_of, covered, ranked
from nao_ray.report.tracks import Track

ROWS = 20
"""Architectures that are listed."""
COLUMNS = (
    "trial_id", "log_index", "state", "failure_kind", "failure_message", "phase", "weights_version", "round",
    *BY_COLUMN, "num_params", "macs", "latency_ms", "wall_seconds", "device_seconds", "asked_at", "finished_at",
    "retry_of", "origin", "epochs", "parent_trial_id",
)  # fmt: skip
"""What it is made of, of every trial."""

Facts = dict[str, Any]


def facts(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    fits: pd.DataFrame,
    running: int,
    final: pd.DataFrame | None = None,
    trainings: Sequence[Track] = (),
) -> Facts:
    """All of it, as JSON holds it.

    Args:
        manifest: the pool's frozen manifest, shown as it is.
        trials: the pool's finished trials, with `COLUMNS` and `genotype`, which may be null where it is not shown; may
            be empty.
        fits: what the strategy wrote about its fits; may be empty.
        running: trials asked and not finished.
        final: the full trainings of the pool, with their test scores.
        trainings: those that derived architectures.
    """
    manifest = plain(manifest)
    metric = tables.metric_of(manifest, trials)
    done = tables.completed(trials, metric)
    is_shared = shared.is_shared(trials)
    failures = tables.failures(trials)
    alone = shared.trained_alone(done) if is_shared else tables.at_the_top(done)
    aims = aims_of(manifest)
    best = ranked(alone, aims, ROWS) if aims else tables.ranked(done, metric, ROWS)
    tiles = tables.overview(trials, alone, metric, running)
    random = is_control(best, manifest)
    if len(best) and random.iloc[0]:
        said = f"best {metric.label}"
        tiles = [(f"{said}, of the random control" if label == said else label, value) for label, value in tiles]
    del trials  # from here on it is about those with a score
    release()
    rows = fits.head(0) if trainings else shared.other_fits(fits)  # what was watched is told of each training
    tests = [] if final is None else [tested(row) for row in final.to_dict("records")]
    return {
        "name": name_of(manifest),
        "facts": tables.search_facts(manifest),
        "tiles": tiles,
        "is_shared": is_shared,
        "best": [
            {**_entry(row, metric), "is_control": bool(chance)}
            for (_, row), chance in zip(best.iterrows(), random, strict=True)
        ],
        "best_version": _version(best),
        "is_ladder": tables.is_ladder(done),
        "predicted_rungs": tables.predicted_rungs(fits),
        "covered": covered(alone, aims),
        **_of_shared(done, fits, metric),
        **_of_trainings(done, fits, manifest, metric, trainings),
        "fits": dict(zip(("headings", "rows"), tables.fit_table(rows), strict=True)),
        "fit_curves": {
            name: {"round": _list(rounds), "value": _list(values)}
            for name, (rounds, values) in tables.fit_curves(rows).items()
        },
        "failures": failures,
        "has_retries": any(row["retried"] for row in failures),
        "tests": tests,
        "manifest": tables.flat(manifest),
        "notes": _notes(metric, len(tests)),
    }


def _of_shared(done: pd.DataFrame, fits: pd.DataFrame, metric: Metric) -> Facts:
    """What shared weights gave: scores of several versions are never one series."""
    rounds = shared.by_round(done, metric) if done["weights_version"].notna().any() else {}
    found: Facts = {"versions": [{"round": n, "mean": mean, "best": top} for n, (mean, top) in rounds.items()]}
    audit = shared.audit(done, fits, metric)
    if audit is None:
        return {**found, "audit": None}
    values = {name: _list(getattr(audit, name)) for name in ("shared", "alone", "is_audited")}
    return {**found, "audit": {"figures": audit.figures, "meaning": audit.meaning, **values}}


def _of_trainings(
    done: pd.DataFrame, fits: pd.DataFrame, manifest: Mapping[str, Any], metric: Metric, trainings: Sequence[Track]
) -> Facts:
    """What trainings of alphas derived, and the random control."""
    headings, rows = derived.training_table(trainings)
    groups = derived.groups(done, is_control(done, manifest), metric) if trainings else {}
    return {
        "comparison": derived.comparison(fits, metric),
        "derived": {name: _list(values) for name, values in groups.items()},
        "trainings": {"headings": headings if rows else [], "rows": rows},
        "alarms": [
            {"training": name, "moment": moment.label, "alarm": moment.alarm, "instead": moment.instead}
            for name, moment in derived.alarms(trainings)
        ],
        "ends": [
            {"training": name, "epoch": epoch, "kind": kind, "has_cell": has_cell}
            for name, epoch, kind, has_cell in derived.ends(fits, _warmup(manifest))
        ],
    }


def _notes(metric: Metric, trainings: int) -> list[str]:
    which = "more" if metric.more_is_better else "less"
    bounds = ", in [{:g}, {:g}],".format(*metric.limits) if np.isfinite(metric.limits).all() else ""
    measured = f"Of the {metric.label}{bounds} {which} is better; it is measured on the validation split."
    readers = "one full training" if trainings == 1 else f"{trainings} full trainings"
    test = f"The test split was read by {readers} alone." if trainings else "The test split was not read."
    return [measured, test, "Parameters are counted without the auxiliary head."]


def _version(best: pd.DataFrame) -> str:
    """The shared weights that the best ones were scored with; none where they have weights of their own."""
    return str(best["weights_version"].iloc[0]) if len(best) and not pd.isna(best["weights_version"].iloc[0]) else ""


def plain(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its config, which may be YAML text, as a mapping."""
    config = manifest.get("config")
    return {**manifest, "config": yaml_text.load_document(config)} if isinstance(config, str) else dict(manifest)


def _warmup(manifest: Mapping[str, Any]) -> int:
    """Epochs at first in which alphas stay."""
    strategy = manifest["config"].get("strategy") if isinstance(manifest.get("config"), Mapping) else None
    return int(strategy.get("warmup_epochs", 0)) if isinstance(strategy, Mapping) else 0


def name_of(manifest: Mapping[str, Any]) -> str:
    """What a search is called."""
    config = plain(manifest).get("config")
    return str(config.get("name", "search")) if isinstance(config, Mapping) else "search"


def tested(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """A full training as a table of test scores shows it."""

    def shown(name: str, form: str = "") -> str:
        value = row.get(name)
        return "" if value is None or pd.isna(value) else format(value, form)

    def measured(split: str) -> str:
        """In whichever metric."""
        values = ((metric, row.get(column.replace("valid", split))) for column, metric in BY_COLUMN.items())
        return next((metric.text(value) for metric, value in values if value is not None and not pd.isna(value)), "")

    return {
        "name": shown("name"),
        "trial": "" if not shown("trial_id") else f"{int(row['trial_id'])}",
        "recipe": shown("recipe"),
        "epochs": shown("epochs"),
        "test": measured("test"),
        "valid": measured("valid"),
        "params": "" if not shown("num_params") else f"{int(row['num_params']):,}",
    }


def _entry(row: pd.Series[Any], metric: Metric) -> dict[str, str]:
    return {
        "trial": str(row["trial_id"]),
        "score": metric.text(float(row[metric.column])),
        "params": "" if pd.isna(row["num_params"]) else f"{int(row['num_params']):,}",
        "round": "" if pd.isna(row["round"]) else str(int(row["round"])),
        "epochs": "" if pd.isna(row.get("epochs")) else str(int(row["epochs"])),
        "genotype": str(row["genotype"]),
    }


def _list(values: np.ndarray[Any, Any]) -> list[Any]:
    """As JSON holds it: None for what is no finite number."""
    return [None if isinstance(value, float) and not np.isfinite(value) else value for value in values.tolist()]
