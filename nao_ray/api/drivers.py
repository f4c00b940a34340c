"""Who drives a search that was started from Python: a process of its own on this machine, or a job of a cluster."""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import nao_ray

if TYPE_CHECKING:
    from nao_ray.service.jobs.client import JobView
    from nao_ray.service.jobs.searching import SearchJob

_SAYS = "nao-ray: "  # begins what the command line tells of an end


class Ended(NamedTuple):
    """How a driver has ended."""

    code: int
    """As the command line's: 0 done, 1 failed, 2 the input is at fault, 130 stopped or drained."""
    message: str


class Driver(Protocol):
    """One that was started here."""

    def ended(self) -> Ended | None:
        """How it has ended; None: it runs."""
        ...

    def log(self) -> str:
        """What it has said."""
        ...

    def end(self) -> str:
        """End it, whether or not it hears its pool; what that means, in words."""
        ...


class Process:
    """``nao-ray search`` in a process and a session of its own: the end of whoever started it is not its end."""

    _started: dict[str, Process] = {}  # noqa: RUF012 - by this process, the last one of each pool
    """Kept, too, because Python warns of a process that runs and is forgotten."""

    def __init__(self, url: str, arguments: Sequence[str], config: str | None, address: str | None) -> None:
        """Start it.

        Args:
            url: of the pool.
            arguments: of ``nao-ray search``, the config first.
            config: text of the config, which is written to a file that takes the place of the first; None: it is one.
            address: of a Ray cluster; None: as the environment says.
        """
        folder = Path(tempfile.mkdtemp(prefix="nao-ray-search-"))
        first, *others = arguments
        if config is not None:
            (folder / "config.yaml").write_text(config, encoding="utf-8")
            first = str(folder / "config.yaml")
        self._log, self._is_told = folder / "driver.log", False
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "nao_ray", "search", first, "--pool", url, *others],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(address),
                start_new_session=True,
            )
        self._started[url] = self

    @classmethod
    def runs_on(cls, url: str) -> bool:
        """Whether one that was started here runs on this pool, or is about to."""
        return url in cls._started and cls._started[url].ended() is None

    def ended(self) -> Ended | None:
        code = self._process.poll()
        if code is None:
            return None
        if self._is_told and code != 0:  # while Python was starting, in whatever way
            return Ended(130, "stopped")
        said = [line for line in self.log().splitlines() if line.strip()]
        told = [line.removeprefix(_SAYS) for line in said if line.startswith(_SAYS)]
        message = (told or said or ["it said nothing"])[-1]
        if code < 0:
            return Ended(1, f"the driver was killed by signal {-code}; it last said: {message}")
        return Ended(code, message)

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def end(self) -> str:
        self._is_told = True
        self._process.send_signal(signal.SIGINT)  # as Ctrl-C: it is heard at any time, and Ray is ended with it
        return "the driver is told to end now; what runs is given up, and the pool is resumable"


class Job:
    """A job of a Ray cluster."""

    def __init__(self, job: SearchJob) -> None:
        """Hand it in."""
        self._jobs, self._job = job.jobs, job
        self.job_id = job.hand_in()

    def ended(self) -> Ended | None:
        from nao_ray.service.jobs.client import ending, exit_code

        view = self._view()
        if not view.is_over:
            return None
        self._job.take_mark_away()
        said = [line for line in self.log().splitlines() if line.startswith(_SAYS)]
        return Ended(exit_code(view), said[-1].removeprefix(_SAYS) if said else f"{self.job_id}: {ending(view)}")

    def log(self) -> str:
        return self._jobs.log(self.job_id)

    def end(self) -> str:
        from nao_ray.service.jobs.client import ending

        return f"{self.job_id}: {ending(self._jobs.stop(self.job_id))}"

    def _view(self) -> JobView:
        return self._jobs.find(self.job_id)


def _environment(address: str | None) -> dict[str, str]:
    """Of the driver: it finds this nao_ray, also one that only this process's `sys.path` leads to."""
    given = dict(os.environ)
    if address is not None:
        given["RAY_ADDRESS"] = address
    root = str(Path(nao_ray.__file__).resolve().parents[1])
    if root not in {os.path.realpath(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}:
        given["PYTHONPATH"] = os.pathsep.join(filter(None, (root, given.get("PYTHONPATH"))))
    return given
