"""A local Ray of the processes that a search needs: head, raylet, the agent of environments, and workers.

What else Ray starts takes two CPU seconds a node and serves no test: the dashboard's process (also where there is no
dashboard), the monitor of an autoscaler, which has no config, and of logs, which are not forwarded; and workers for all
CPUs before anybody wants one. Its workers are forks (`_forks.py`). The node's agent is the one of Ray without its
`default` extra. Clusters with a dashboard are started by `ray start`, in other processes, and stay as they are.
"""

import os
from functools import partialmethod, wraps
from typing import Any
from unittest import mock

from ray._private import node, parameter, utils


def make_small(with_metrics: bool = False) -> None:
    """Of each Ray that this process starts from now on without a dashboard.

    Args:
        with_metrics: the node's agent is the whole one, which exports them.
    """
    parameter.RayParams.__init__ = partialmethod(
        parameter.RayParams.__init__, include_log_monitor=False, no_monitor=True, **_forked_workers()
    )
    start = node.Node.start_api_server

    @wraps(start)
    def start_if_asked(self: node.Node, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        if include_dashboard:
            start(self, include_dashboard=include_dashboard, raise_on_failure=raise_on_failure)

    node.Node.start_api_server = start_if_asked
    start_raylet = node.Node.start_raylet

    @wraps(start_raylet)
    def start_without_idle_workers(self: node.Node, *words: Any, **more: Any) -> None:
        with mock.patch.dict(os.environ, RAY_prestart_worker_first_driver="0"):
            start_raylet(self, *words, **more)

    node.Node.start_raylet = start_without_idle_workers
    if not with_metrics:
        utils.get_dashboard_dependency_error = lambda: ImportError("no test needs it")


def _forked_workers() -> dict[str, str]:
    """The parameters of Ray by which its workers are forks, where there is a server of them."""
    place = os.environ.get("NAO_RAY_TESTS_FORKS")
    return {"setup_worker_path": f"{place}/worker.py"} if place else {}
