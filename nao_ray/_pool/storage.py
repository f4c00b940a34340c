"""Where a pool's files live: a local folder (`local.py`), or object storage (`objects.py`).

A file appears whole or not at all.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from nao_ray._pool.faults import unwritable
from nao_ray.addresses import REMEDY, has_credentials, masked
from nao_ray.errors import PoolError, RunError

T = TypeVar("T")

Guard = Callable[[], AbstractContextManager[Any]]
"""Entered around the moment a file appears; raises to forbid it."""

Tag = tuple[tuple[str, str], ...]
"""What a file's change is told by."""
_UNTOLD: Tag = ()  # locally it is not


def open_storage(url: str | Path) -> Storage:
    """The storage of a folder or URL; nothing is read or made.

    Raises:
        PoolError: no such kind of URL, or it holds credentials.
    """
    text = os.fspath(url)
    if has_credentials(text):
        raise PoolError(f"the address {masked(text)} holds credentials: {REMEDY}")
    if not text or "\0" in text:
        raise PoolError(f"{text!r} is no place for a pool; give a folder or a URL such as s3://bucket/name")
    if text.startswith("file://"):
        text = pafs.FileSystem.from_uri(text)[1]
    if "://" not in text:
        from nao_ray._pool.local import LocalStorage

        return LocalStorage(text)
    from nao_ray._pool.objects import ObjectStorage  # needed for addresses alone

    return ObjectStorage(text)


class Storage(ABC):
    """The files of one pool, by name relative to its root, e.g. ``trials/e000001-00000000.parquet``."""

    excludes = True
    """Whether, as far as is known, `exclusive` or conditions keep others from writing between a check and a write."""
    merges_in_place = False
    """Whether a merge takes names away, and gives the name of the first to the merged part."""

    rungs: tuple[int, ...] = ()
    """Epochs of the search's ladder of fidelities, ascending; (): it has none. Who reads the manifest sets it."""

    @property
    def finished(self) -> tuple[str, ...]:
        """Folders with the rows of finished trials, in the order to be read: what moves goes to the later one first."""
        return ("trials", "rungs") if self.rungs else ("trials",)

    @property
    def journals(self) -> tuple[str, ...]:
        """Folders of parts that a driver writes."""
        return (*self.finished, "events")

    def __init__(self, root: str, url: str) -> None:
        self.root = root.rstrip("/") or "/"
        self.url = url

    def path(self, *names: str) -> str:
        """A file's path, or bucket and key."""
        return "/".join((self.root, *names))

    @abstractmethod
    def entries(self, folder: str = "") -> list[str]:
        """Names in a folder, hidden ones too, sorted; [] when there is no such folder."""

    def moment(self) -> AbstractContextManager[None]:
        """A block that looks at the pool as it is at one moment, where the storage can; saves requests."""
        return nullcontext()

    def parts(self, folder: str) -> list[str]:
        """Names of a folder's Parquet parts that count, in the order they were written.

        Raises:
            FileNotFoundError: a local folder is missing.
        """
        return [name for name in self.entries(folder) if name.endswith(".parquet") and name[0] not in "._"]

    def marks(self, folder: str) -> dict[str, object]:
        """As `parts`, each with what tells its content from others that had its name."""
        return dict.fromkeys(self.parts(folder), True)

    def place(self, folder: str) -> str:
        """Where the parts of a folder are: another one where a merge was cut short that could not swap at once."""
        return folder

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is such a file; locally, or folder; raises OSError where that cannot be told."""

    @abstractmethod
    def read(self, name: str, length: int | None = None) -> bytes:
        """A whole file, or its first bytes; raises OSError."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A file to read Parquet from; raises OSError."""

    @abstractmethod
    def make_folder(self, name: str = "") -> None:
        """Make a folder of the pool, if it is not there."""

    @abstractmethod
    def write(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> None:
        """Write a file, durably, whole or not at all; replaces one of the same name.

        Raises:
            PoolWriteError: it could not be written; nothing is left of it.
        """

    @abstractmethod
    def create(self, name: str, data: bytes | memoryview) -> bool:
        """As `write`, but False, and nothing written, if the file is already there."""

    def look(self, name: str) -> tuple[bytes, Tag]:
        """A whole file, and what `swap` tells its changes by; raises OSError."""
        return self.read(name), _UNTOLD

    def glance(self, name: str) -> bytes:
        """As `read`, of the `moment`; no request where it has not changed since the last time."""
        return self.read(name)

    def swap(self, name: str, data: bytes | memoryview, tag: Tag | None) -> Tag | None:
        """As `write`, but None, and nothing written, if the file has changed since it was looked at.

        Locally it holds under `exclusive` alone.

        Args:
            name: of the file.
            data: its new content.
            tag: of `look`; None if there was no such file.
        """
        self.write(name, data)
        return _UNTOLD

    def refuse_without_conditions(self, name: str) -> None:  # noqa: B027 - locally there are locks
        """Check that `create` and `swap` hold against other processes, by the example of a file that is there.

        Raises:
            PoolError: they do not, or the file cannot be read.
        """

    def link_to_nothing(self) -> str | None:
        """Where the pool's own place leads, if it is a link and there is nothing."""
        return None

    @abstractmethod
    def move(self, name: str, target: str) -> None:
        """Move a file within the pool."""

    @abstractmethod
    def remove(self, *files: str) -> None:
        """Remove files, locally folders too, if they are there."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Locks out every other process that changes this pool, where the storage can; held for moments."""

    def failed(self, name: str, error: BaseException) -> RunError:
        """The error of a write that failed: PoolWriteError, or PoolGoneError where there is no pool any more."""
        return unwritable(self.path(name), error)
