"""One MPS daemon for all workers of a search on a machine: the first one begins it, and it ends with the last one.

Every worker holds the writing end of a named pipe until its process ends, however that happens. A process of its own,
which is nobody's child, has the daemon (`Mps`) and the reading end: when nobody holds the other, it ends both.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nao_ray.service.fleet.mps import CONTROL, PROBE, Mps, MpsUnusableError

_USERS, _ANSWER = "users", "answer"
_HOLD = "import sys; from nao_ray.service.fleet.shared_mps import hold; hold(*sys.argv[1:])"
_PATIENCE_SECONDS = 90.0


class SharedMps:
    """This process's part in the daemon.

    Args:
        name: of the search on this machine.
        base: folder to keep everything in; None: the machine's for temporary files (a socket's path has to be short).
        probe: as `Mps`.

    Raises:
        OSError: the folder cannot be written.
    """

    problem: str | None = None
    """Why there is no daemon: told to all, tried by the first one alone."""

    def __init__(self, name: str, base: Path | None = None, probe: Sequence[str] = PROBE) -> None:
        self.environ: Mapping[str, str] = {}
        """What this process needs in its environment before it begins to use CUDA."""
        self._pipe: int | None = None
        if shutil.which(CONTROL) is None:
            self.problem = f"there is no {CONTROL} on this machine"
            return
        folder = (base or Path(tempfile.gettempdir())) / name
        with _locked(folder):
            entered = _enter(folder)
            self._pipe = _begin(folder, probe) if entered is None else entered
            answer = _answer(folder)
        if isinstance(answer, str):
            self.problem = answer
        else:
            self.environ = answer

    def close(self) -> None:
        """It has ended its use of CUDA."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def _enter(folder: Path) -> int | None:
    """The pipe of a daemon that there is; None: there is none, or what had it was killed."""
    try:
        if folder.lstat().st_uid != os.getuid():  # what it says would go into our environment
            raise PermissionError(f"{folder} is another user's")
        return os.open(folder / _USERS, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _begin(folder: Path, probe: Sequence[str]) -> int:
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / _USERS)
    reading = os.open(folder / _USERS, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(folder / _USERS, os.O_WRONLY)
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", _HOLD, str(folder), str(reading), *probe],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(reading,),
            start_new_session=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        (folder / _ANSWER).write_text(json.dumps(f"not begun after {_PATIENCE_SECONDS:g} s"))
    finally:
        os.close(reading)
    return writing


def _answer(folder: Path) -> dict[str, str] | str:
    """The environment, or why there is no daemon."""
    try:
        answer: dict[str, str] | str = json.loads((folder / _ANSWER).read_text())
    except (OSError, ValueError):
        return "the process that was to hold the daemon has ended"
    return answer


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; whoever removes the lock's file has it locked."""
    path = folder.with_suffix(".lock")
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, path):
                yield
                return
        finally:
            os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def hold(folder_name: str, pipe_number: str, *probe: str) -> None:
    """Have the daemon for as long as anyone holds the pipe; returns to the caller's caller once that is begun."""
    folder, pipe = Path(folder_name), int(pipe_number)
    begun, told = os.pipe()
    if os.fork():  # Ray ends a worker's children with it
        os.close(told)
        os.read(begun, 1)
        return
    daemon: Mps | None = None
    try:
        daemon = Mps(folder, probe=probe)
        answer: Mapping[str, str] | str = daemon.environ
    except (MpsUnusableError, OSError) as error:
        answer = str(error)
    (folder / _ANSWER).write_text(json.dumps(answer))
    os.close(told)
    while True:
        _wait_for_nobody(pipe)
        with _locked(folder):
            if _is_held(pipe):  # by one that came in between
                continue
            if daemon is not None:
                daemon.close()
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".lock").unlink(missing_ok=True)
            return


def _wait_for_nobody(pipe: int) -> None:
    poll = select.poll()
    poll.register(pipe, 0)  # what is always told: nobody holds the other end
    poll.poll()


def _is_held(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) != b""
    except BlockingIOError:
        return True
