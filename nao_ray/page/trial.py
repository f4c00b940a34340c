"""One trial as the page shows it, and two architectures side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from nao_ray.errors import NaoRayError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.report.facts import tested
from nao_ray.report.labels import cell_text, op_label, role_label
from nao_ray.report.pictures.cells import draw_cells
from nao_ray.spaces.base import ArchGraph, SearchSpace

_LEFT_OUT = ("tokens", "embedding", "alphas", "phase", "curve")
"""Columns that are no figures to look at, or told otherwise."""

Json = dict[str, Any]


def details(pool: PoolReader, space: SearchSpace[Any], trial_id: int, *, with_logs: bool = True) -> Json:
    """All that is known of a trial.

    Args:
        pool: that it is of.
        space: the pool's.
        trial_id: which one; one that never finished has logs alone.
        with_logs: also what its failed attempts left.

    Raises:
        PoolError: there is no such trial, or a part is damaged.
    """
    rows = pool.find_trials([trial_id])
    logs = pool.logs(trial_id) if with_logs else []
    if not rows and not logs:
        raise PoolError(f"pool {pool.url} has no finished trial {trial_id}")
    row: Json = rows[0] if rows else {"trial_id": trial_id, "genotype": None, "phase": None, "curve": None}
    drawn = (
        {"svg": None, "text": None, "notations": {}, "edges": {}}
        if row["genotype"] is None or row["phase"] is not None
        else _drawn(space, row["genotype"], f"cells of trial {trial_id}")
    )
    final = pool.sql(f"SELECT * FROM final WHERE trial_id = {int(trial_id)} ORDER BY name").to_dict("records")
    return {
        "trial_id": trial_id,
        "row": {name: plain(value) for name, value in row.items() if name not in _LEFT_OUT},
        **drawn,
        "phase": None if row["phase"] is None else _phase(row["phase"]),
        "curve": None if row["curve"] is None else [plain(value) for value in row["curve"]],
        "curve_label": pool.metric.label,
        "logs": logs,
        "final": [tested(training) for training in final],
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
        return {"svg": None, "text": str(error), "notations": {}, "edges": {}}
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
