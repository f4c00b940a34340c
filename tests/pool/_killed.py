"""Processes that are killed (SIGKILL) before their k-th change of the file system, for every k.

    python _killed.py TEMPLATE FOLDER WHAT [STEP]

For each k, or each STEP-th, a child of this process copies TEMPLATE to FOLDER/k, does WHAT to it and is killed; the
first that gets to its end is the last. A line each is printed: k, and the call that was not made.
"""

import builtins
import io
import os
import shutil
import signal
import sys
from pathlib import Path

from nao_ray._pool import local, renames
from nao_ray.pool import PoolWriter

CALLS = ("fsync", "link", "symlink", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "write", "truncate")
CALLS += ("fchmod", "chmod", "ftruncate", "utime")


class Death:
    """Comes before the k-th change that Python makes."""

    def __init__(self, k: int, told: int) -> None:
        self._left, self._told, self._tell = k, told, os.write

    def pass_by(self, call: str) -> None:
        if not self._left:
            self._tell(self._told, call.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1

    def threaten(self) -> None:
        """From now on."""
        for name in CALLS:
            setattr(os, name, self._before(name, getattr(os, name)))
        renames._renameat2 = self._before("renameat2", renames._renameat2)
        builtins.open, os.open = self._opening(builtins.open), self._os_opening(os.open)

    def _before(self, name, call):
        def function(*args, **kwargs):
            self.pass_by(name)
            return call(*args, **kwargs)

        return function

    def _opening(self, call):
        def opened(path, mode="r", *args, **kwargs):
            if not set(mode) & set("wax+"):
                return call(path, mode, *args, **kwargs)
            self.pass_by("open to write")
            raw = _Raw(path, mode.replace("b", ""), self)
            return raw if kwargs.get("buffering") == 0 else io.BufferedWriter(raw)

        return opened

    def _os_opening(self, call):
        def opened(path, flags, *args, **kwargs):
            if flags & (os.O_CREAT | os.O_TRUNC):
                self.pass_by("open to create")
            return call(path, flags, *args, **kwargs)

        return opened


class _Raw(io.FileIO):
    """A file each of whose writes passes by."""

    def __init__(self, path, mode, death):
        super().__init__(path, mode)
        self._death = death

    def write(self, data):
        self._death.pass_by("write")
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


def _child(template: Path, url: Path, what: str, death: Death) -> None:
    shutil.copytree(template, url, symlinks=True)
    action, _, how = what.partition(" ")
    if how:
        without_exchange()
    if how == "by neither":
        renames._renameat2 = os.link = local.exchange
    {"merge": merge, "acquire": acquire, "write": write, "retry": retry}[action](url, death)


def main(template: Path, folder: Path, what: str, step: int = 1) -> None:
    """Kill one after another."""
    for k in range(0, 1000, step):
        reading, telling = os.pipe()
        child = os.fork()
        if not child:
            code = 1
            try:
                _child(template, folder / str(k), what, Death(k, telling))
                code = 0
            finally:
                os._exit(code)
        os.close(telling)
        call = os.read(reading, 100).decode()
        os.close(reading)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (0, -signal.SIGKILL):
            sys.exit(f"child {k} ended with {status}")
        print(k, call or "the end", flush=True)
        if status == 0:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
