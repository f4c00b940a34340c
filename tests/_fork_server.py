"""A process that has imported what the processes of tests import, and forks: a command, or a worker of Ray.

A process of its own costs two to four CPU seconds, nearly all of them imports; a fork costs 0.05. One server is shared
by all processes of a run of tests (`_forks.py` starts and asks it), is no child of any, and ends with that run. Its
children have words, environment, folder and standard files of their own, and end as an interpreter ends.
"""

import atexit
import builtins
import ctypes
import fcntl
import gc
import importlib
import io
import marshal
import os
import re
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path
from typing import Any, NoReturn, TextIO

from _fork_stand_in import AT_ONCE

# Not ray: as it is loaded, it reads variables, so a server for each set of them loads it (`_fork_stand_in.server_of`).
MODULES = (
    "nao_ray.cli.app",
    "nao_ray.cli.progress",
    "nao_ray.search.loop",
    "nao_ray.report.write",
    "nao_ray.training.fit",
    "nao_ray.training.group",
    "nao_ray.training.images",
    "nao_ray.training.augment",
    "nao_ray.training.sampling",
    "nao_ray.networks.one_shot",
    "nao_ray.networks.darts",
    "nao_ray.skeletons.images.base",
    "nao_ray.loggers.base",
    "safetensors.torch",
    "pyarrow.json",
    "nao_ray.evaluators.standalone",
    "nao_ray.evaluators.one_shot",
    "nao_ray.evaluators.faulty",
    "nao_ray.tasks.digits",
    "nao_ray.tasks.synthetic",
    "nao_ray.strategies.nao",
    "nao_ray.strategies.regularized_evolution",
    "duckdb",
    "sklearn.datasets",
    "google.protobuf.descriptor_pb2",
    "grpc",
    "jsonschema",
    "aiohttp",
    "requests",
    "psutil",
    "fastapi",
    "uvicorn",
    "click",
    "aiohttp_cors",
    "prometheus_client",
    "opencensus.stats",
    "opentelemetry.exporter.prometheus",
    "opentelemetry.sdk.metrics",
    "opentelemetry.sdk.trace",
)


class Server:
    """Forks for whoever asks, and tells how each child ended, until its owner ends."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self.choose = selectors.DefaultSelector()
        self.listener, self.owner = listener, os.pidfd_open(owner)
        self.choose.register(listener, selectors.EVENT_READ)
        self.choose.register(self.owner, selectors.EVENT_READ)
        self.asking: dict[int, socket.socket] = {}
        """File of a child -> who has asked for it."""

    def serve(self, path: str, idle_seconds: float | None) -> dict[str, Any] | None:
        """Returns: in a child, what it is to do; in the server, at the end, None.

        Args:
            path: of the socket; it is gone before a server ends that nobody has asked for so long.
            idle_seconds: None: it ends with its owner.
        """
        while True:
            found = self.choose.select(None if self.asking else idle_seconds)
            if not found and idle_seconds == 0.0:  # by now the path may be another server's
                return None
            if not found:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                idle_seconds = 0.0
            for key, _ in found:
                if key.fd == self.owner:
                    return None
                if key.fileobj is self.listener:
                    if asked := self.fork():
                        return asked
                elif key.fd in self.asking:
                    self.tell(key.fd, key.data)
                elif key.fileobj.fileno() != -1:  # who has asked is gone, and its child, if still there, goes with it
                    self.choose.unregister(key.fileobj)
                    kill, child = key.data
                    with suppress(ProcessLookupError):  # it leads no group yet
                        kill(child, signal.SIGKILL)
                    os.kill(child, signal.SIGKILL)

    def fork(self) -> dict[str, Any] | None:
        """For the next who asks; in the child, returns what that is to do."""
        connection, _ = self.listener.accept()
        asked, files = receive(connection)
        if asked is None:
            connection.close()
            return None
        if not (child := os.fork()):
            for other in (self.choose, self.listener, connection, *self.asking.values()):
                other.close()
            for file in (self.owner, *self.asking):
                os.close(file)
            return asked | {"files": files}
        for file in files:
            os.close(file)
        end = os.pidfd_open(child)
        self.asking[end] = connection
        self.choose.register(end, selectors.EVENT_READ, child)
        if asked["is_tied"]:
            kill = os.killpg if asked["is_leader"] else os.kill
            self.choose.register(connection, selectors.EVENT_READ, (kill, child))
        with suppress(OSError):
            connection.sendall(struct.pack("i", child))
        return None

    def tell(self, end: int, child: int) -> None:
        """Who has asked for a child: how it has ended."""
        self.choose.unregister(end)
        os.close(end)
        with self.asking.pop(end) as connection, suppress(OSError):
            with suppress(KeyError):
                self.choose.unregister(connection)
            connection.sendall(struct.pack("i", os.waitpid(child, 0)[1]))


def receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """What is asked for, after its length in bytes, and the child's files; None: nobody asks any more."""
    text, files = b"", []
    while len(text) < 4 or len(text) < 4 + int.from_bytes(text[:4], "little"):
        part, sent, _, _ = socket.recv_fds(connection, 1 << 16, 250)
        files += sent
        text += part
        if not part:
            return None, files
    return marshal.loads(text[4:]), files


