"""Drivers of a pool on S3 that fall silent, take over, are fenced off, or run in another process."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import _forks
import pytest

from nao_ray._pool import lease as leases
from nao_ray.errors import FencedError
from nao_ray.pool import PoolWriter

HERE = Path(__file__).parent
CONFIG = """
name: small
space: nao_cnn_small
task: synthetic
evaluator: closed_form
strategy: {name: regularized_evolution, population: 6, sample: 3}
budget: {trials: 24}
"""


def vanish(pool: PoolWriter) -> None:
    """No heartbeat any more, and no release: a driver that is frozen or cut off."""
    pool._lease._stop.set()
    pool._lease._thread.join()


def take_over(url: str) -> PoolWriter:
    """A second driver, to whom the first is dead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "is_dead", lambda holder: True)
        other = PoolWriter.open(url)
        other.acquire()
    return other


def fenced(write: Callable[[], object]) -> tuple[threading.Thread, list[str]]:
    """A write in a thread, and what came of it."""
    said: list[str] = []

    def run_it() -> None:
        try:
            write()
            said.append("written")
        except FencedError as error:
            said.append(type(error).__name__)

    thread = threading.Thread(target=run_it)
    thread.start()
    return thread, said


class Driver:
    """A program in another process that says a line at a time."""

    def __init__(self, code: str, *words: str) -> None:
        environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", code, *words]
        pipe = subprocess.PIPE
        self.process = _forks.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "go on") -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.communicate()
