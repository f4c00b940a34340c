"""One trial as the page shows it, and two architectures side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nao_ray.errors import NaoRayError, PoolError
from nao_ray.pool import TRIALS, PoolReader
from nao_ray.report.facts import tested
from nao_ray.report.labels import cell_text, op_label, role_label
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.spaces.base import ArchGraph, SearchSpace
from nao_ray.trial import TrialState

_LEFT_OUT = ("phase", "curve")
"""Columns that are told otherwise."""

_READ = [name for name in TRIALS.names if name not in ("tokens", "embedding", "alphas")]

Json = dict[str, Any]
_NO_CELLS: Json = {"svg": None, "text": None, "notations": {}, "edges": {}}


class UnknownTrialError(PoolError):
    """There is no such trial, or it is not finished and has left nothing."""


def details(
    pool: PoolReader, space: SearchSpace[Any], trial_ids: Sequence[int], *, with_logs: bool = True
) -> list[Json]:
    """All that is known of some trials.

    Args:
        pool: that they are of.
        space: the pool's.
        trial_ids: which ones; one that never finished has logs alone.
        with_logs: also what their failed attempts left.

    Raises:
        UnknownTrialError: there is no such trial.
        PoolError: a part is damaged.
    """
    rows = {row["trial_id"]: row for row in pool.find_trials(trial_ids, _READ)}
    final: dict[int, list[Json]] = {}
    for training in pool.sql("SELECT * FROM final WHERE trial_id IS NOT NULL ORDER BY name").to_dict("records"):
        final.setdefault(int(training["trial_id"]), []).append(tested(training))
    found = []
    for trial_id in trial_ids:
        row = rows.get(trial_id)
        is_sound = row is not None and row["state"] == TrialState.COMPLETED.value and row["attempt"] == 1
        logs = pool.logs(trial_id) if with_logs and not is_sound else []
        if row is None and not logs:
            raise UnknownTrialError(f"pool {pool.url} has no finished trial {trial_id}")
        found.append(
            _details(pool, space, row or {"trial_id": trial_id}) | {"logs": logs, "final": final.get(trial_id, [])}
        )
    return found


def _details(pool: PoolReader, space: SearchSpace[Any], row: Mapping[str, Any]) -> Json:
    genotype, phase, curve = (row.get(name) for name in ("genotype", "phase", "curve"))
    is_cell = genotype is not None and phase is None
    return {
        "trial_id": row["trial_id"],
        "row": {name: plain(value) for name, value in row.items() if name not in _LEFT_OUT},
        **(_drawn(space, str(genotype), f"cells of trial {row['trial_id']}") if is_cell else _NO_CELLS),
        "phase": None if phase is None else _phase(phase),
        "curve": None if curve is None else [plain(value) for value in curve],
        "curve_label": pool.metric.label,
    }


def comparison(first: Json, second: Json) -> Json:
    """Two trials (`details`) of one space, or of two that have cells of the same names: what differs."""
    edges = first["edges"], second["edges"]
    only = [[name for name, what in own.items() if other.get(name) != what] for own, other in (edges, reversed(edges))]
    whole = max(len(of) for of in edges)
    differ = len({*only[0], *only[1]})
    if not whole:
        sentence = "These trials have no cells to compare."
    elif not differ:
        sentence = "The two architectures are the same."
    else:
        sentence = f"{differ} of {whole} edges differ."
    return {"a": first, "b": second, "only_a": only[0], "only_b": only[1], "sentence": sentence}


def _drawn(space: SearchSpace[Any], text: str, title: str) -> Json:
    try:
        genotype = space.parse(text)
        graph = space.lower(genotype)
    except NaoRayError as error:  # of a space that has changed since
        return {**_NO_CELLS, "text": str(error)}
    told = [f"{role_label(role)}\n{cell_text(cell, space.op_names)}" for role, cell in graph.cells]
    return {
        "svg": draw_cells(graph, title, space.op_names),
        "text": "\n\n".join(told),
        "notations": space.notations(genotype),
        "edges": _edges(space, graph),
    }


def _edges(space: SearchSpace[Any], graph: ArchGraph) -> dict[str, str]:
    """What leads where, by the names that edges have in the picture: the state it comes from, and the operation."""
    found = {}
    for role, cell in graph.cells:
        for number, node in enumerate(cell.nodes, start=cell.inputs):
            for index, edge in enumerate(node):
                found[f"{role}:{number}:{index}"] = f"{edge.source} {op_label(space.op_names.get(edge.op, edge.op))}"
        found |= {f"{role}:out:{state}": "output" for state in cell.output}
    return found


def _phase(text: str) -> Json:
    """Training of shared weights, without the genotypes, which may be thousands."""
    phase: Mapping[str, Any] = json.loads(text)
    found = {name: value for name, value in phase.items() if not isinstance(value, list)}
    return found | {"genotypes": len(phase.get("genotypes") or ())}


def plain(value: Any) -> Any:  # noqa: ANN401
    """A value of a row as JSON holds it: None for what is no finite number, times as ISO 8601."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value
