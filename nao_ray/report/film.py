"""The film of a search: one HTML file with a slider, which opens from disk and loads nothing.

Nodes stay where they are from moment to moment, so that one sees edges come and go: what is drawn is the union of all
cells, of which the page's script (`film.js`) shows those of the moment.

Legend: `F` frames, `E` edges of the relaxed cells, `O` operations.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from nao_ray.report.labels import state_label
from nao_ray.report.pictures.cells import draw_cell, frame
from nao_ray.report.pictures.drawing import Wording
from nao_ray.report.pictures.style import text_width
from nao_ray.report.pictures.union import edges, placed, union
from nao_ray.report.tracks import Track
from nao_ray.spaces.base import ArchGraph, SearchSpace

MOST_STEPS = 240
"""Moments at which alphas are drawn; of more epochs every so many."""
UNITS = 100_000
"""Of a share of 1: shares of a young search differ in the fourth decimal."""
_HERE = Path(__file__).parent


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
        "units": UNITS,
        "relaxed": _relaxed(whole) if any(alphas) else [],
    }
    script = (_HERE / "film.js").read_text(encoding="utf-8")
    return _page().render(
        title=title,
        pictures=_pictures(whole, Wording(space.op_names, max(text_width(wording.label(op)) for op in ops))),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@cache
def _page() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("film.html")


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
            name: [None if v is None else float(f"{v:.8g}") for v in values] for name, values in track.curves.items()
        },
        "alphas": alphas,
    }


def _alphas(track: Track, whole: ArchGraph, ops: int) -> dict[str, Any] | None:
    """The share of each operation of each edge, of `UNITS`, at some of the frames; None where they are not known."""
    relaxed = sum(sum(range(cell.inputs, cell.inputs + len(cell.nodes))) for _, cell in whole.cells)
    if track.alphas is None or not ops or track.alphas.shape[1] not in (relaxed * ops, relaxed * (ops + 1)):
        return None
    count = len(track.alphas)
    steps = np.unique(np.linspace(0, count - 1, min(count, MOST_STEPS)).round().astype(int))
    if not np.isfinite(track.alphas[steps]).all():
        return None
    values = track.alphas[steps].reshape(len(steps), relaxed, -1)[:, :, :ops]  # beside them that of the edge
    powers = np.exp(values - values.max(axis=2, keepdims=True))
    shares = np.rint(UNITS * powers / powers.sum(axis=2, keepdims=True)).astype(int)  # [steps, E, O]
    return {"steps": steps.tolist(), "shares": shares.transpose(1, 2, 0).tolist()}
