"""The film of a search: one HTML file with a slider, which opens from disk and loads nothing.

Of a search that derives a cell after every epoch it shows these, training by training, and the alphas over time; of any
other one each best architecture so far. Nodes stay where they are, so that one sees edges come and go.

Legend: `F` frames, `E` edges of the relaxed cells, `O` operations.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nao_ray.metric import Metric
from nao_ray.report import shared, tables
from nao_ray.report.labels import state_label
from nao_ray.report.pictures.cells import draw_cell, frame
from nao_ray.report.pictures.drawing import Wording
from nao_ray.report.pictures.style import text_width
from nao_ray.report.pictures.union import edges, placed, union
from nao_ray.spaces.base import ArchGraph, SearchSpace

MOST_STEPS = 240
"""Moments at which alphas are drawn; of more epochs every so many."""
_HERE = Path(__file__).parent


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
    """``[F, E * O]``, before the softmax."""


# -- what is shown ------------------------------------------------------------------------------------------


def tracks_of(trials: pd.DataFrame, phases: pd.DataFrame, fits: pd.DataFrame, metric: Metric) -> list[Track]:
    """What there is to show of a pool.

    Args:
        trials: finished trials with `trial_id`, `log_index`, `state`, `phase`, `weights_version`, the metric's column
            and `genotype`, which is looked at in `best_trials` alone.
        phases: trainings of shared weights, with `trial_id`, `state`, `phase`, `derived_genotype` and maybe `alphas`.
        fits: what the strategy wrote of itself.
        metric: what the trials are measured by.
    """
    done = tables.completed(trials, metric)
    found = list(_trainings(phases, fits))
    scored = shared.scores_of_versions(done)
    if len(scored):
        found.append(_track("best of each round, by shared weights", _best_of_versions(scored, metric), metric))
    alone = shared.trained_alone(done)
    if len(alone):
        name = "best so far, trained alone" if len(found) else "best so far"
        found.append(_track(name, _incumbents(alone, metric), metric))
    return found


def _trainings(phases: pd.DataFrame, fits: pd.DataFrame) -> Iterator[Track]:
    """A track per training of shared weights that derived architectures."""
    rows = phases[(phases["state"] == "COMPLETED") & phases["derived_genotype"].notna()].sort_values("trial_id")
    trainings: dict[Any, list[tuple[dict[str, Any], Any]]] = {}
    for row in rows.to_dict("records"):
        phase = json.loads(str(row["phase"]))
        trainings.setdefault(phase.get("seed"), []).append((phase, row))
    for index, found in enumerate(trainings.values()):
        epochs = [int(phase["last_epoch"]) for phase, _ in found]
        told = _told(fits, index)
        frames = [
            Frame(f"epoch {epoch}", str(row["derived_genotype"]), *_alarm(told.get(epoch, {})))
            for epoch, (_, row) in zip(epochs, found, strict=True)
        ]
        curves = {
            name.replace("_", " "): [_number(told.get(epoch, {}).get(name)) for epoch in epochs]
            for name in dict.fromkeys(name for row in told.values() for name in row)
            if name not in ("round", "epoch", "seed_index") and not name.startswith("alarm")
        }
        curves = {name: values for name, values in curves.items() if any(value is not None for value in values)}
        values = [row.get("alphas") for _, row in found]
        sizes = {len(value) if hasattr(value, "__len__") else 0 for value in values}
        alphas = np.stack([np.asarray(value, dtype=np.float64) for value in values]) if len(sizes) == 1 else None
        has_alphas = alphas is not None and alphas.ndim == 2 and alphas.shape[1] > 0
        yield Track(f"seed {index}", frames, curves, alphas if has_alphas else None)


def _told(fits: pd.DataFrame, index: int) -> dict[int, dict[str, Any]]:
    """What was watched in a training, by epoch."""
    if "seed_index" not in fits:
        return {}
    rows = fits[fits["seed_index"] == index].to_dict("records")
    return {int(row.get("epoch", row["round"])): {str(name): value for name, value in row.items()} for row in rows}


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


def best_trials(trials: pd.DataFrame, metric: Metric) -> list[int]:
    """The trials whose genotype `tracks_of` looks at."""
    done = tables.completed(trials, metric)
    shown = [
        _incumbents(shared.trained_alone(done), metric),
        _best_of_versions(shared.scores_of_versions(done), metric),
    ]
    return [int(number) for rows in shown for number in rows["trial_id"]]


# -- the page -----------------------------------------------------------------------------------------------


def render_film(title: str, tracks: Sequence[Track], space: SearchSpace[Any]) -> str:
    """The page as text.

    Raises:
        GenotypeError: an architecture is none of the space's.
        ConfigError: architectures of the search cannot be shown in one picture.
    """
    texts = list(dict.fromkeys(frame.genotype for track in tracks for frame in track.frames))
    graphs = [space.lower(space.parse(text)) for text in texts]
    whole = union(graphs)
    names = edges(whole)
    wording = Wording(space.op_names)
    ops: dict[str, int] = {}
    cells = []
    for text, graph in zip(texts, graphs, strict=True):
        found = placed(graph, whole)
        taken = [
            ops.setdefault(found[name], len(ops)) if found.get(name) else 0 if name in found else -1 for name in names
        ]
        cells.append([text, taken])
    lowered = {name: op for op, name in space.op_names.items()}
    mixed = [ops.setdefault(lowered.get(name, name), len(ops)) for name in space.primitives]
    alphas = [_alphas(track, whole, len(mixed)) for track in tracks]
    data = {
        "edges": names,
        "ops": [[wording.label(op), wording.kind(op), wording.name(op)] for op in ops],
        "cells": cells,
        "tracks": [_json(track, texts, found) for track, found in zip(tracks, alphas, strict=True)],
        "mixed": mixed,
        "relaxed": _relaxed(whole) if any(alphas) else [],
    }
    script = (_HERE / "film.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("film.html").render(
        title=title,
        pictures=_pictures(whole, Wording(space.op_names, max(text_width(wording.label(op)) for op in ops))),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _pictures(whole: ArchGraph, wording: Wording) -> list[str]:
    found = []
    for role, cell in whole.cells:
        drawn = draw_cell(role, cell, wording)
        found.append(
            frame(drawn.body, drawn.width, drawn.height, f"cells: {role}", "Edges of the moment that is shown.")
        )
    return found


def _relaxed(whole: ArchGraph) -> list[list[Any]]:
    """Per edge of the relaxed cells role, source and node, each by its name, and its names in the drawing."""
    found = []
    for role, cell in whole.cells:
        for state, node in enumerate(cell.nodes, cell.inputs):
            for source in range(state):
                drawn = [f"{role}:{state}:{index}" for index, edge in enumerate(node) if edge.source == source]
                found.append([role, state_label(cell, source), str(state), drawn])
    return found


def _json(track: Track, texts: Sequence[str], alphas: dict[str, Any] | None) -> dict[str, Any]:
    places = {text: index for index, text in enumerate(texts)}
    return {
        "name": track.name,
        "frames": [[frame.label, places[frame.genotype], frame.alarm, frame.instead] for frame in track.frames],
        "curves": {
            name: [None if v is None else float(f"{v:.5g}") for v in values] for name, values in track.curves.items()
        },
        "alphas": alphas,
    }


def _alphas(track: Track, whole: ArchGraph, ops: int) -> dict[str, Any] | None:
    """The share of each operation of each edge in thousandths, at some of the frames; None where they are not known."""
    relaxed = sum(sum(range(cell.inputs, cell.inputs + len(cell.nodes))) for _, cell in whole.cells)
    if track.alphas is None or not ops or track.alphas.shape[1] != relaxed * ops:
        return None
    count = len(track.alphas)
    steps = np.unique(np.linspace(0, count - 1, min(count, MOST_STEPS)).round().astype(int))
    if not np.isfinite(track.alphas[steps]).all():
        return None
    values = track.alphas[steps].reshape(len(steps), relaxed, ops)
    powers = np.exp(values - values.max(axis=2, keepdims=True))
    shares = np.rint(1000 * powers / powers.sum(axis=2, keepdims=True)).astype(int)  # [steps, E, O]
    return {"steps": steps.tolist(), "shares": shares.transpose(1, 2, 0).tolist()}