def texts_of_ray() -> dict[str, int]:
    """Where Ray's library keeps what it has read of the variables `AT_ONCE`: the addresses of the characters.

    They are strings whose length, capacity and number of owners stand before them.
    """
    with open("/proc/self/maps") as maps:
        ends = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps if line.endswith("[heap]\n")]
    parts = {first: ctypes.string_at(first, last - first) for first, last in ends}
    found = {}
    for name, text in AT_ONCE.items():
        head = struct.pack("QQi", len(text), len(text), 0)
        (found[name],) = (
            first + place.start()
            for first, memory in parts.items()
            for place in re.finditer(re.escape(text.encode()) + b"\0", memory)
            if memory[place.start() - 24 : place.start() - 4] == head
        )
    return found


def tell_ray(places: dict[str, int], environment: dict[str, str]) -> None:
    """Its library's values of the variables are as if it were loaded now."""
    for name, place in places.items():
        text, size = environment.get(name, "").encode(), len(AT_ONCE[name])
        assert len(text) <= size, f"{name}={text}"
        if name == "RAY_RAYLET_PID" and text:
            text = text.zfill(size)
        ctypes.memmove(place, text + b"\0", len(text) + 1)
        ctypes.memmove(place - 24, struct.pack("Q", len(text)), 8)


def become(asked: dict[str, Any]) -> None:
    """This process as a new one: of its own session, with files, variables, folder and signals as asked."""
    os.setsid()
    files, numbers = asked["files"], asked["numbers"]
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, max(64, *numbers, *files) + 1) for file in files]
    for file in {0, 1, 2, *files}:
        with suppress(OSError):
            os.close(file)
    for file, number in zip(aside, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else usual)
    # a worker of Ray, which may have started the server, blocks some
    signal.pthread_sigmask(signal.SIG_SETMASK, asked["blocked"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.executable = asked["executable"]
    spawn.set_executable(sys.executable)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = None
        with suppress(OSError):
            stream = standard(number, asked["is_unbuffered"])
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    tempfile.tempdir = None
    sys.modules["numpy"].random.seed()  # Python's own does so itself
    sys.modules["torch"].seed()


def standard(number: int, is_unbuffered: bool) -> TextIO:
    """Standard input, output or error, as an interpreter has it.

    Raises:
        OSError: it is closed.
    """
    if number == 0:
        return open(number, closefd=False)
    raw = io.FileIO(number, "wb", closefd=False)
    if is_unbuffered or os.environ.get("PYTHONUNBUFFERED"):
        return io.TextIOWrapper(raw, write_through=True)
    is_by_line = number == 2 or os.isatty(number)
    errors = "backslashreplace" if number == 2 else None
    return io.TextIOWrapper(io.BufferedWriter(raw), errors=errors, line_buffering=is_by_line)


def start(words: list[str], given: list[str], standing: list[str]) -> None:
    """Do as `python *words` does.

    Args:
        words: a script or `-m module` or `-c code`, and its own words.
        given: of PYTHONPATH.
        standing: what an interpreter's path ends with.
    """
    script, *rest = words
    main = types.ModuleType("__main__")
    sys.modules["__main__"], main.__builtins__ = main, builtins
    first = {"-m": os.getcwd(), "-c": ""}.get(script, os.path.dirname(os.path.realpath(script)))
    sys.path[:] = [first, *given, *standing]
    sys.path_importer_cache.clear()
    sys.argv = [script, *(rest[1:] if script in ("-m", "-c") else rest)]
    if script == "-m":
        runpy._run_module_as_main(rest[0])
    elif script == "-c":
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        main.__file__ = os.path.abspath(script)
        exec(compile(Path(script).read_bytes(), script, "exec"), main.__dict__)


def end_with(program: Callable[[], None]) -> NoReturn:
    """Run it and end as an interpreter does, but for taking apart all that the server has loaded."""
    code: object = None
    try:
        program()
    except SystemExit as left:
        code = left.code
    except BaseException as error:
        trace = error.__traceback__
        for _ in range(3):  # of this file
            trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
        error.__traceback__ = trace
        sys.excepthook(type(error), error, trace)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 255)


if __name__ == "__main__":
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    standing = sys.path[1 + len(given) :]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    more = sys.argv[3:]
    with warnings.catch_warnings(action="error"):  # as in the tests, which find all this loaded
        for name in MODULES:
            importlib.import_module(name)
    for name in more:
        importlib.import_module(name)
    assert more or "ray" not in sys.modules
    threads = {Path(f"/proc/self/task/{thread}/comm").read_text().strip() for thread in os.listdir("/proc/self/task")}
    assert len(threads - {"jemalloc_bg_thd"}) == 1, f"what a thread holds is never given back in a fork: {threads}"
    gc.collect()
    gc.freeze()
    places = texts_of_ray() if os.environ.get("RAY_JOB_ID") == AT_ONCE["RAY_JOB_ID"] else {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{sys.argv[1]}.new")
        listener.listen(64)
        os.rename(f"{sys.argv[1]}.new", sys.argv[1])
        if os.fork():  # nobody's child: who started it would take the forks of all others for its own
            os._exit(0)
        todo = Server(listener, int(sys.argv[2])).serve(sys.argv[1], 20.0 if more else None)
    if todo is None:
        os._exit(0)
    else:
        become(todo)
        tell_ray(places, todo["environment"])
        end_with(lambda: start(todo["words"], todo["given"], standing))
