"""The report of a pool: one HTML file that opens from disk and loads nothing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from nao_ray import yaml_text
from nao_ray.memory import release
from nao_ray.metric import BY_COLUMN, Metric
from nao_ray.report import charts, derived, shared, tables
from nao_ray.report.control import is_control
from nao_ray.report.labels import is_recurrent
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.report.tracks import Track
from nao_ray.spaces.base import SearchSpace

PICTURES = 6
"""Architectures that are drawn."""
ROWS = 20
"""Architectures that are listed."""
EMBEDDED = 3000
"""Embeddings that are shown: they are most of a trial's row."""
COLUMNS = (
    "trial_id", "log_index", "state", "failure_kind", "failure_message", "phase", "weights_version", "round",
    "predicted_score", *BY_COLUMN, "num_params", "wall_seconds",
    "device_seconds", "asked_at", "finished_at", "retry_of", "origin",
)  # fmt: skip
"""What a report reads of every trial."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page."""

    title: str
    svg: str
    note: str = ""


def render(
    manifest: Mapping[str, Any],
    trials: pd.DataFrame,
    fits: pd.DataFrame,
    running: int,
    space: SearchSpace[Any],
    final: pd.DataFrame | None = None,
    film: str = "",
    trainings: Sequence[Track] = (),
) -> str:
    """The page as text.

    Args:
        manifest: the pool's frozen manifest, shown as it is.
        trials: the pool's finished trials, with `COLUMNS`, `genotype` and `embedding`, which may be null
            where they are not shown; may be empty.
        fits: what the strategy wrote about its fits; may be empty.
        running: trials asked and not finished.
        space: the space of the genotypes.
        final: the full trainings of the pool, with their test scores.
        film: where the film of the search is, beside the page; empty: there is none.
        trainings: those that derived architectures.
    """
    manifest = _plain(manifest)
    metric = tables.metric_of(manifest, trials)
    done = tables.completed(trials, metric)
    is_shared = shared.is_shared(trials)
    failures = tables.failures(trials)
    alone = shared.trained_alone(done) if is_shared else done
    best = tables.ranked(done, metric, ROWS)
    tiles = tables.overview(trials, alone, metric, running)
    random = is_control(best, manifest)
    if len(best) and random.iloc[0]:
        said = f"best {metric.label}"
        tiles = [(f"{said}, of the random control" if label == said else label, value) for label, value in tiles]
    del trials  # from here on it is about those with a score
    release()
    audit = shared.audit(done, fits, metric)
    comparison = derived.comparison(fits, metric)
    all_fits = fits
    fits = fits.head(0) if trainings else shared.other_fits(fits)  # what was watched is told of each training
    headings, rows = tables.fit_table(fits)
    cells: list[dict[str, Any]] = [
        {**_picture(row, metric, space), "is_control": bool(is_random)}
        for (_, row), is_random in zip(best.head(PICTURES).iterrows(), random, strict=False)
    ]
    return _page().render(
        name=name_of(manifest),
        film=film,
        trainings=derived.training_table(trainings),
        alarms=derived.alarms(trainings),
        ends=derived.ends(all_fits, _warmup(manifest)),
        comparison=comparison,
        facts=tables.search_facts(manifest),
        metric=metric,
        tiles=tiles,
        is_shared=is_shared,
        audit=audit,
        audit_chart=_audit_chart(audit, metric),
        charts=_derived_charts(done, is_control(done, manifest), metric)
        if trainings
        else (_shared_charts if is_shared else _charts)(done, fits, metric),
        best=[_entry(row, metric) for _, row in best.iterrows()],
        best_version=_version(best),
        cells=cells,
        has_dashes=any("nr-edge nr-none" in cell["svg"] for cell in cells),
        failures=failures,
        has_retries=any(row["retried"] for row in failures),
        fit_headings=headings,
        fit_rows=rows,
        manifest=tables.flat(manifest),
        tests=[] if final is None else [_tested(row) for row in final.to_dict("records")],
    )


@cache
def _page() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _version(best: pd.DataFrame) -> str:
    """The shared weights that the best ones were scored with; none where they have weights of their own."""
    return str(best["weights_version"].iloc[0]) if len(best) and not pd.isna(best["weights_version"].iloc[0]) else ""


