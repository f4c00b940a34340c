"""What is known of data, kept by the identity of its files, so that a start does not decode them all again.

Path, size, time of change and inode stand for a file's content, as in make and git; as in git, a file that was changed
a moment ago is not trusted, since it may be changed again within the clock's step. What is kept is a small file a data
set in the user's cache folder (`$XDG_CACHE_HOME/nao_ray/data`); without it, or without the right to write there, data
is read anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from nao_ray.tasks.base import Facts

VERSION = 2
"""To be raised whenever the same files give other examples or labels."""
SETTLED_SECONDS = 3.0
_READERS = ("pillow", "pyarrow", "numpy")  # whose versions may decide what is read
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """One file."""

    path: str
    """Absolute, or an address."""
    size: int
    changed_ns: int
    inode: int = 0

    @classmethod
    def of(cls, path: str | Path) -> FileIdentity:
        """Of a local file; raises OSError."""
        found = os.stat(path)
        return cls(os.path.abspath(path), found.st_size, found.st_mtime_ns, found.st_ino)


def facts_of(
    about: Mapping[str, Any],
    files: Callable[[], Iterable[FileIdentity] | None],
    read: Callable[[], Facts],
    now: Callable[[], float] = time.time,
) -> Facts:
    """What was found when data of the same files was read under the same settings; else what `read` finds.

    Args:
        about: the settings.
        files: what `read` reads; None: no files.
        read: reads the data.
        now: seconds since 1970.
    """
    began, before = now(), _listed(files)
    if before is None:
        return read()
    versions = {name: metadata.version(name) for name in _READERS}
    what = {"version": VERSION, "readers": versions, "about": dict(about), "files": [asdict(file) for file in before]}
    key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
    place = user_cache_path("nao_ray", appauthor=False) / "data" / f"{key}.json"
    kept = _kept(place)
    if kept is not None:
        return kept
    facts = read()
    if before == _listed(files) and all(file.changed_ns / 1e9 < began - SETTLED_SECONDS for file in before):
        _keep(place, facts)
    return facts


def _listed(files: Callable[[], Iterable[FileIdentity] | None]) -> list[FileIdentity] | None:
    found = files()
    return None if found is None else sorted(found, key=lambda file: file.path)


def _kept(place: Path) -> Facts | None:
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        odd = tuple(map(str, kept["odd"]))
        counts = [None if kept[name] is None else int(kept[name]) for name in ("examples", "validating")]
        return Facts(str(kept["digest"]), str(kept["summary"]), odd, *counts)
    except (OSError, ValueError, TypeError, KeyError):  # none, or not one of ours
        return None


def _keep(place: Path, facts: Facts) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, prefix=".", delete=False, encoding="utf-8") as file:
            json.dump(asdict(facts), file)
        os.replace(file.name, place)
    except OSError as error:
        _log.debug("what is known of the data cannot be kept: %s", error)
