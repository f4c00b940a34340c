"""The nodes of the cluster, asked so that a head that is away, or another one, is an answer too.

`ray.nodes()` does not return while the head is away, and ends the process when a head without the cluster's state has
taken its place. So the head is asked as Ray Serve asks it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray._private.worker import global_worker
from ray.core.generated.autoscaler_pb2 import GetClusterResourceStateReply
from ray.core.generated.gcs_service_pb2 import GetActorInfoRequest
from ray.core.generated.gcs_service_pb2_grpc import ActorInfoGcsServiceStub
from ray.exceptions import AuthenticationError, RayError, RpcError

from nao_ray.errors import RunError

ANSWER_SECONDS = 1.0
"""The head has so long to answer; a search stands still meanwhile."""

_AWAY_SECONDS = 5.0  # between two looks for a head that is away, for each holds the search up
_AWAY = (
    "the head of the cluster does not answer (%s): trials that run go on; a head that comes back with the cluster's "
    "state takes the search up, else Ray ends this driver, and the same command goes on with the pool"
)
_CLAIMS = b"nao_ray_claims"  # a namespace of the head's key-value store
_ALIVE = 0  # GcsNodeInfo.GcsNodeState
_NEW_HEAD = "WrongClusterID"

_log = logging.getLogger(__name__)


class Node(NamedTuple):
    """A node that is or was in the cluster."""

    node_id: str
    host: str
    is_alive: bool
    resources: dict[str, float]


class Load(NamedTuple):
    """What the cluster's resources are used for."""

    free: dict[str, dict[str, float]]
    """Of each node that is alive."""
    waiting: list[tuple[dict[str, float], int]]
    """What tasks and actors, ours among them, wait for: the resources of one, and how many."""


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


def load() -> Load:
    """What is free, and what is waited for, as of a moment ago.

    Raises:
        HeadAwayError: the head does not answer.
    """
    try:
        text = global_worker.gcs_client.get_cluster_resource_state(timeout_s=ANSWER_SECONDS)
    except (RayError, RpcError, RuntimeError, OSError) as error:
        raise HeadAwayError(" ".join(str(error).split())) from None
    state = GetClusterResourceStateReply.FromString(text).cluster_resource_state
    free = {node.node_id.hex(): dict(node.available_resources) for node in state.node_states}
    waiting = [(dict(each.request.resources_bundle), each.count) for each in state.pending_resource_requests]
    return Load(free, waiting)


def claims(search: str, mine: bytes) -> dict[str, bytes]:
    """Leave a search's claim with the head; returns those of all searches, of dead ones too.

    Raises:
        HeadAwayError: the head does not answer.
    """
    head = global_worker.gcs_client
    try:
        head.internal_kv_put(search.encode(), mine, True, _CLAIMS, timeout=ANSWER_SECONDS)
        names = head.internal_kv_keys(b"", _CLAIMS, timeout=ANSWER_SECONDS)
        found = head.internal_kv_multi_get(names, _CLAIMS, timeout=ANSWER_SECONDS)
    except (RayError, RpcError, RuntimeError, OSError) as error:
        raise HeadAwayError(" ".join(str(error).split())) from None
    return {name.decode(): text for name, text in found.items()}


def withdraw(search: str) -> None:
    """Take a search's claim away.

    Raises:
        HeadAwayError: the head does not answer.
    """
    try:
        global_worker.gcs_client.internal_kv_del(search.encode(), False, _CLAIMS, timeout=ANSWER_SECONDS)
    except (RayError, RpcError, RuntimeError, OSError) as error:
        raise HeadAwayError(" ".join(str(error).split())) from None


def with_process(actors: Collection[bytes]) -> set[bytes]:
    """Those of the actors, by id, that have a process: one that waits for room has none, one that loads its class has.

    Asked of the head as Ray's state API asks it, which needs no dashboard here; half a millisecond each.

    Raises:
        HeadAwayError: it does not answer.
    """
    with init_grpc_channel(global_worker.gcs_client.address, options=GLOBAL_GRPC_OPTIONS) as channel:
        ask = ActorInfoGcsServiceStub(channel).GetActorInfo
        try:
            found = {actor: ask(GetActorInfoRequest(actor_id=actor), timeout=ANSWER_SECONDS) for actor in actors}
        except grpc.RpcError as error:
            raise HeadAwayError(" ".join(str(error).split())) from None
    return {actor for actor, reply in found.items() if reply.actor_table_data.address.worker_id}


class NodeWatch:
    """Looks at the nodes from time to time, and says when the head goes and when it is back.

    Args:
        every: seconds between two looks.
        ask: as `nodes`.
    """

    def __init__(self, every: float, ask: Callable[[], list[Node]] | None = None) -> None:
        self._every, self._next, self._ask = every, -math.inf, ask or nodes
        self._is_away = False

    def hurry(self) -> None:
        """The next look is due."""
        self._next = -math.inf

    def look(self, now: float) -> list[Node] | None:
        """As `nodes`; None: it is not time yet, or the head is away.

        Raises:
            AuthenticationError: it is the head of another cluster (`one_cluster`).
        """
        if now < self._next:
            return None
        try:
            found = self._ask()
        except HeadAwayError as error:
            self._next = now + ANSWER_SECONDS + _AWAY_SECONDS
            if not self._is_away:
                _log.warning(_AWAY, error)
            self._is_away = True
            return None
        self._next = now + self._every
        if self._is_away:
            _log.warning("the head of the cluster answers again")
        self._is_away = False
        return found


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
