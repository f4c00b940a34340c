"""Others on the cluster: what they use is no room of ours, and who waits with nothing gets a worker's.

So a second search commits no more proposals than there are places for it, and finds one: a search with `count: auto`
that holds more than half of a cluster gives a worker back, between two trials, when somebody has waited for as much.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from nao_ray.service.fleet.fleet import Fleet
from nao_ray.service.fleet.nodes import HeadAwayError, Load, Node
from nao_ray.service.fleet.remote import Remote
from nao_ray.service.fleet.worker import Worker, WorkerPlan

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0  # that others wait before a worker is given back; shorter waits are for what is just starting

Resources = dict[str, float]


class Neighbours:
    """Looks at what others use and want."""

    def __init__(self, fleet: Fleet, plan: WorkerPlan, remote: Remote) -> None:
        self._fleet, self._plan, self._remote = fleet, plan, remote
        self._since: float | None = None  # others wait
        self._load = Load({}, [])

    def usable(self, alive: Mapping[str, Node]) -> dict[str, Resources]:
        """Of each node what others do not use: what is free, and what our workers hold."""
        try:
            self._load = self._remote.load()
        except HeadAwayError:
            return {node_id: node.resources for node_id, node in alive.items()}
        return {node_id: self._usable(node) for node_id, node in alive.items()}

    @property
    def free(self) -> Resources:
        """CPUs and GPUs that nobody used at the last look."""
        return {name: sum(node.get(name, 0.0) for node in self._load.free.values()) for name in ("CPU", "GPU")}

    def _usable(self, node: Node) -> Resources:
        free = self._load.free.get(node.node_id)
        if free is None:  # it has just come
            return node.resources
        ours = self._held(self._fleet.on(node.node_id))
        return {
            name: min(total, free.get(name, 0.0) + ours[name]) for name, total in node.resources.items() if name in ours
        }

    def _held(self, workers: Iterable[Worker]) -> Resources:
        gpus = [worker.slot.gpus for worker in workers if not worker.waits]
        return {"CPU": len(gpus) * self._plan.cpus, "GPU": sum(gpus)}

    @property
    def underway(self) -> int:
        """Our workers that start on nodes not known yet, where they hold room or soon will."""
        return sum(not worker.waits for worker in self._fleet.placeless)

    def wait(self, in_all: int) -> bool:
        """Whether to give a worker back now; once only for each time that others have waited.

        Args:
            in_all: workers that the cluster would hold if all of it were ours.
        """
        ours = len(self._fleet) - len(self._fleet.starting)
        not_there = sum(not worker.is_there for worker in self._fleet.starting.values())
        others = sum(count for wants, count in self._load.waiting if self._would_do(wants)) - not_there
        if others <= 0 or ours <= max(1, in_all // 2):
            self._since = None
            return False
        now = self._fleet.now()
        self._since = now if self._since is None else self._since
        if now - self._since < _PATIENCE_SECONDS:
            return False
        self._since = None
        _log.info("somebody waits for as much as a worker holds: one of %d is given back", ours)
        return True

    def _would_do(self, wants: Mapping[str, float]) -> bool:
        """A worker's room is enough for somebody who wants this."""
        has = {"CPU": self._plan.cpus, "GPU": 1.0 if self._plan.gpus is None else self._plan.gpus}
        return any(wants.values()) and all(amount <= has.get(name, 0.0) for name, amount in wants.items())
