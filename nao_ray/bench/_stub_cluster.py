"""A cluster in this process: nodes, devices and worker actors that are no processes, under the real executor.

An actor is there as soon as its node has room for it; its calls end when `finish` says so, or at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

from nao_ray.evaluators.base import Group
from nao_ray.search.executor import Failure
from nao_ray.service.fleet.actors import Place, Pulse, Report, Weights
from nao_ray.service.fleet.nodes import Load, Node
from nao_ray.service.fleet.worker import Gpu, Slot
from nao_ray.trial import Measurement, Proposal

Outcome = Measurement | Failure | Exception
_START = datetime(2020, 1, 1, tzinfo=UTC)


class StubCall:
    """A call of an actor's method."""

    def __init__(self) -> None:
        self._future: Future[Any] = Future()

    def future(self) -> Future[Any]:
        """As that of a Ray reference."""
        return self._future

    def end(self, result: object) -> None:
        """It returns this, or raises it."""
        if isinstance(result, Exception):
            self._future.set_exception(result)
        else:
            self._future.set_result(result)


class _Method:
    def __init__(self, call: Callable[..., StubCall]) -> None:
        self.remote = call

    def options(self, **_: object) -> _Method:
        return self


class StubActor:
    """A worker, on a node and a device once it has started."""

    def __init__(self, cluster: StubCluster, slot: Slot) -> None:
        self._cluster, self.slot = cluster, slot
        self.node_id: str | None = None
        self.device = "cpu"
        self.is_dead = False
        self.begun = StubCall()
        self.proposals: Sequence[Proposal] = ()
        self.call: StubCall | None = None
        self.weights: Weights | None = None
        self.group: Group | None = None
        self.start = _Method(lambda _: self.begun)
        self.ping = _Method(self._ping)
        self.evaluate = _Method(self._evaluate)
        self.address = _Method(self._address)
        self.train = _Method(self._train)

    def _ping(self) -> StubCall:
        call = StubCall()
        if self.node_id is not None and not self._cluster.is_silent(self):
            call.end(Pulse(1))
        return call

    def _address(self) -> StubCall:
        call = StubCall()
        call.end("host:1")
        return call

    def _evaluate(self, proposals: Sequence[Proposal], weights: Weights | None) -> StubCall:
        return self._begin(proposals, weights, None)

    def _train(self, proposal: Proposal, source: Weights | None, group: Group) -> StubCall:
        return self._begin([proposal], source, group)

    def _begin(self, proposals: Sequence[Proposal], weights: Weights | None, group: Group | None) -> StubCall:
        self.proposals, self.weights, self.group, self.call = proposals, weights, group, StubCall()
        self._cluster.begun.append(self)
        return self.call


