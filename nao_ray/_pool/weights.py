"""Versions of shared weights: the last few of each training, each a file of its own."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

from nao_ray._pool.faults import patient, unreadable
from nao_ray._pool.storage import Guard, Storage
from nao_ray.errors import PoolError

FOLDER = "weights"
KEPT_WEIGHTS = 3
"""The newest ones of a training: what scores are made with, what a phase in progress goes on from, and one more."""
KEPT_TRAININGS = 64
"""Those that the newest versions are of."""
_ORDER = f"{FOLDER}/versions.json"

_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class _Version(NamedTuple):
    name: str
    training: int | None


def keep_weights(storage: Storage, version: str, weights: bytes, guard: Guard, training: int | None = None) -> None:
    """Write a version, then forget those of its training that are too old, and trainings that are.

    Args:
        storage: of the pool.
        version: its name.
        weights: the version itself.
        guard: of each write.
        training: names the training that it is a version of (`Phase.seed`).
    """
    file = _file(version)
    known = [other for other in _versions(storage) if other.name != version]
    kept = _newest([*known, _Version(version, training)])
    storage.make_folder(FOLDER)
    storage.write(file, weights, guard)
    storage.write(_ORDER, json.dumps(kept).encode(), guard)
    for other in known:
        if other not in kept:
            storage.remove(_file(other.name))


def _newest(all_: Sequence[_Version]) -> list[_Version]:
    """Of versions, oldest first, those that are kept."""
    last = {version.training: index for index, version in enumerate(all_)}
    trainings = sorted(last, key=lambda training: last[training])[-KEPT_TRAININGS:]
    names = {version.name for each in trainings for version in [v for v in all_ if v.training == each][-KEPT_WEIGHTS:]}
    return [version for version in all_ if version.name in names]


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
        there = ", ".join(version.name for version in _versions(storage)) or "none"
        raise PoolError(f"{storage.url} has no weights of version {version}, it has {there}: {remedy}") from None
    except OSError as error:
        raise unreadable(storage.path(file), error, remedy) from None


def _versions(storage: Storage) -> list[_Version]:
    """Oldest first; none where the list of them is damaged, so that older ones stay.

    Raises:
        PoolReadError: they cannot be read at the moment.
    """
    try:
        found = json.loads(patient(lambda: storage.read(_ORDER), merged=False))
        # there was one training, and the list had names alone
        return [_Version(entry, None) if isinstance(entry, str) else _Version(*entry) for entry in found]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(storage.path(_ORDER), error, "older versions stay") from None
    except (ValueError, TypeError):
        _log.warning("%s is damaged: the versions it listed are kept for good", storage.path(_ORDER))
        return []


def _file(version: str) -> str:
    if not _NAME.fullmatch(version):  # it comes from the pool's rows, and must not lead out of its folder
        raise PoolError(f"{version!r} is no name of a version of weights")
    return f"{FOLDER}/{version}.safetensors"
