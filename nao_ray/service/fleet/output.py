"""What a worker has printed: Ray sends its stdout and stderr to files of its node, where the last lines can be read.

So whatever writes there is found: prints, warnings, logging, libraries in C, processes that a trial starts. They are
read from outside as well when the worker is dead.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_LINES = 100
_BYTES = 50_000  # of a file's end that are looked at
_LINE = 500  # characters
_MARKS = (":actor_name:", ":job_id:", ":task_name:")  # lines of Ray's own
_NAMES = {1: "stdout", 2: "stderr"}
_SECONDS = 5.0  # for another node to read its file

_log = logging.getLogger(__name__)


class LogFile(NamedTuple):
    """One of the two files of a process."""

    name: str
    """``stdout`` or ``stderr``."""
    path: str
    offset: int
    """How long it was."""


def log_files() -> tuple[LogFile, ...]:
    """Those of this process as they stand; none where they are no files, e.g. a terminal."""
    found = []
    for number, name in _NAMES.items():
        try:
            facts, path = os.fstat(number), os.readlink(f"/proc/self/fd/{number}")
        except OSError:  # closed, or not Linux
            continue
        if stat.S_ISREG(facts.st_mode) and os.path.exists(path):
            found.append(LogFile(name, path, facts.st_size))
    return tuple(found)


def printed(files: Sequence[LogFile]) -> str:
    """The last lines written to these files since, in sections; "" where nothing was."""
    sys.stdout.flush()
    sys.stderr.flush()
    parts = []
    for file in files:
        lines = _last_lines(file)
        if lines:
            parts.append("\n".join([f"-- {file.name}, last {len(lines)} lines --", *lines]))
    return "\n\n".join(parts)


def _last_lines(file: LogFile) -> list[str]:
    try:
        with open(file.path, "rb") as data:
            end = data.seek(0, os.SEEK_END)
            data.seek(max(file.offset, end - _BYTES))
            text = data.read(_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line[:_LINE] for line in text.splitlines() if not line.startswith(_MARKS)]
    return lines[-_LINES:]


def log_to_stderr() -> None:
    """Let the logging of a worker be among what it has printed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s: %(message)s", stream=sys.stderr)


def words_of(error: BaseException) -> list[str]:
    """The last lines of the actor whose death this error tells, if it died on this machine; [] otherwise."""
    pid, address = (re.search(rf"\b{key}: (\S+)", str(error)) for key in ("pid", "ip"))
    node = ray._private.worker._global_node
    if pid is None or node is None or (address is not None and address[1] != ray.util.get_node_ip_address()):
        return []
    folder = Path(node.get_logs_dir_path())
    files = [*folder.glob(f"worker-*-{pid[1]}.out"), *folder.glob(f"worker-*-{pid[1]}.err")]  # the error comes last
    return [line for file in files for line in _last_lines(LogFile(file.suffix, str(file), 0))]


class LastWords:
    """Reads what dead processes have left, while their node is there; a node that does not answer is asked once."""

    def __init__(self) -> None:
        self._mute: set[str] = set()

    def of(self, node_id: str | None, files: Sequence[LogFile]) -> str:
        """The last lines of a process; waits a few seconds for another node."""
        whole = [file._replace(offset=0) for file in files]
        if not whole or node_id is None or node_id in self._mute:
            return ""
        if node_id == ray.get_runtime_context().get_node_id():
            return printed(whole)
        where = NodeAffinitySchedulingStrategy(node_id, soft=False)
        read = ray.remote(num_cpus=0, max_retries=0)(printed).options(scheduling_strategy=where)
        try:
            text: str = ray.get(read.remote(whole), timeout=_SECONDS)
        except RayError as error:  # a timeout is one
            _log.debug("the node of a lost process does not tell its last words: %s", error)
            self._mute.add(node_id)
            return ""
        return text
