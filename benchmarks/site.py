"""What a broken search runs on: a Ray of several nodes on this machine, and a driver that can be started again."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

from nao_ray.config import RunConfig
from nao_ray.service.hosting.cluster import make_token

_DRIVER = """
import sys
from nao_ray.config import RunConfig
from nao_ray.service.hosting.run import run
run(RunConfig.load(sys.argv[1]), sys.argv[2])
"""
_READ_SECONDS = 2.0  # for the last lines of a driver that has ended; a process of its own may hold the pipe
_NODE = {"include_dashboard": False, "object_store_memory": 80 * 2**20}  # Ray's minimum is 75 MiB
_NOTICE_SOON = {  # a dead node: some seconds instead of 14
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 5,
}


class Nodes:
    """A head without room for workers, and nodes that come and go: processes of this machine, each a raylet's tree."""

    def __init__(self, cluster: Cluster, cpus: int) -> None:
        self._cluster, self._cpus = cluster, cpus

    @property
    def address(self) -> str:
        """`RAY_ADDRESS` of the drivers."""
        return str(self._cluster.address)

    def join(self) -> None:
        """Add a fresh node."""
        self._cluster.add_node(num_cpus=self._cpus, **_NODE)

    def kill(self, node: Any) -> None:  # noqa: ANN401 - Ray's Node
        """SIGKILL of a node's raylet and all its processes, as when a machine is switched off."""
        for process in _tree(node):
            with suppress(psutil.Error):
                process.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def newest(self, title: str) -> tuple[Any, psutil.Process] | None:
        """The process with such a title that was started last, and its node; None where there is none now."""
        found = []
        for node in self._cluster.list_all_nodes():
            for process in _tree(node):
                with suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith(title) and process.status() != psutil.STATUS_STOPPED:
                        found.append((process.create_time(), process.pid, node, process))
        return max(found, key=lambda item: item[:2])[2:] if found else None


def _tree(node: Any) -> list[psutil.Process]:  # noqa: ANN401 - Ray's Node
    """The raylet and what descends from it."""
    with suppress(psutil.Error):
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]
    return []


def _take_token() -> None:
    """As `ray.init` does for a Ray of its own; older ones take no token unless told so, and have no such function."""
    with suppress(ImportError):
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


@contextmanager
def nodes(count: int, cpus: int) -> Iterator[Nodes]:
    """So many worker nodes of so many CPUs, for the time of the block; this process does not connect to them."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    make_token()
    _take_token()
    head = {"num_cpus": 0, "include_log_monitor": False, "_system_config": _NOTICE_SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head | _NODE)
    try:
        site = Nodes(cluster, cpus)
        for _ in range(count):
            site.join()
        yield site
    finally:
        cluster.shutdown()


class Driver:
    """The driver of a search, a process that can be started again with the same command.

    Its output is kept in a file, through a pipe: what it says while its disk is full is not lost.
    """

    def __init__(self, config: RunConfig, pool: Path, address: str) -> None:
        self.pool, self.starts = pool, 0
        self._config, self._log = pool.with_suffix(".yaml"), pool.with_suffix(".log")
        self._config.write_text(config.to_yaml(), encoding="utf-8")
        self._environment = {**os.environ, "RAY_ADDRESS": address}
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, or start again."""
        self.starts += 1
        command = [sys.executable, "-c", _DRIVER, str(self._config), str(self.pool)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._environment
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._keep, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _keep(self, output: IO[bytes]) -> None:
        """Copy what the driver says until its end."""
        with output, self._log.open("ab", buffering=0) as log:
            for line in output:
                log.write(line)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The one that was started last."""
        assert self._process is not None, "start() comes first"
        return self._process

    def kill(self) -> None:
        """SIGKILL; harmless when it has ended."""
        self.process.kill()
        self.process.wait()
        self._reader.join(_READ_SECONDS)

    def said(self, text: str) -> int:
        """How often the drivers said that."""
        return self._log.read_text(encoding="utf-8", errors="replace").count(text)

    def last_line(self) -> str:
        """The last it said."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


class Parts:
    """The parts of a pool's `trials` while it is written: looked at from outside, without putting anything right."""

    def __init__(self, pool: Path) -> None:
        self._folder = pool / "trials"
        self._rows: dict[str, int] = {}
        self._latest: dict[str, dict[str, float]] = {}

    def names(self) -> frozenset[str]:
        """The whole ones with a row or more."""
        with suppress(FileNotFoundError):
            present = [path for path in self._folder.iterdir() if path.suffix == ".parquet" and path.name[0] != "."]
            for path in present:
                with suppress(OSError, pa.ArrowException):  # gone, or cut
                    if path.name not in self._rows:
                        self._rows[path.name] = pq.read_metadata(path).num_rows
            return frozenset(path.name for path in present if self._rows.get(path.name))
        return frozenset()

    def count(self) -> int:
        """Finished trials."""
        return sum(self._rows[name] for name in self.names())

    def written_after(self, moment: float, column: str) -> float | None:
        """When the first part was written that has a trial with a later time in this column; None: there is none yet.

        Args:
            moment: seconds of `time.time`, as what is returned.
            column: `asked_at` or `started_at`.
        """
        found = [self._times(name) for name in self.names()]
        return min((times["written"] for times in found if times.get(column, -math.inf) > moment), default=None)

    def _times(self, name: str) -> dict[str, float]:
        """When a part was written, and the latest time in either column; nothing where it is gone, or cut."""
        if name not in self._latest:
            path = self._folder / name
            with suppress(OSError, pa.ArrowException):
                frame = pq.read_table(path, columns=["asked_at", "started_at"]).to_pandas()
                latest = {column: frame[column].max().timestamp() for column in frame if frame[column].notna().any()}
                self._latest[name] = {"written": path.stat().st_mtime, **latest}
        return self._latest.get(name, {})
