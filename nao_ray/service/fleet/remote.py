"""What the fleet asks of Ray, in one place: actors made and ended, nodes, the object store.

So the executor also runs over a stand-in: thousands of workers that are no processes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Protocol

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nao_ray.service.fleet import nodes
from nao_ray.service.fleet.actors import EvaluatorActor
from nao_ray.service.fleet.demand import can_grow
from nao_ray.service.fleet.nodes import Load
from nao_ray.service.fleet.output import LastWords
from nao_ray.service.fleet.worker import Slot, Worker

_log = logging.getLogger(__name__)


class Remote(Protocol):
    """Actors of one class, and the cluster that they are on. An actor's methods have `remote`, its calls `future`."""

    def create(self, slot: Slot) -> Any:  # noqa: ANN401
        """An actor for a slot; returns at once, it may wait for room."""

    def kill(self, actor: Any) -> None:  # noqa: ANN401
        """End an actor's process, if it has not ended by itself."""

    def with_process(self, actors: Collection[Any]) -> Collection[Any]:
        """Those that have a process.

        Raises:
            HeadAwayError: the head does not answer.
        """

    def nodes(self) -> list[nodes.Node]:
        """As `nodes.nodes`."""

    def load(self) -> Load:
        """As `nodes.load`."""

    def claims(self, search: str, mine: bytes) -> dict[str, bytes]:
        """As `shares.Board`."""

    def withdraw(self, search: str) -> None:
        """As `shares.Board`."""

    def can_grow(self) -> bool:
        """As `demand.can_grow`."""

    def put(self, value: object) -> Any:  # noqa: ANN401
        """A reference to a value that all actors can read."""

    def last_words(self, worker: Worker) -> str:
        """What a dead worker has printed last; waits for a few seconds."""


class RayRemote:
    """On the Ray that this process is connected to.

    Args:
        cpus: of each actor.
        mps: as `EvaluatorActor`.
    """

    def __init__(self, cpus: float, *, mps: bool = False) -> None:
        self._mps = mps
        self._actor = ray.remote(  # once: each class made is exported to the whole cluster
            num_cpus=cpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"control": 1},
        )(EvaluatorActor)
        self._last_words = LastWords()

    def create(self, slot: Slot) -> Any:  # noqa: ANN401
        where = NodeAffinitySchedulingStrategy(slot.node_id, soft=False) if slot.node_id else None
        return self._actor.options(num_gpus=slot.gpus, scheduling_strategy=where).remote(self._mps)

    def kill(self, actor: Any) -> None:  # noqa: ANN401
        try:
            ray.kill(actor, no_restart=True)
        except (RayError, ValueError):
            _log.debug("worker was gone already", exc_info=True)

    def with_process(self, actors: Collection[Any]) -> Collection[Any]:
        by_id = {actor._actor_id.binary(): actor for actor in actors}
        return [by_id[found] for found in nodes.with_process(by_id)]

    def nodes(self) -> list[nodes.Node]:
        return nodes.nodes()

    def load(self) -> Load:
        return nodes.load()

    def claims(self, search: str, mine: bytes) -> dict[str, bytes]:
        return nodes.claims(search, mine)

    def withdraw(self, search: str) -> None:
        nodes.withdraw(search)

    def can_grow(self) -> bool:
        return can_grow()

    def put(self, value: object) -> Any:  # noqa: ANN401
        return ray.put(value)

    def last_words(self, worker: Worker) -> str:
        return self._last_words.of(worker.node_id, worker.files)