def _plain(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its config, which may be YAML text, as a mapping."""
    config = manifest.get("config")
    return {**manifest, "config": yaml_text.load_document(config)} if isinstance(config, str) else dict(manifest)


def _warmup(manifest: Mapping[str, Any]) -> int:
    """Epochs at first in which alphas stay."""
    strategy = manifest["config"].get("strategy") if isinstance(manifest.get("config"), Mapping) else None
    return int(strategy.get("warmup_epochs", 0)) if isinstance(strategy, Mapping) else 0


def name_of(manifest: Mapping[str, Any]) -> str:
    """What a search is called."""
    config = _plain(manifest).get("config")
    return str(config.get("name", "search")) if isinstance(config, Mapping) else "search"


def _tested(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """A full training as the table of test scores shows it."""

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


def _audit_chart(audit: shared.Audit | None, metric: Metric) -> str:
    return "" if audit is None or not len(audit.alone) else charts.svg(charts.shared_and_alone, audit, metric)


def _shared_charts(done: pd.DataFrame, fits: pd.DataFrame, metric: Metric) -> list[Chart]:
    """The charts of a search with shared weights: scores of several versions are never one series."""
    found = []
    rounds = shared.by_round(done, metric)
    if rounds:
        note = "Every round scores with a version of its own: weights trained for longer raise all scores."
        found.append(Chart("Scores with shared weights", charts.svg(charts.mean_and_best, rounds, metric), note))
    first = shared.scores_of_versions(done).drop_duplicates("genotype")  # the one that was predicted
    note = "Predicted for the weights learnt from, measured with those of the next round: the order counts."
    return [*found, *_predictions(first, metric, note), *_sizes(shared.trained_alone(done), metric), *_fits(fits)]


def _derived_charts(done: pd.DataFrame, control: pd.Series[bool], metric: Metric) -> list[Chart]:
    """The charts of a search by alphas: what was trained alone is no course of a search."""
    if done.empty:
        return []
    svg = charts.svg(charts.scores_by_round, derived.groups(done, control, metric), metric, "trained alone")
    return [Chart("Derived cells and the random control", svg), *_sizes(done, metric)]


def _charts(done: pd.DataFrame, fits: pd.DataFrame, metric: Metric) -> list[Chart]:
    """The charts that the pool has figures for."""
    if done.empty:
        return []
    scores = tables.floats(done[metric.column])
    found = [Chart("Best so far, over trials", charts.svg(charts.best_over_trials, scores, metric))]
    seconds = tables.device_seconds(done)
    if seconds[-1] > 0:
        note = "Device time of completed trials, added up in the order they finished."
        svg = charts.svg(charts.best_over_time, seconds, scores, metric)
        found.append(Chart("Best so far, over device time", svg, note))
    rounds = tables.by_round(done, metric)
    if rounds:
        found.append(Chart("Score per round", charts.svg(charts.scores_by_round, rounds, metric)))
    found += _predictions(done, metric, "The controller's predictions, made before each training.", has_line=True)
    embedded = tables.embedding_map(done, metric)
    if embedded is not None:
        shown = f" ({EMBEDDED:,} of them)" if len(embedded[1]) < len(done) and len(done) > EMBEDDED else ""
        note = f"The embeddings the controller proposed{shown}, on their two principal axes."
        found.append(Chart("Map of the embeddings", charts.svg(charts.map_of_embeddings, *embedded, metric), note))
    return [*found, *_sizes(done, metric), *_fits(fits)]


def _predictions(done: pd.DataFrame, metric: Metric, note: str, has_line: bool = False) -> list[Chart]:
    scores = tables.floats(done[metric.column])
    predicted = tables.floats(done["predicted_score"]) * metric.score(1.0)
    known = np.isfinite(predicted)
    if known.sum() < 2:
        return []
    has_line = has_line and charts.ranges_meet(predicted[known], scores[known])
    svg = charts.svg(charts.predicted_and_measured, predicted[known], scores[known], metric, has_line=has_line)
    if has_line:
        note += " On the dashed line they were exact."
    return [Chart("Predicted and measured", svg, note)]


def _sizes(done: pd.DataFrame, metric: Metric) -> list[Chart]:
    params = tables.floats(done["num_params"])
    if not len(params) or not np.isfinite(params).all():
        return []
    scores = tables.floats(done[metric.column])
    return [Chart("Size and score", charts.svg(charts.size_and_score, params, scores, metric))]


def _fits(fits: pd.DataFrame) -> list[Chart]:
    curves = tables.fit_curves(fits)
    if not curves:
        return []
    return [Chart("Controller fits", charts.svg(charts.fit_quality, curves, height=charts.fit_height(curves)))]


def _entry(row: pd.Series[Any], metric: Metric) -> dict[str, str]:
    return {
        "trial": str(row["trial_id"]),
        "score": metric.text(float(row[metric.column])),
        "params": "" if pd.isna(row["num_params"]) else f"{int(row['num_params']):,}",
        "round": "" if pd.isna(row["round"]) else str(int(row["round"])),
        "genotype": str(row["genotype"]),
    }


def _picture(row: pd.Series[Any], metric: Metric, space: SearchSpace[Any]) -> dict[str, Any]:
    entry = _entry(row, metric)
    graph = space.lower(space.parse(entry["genotype"]))
    recurrent = any(is_recurrent(cell) for _, cell in graph.cells)
    return {
        **entry,
        "is_recurrent": recurrent,
        "svg": draw_cells(graph, f"cells of trial {entry['trial']}", space.op_names),
    }
