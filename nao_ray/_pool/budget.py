"""A budget that was changed while the search ran: what holds instead of the config's, and which budgets it replaced."""

from __future__ import annotations

import json
from typing import NamedTuple

from nao_ray._pool.faults import patient
from nao_ray._pool.storage import Guard, Storage

_FILE = "budget.json"


class Limits(NamedTuple):
    """As `search.budget.Budget`."""

    trials: int | None
    seconds: float | None


class ChangedBudget(NamedTuple):
    """What holds, and instead of which: a config that gives yet another one is newer."""

    now: Limits
    replaced: tuple[Limits, ...]


def read_budget(storage: Storage) -> ChangedBudget | None:
    """None: it was never changed, or what was written is not to be read, and the config's holds. Raises OSError."""
    if not storage.exists(_FILE):
        return None
    try:
        data = json.loads(patient(lambda: storage.read(_FILE), merged=False))
        return ChangedBudget(Limits(**data["now"]), tuple(Limits(**limits) for limits in data["replaced"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_budget(storage: Storage, before: Limits, now: Limits, guard: Guard) -> None:
    """Let `now` hold instead of `before` and of all that was replaced so far; raises PoolWriteError."""
    last = read_budget(storage)
    replaced = dict.fromkeys([*(last.replaced if last else ()), *([last.now] if last else ()), before])
    replaced.pop(now, None)
    data = {"now": now._asdict(), "replaced": [limits._asdict() for limits in replaced]}
    storage.write(_FILE, json.dumps(data, indent=1).encode(), guard)
