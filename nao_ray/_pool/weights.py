"""Versions of shared weights: the last few, each a file of its own."""

from __future__ import annotations

import json
import re

from nao_ray._pool.storage import Guard, Storage
from nao_ray.errors import PoolError

FOLDER = "weights"
KEPT_WEIGHTS = 3
"""The newest ones: what scores are made with, what a phase in progress goes on from, and one more."""
_ORDER = f"{FOLDER}/versions.json"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def keep_weights(storage: Storage, version: str, weights: bytes, guard: Guard) -> None:
    """Write a version, then forget those that are too old."""
    known = [name for name in versions(storage) if name != version]
    kept = [*known, version][-KEPT_WEIGHTS:]
    storage.make_folder(FOLDER)
    storage.write(_file(version), weights, guard)
    storage.write(_ORDER, json.dumps(kept).encode(), guard)
    for name in known:
        if name not in kept:
            storage.remove(_file(name))


def read_weights(storage: Storage, version: str) -> bytes:
    """A version.

    Raises:
        PoolError: there is none of this name.
    """
    try:
        return storage.read(_file(version))
    except (OSError, PoolError):
        there = ", ".join(versions(storage)) or "none"
        raise PoolError(
            f"{storage.url} has no weights of version {version}, it has {there}: put {_file(version)} back and resume, "
            "or begin another pool"
        ) from None


def versions(storage: Storage) -> list[str]:
    """Oldest first."""
    if not storage.exists(_ORDER):
        return []
    names: list[str] = json.loads(storage.read(_ORDER))
    return names


def _file(version: str) -> str:
    if not _NAME.fullmatch(version):  # it comes from the pool's rows, and must not lead out of its folder
        raise PoolError(f"{version!r} is no name of a version of weights")
    return f"{FOLDER}/{version}.safetensors"
