"""Processes of tests, forked from one that has imported all they need (`_fork_server.py`) instead of started anew.

`Popen` and `run` are those of `subprocess`. What the fork cannot be like is started anew all the same: an interpreter
with options, other code than this checkout's, an environment that matters as modules are loaded. Tests of the start
itself, and of what a process loads, use `subprocess`.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PLACE = "NAO_RAY_TESTS_FORKS"
"""The variable with the folder of the server's socket, for all processes of a run of tests."""
AS_LOADED = ("PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONDEVMODE", "LD_PRELOAD", "MKL_NUM_THREADS")


def prepare() -> bool:
    """Before processes are started; whether this one is the owner, the first of a run of tests.

    The server is started when somebody first asks for a fork.
    """
    if PLACE in os.environ:
        return False
    os.environ[PLACE] = tempfile.mkdtemp(prefix="nf", dir="/tmp")
    Path(os.environ[PLACE], "owner").write_text(str(os.getpid()))
    os.environ.setdefault("MPLCONFIGDIR", os.environ[PLACE])  # fonts are looked for once, not by each process
    Path(os.environ[PLACE], "worker.py").symlink_to(HERE / "_forked_worker.py")  # what Ray's parameters name
    return True


def connect() -> socket.socket:
    """To the server, which is started where there is none."""
    folder = Path(os.environ[PLACE])
    path = str(folder / "socket")
    with suppress(OSError):
        return _connected(path)
    with open(folder / "lock", "w") as lock, open(folder / "said", "ab") as said:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            environment = {name: value for name, value in os.environ.items() if name not in AS_LOADED}
            environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
            words = [sys.executable, str(HERE / "_fork_server.py"), path, (folder / "owner").read_text()]
            server = subprocess.Popen(
                words, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
            while not os.path.exists(path):
                assert server.poll() is None, (folder / "said").read_text()
                time.sleep(0.02)
            server.returncode = 0  # it ends with the run, which nobody waits for
    return _connected(path)


def _connected(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def can_fork(words: Sequence[str], environment: Mapping[str, str], folder: str) -> bool:
    """Whether a fork of the server is as the process that would be started."""
    if PLACE not in os.environ or not words or words[0] != sys.executable or len(words) < 2:
        return False
    if words[1][:1] == "-" and words[1] not in ("-c", "-m"):
        return False
    if words[1] not in ("-c", "-m") and not os.path.isfile(os.path.join(folder, words[1])):
        return False
    if any(name in environment for name in AS_LOADED) or environment.get("OMP_NUM_THREADS", "1") != "1":
        return False
    first = [folder] if words[1] in ("-c", "-m") else [os.path.dirname(os.path.join(folder, words[1]))]
    places = [*first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    found = (place for place in places if os.path.isdir(os.path.join(folder, place, "nao_ray")))
    return os.path.samefile(os.path.join(folder, next(found, ROOT)), ROOT)


def ask(
    words: Sequence[str], environment: Mapping[str, str], folder: str, files: dict[int, int], is_tied: bool = False
) -> tuple[int, socket.socket]:
    """Fork a child that does as `python *words`.

    Args:
        files: its standard files, number -> descriptor of this process.
        is_tied: it is killed as who asked for it ends.

    Returns:
        Its process id; the connection that has its status when it has ended.
    """
    connection = connect()
    given = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    asked = {"words": list(words), "environment": dict(environment), "folder": folder, "given": given}
    asked |= {"numbers": list(files), "is_tied": is_tied}
    asked["blocked"] = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
    message = json.dumps(asked).encode() + b"\n"
    socket.send_fds(connection, [message[:1]], list(files.values()))
    connection.sendall(message[1:])
    return number_of(connection.recv(4)), connection


def number_of(answer: bytes) -> int:
    """What the server says."""
    assert answer, f"the server of forks has ended: {Path(os.environ[PLACE], 'said').read_text()}"
    return struct.unpack("i", answer)[0]


class Popen(subprocess.Popen):
    """`subprocess.Popen`, with a fork of the server for its process where that is the same."""

    _told: socket.socket | None = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more):
        words = [os.fsdecode(word) for word in args] if isinstance(args, (list, tuple)) else []
        environment = dict(os.environ if env is None else env)
        folder = os.path.abspath(os.fspath(cwd) if cwd else os.getcwd())
        if executable or preexec_fn or pass_fds or not can_fork(words, environment, folder):
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more)
            return
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = more[3:9]
        ends = {number: number if end == -1 else end for number, end in enumerate((p2cread, c2pwrite, errwrite))}
        self.pid, self._told = ask(words[1:], environment, folder, ends)
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


def descendants(process: Any) -> list[Any]:
    """psutil's children of a process and theirs, with the workers that were forked for one of them."""
    import psutil  # a forked worker's process goes without

    found = []
    for child in process.children(recursive=True):
        found.append(child)
        with suppress(psutil.Error, ValueError):
            if child.name().startswith(STANDS_FOR):
                worker = psutil.Process(int(child.name().removeprefix(STANDS_FOR)))
                found += [worker, *worker.children(recursive=True)]
    return found


STANDS_FOR = "fork "
"""Begins the name of a process that stands for a fork; the fork's process id follows."""
