"""Where a pool's files live: a local folder, or object storage (`objects.py`).

A file appears whole or not at all. Locally it is written under a name that starts with a dot (which pyarrow
skips), synced, then moved with `os.replace` (the habit of submitit's `temporary_save_path`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from nao_ray._pool.faults import unwritable
from nao_ray.addresses import REMEDY, has_credentials, masked
from nao_ray.errors import PoolError, PoolWriteError

T = TypeVar("T")

Guard = Callable[[], AbstractContextManager[Any]]
"""Entered around the moment a file appears; raises to forbid it."""

Tag = tuple[tuple[str, str], ...]
"""What a file's change is told by."""
_UNTOLD: Tag = ()  # locally it is not

_LOCK_PATIENCE = 10.0  # seconds; the lock is held for one rename


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
        return LocalStorage(text)
    from nao_ray._pool.objects import ObjectStorage  # needed for addresses alone

    return ObjectStorage(text)


class Storage(ABC):
    """The files of one pool, by name relative to its root, e.g. ``trials/e000001-00000000.parquet``."""

    def __init__(self, root: str, url: str) -> None:
        self.root = root.rstrip("/") or "/"
        self.url = url

    def path(self, *names: str) -> str:
        """A file's path, or bucket and key."""
        return "/".join((self.root, *names))

    @abstractmethod
    def entries(self, folder: str = "") -> list[str]:
        """Names in a folder, hidden ones too, sorted; [] when there is no such folder."""

    def parts(self, folder: str) -> list[str]:
        """Names of a folder's Parquet parts, in the order they were written.

        Raises:
            FileNotFoundError: a local folder is missing, e.g. for the moment of a compaction (see `faults.patient`).
        """
        return [name for name in self.entries(folder) if name.endswith(".parquet") and name[0] not in "._"]

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

    @abstractmethod
    def move(self, name: str, target: str) -> None:
        """Move a file within the pool."""

    @abstractmethod
    def remove(self, *names: str) -> None:
        """Remove files, locally folders too, if they are there."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Locks out every other process that changes this pool, where the storage can; held for moments."""

    def failed(self, name: str, error: BaseException) -> PoolWriteError:
        """The error of a write that failed."""
        return unwritable(self.path(name), error)


class LocalStorage(Storage):
    """A folder."""

    def __init__(self, root: str) -> None:
        path = os.path.abspath(os.path.expanduser(root))
        super().__init__(path, root)
        self.filesystem = pafs.LocalFileSystem()

    def entries(self, folder: str = "") -> list[str]:
        with suppress(FileNotFoundError):
            return self._listing(folder)
        return []

    def parts(self, folder: str) -> list[str]:
        return [name for name in self._listing(folder) if name.endswith(".parquet") and name[0] not in "._"]

    def _listing(self, folder: str) -> list[str]:
        # not pyarrow's, which leaves out names that vanish under it
        return sorted(os.listdir(self.path(folder) if folder else self.root))

    def exists(self, name: str) -> bool:
        try:
            os.stat(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, name: str, length: int | None = None) -> bytes:
        with open(self.path(name), "rb") as file:
            return file.read() if length is None else file.read(length)

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(self.path(name), "rb")

    def make_folder(self, name: str = "") -> None:
        path = self.path(name) if name else self.root
        try:
            os.makedirs(path, exist_ok=True)
            sync_folder(os.path.dirname(path))
        except OSError as error:
            raise self.failed(name, error) from None

    def write(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> None:
        path = self.path(name)
        hidden = self._write_hidden(name, data)
        try:
            with guard():
                os.replace(hidden, path)
            self._sync_or_remove(path)
        except OSError as error:
            raise self.failed(name, error) from None
        finally:
            with suppress(OSError):  # gone already unless something was raised
                os.unlink(hidden)

    def create(self, name: str, data: bytes | memoryview) -> bool:
        hidden = self._write_hidden(name, data)
        try:
            os.link(hidden, self.path(name))
            sync_folder(os.path.dirname(self.path(name)))
        except FileExistsError:
            return False
        except OSError as error:
            raise self.failed(name, error) from None
        finally:
            with suppress(OSError):
                os.unlink(hidden)
        return True

    def _sync_or_remove(self, path: str) -> None:
        """Make a new name durable; if that fails take it back, for its rows will be written again."""
        try:
            sync_folder(os.path.dirname(path))
        except OSError:
            os.unlink(path)
            raise

    def _write_hidden(self, name: str, data: bytes | memoryview) -> str:
        folder, base = os.path.split(self.path(name))
        hidden = os.path.join(folder, f".{base}.{os.getpid()}.tmp")
        try:
            with open(hidden, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
        except BaseException as error:
            with suppress(OSError):
                os.unlink(hidden)
            if isinstance(error, OSError):
                raise self.failed(name, error) from None
            raise
        return hidden

    def move(self, name: str, target: str) -> None:
        os.replace(self.path(name), self.path(target))
        for path in {os.path.dirname(self.path(name)), os.path.dirname(self.path(target))}:
            sync_folder(path)

    def remove(self, *names: str) -> None:
        for path in map(self.path, names):
            with suppress(FileNotFoundError):
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path, onerror=_unless_missing)
                else:
                    os.unlink(path)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Raises PoolWriteError when another process keeps the lock, e.g. because it is stopped."""
        try:
            handle = os.open(self.path("lease", "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self.failed("lease/lock", error) from None
        try:
            self._lock(handle)
            yield
        finally:
            os.close(handle)  # and with it the lock

    def _lock(self, handle: int) -> None:
        end = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise PoolWriteError(
                        f"{self.path('lease', 'lock')} has been locked for {_LOCK_PATIENCE:.0f} s: a process stopped "
                        "while it changed the pool; end it, then try again"
                    ) from None
                time.sleep(0.002)
            except OSError:
                return  # a file system without locks: the epoch check alone has to do
            else:
                return


def _unless_missing(_function: object, _path: str, error: Any) -> None:  # noqa: ANN401 - the signature of shutil
    """Removing goes on where another process has removed something."""
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]


def sync_folder(path: str) -> None:
    """Make the names in a folder durable; raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
