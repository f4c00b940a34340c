"""What a process leaves that is killed (SIGKILL) before its k-th change of the file system, for every k.

    python _killed.py TEMPLATE FOLDER WHAT [STEP]

A child of this process does WHAT to a copy of TEMPLATE. Before each change, or each STEP-th, it copies all that is
there to FOLDER/k: a kill takes nothing back that was handed to the system, and adds nothing that was not. In the end it
is killed, still with its lease, so that it is as dead to whoever looks at the copies as it is there, in FOLDER/end. A
line each is printed: k, and the call that was not made.
"""

import builtins
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nao_ray._pool import local, renames
from nao_ray.pool import PoolWriter

CALLS = ("fsync", "link", "symlink", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "write", "truncate")
CALLS += ("fchmod", "chmod", "ftruncate", "utime")


class Death:
    """What there is before each change that Python makes to `url`, copied to a folder of its number."""

    def __init__(self, url: Path, folder: Path, step: int) -> None:
        self._url, self._folder, self._step = url, folder, step
        self._num, self._is_copying = 0, False
        self._lock = threading.RLock()

    @contextmanager
    def passing(self, call: str) -> Iterator[None]:
        """Around a change; those of other threads, as a heartbeat's, are made before or after it, and not in a copy."""
        with self._lock:
            if not self._is_copying:
                self._pass(call)
            yield

    def _pass(self, call: str) -> None:
        if self._num % self._step == 0:
            self._is_copying = True
            shutil.copytree(self._url, self._folder / str(self._num), symlinks=True)
            self._is_copying = False
            print(self._num, call, flush=True)
        self._num += 1

    def threaten(self) -> None:
        """From now on."""
        for name in CALLS:
            setattr(os, name, self._before(name, getattr(os, name)))
        renames._renameat2 = self._before("renameat2", renames._renameat2)
        builtins.open, os.open = self._opening(builtins.open), self._os_opening(os.open)

    def _before(self, name, call):
        def function(*args, **kwargs):
            with self.passing(name):
                return call(*args, **kwargs)

        return function

    def _opening(self, call):
        def opened(path, mode="r", *args, **kwargs):
            if not set(mode) & set("wax+"):
                return call(path, mode, *args, **kwargs)
            with self.passing("open to write"):
                raw = _Raw(path, mode.replace("b", ""), self)
            return raw if kwargs.get("buffering") == 0 else io.BufferedWriter(raw)

        return opened

    def _os_opening(self, call):
        def opened(path, flags, *args, **kwargs):
            if not flags & (os.O_CREAT | os.O_TRUNC):
                return call(path, flags, *args, **kwargs)
            with self.passing("open to create"):
                return call(path, flags, *args, **kwargs)

        return opened


class _Raw(io.FileIO):
    """A file each of whose writes passes by."""

    def __init__(self, path, mode, death):
        super().__init__(path, mode)
        self._death = death

    def write(self, data):
        with self._death.passing("write"):
            return super().write(data)


def _acquired(url: Path) -> PoolWriter:
    pool = PoolWriter.open(url)
    pool.acquire(expiry=600.0)  # no heartbeat of its own meanwhile
    return pool


def merge(url: Path, death: Death) -> None:
    """A merge."""
    pool = _acquired(url)
    death.threaten()
    pool.compact()


def acquire(url: Path, death: Death) -> None:
    """Taking a pool over, with all there is to put right."""
    death.threaten()
    _acquired(url)


def write(url: Path, death: Death) -> None:
    """A trial that is asked, begun and finished."""
    from _made_up_trials import record

    pool = _acquired(url)
    death.threaten()
    record(pool, 7, 1)


def rise(url: Path, death: Death) -> None:
    """A further rung of a ladder that is finished."""
    from _families import RUNGS

    pool = _acquired(url)
    death.threaten()
    pool.record_finished([RUNGS[-1]])


def retry(url: Path, death: Death) -> None:
    """A search that goes on with what has failed."""
    from nao_ray.service.hosting.run import resume

    death.threaten()
    resume(str(url), in_process=True, retry_failed="all")


def without_exchange() -> None:
    """As on NFS and macOS."""

    def unsupported(one: str, other: str, flags: int = 0) -> None:
        raise OSError(22, "Invalid argument")

    local.exchange = unsupported


def _do(what: str, url: Path, death: Death) -> None:
    action, _, how = what.partition(" ")
    if how:
        without_exchange()
    if how == "by neither":
        renames._renameat2 = os.link = local.exchange
    {"merge": merge, "acquire": acquire, "write": write, "rise": rise, "retry": retry}[action](url, death)


def main(template: Path, folder: Path, what: str, step: int = 1) -> None:
    """Do it, and be killed."""
    url = folder / "end"
    shutil.copytree(template, url, symlinks=True)
    child = os.fork()
    if not child:
        try:
            _do(what, url, Death(url, folder, step))
            print("end", "the end", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        sys.exit(f"the child ended with {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
