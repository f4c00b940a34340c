"""The nodes of the cluster, asked so that a head that is away, or another one, is an answer too.

`ray.nodes()` does not return while the head is away, and ends the process when a head without the cluster's state has
taken its place. So the head is asked as Ray Serve asks it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ray._private.worker import global_worker
from ray.exceptions import AuthenticationError, RayError, RpcError

from nao_ray.errors import RunError

ANSWER_SECONDS = 1.0
"""The head has so long to answer; a search stands still meanwhile."""

_ALIVE = 0  # GcsNodeInfo.GcsNodeState
_NEW_HEAD = "WrongClusterID"


class Node(NamedTuple):
    """A node that is or was in the cluster."""

    node_id: str
    host: str
    is_alive: bool
    resources: dict[str, float]


class HeadAwayError(Exception):
    """The head does not answer."""


def nodes() -> list[Node]:
    """All nodes that the head knows.

    Raises:
        HeadAwayError: it does not answer.
        AuthenticationError: it is the head of another cluster (`one_cluster`).
    """
    try:
        found = global_worker.gcs_client.get_all_node_info(timeout=ANSWER_SECONDS)
    except AuthenticationError:
        raise
    except (RayError, RpcError, RuntimeError, OSError) as error:
        raise HeadAwayError(" ".join(str(error).split())) from None
    return [
        Node(node.node_id.hex(), node.node_manager_hostname, node.state == _ALIVE, dict(node.resources_total))
        for node in found.values()
    ]


@contextmanager
def one_cluster() -> Iterator[None]:
    """A block that ends when the head has been replaced by another cluster's, which any call to Ray may be told.

    Raises:
        RunError: so it was.
    """
    try:
        yield
    except AuthenticationError as error:
        if _NEW_HEAD not in str(error):
            raise
        address = os.environ.get("RAY_ADDRESS", "its address")
        raise RunError(
            f"the cluster is gone: its head was restarted at {address} without its state; what had finished is in the "
            "pool, the same command goes on with it on the new cluster"
        ) from None
