"""A pool in a folder.

A file is written at the top under a name of its own that starts with a dot, synced, then given its name: a folder of
parts holds nothing but parts. The random bits of that name keep apart what processes of equal ids write, e.g. in two
containers.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from nao_ray._pool.faults import line
from nao_ray._pool.renames import UNSUPPORTED, exchange, take_name
from nao_ray._pool.storage import Guard, Storage
from nao_ray.errors import PoolGoneError, PoolWriteError, RunError

_LOCK_PATIENCE = 10.0  # seconds; the lock is held for one rename
_LOCK = "lease/lock"

_log = logging.getLogger(__name__)


class LocalStorage(Storage):
    """A folder."""

    merges_in_place = True

    def __init__(self, root: str) -> None:
        path = os.path.abspath(os.path.expanduser(root))
        super().__init__(path, root)
        self.filesystem = pafs.LocalFileSystem()

    # -- reading --------------------------------------------------------------------------------------------

    def entries(self, folder: str = "") -> list[str]:
        with suppress(FileNotFoundError):
            return self._listing(folder)
        return []

    def parts(self, folder: str) -> list[str]:
        found = self._listing(self.place(folder))
        return [name for name in found if name.endswith(".parquet") and name[0] not in "._"]

    def marks(self, folder: str) -> dict[str, object]:
        place = self.place(folder)
        found = {name: os.stat(self.path(place, name)) for name in self.parts(folder)}
        return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}

    def place(self, folder: str) -> str:
        old = moved_away(folder)
        return old if not os.path.isdir(self.path(folder)) and os.path.isdir(self.path(old)) else folder

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

    def link_to_nothing(self) -> str | None:
        return os.readlink(self.root) if os.path.islink(self.root) and not os.path.exists(self.root) else None

    # -- writing --------------------------------------------------------------------------------------------

    def make_folder(self, name: str = "") -> None:
        path = self.path(name) if name else self.root
        try:
            if name:  # never the pool itself, which may have been removed
                with suppress(FileExistsError):
                    os.mkdir(path)
            else:
                os.makedirs(path, exist_ok=True)
            sync_folder(os.path.dirname(path))
        except OSError as error:
            raise self.failed(name, error) from None

    def write(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> None:
        hidden = self._write_hidden(name, data)
        try:
            _open_as(self.path(name), hidden)
            with guard():
                os.replace(hidden, self.path(name))
            self._sync_or_remove(name)
        except OSError as error:
            raise self.failed(name, error) from None
        finally:
            _discard(hidden)

    def create(self, name: str, data: bytes | memoryview, guard: Guard = nullcontext) -> bool:
        hidden = self._write_hidden(name, data)
        try:
            with guard():
                take_name(hidden, self.path(name), locked=guard is not nullcontext)
            self._sync_or_remove(name)
        except FileExistsError:
            return False
        except OSError as error:
            raise self.failed(name, error) from None
        finally:
            _discard(hidden)
        return True

    def replace(self, name: str, data: bytes | memoryview, guard: Guard) -> None:
        """As `write` of a file that is there, of which one of the two is left in any case.

        Raises:
            PoolWriteError: it was not replaced, or not for certain.
        """
        hidden = self._write_hidden(name, data)
        try:
            _open_as(self.path(name), hidden)
            with guard():
                os.replace(hidden, self.path(name))
            sync_folder(os.path.dirname(self.path(name)))
        except OSError as error:
            raise self.failed(name, error) from None
        finally:
            _discard(hidden)

    def _sync_or_remove(self, name: str) -> None:
        """Make a new name durable; if that fails take it back, for its rows will be written again."""
        path = self.path(name)
        try:
            sync_folder(os.path.dirname(path))
        except OSError:
            os.unlink(path)
            raise

    def _write_hidden(self, name: str, data: bytes | memoryview) -> str:
        hidden = self.path(f".{name.replace('/', '-')}.{secrets.token_hex(8)}.tmp")
        try:
            with open(hidden, "xb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
        except BaseException as error:
            _discard(hidden)
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

    def failed(self, name: str, error: BaseException) -> RunError:
        if isinstance(error, OSError) and error.errno == errno.ENOENT and not os.path.exists(self.path("run.yaml")):
            return self.gone()
        return super().failed(name, error)

    def gone(self) -> PoolGoneError:
        """The error of a pool that was there."""
        return PoolGoneError(
            f"pool {self.url} is gone: {self.path('run.yaml')} was removed or moved under its driver, and what it "
            "held with it; nothing more is recorded: move it back and resume, or begin another pool"
        )

    # -- folders --------------------------------------------------------------------------------------------

    def make_swappable(self, folder: str, other: str) -> None:
        """Make two new folders that `swap_folder` can later replace at once, also where names cannot be exchanged.

        Raises:
            PoolWriteError: they could not be made.
        """
        for name in (folder, other):
            self.make_folder(name)
        if any(self.entries(name) or self.place_of_link(name) for name in (folder, other)):
            return  # made earlier, and not to the end
        try:
            exchange(self.path(folder), self.path(other))  # empty, both: nothing but a trial
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise self.failed(folder, error) from None
            for name in (folder, other):
                target = f".{name}-e000000-{secrets.token_hex(4)}"
                self.make_folder(target)
                os.rmdir(self.path(name))
                os.symlink(target, self.path(name))

    def swap_folder(self, folder: str, new: str) -> str:
        """Put the folder `new` in the place of `folder`, at once; returns the name that the old one has now.

        Names are exchanged, or a link is set anew. Where names cannot be exchanged and the folder is no link yet, it
        becomes one, and for a moment is found under `moved_away` alone.

        Raises:
            OSError: it was not swapped.
        """
        path, old = self.path(folder), self.place_of_link(folder)
        if old is None:
            try:
                exchange(self.path(new), path)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
            else:
                sync_folder(self.root)
                return new
        link = self.path(f".{folder}-link-{secrets.token_hex(4)}")
        os.symlink(new, link)
        try:
            if old is None:
                old = moved_away(folder)
                os.rename(path, self.path(old))
            os.replace(link, path)
        finally:
            _discard(link)
        sync_folder(self.root)
        return old

    def place_of_link(self, folder: str) -> str | None:
        """Where a folder that is a link leads; None for one that is none."""
        path = self.path(folder)
        return os.readlink(path) if os.path.islink(path) else None

    # -- locks ----------------------------------------------------------------------------------------------

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Raises PoolWriteError when another process keeps the lock, e.g. because it is stopped."""
        try:
            handle = self._open_lock()
        except OSError as error:
            raise self.failed(_LOCK, error) from None
        try:
            self._lock(handle)
            yield
        finally:
            os.close(handle)  # and with it the lock

    def _open_lock(self) -> int:
        """The lock, as open to others as its folder is."""
        path = self.path(_LOCK)
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with suppress(OSError):  # another made it first
                os.fchmod(handle, os.stat(os.path.dirname(path)).st_mode & 0o666)
            return handle
        except PermissionError:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # locks as well, but for NFS

    def _lock(self, handle: int) -> None:
        end = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise PoolWriteError(
                        f"{self.path(_LOCK)} has been locked for {_LOCK_PATIENCE:.0f} s: a process stopped while it "
                        "changed the pool; end it, then try again"
                    ) from None
                time.sleep(0.002)
            except OSError as error:
                if self.excludes:
                    _log.warning(
                        "pool %s: no file can be locked there (%s); heartbeats alone keep two drivers apart",
                        self.url,
                        line(error),
                    )
                self.excludes = False
                return
            else:
                return


def moved_away(folder: str) -> str:
    """The name of a folder that is being replaced where names cannot be exchanged."""
    return f".{folder}-old"


def _open_as(before: str, path: str) -> None:
    """Make a file as open to others as the one whose place it is to take, as far as one may."""
    try:
        old, new = os.stat(before), os.stat(path)
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        for owner in ((-1, old.st_gid), (old.st_uid, -1)):
            with suppress(OSError):  # only root gives files away
                os.chown(path, *owner)
    if old.st_mode != new.st_mode:
        with suppress(OSError):
            os.chmod(path, stat.S_IMODE(old.st_mode))


def _discard(path: str) -> None:
    with suppress(OSError):  # gone already unless something was raised
        os.unlink(path)


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
