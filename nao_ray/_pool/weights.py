"""Versions of shared weights: the last few, each a file of its own."""

from __future__ import annotations

import json
import logging
import re

from nao_ray._pool.faults import patient, unreadable
from nao_ray._pool.storage import Guard, Storage
from nao_ray.errors import PoolError

FOLDER = "weights"
KEPT_WEIGHTS = 3
"""The newest ones: what scores are made with, what a phase in progress goes on from, and one more."""
_ORDER = f"{FOLDER}/versions.json"

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def keep_weights(storage: Storage, version: str, weights: bytes, guard: Guard) -> None:
    """Write a version, then forget those that are too old."""
    file = _file(version)
    known = [name for name in versions(storage) if name != version]
    kept = [*known, version][-KEPT_WEIGHTS:]
    storage.make_folder(FOLDER)
    storage.write(file, weights, guard)
    storage.write(_ORDER, json.dumps(kept).encode(), guard)
    for name in known:
        if name not in kept:
            storage.remove(_file(name))


def read_weights(storage: Storage, version: str) -> bytes:
    """A version.

    Raises:
        PoolError: there is none of this name.
        PoolReadError: it cannot be read at the moment.
    """
    file = _file(version)
    remedy = f"put {file} back and resume, or begin another pool"
    try:
        return patient(lambda: storage.read(file), merged=False)
    except FileNotFoundError:
        there = ", ".join(versions(storage)) or "none"
        raise PoolError(f"{storage.url} has no weights of version {version}, it has {there}: {remedy}") from None
    except OSError as error:
        raise unreadable(storage.path(file), error, remedy) from None


def versions(storage: Storage) -> list[str]:
    """Oldest first; none where the list of them is damaged, so that older ones stay.

    Raises:
        PoolReadError: they cannot be read at the moment.
    """
    try:
        found = json.loads(patient(lambda: storage.read(_ORDER), merged=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(storage.path(_ORDER), error, "older versions stay") from None
    except ValueError:
        found = None
    if not isinstance(found, list):
        _log.warning("%s is damaged: the versions it listed are kept for good", storage.path(_ORDER))
        return []
    return [str(name) for name in found]


def _file(version: str) -> str:
    if not _NAME.fullmatch(version):  # it comes from the pool's rows, and must not lead out of its folder
        raise PoolError(f"{version!r} is no name of a version of weights")
    return f"{FOLDER}/{version}.safetensors"
