"""A local Ray of the processes that a search needs: head, raylet, the agent of environments, and workers.

What else Ray starts takes two CPU seconds a node and serves no test: the dashboard's process (also where there is no
dashboard), the monitor of an autoscaler, which has no config, and of logs, which are not forwarded; and workers for all
CPUs before anybody wants one. Its workers are forks (`_forks.py`). The node's agent is the one of Ray without its
`default` extra. Clusters with a dashboard are started by `ray start`, in other processes, and stay as they are.
"""

import os
import sys
from functools import partialmethod, wraps
from typing import Any
from unittest import mock

from ray._private import node, parameter, utils

FRUGAL = {
    "RAY_prestart_worker_first_driver": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "600000",
    "RAY_metrics_report_interval_ms": "600000",
    "METRICS_RECORD_INTERVAL_S": "600",
}
"""Variables of a cluster by `ray start`: no workers that idle beside each job, no statistics of processes every few
seconds."""


def make_small(with_metrics: bool = False) -> None:
    """Of each Ray that this process starts from now on without a dashboard.

    Args:
        with_metrics: the node's agent is the whole one, which exports them.
    """
    parameter.RayParams.__init__ = partialmethod(
        parameter.RayParams.__init__, include_log_monitor=False, no_monitor=True
    )
    start = node.Node.start_api_server

    @wraps(start)
    def start_if_asked(self: node.Node, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        if include_dashboard:
            start(self, include_dashboard=include_dashboard, raise_on_failure=raise_on_failure)
        else:  # who looks for it, as Ray Train does at its end, waits 40 s for an address; nothing answers at this one
            self.get_gcs_client().internal_kv_put(b"dashboard", b"127.0.0.1:1", True, b"dashboard")

    node.Node.start_api_server = start_if_asked
    start_raylet = node.Node.start_raylet

    @wraps(start_raylet)
    def start_without_idle_workers(self: node.Node, *words: Any, **more: Any) -> None:
        place = os.environ.get("NAO_RAY_TESTS_FORKS")
        python = f"{place}/bin/python" if place else sys.executable  # of its agents and workers
        fewer = mock.patch.dict(os.environ, RAY_prestart_worker_first_driver="0")
        with fewer, mock.patch.object(sys, "executable", python):
            start_raylet(self, *words, **more)

    node.Node.start_raylet = start_without_idle_workers
    if not with_metrics:
        utils.get_dashboard_dependency_error = lambda: ImportError("no test needs it")
