"""A place for a cluster on this machine: a home, a temp folder and ports of its own."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import _forks
import psutil
import pytest

ROOT = Path(__file__).parents[2]
VENV = Path(sys.executable).parents[1]
STAND_INS = _forks.environment_of_stand_ins()
"""In its place: the Pythons and Rays of a cluster are forks."""
HEAD, WORKER = "127.0.0.2", "127.0.0.3"
"""Two addresses of this machine that stand for two machines."""

HERE = """#!/usr/bin/env bash
# In place of ssh and srun: the command runs here, as if HOST were a machine with a home and ports of its own.
set -euo pipefail
host=$1
shift
exec env HOME="{home}/$host" NODE_IP="$host" NODE_PORTS="$(({ports} + 100 * ${{host##*.}}))" \\
    WORKER_PORTS="$(({ports} + 100 * ${{host##*.}} + 10))-$(({ports} + 100 * ${{host##*.}} + 60))" bash -c "$*"
"""


@dataclass
class Site:
    """A place where a cluster is started; `close` ends what is left of it."""

    home: Path
    temp: Path
    ports: int
    """The thousand ports that start here are free."""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.ports + 1}"

    def run(self, *words: str, home: str = ".", timeout: float = 600, **variables: str) -> subprocess.CompletedProcess:
        """A command with nothing but the site's environment, `home` being that of a host."""
        environment = {**self.environment, "HOME": str(self.home / home), **variables}
        return subprocess.run(
            words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout
        )

    def script(self, name: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
        return self.run("bash", str(ROOT / "cluster" / name), *words, **variables)

    def up(self, name: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
        """The script's `up`; once more if it fails, for Ray ends a node whose agents take 15 s to start."""
        for _ in range(3):
            done = self.script(name, "up", *words, **variables)
            if "Ray did not start" not in done.stderr:
                break
        return done

    def submit(self, *words: str, home: str = ".", **variables: str) -> subprocess.CompletedProcess:
        """`ray job submit`, in token mode unless a variable says otherwise."""
        variables = {"RAY_AUTH_MODE": "token", **variables}
        for _ in range(600):
            done = self.run("ray", "job", "submit", "--address", self.address, "--", *words, home=home, **variables)
            if "No available agent" not in done.stderr:  # the node's job agent starts after Ray itself
                break
            time.sleep(1)
        return done

    def processes(self) -> list[psutil.Process]:
        """Whatever was started with this site's temp folder in its command line or environment, and forks for it."""
        found = []
        for process in psutil.process_iter():
            try:
                if any(str(self.temp) in word for word in (*process.cmdline(), *process.environ().values())):
                    found.append(process)
            except psutil.Error:
                continue
        return _forks.family(found)

    def left(self) -> list[psutil.Process]:
        """What does not end after being told to."""
        _forks.wait_for_end(self.processes())
        return [process for process in self.processes() if not _forks.has_ended(process)]

    def close(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # a fork ends with who stands for it
                if process.pid != os.getpid():
                    process.kill()
        shutil.rmtree(self.temp, ignore_errors=True)


def free_ports() -> int:
    """The first of a thousand ports of which the ones in use here are free."""
    for first in random.Random(os.getpid()).sample(range(20_000, 31_000, 1000), 11):
        try:
            for port in (first, first + 1, *range(first + 10, first + 91), *range(first + 200, first + 400)):
                with socket.socket() as probe:
                    probe.bind(("", port))
        except OSError:
            continue
        return first
    pytest.skip("no thousand ports between 20000 and 31000 are free")