class StubCluster:
    """As `Remote`.

    Args:
        nodes: resources of each, by id.
        cpus: of an actor.
        outcome: how an evaluation or a phase ends on an actor; an exception is what Ray raises.
        is_silent: actors that answer no ping.
        fault: what is wrong with the device of an actor as it starts.
        gpu: what an actor says of the GPU that it has computed on.
    """

    def __init__(
        self,
        nodes: Mapping[str, Mapping[str, float]],
        cpus: float = 1,
        outcome: Callable[[StubActor, Proposal], Outcome] = lambda *_: Measurement(valid_accuracy=0.5),
        is_silent: Callable[[StubActor], bool] = lambda _: False,
        fault: Callable[[StubActor], str | None] = lambda _: None,
        gpu: Callable[[StubActor], Gpu | None] = lambda _: None,
    ) -> None:
        self.resources = {node_id: dict(resources) for node_id, resources in nodes.items()}
        self.dead: set[str] = set()
        self._cpus, self._outcome, self.is_silent, self._fault, self._gpu = cpus, outcome, is_silent, fault, gpu
        self._free: dict[str, Counter[str]] = {node_id: Counter(resources) for node_id, resources in nodes.items()}
        self._devices = {
            node_id: {f"gpu:{number}": 1.0 for number in range(int(resources.get("GPU", 0)))}
            for node_id, resources in nodes.items()
        }  # share that is free
        self.begun: list[StubActor] = []
        """Actors in an evaluation or a phase, in the order they began."""
        self.actors: list[StubActor] = []
        """All that were ever made."""
        self._waiting: dict[int, StubActor] = {}
        self._room: list[str] = list(nodes)  # nodes that may have room
        self._claims: dict[str, bytes] = {}
        self.put_values: list[object] = []

    # -- as Ray -------------------------------------------------------------------------------------------

    def create(self, slot: Slot) -> StubActor:
        actor = StubActor(self, slot)
        self.actors.append(actor)
        self._waiting[id(actor)] = actor
        self._place(actor)
        return actor

    def kill(self, actor: StubActor) -> None:
        if actor.is_dead:
            return
        actor.is_dead = True
        self._waiting.pop(id(actor), None)
        if actor.node_id is None:
            return
        self._free[actor.node_id].update(self._wants(actor))
        if actor.device != "cpu":
            self._devices[actor.node_id][actor.device] += actor.slot.gpus
        self._room.append(actor.node_id)
        for other in list(self._waiting.values()):
            self._place(other)

    def with_process(self, actors: Collection[StubActor]) -> Collection[StubActor]:
        return [actor for actor in actors if actor.node_id is not None]

    def nodes(self) -> list[Node]:
        return [
            Node(node_id, f"host-{node_id}", node_id not in self.dead, dict(resources))
            for node_id, resources in self.resources.items()
        ]

    def load(self) -> Load:
        free: dict[str, dict[str, float]] = {
            node_id: dict(free) for node_id, free in self._free.items() if node_id not in self.dead
        }
        waiting = Counter(tuple(sorted(self._wants(actor).items())) for actor in self._waiting.values())
        return Load(free, [(dict(bundle), count) for bundle, count in waiting.items()])

    def claims(self, search: str, mine: bytes) -> dict[str, bytes]:
        self._claims[search] = mine
        return dict(self._claims)

    def withdraw(self, search: str) -> None:
        self._claims.pop(search, None)

    def can_grow(self) -> bool:
        return False

    def put(self, value: object) -> object:
        self.put_values.append(value)
        return len(self.put_values)

    def last_words(self, worker: object) -> str:
        return ""

    # -- what happens -------------------------------------------------------------------------------------

    def finish(self, count: int | None = None, where: Callable[[StubActor], bool] | None = None) -> list[StubActor]:
        """End so many evaluations, those that began first; None: all. Returns the actors."""
        if where is None:
            ended, self.begun = self.begun[:count], self.begun[len(self.begun) if count is None else count :]
            ended = [actor for actor in ended if not actor.is_dead]
        else:
            ended = [actor for actor in self.begun if where(actor) and not actor.is_dead][:count]
            gone = set(map(id, ended))
            self.begun = [actor for actor in self.begun if id(actor) not in gone and not actor.is_dead]
        for actor in ended:
            assert actor.call is not None
            outcomes = [self._outcome(actor, proposal) for proposal in actor.proposals]
            raised = next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)
            actor.call.end(raised or self._report(actor, outcomes))
        return ended

    def _report(self, actor: StubActor, outcomes: Sequence[Any]) -> Report:
        is_spent = any(isinstance(outcome, Failure) and outcome.is_of_device for outcome in outcomes)
        phase, is_first = actor.proposals[0].phase, actor.group is not None and actor.group.rank == 0
        trained = phase.version.encode() if phase is not None and is_first else None
        return Report(tuple(outcomes), actor.device, _START, _START, is_spent, self._gpu(actor), trained)

    def _wants(self, actor: StubActor) -> dict[str, float]:
        return {"CPU": self._cpus, **({"GPU": actor.slot.gpus} if actor.slot.gpus else {})}

    def _device_for(self, actor: StubActor, node_id: str) -> str | None:
        """One with room for its share; None: none has."""
        if not actor.slot.gpus:
            return "cpu"
        share = min(1.0, actor.slot.gpus) - 1e-6
        return next((name for name, is_free in self._devices[node_id].items() if is_free >= share), None)

    def _place(self, actor: StubActor) -> None:
        wants = self._wants(actor)
        while self._room if actor.slot.node_id is None else [actor.slot.node_id]:
            node_id = actor.slot.node_id or self._room[-1]
            free = self._free[node_id]
            device = self._device_for(actor, node_id)
            if node_id not in self.dead and device and all(free[name] >= amount for name, amount in wants.items()):
                free.subtract(wants)
                actor.node_id, actor.device = node_id, device
                if device != "cpu":
                    self._devices[node_id][device] -= actor.slot.gpus
                self._waiting.pop(id(actor))
                actor.begun.end(Place(node_id, 1, actor.device, self._fault(actor)))
                return
            if actor.slot.node_id is not None:
                return
            self._room.pop()
