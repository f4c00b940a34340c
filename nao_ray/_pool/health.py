"""What is wrong with a pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow.compute as pc

from nao_ray._pool.faults import READING, line, patient
from nao_ray._pool.holder import HOLDER, look
from nao_ray._pool.numbers import last_epoch
from nao_ray._pool.storage import Storage
from nao_ray._pool.tables import ids, read, wrong
from nao_ray.errors import PoolError
from nao_ray.metric import BY_COLUMN

_SHOWN = 5  # ids in one line


def check(storage: Storage) -> list[str]:
    """Problems, one line each; [] for a sound pool of a search that has ended. Reads every page of every part."""
    problems = []
    for folder in storage.journals:
        try:
            names = patient(lambda folder=folder: storage.parts(folder), merged=False)  # type: ignore[misc]
        except FileNotFoundError:
            problems.append(f"{folder}/ is missing; restore it from a copy")
            continue
        for name in names:
            what = _wrong(storage, folder, name)
            if what:
                problems.append(f"{folder}/{name}: {what}")
    problems += _lease(storage)
    quarantined = [name for name in storage.entries("quarantine") if not name.startswith(".")]
    if quarantined:
        problems.append(f"{len(quarantined)} damaged parts are in quarantine/: {_some(quarantined)}")
    if not problems:
        problems += _rows(storage)
    return problems


def _lease(storage: Storage) -> list[str]:
    sight = look(storage)
    if sight.damage is not None:
        return [f"{HOLDER} is damaged: leave it, the next driver watches for others, then goes on with new numbers"]
    if sight.holder is None and last_epoch(storage):
        return [f"{HOLDER} is missing, though drivers have written; the next one goes on with new numbers"]
    return []


def _wrong(storage: Storage, folder: str, name: str) -> str | None:
    """What is wrong with a part; None when nothing is."""
    try:
        return wrong(storage, folder, name)
    except READING as error:
        return f"cannot be read at the moment, so nothing is known of it: {line(error)}"


def _rows(storage: Storage) -> list[str]:
    try:
        trials = read(storage, "trials", ["trial_id", "log_index", *BY_COLUMN])
        below = [read(storage, folder, trials.column_names) for folder in storage.finished[1:]]
        events = read(storage, "events", ["seq", "kind", "trial_id"])
    except PoolError as error:
        return [str(error)]
    problems = []
    for data, column, folder in (
        (trials, "trial_id", "trials"),
        (trials, "log_index", "trials"),
        (events, "seq", "events"),
    ):
        doubled = _doubled(ids(data, column))
        if doubled:
            problems.append(f"{folder}/: {len(doubled)} values of {column} occur twice: {_some(doubled)}")
    finished = {number for data in (trials, *below) for number in ids(data, "trial_id")}
    asked_ids = ids(events.filter(pc.field("kind") == "asked"), "trial_id")
    asked = set(asked_ids)
    if _doubled(asked_ids):
        problems.append(f"events/: {len(_doubled(asked_ids))} trials were asked twice: {_some(_doubled(asked_ids))}")
    missing = sorted(set(range(max(asked | finished, default=-1) + 1)) - asked - finished)
    if missing:
        problems.append(f"{len(missing)} trial ids are missing: {_some(missing)}")
    if asked and finished - asked:
        problems.append(f"{len(finished - asked)} trials have a row but were never asked: {_some(finished - asked)}")
    if asked - finished:
        open_ids = asked - finished
        problems.append(
            f"{len(open_ids)} trials were asked and have no final row (resume to finish them): {_some(open_ids)}"
        )
    for column, metric in BY_COLUMN.items():
        least, most = metric.limits
        outside = trials.filter((pc.field(column) < least) | (pc.field(column) > most)).num_rows
        if outside:
            problems.append(f"trials/: {outside} values of {column} are outside [{least:g}, {most:g}]")
    return problems


def _doubled(values: list[int]) -> list[int]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def _some(values: Iterable[Any]) -> str:
    found = sorted(values)
    return ", ".join(map(str, found[:_SHOWN])) + (", ..." if len(found) > _SHOWN else "")
