"""Variants of a measurement, each in a process of its own that answers one question a line."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nao_ray.errors import RunError


class Worker:
    """A process that holds one variant: ``python -m MODULE VARIANT THREADS SIZE``, the size in JSON."""

    def __init__(
        self,
        module: str,
        variant: str,
        threads: int,
        size: Mapping[str, int | str],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.variant = variant
        self._bench = module.rpartition(".")[2]
        command = [sys.executable, "-m", module, variant, str(threads), json.dumps(size)]
        paths = os.pathsep.join(filter(None, sys.path))  # `benchmarks` is beside us
        environment = {**os.environ, "PYTHONPATH": paths, **(environ or {})}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, question: str, seconds: float | None = None) -> Any:  # noqa: ANN401
        """The process's answer: seconds, or bytes, or whatever JSON has.

        Raises:
            RunError: the process is gone, or does not answer within `seconds`.
        """
        self.send(question)
        return self.receive(seconds)

    def send(self, question: str) -> None:
        """Ask, and do not wait."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its answer is missing then
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()

    def receive(self, seconds: float | None = None) -> Any:  # noqa: ANN401
        """The answer to what was sent; as `ask`."""
        assert self._process.stdout is not None
        if seconds is not None and not select.select([self._process.stdout], [], [], seconds)[0]:
            self._process.kill()
            raise RunError(f"bench {self._bench}: the process of {self.variant!r} did not answer in {seconds:g} s")
        reply = self._process.stdout.readline()
        if not reply:
            raise RunError(f"bench {self._bench}: the process of {self.variant!r} ended early; its error stands above")
        return json.loads(reply)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def answer(reply: Callable[[str], Any]) -> None:
    """Answer every question of the process that started this one, until it closes the line."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(reply(line.strip())) + "\n")
        sys.stdout.flush()


def peak_memory() -> float:
    """Bytes of this process at its largest."""
    try:  # `getrusage` begins with the size of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return 1024.0 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
