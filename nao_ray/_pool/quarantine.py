"""Damaged files are kept, out of the way: a person may know more of them than we do."""

from __future__ import annotations

from nao_ray._pool.storage import Storage

FOLDER = "quarantine"


def quarantine(storage: Storage, name: str) -> str:
    """Move a damaged file to `quarantine/`, beside what is there; returns its name there.

    Raises:
        OSError: it cannot be moved.
        PoolWriteError: nor written there.
    """
    folder, _, base = name.rpartition("/")
    target = f"{FOLDER}/{folder}-{base}"
    copy = 1
    while storage.exists(target):
        target = f"{FOLDER}/{folder}-{copy}-{base}"
        copy += 1
    storage.make_folder(FOLDER)
    storage.move(name, target)
    return target
