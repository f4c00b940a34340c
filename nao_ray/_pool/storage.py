"""Where a pool's files live: a local folder, or any URL that pyarrow or fsspec can open.

A file appears whole or not at all. Locally it is written under a name that starts with a dot (which pyarrow
skips), synced, then moved with `os.replace` (the habit of submitit's `temporary_save_path`); on object storage,
which has no rename, it is one PUT (on S3 a conditional one, see `s3.py`).
"""

from __future__ import annotations

import errno
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

from nao_ray.addresses import REMEDY, has_credentials, masked
from nao_ray.errors import PoolError, PoolWriteError

T = TypeVar("T")

Guard = Callable[[], AbstractContextManager[Any]]
"""Entered around the moment a file appears; raises to forbid it."""

_READ_TRIES = 60
_READ_PAUSE = 0.05  # seconds; 3 s in all, a compaction hides a folder for milliseconds
_LOCK_PATIENCE = 10.0  # seconds; the lock is held for one rename


def open_storage(url: str | Path) -> Storage:
    """The storage of a folder or URL; nothing is read or made.

    Raises:
        PoolError: no such kind of URL, its library is missing, or it holds credentials.
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
    try:
        filesystem, root = pafs.FileSystem.from_uri(text)
    except pa.ArrowInvalid:
        filesystem, root = _fsspec(text)
    except (OSError, pa.ArrowException) as error:
        raise PoolError(f"cannot open {text}: {_line(error)}") from None
    if filesystem.type_name == "s3":
        from nao_ray._pool.s3 import S3Storage  # boto3, needed for its URLs alone

        return S3Storage(filesystem, root, text)
    return RemoteStorage(filesystem, root, text)


def _fsspec(url: str) -> tuple[pafs.FileSystem, str]:
    import fsspec  # type: ignore[import-untyped]  # torch and ray bring it; needed for its URLs alone

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError, OSError) as error:
        raise PoolError(f"cannot open {url}: {_line(error)}") from None
    handler: Any = pafs.FSSpecHandler
    return pafs.PyFileSystem(handler(filesystem)), root


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


class Storage(ABC):
    """The files of one pool, by name relative to its root, e.g. ``trials/e000001-00000000.parquet``."""

    def __init__(self, filesystem: pafs.FileSystem, root: str, url: str) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/") or "/"
        self.url = url
        self.has_conditions = False  # whether `create` and `swap` hold against other processes without `exclusive`

    def path(self, *names: str) -> str:
        """Path of a file in `filesystem`."""
        return "/".join((self.root, *names))

    def entries(self, folder: str = "") -> list[str]:
        """Names in a folder, hidden ones too, sorted; [] when there is no such folder."""
        selector = pafs.FileSelector(self.path(folder) if folder else self.root, allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def parts(self, folder: str) -> list[str]:
        """Names of a folder's Parquet parts, in the order they were written.

        Raises:
            FileNotFoundError: a local folder is missing, e.g. for the moment of a compaction (see `patient`).
        """
        return [name for name in self.entries(folder) if name.endswith(".parquet") and name[0] not in "._"]

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return bool(self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def read(self, name: str) -> bytes:
        """A whole file; raises OSError."""
        with self.filesystem.open_input_file(self.path(name)) as file:
            data: bytes = file.read()
        return data

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
    def create(self, name: str, data: bytes) -> bool:
        """As `write`, but False, and nothing written, if the file is already there."""

    def look(self, name: str) -> tuple[bytes, str | None]:
        """A whole file, and what `swap` tells its changes by; raises OSError."""
        return self.read(name), None

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:
        """As `write`, but False, and nothing written, if the file has changed since it was looked at.

        Args:
            name: of the file.
            data: its new content.
            tag: of `look`; None if there was no such file.
        """
        self.write(name, data)
        return True

    @abstractmethod
    def move(self, name: str, target: str) -> None:
        """Move a file within the pool."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it is there."""

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Locks out every other process that changes this pool, where the storage can; held for moments."""

    def failed(self, name: str, error: BaseException) -> PoolWriteError:
        """The error of a write that failed."""
        return PoolWriteError(
            f"cannot write {self.path(name)}: {_line(error)}; nothing recorded was lost: free the disk or fix the "
            "storage, then resume"
        )


def patient(read: Callable[[], T]) -> T:
    """A reader's result, tried again while a compaction has its folder or its files in hand.

    Raises:
        OSError: it could not be read for three seconds.
    """
    for _ in range(_READ_TRIES):
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ENOENT and not isinstance(error, FileNotFoundError):
                raise
            time.sleep(_READ_PAUSE)
    return read()


class LocalStorage(Storage):
    """A folder."""

    def __init__(self, root: str) -> None:
        path = os.path.abspath(os.path.expanduser(root))
        super().__init__(pafs.LocalFileSystem(), path, root)

    def entries(self, folder: str = "") -> list[str]:
        with suppress(FileNotFoundError):
            return self._listing(folder)
        return []

    def parts(self, folder: str) -> list[str]:
        return [name for name in self._listing(folder) if name.endswith(".parquet") and name[0] not in "._"]

    def _listing(self, folder: str) -> list[str]:
        # not pyarrow's, which leaves out names that vanish under it
        return sorted(os.listdir(self.path(folder) if folder else self.root))

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

    def create(self, name: str, data: bytes) -> bool:
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

    def remove(self, name: str) -> None:
        path = self.path(name)
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


class RemoteStorage(Storage):
    """Object storage: no rename, no locks; one PUT per file."""

    def make_folder(self, name: str = "") -> None:
        if self.filesystem.type_name in ("s3", "gcs", "abfs"):
            return  # folders are made of the names of their files
        try:
            self.filesystem.create_dir(self.path(name) if name else self.root, recursive=True)
        except (OSError, pa.ArrowException) as error:
            raise self.failed(name, error) from None

    def write(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> None:
        try:
            with guard():
                stream = self.filesystem.open_output_stream(self.path(name))
                stream.write(data)
                stream.close()
        except (OSError, pa.ArrowException) as error:
            raise self.failed(name, error) from None

    def create(self, name: str, data: bytes) -> bool:
        if self.exists(name):
            return False
        self.write(name, data)
        return True

    def move(self, name: str, target: str) -> None:
        self.write(target, self.read(name))
        self.remove(name)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(name))

    def exclusive(self) -> AbstractContextManager[None]:
        return nullcontext()


def sync_folder(path: str) -> None:
    """Make the names in a folder durable; raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
