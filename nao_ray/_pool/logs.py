"""What there is to understand failed attempts by: a text file for each of the newest ones, for people to read."""

from __future__ import annotations

from nao_ray._pool.storage import Guard, Storage

FOLDER = "logs"
KEPT_LOGS = 500
_MAX_BYTES = 100_000
_SUFFIX = ".txt"


class Logs:
    """The writer's side; it knows the names, so that storage is listed once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._names: dict[str, None] | None = None  # in the order written, as far as this driver knows

    def add(self, trial_id: int, attempt: int, text: str, guard: Guard) -> None:
        """Write one, then forget the oldest beyond `KEPT_LOGS`; raises PoolWriteError."""
        if self._names is None:
            self._storage.make_folder(FOLDER)
            self._names = dict.fromkeys(_names(self._storage))
        name = f"{trial_id:08d}-{attempt:03d}{_SUFFIX}"
        data = text.encode("utf-8", "replace")
        if len(data) > _MAX_BYTES:
            data = data[: _MAX_BYTES // 2] + b"\n[...]\n" + data[-_MAX_BYTES // 2 :]
        self._storage.write(f"{FOLDER}/{name}", data, guard)
        self._names.pop(name, None)
        self._names[name] = None
        while len(self._names) > KEPT_LOGS:
            oldest = next(iter(self._names))
            del self._names[oldest]
            self._storage.remove(f"{FOLDER}/{oldest}")


def read_logs(storage: Storage, trial_id: int) -> list[str]:
    """The logs of a trial's attempts, oldest first; those that are no longer kept are missing."""
    found = [name for name in _names(storage) if name.startswith(f"{trial_id:08d}-")]
    return [storage.read(f"{FOLDER}/{name}").decode("utf-8", "replace") for name in found]


def _names(storage: Storage) -> list[str]:
    return [name for name in storage.entries(FOLDER) if name.endswith(_SUFFIX) and not name.startswith(".")]
