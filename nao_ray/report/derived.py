"""What a report says of trainings of alphas: what they derived, which alarms went off, and the control."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nao_ray.metric import Metric
from nao_ray.report.tables import Floats, duration, floats
from nao_ray.report.tracks import Frame, Track


def alarms(tracks: Sequence[Track]) -> list[tuple[str, Frame]]:
    """Where a rule went off: of each training the first moment of each of its rules."""
    found = []
    for track in tracks:
        firsts: dict[str, Frame] = {}
        for frame in track.frames:
            if frame.alarm:
                firsts.setdefault(frame.alarm, frame)
        found += [(track.name, frame) for frame in firsts.values()]
    return found


def ends(fits: pd.DataFrame, warmup: int = 0) -> list[tuple[str, int, str, bool]]:
    """Trainings that ended before their last epoch: which, in what epoch, the kind of failure, and if there is a cell.

    `warmup`: epochs at first in which alphas stay.
    """
    if "ended" not in fits:
        return []
    rows = fits[fits["ended"].notna()].sort_values(["seed_index", "round"])
    facts = zip(rows["seed_index"], rows["round"], rows["ended"], strict=True)
    return [(f"seed {int(index)}", int(epoch), str(kind), epoch > warmup + 1) for index, epoch, kind in facts if kind]


def training_table(tracks: Sequence[Track]) -> tuple[list[str], list[list[str]]]:
    """What trainings have come to: headings, and a row for each, the last figures of what was watched among them."""
    names = list(dict.fromkeys(name for track in tracks for name in track.curves))
    rows = []
    for track in tracks:
        last = [next((v for v in reversed(track.curves.get(name, [])) if v is not None), None) for name in names]
        figures = ["" if value is None else f"{value:.4g}" for value in last]
        rows.append([track.name, track.frames[-1].label, *figures, track.frames[-1].genotype])
    return ["training", "so far", *names, "derived"], rows


def groups(done: pd.DataFrame, control: pd.Series[bool], metric: Metric) -> dict[str, Floats]:
    """Scores of the derived cells, and of the random ones, which `control` tells by row."""
    chosen = {"derived": ~control, "random control": control}
    found = {name: floats(done.loc[rows, metric.column]) for name, rows in chosen.items()}
    return {name: scores for name, scores in found.items() if len(scores)}


def comparison(fits: pd.DataFrame, metric: Metric) -> list[str]:
    """What became of the derived cells beside the random ones, in sentences; none before the search has ended."""
    rows = fits[fits["num_control"].notna()] if "num_control" in fits else fits.head(0)
    if rows.empty:
        return []
    row = rows.iloc[-1]
    derived, control = (row.get(f"best_{name}") for name in ("derived", "control"))
    counts = [f"{int(row[f'num_{name}'])} {cells}" for name, cells in (("derived", "derived"), ("control", "random"))]
    if derived is None or control is None or pd.isna(derived) or pd.isna(control):
        return [f"Trained alone: {counts[0]} and {counts[1]} cells; there is nothing to compare."]
    texts = [metric.text(metric.score(float(value))) for value in (derived, control)]
    spent = duration(float(row["search_seconds"]) + float(row["derived_seconds"]))
    return [
        f"Trained alone, the best of {counts[0]} cells has a {metric.label} of {texts[0]}, the best of {counts[1]} "
        f"ones {texts[1]}.",
        f"The search took {spent} of device time, the random cells {duration(float(row['control_seconds']))}.",
        "The search found a better cell than its control."
        if derived > control
        else "The search found no better cell than its control.",
    ]
