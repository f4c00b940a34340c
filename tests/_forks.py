"""Processes of tests, forked from one that has imported all they need (`_fork_server.py`) instead of started anew.

`Popen` and `run` are those of `subprocess`. What the fork cannot be like is started anew all the same: an interpreter
with options, other code than this checkout's, an environment that matters as modules are loaded. Tests of the start
itself, and of what a process loads, use `subprocess`.
"""

import fcntl
import marshal
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from _fork_stand_in import ANEW as ANEW
from _fork_stand_in import AS_LOADED, PLACE, ROOT, STANDS_FOR, ask, can_fork, number_of, server_of

HERE = Path(__file__).parent


def prepare() -> bool:
    """Before processes are started; whether this one is the owner, the first of a run of tests.

    The server is started when somebody first asks for a fork.
    """
    if PLACE in os.environ:
        return False
    os.environ[PLACE] = tempfile.mkdtemp(prefix="nf", dir="/tmp")
    Path(os.environ[PLACE], "owner").write_text(str(os.getpid()))
    os.environ.setdefault("MPLCONFIGDIR", os.environ[PLACE])  # fonts are looked for once, not by each process
    Path(os.environ[PLACE], "environment").write_bytes(marshal.dumps(dict(os.environ)))
    programs = Path(os.environ[PLACE], "bin")
    programs.mkdir()
    for name in ("python", "python3", "ray", "nao-ray"):
        (programs / name).write_text(_PROGRAM.format(python=sys.executable, here=str(HERE)))
        (programs / name).chmod(0o755)
    return True


def environment_of_stand_ins() -> Path:
    """A folder as that of a virtual environment, the Pythons of which are forks; the real one where there are none."""
    return Path(os.environ[PLACE]) if PLACE in os.environ else Path(sys.executable).parents[1]


_PROGRAM = """#!{python} -IS
import sys

sys.path.insert(0, {here!r})
import _fork_stand_in

_fork_stand_in.main(sys.argv[0], sys.argv[1:])
"""


def connect(name: str, environment: Mapping[str, str], modules: Sequence[str]) -> socket.socket:
    """To a server (`_fork_stand_in.server_of`), which is started where there is none."""
    folder = Path(os.environ[PLACE])
    path = str(folder / name)
    with suppress(OSError):
        return _connected(path)
    with open(folder / f"{name}.lock", "w") as lock, open(folder / "said", "ab") as said:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with suppress(OSError):
            return _connected(path)
        if not modules:  # not as who asks first: tests look for processes by their variables
            environment = marshal.loads((folder / "environment").read_bytes())
        environment = {name: value for name, value in environment.items() if name not in AS_LOADED}
        environment |= {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
        words = [sys.executable, str(HERE / "_fork_server.py"), path, (folder / "owner").read_text(), *modules]
        start = Popen if modules else subprocess.Popen
        server = start(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        assert server.wait() == 0, (folder / "said").read_text()  # it goes on as a child of its own
    return _connected(path)


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _can_fork(words: Sequence[str], environment: Mapping[str, str], folder: str) -> bool:
    return words[:1] == [sys.executable] and can_fork(words[1:], environment, folder)


class Popen(subprocess.Popen):
    """`subprocess.Popen`, with a fork of the server for its process where that is the same."""

    _told: socket.socket | None = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more):
        words = [os.fsdecode(word) for word in args] if isinstance(args, (list, tuple)) else []
        environment = dict(os.environ if env is None else env)
        folder = os.path.abspath(os.fspath(cwd) if cwd else os.getcwd())
        if executable or preexec_fn or pass_fds or not _can_fork(words, environment, folder):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more)
            return
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = more[3:9]
        ends = {number: number if end == -1 else end for number, end in enumerate((p2cread, c2pwrite, errwrite))}
        self._told = connect(*server_of(words[1:], environment))
        self.pid = ask(self._told, words[1:], environment, folder, ends, is_tied=False)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._told is None:
            return super()._try_wait(wait_flags)
        try:
            answer = self._told.recv(4, socket.MSG_DONTWAIT if wait_flags else 0)
        except BlockingIOError:
            return 0, 0
        self._told.close()
        return self.pid, number_of(answer)

    def _internal_poll(self, *more: Any, **others: Any) -> int | None:
        if self._told is None:
            return super()._internal_poll(*more, **others)
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(words: Sequence[Any], *, input: str | None = None, timeout: float | None = None, **more: Any):  # noqa: A002
    """`subprocess.run`, without its `check`."""
    if more.pop("capture_output", False):
        more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        more["stdin"] = subprocess.PIPE
    with Popen([str(word) for word in words], **more) as process:
        try:
            out, err = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def family(processes: Iterable[Any]) -> list[Any]:
    """psutil's processes with all that they have started, and the forks that one of them stands for with theirs."""
    import psutil  # a stand-in goes without

    there = {process.pid: process for process in psutil.process_iter(["ppid", "name"])}
    children: dict[int, list[int]] = {}
    for process in there.values():
        children.setdefault(process.info["ppid"], []).append(process.pid)
    found: dict[int, Any] = {}
    todo = [process.pid for process in processes]
    while todo:
        pid = todo.pop()
        if pid in there and pid not in found:
            found[pid] = there[pid]
            todo += children.get(pid, ())
            name = there[pid].info["name"] or ""
            if name.startswith(STANDS_FOR):
                todo.append(int(name.removeprefix(STANDS_FOR)))
    return list(found.values())


def descendants(process: Any) -> list[Any]:
    """Its family without itself."""
    return [one for one in family([process]) if one.pid != process.pid]


def wait_for_end(processes: Iterable[Any], seconds: float = 600.0) -> list[Any]:
    """psutil's processes that are still there after so long; one that nobody reaps has ended too."""
    import psutil

    end, left = time.monotonic() + seconds, list(processes)
    while left and time.monotonic() < end:
        _, left = psutil.wait_procs(left, timeout=0.05)
        left = [process for process in left if not has_ended(process)]
    return left


def has_ended(process: Any) -> bool:
    """Whether it is gone, or a zombie."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
