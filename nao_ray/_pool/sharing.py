"""How many trials each kind of GPU has at a time, as a search has found: for one that goes on, and for who watches."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nao_ray._pool.faults import patient
from nao_ray._pool.storage import Guard, Storage
from nao_ray.sharing import Shared

_FILE = "gpus.json"


def read_sharing(storage: Storage) -> list[Shared]:
    """What is known; nothing where the file is none of ours. Raises OSError."""
    if not storage.exists(_FILE):
        return []
    try:
        data = json.loads(patient(lambda: storage.read(_FILE), merged=False))
        return [
            Shared(str(row["gpu"]), int(row["children"]), int(row["kept"]), bool(row["is_settled"])) for row in data
        ]
    except (ValueError, KeyError, TypeError):
        return []


def write_sharing(storage: Storage, found: Sequence[Shared], guard: Guard) -> None:
    """Let this be known instead of what was; raises PoolWriteError."""
    storage.write(_FILE, json.dumps([shared._asdict() for shared in found], indent=1).encode(), guard)
