"""Where workers go, and how much of a GPU each gets.

By default all are alike, and Ray puts them where there is room. With ``gpus: auto`` a GPU is shared by as many workers
as its memory allows, measured as the search goes: a GPU begins with one; from then on

    children per GPU = memory of the GPU / (1.25 * largest peak so far + 0.75 GiB)

at least 1, at most `max_per_gpu` and what the node has CPUs for. So a node of large GPUs runs more children per GPU
than one of small ones. The quarter is for larger children to come and what the allocator cannot use; 0.75 GiB is an
allowance for each process's CUDA context with the libraries' kernels, which the peak does not contain. Nodes without a
GPU take no worker then.

A share that changes replaces workers between their trials, never in the middle. A child that runs out of memory beside
others says nothing of its architecture: it is tried again with at least twice the room, on the same node or on one of
larger GPUs, in the end alone on the largest. For that time its node gives every child that much room. If it then fits,
and by its peak would have fitted before, so many are not put on such a GPU again.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import ray

from nao_ray.config import Workers
from nao_ray.evaluators.base import Evaluator
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.demand import can_grow
from nao_ray.service.fleet.worker import Slot, Worker, WorkerPlan
from nao_ray.trial import FailureKind, Measurement

_log = logging.getLogger(__name__)

_GROWTH = 1.25
_CONTEXT_BYTES = 768 * 2**20

Resources = Mapping[str, float]


def children_that_fit(memory: int, peak: int) -> int:
    """Children of this peak that share a GPU of this memory, both in bytes; at least 1."""
    return max(1, int(memory / (_GROWTH * peak + _CONTEXT_BYTES)))


def resolve_gpus(workers: Workers, evaluator: Evaluator[Any]) -> float | None:
    """GPUs per worker; None: as many workers share one as fit. Asks the cluster where the config says `auto`."""
    if workers.gpus != "auto":
        return workers.gpus
    if not evaluator.uses_gpu:
        return 0
    if not any(node["Alive"] and node["Resources"].get("GPU") for node in ray.nodes()) and not can_grow():
        _log.info("no node has a GPU: trials are trained on CPUs")
        return 0
    return 1 if evaluator.shares_weights else None


class Placement:
    """Workers of one size, wherever there is room."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._cpus, self._gpus = plan.cpus, plan.gpus or 0.0
        self._nodes: dict[str, Resources] = {}  # alive: id -> totals
        self._usable: dict[str, Resources] = {}  # likewise, without what others use
        self.version = 0
        """Another number whenever workers may have another share now, or may be given other jobs."""

    def look(self, nodes: Mapping[str, Resources], usable: Mapping[str, Resources] | None = None) -> int:
        """Take in the nodes that are alive, and what of them others do not use; how many workers that holds."""
        if self._nodes != nodes:
            self._nodes, self.version = dict(nodes), self.version + 1
        self._usable = dict(nodes if usable is None else usable)
        return sum(self._slots(node_id) for node_id in nodes)

    def _slots(self, node_id: str) -> int:
        resources = self._usable.get(node_id, {})
        fits = resources.get("CPU", 0.0) / self._cpus
        if self._gpus:
            fits = min(fits, resources.get("GPU", 0.0) / self._gpus)
        return int(fits + 1e-6)

    def slots(self, count: int, taken: Mapping[str, int]) -> list[Slot]:
        """Where the next workers go, beside so many on each node."""
        return [Slot(self._gpus)] * count

    def slot_for(self, job: Job, taken: Mapping[str, int]) -> Slot | None:
        """Likewise one for a job that needs more room than others; None: it does not, or there is none for it now."""
        return None

    def suits(self, worker: Worker) -> bool:
        """Whether the worker still has the share that it would be given now."""
        return True

    def takes(self, worker: Worker, job: Job) -> bool:
        """Whether the job has enough room on this worker."""
        return True

    def learn(self, worker: Worker, job: Job, outcome: Measurement | Failure, memory: int | None) -> bool:
        """Take in how an evaluation ended, on a GPU of so much memory; whether to try it again with more room."""
        return False


class _Aim(NamedTuple):
    """Where a child that ran out of memory is tried again."""

    room: float
    """Bytes for one child."""
    node_id: str
    per_gpu: int


class SharedGpus(Placement):
    """Workers that share GPUs, as described above."""

    def __init__(self, plan: WorkerPlan) -> None:
        super().__init__(plan)
        self._most = plan.max_per_gpu
        self._peak = 0  # bytes, of any child so far
        self._memory: dict[str, int] = {}  # of one GPU, by node: bytes
        self._limits: dict[int, int] = {}  # by memory of a GPU: children that have proved to be too many, less one
        self._aims: dict[int, _Aim] = {}  # by trial
        self._crowds: dict[int, tuple[int, int]] = {}  # by trial: memory and children of the GPU it first failed on

    def look(self, nodes: Mapping[str, Resources], usable: Mapping[str, Resources] | None = None) -> int:
        gpus = {node_id: resources for node_id, resources in nodes.items() if resources.get("GPU", 0.0) >= 1}
        for trial_id, aim in list(self._aims.items()):
            if aim.node_id not in gpus:  # it died: anywhere, and from there on
                self._forget(trial_id)
        return super().look(gpus, usable)

    def _fitting(self, node_id: str) -> int:
        """Workers per GPU of a node, by what is known."""
        resources, memory = self._nodes[node_id], self._memory.get(node_id)
        if memory is None or not self._peak:
            return 1
        by_cpus = int(resources.get("CPU", 0.0) / self._cpus / int(resources["GPU"]) + 1e-6)
        limit = self._limits.get(memory, self._most)
        return max(1, min(children_that_fit(memory, self._peak), by_cpus, limit, self._most))

    def _per_gpu(self, node_id: str) -> int:
        """Workers per GPU of a node, with regard to those that need more room."""
        aims = [aim.per_gpu for aim in self._aims.values() if aim.node_id == node_id]
        return min([self._fitting(node_id), *aims])

    def _slots(self, node_id: str) -> int:
        resources = self._usable.get(node_id, {})
        by_cpus = int(resources.get("CPU", 0.0) / self._cpus + 1e-6)
        return min(by_cpus, int(resources.get("GPU", 0.0) + 1e-3) * self._per_gpu(node_id))

    def slots(self, count: int, taken: Mapping[str, int]) -> list[Slot]:
        aimed_at = {aim.node_id for aim in self._aims.values()}
        free = list[tuple[bool, float, int, str]]()  # of each node with room: aimed at last, fullest last; its order
        for order, node_id in enumerate(self._nodes):
            self._offer(free, node_id in aimed_at, order, node_id, taken.get(node_id, 0))
        found, now_taken = list[Slot](), Counter(taken)
        while free and len(found) < count:
            is_other, _, order, node_id = heapq.heappop(free)
            found.append(self._slot_on(node_id))
            now_taken[node_id] += 1
            self._offer(free, not is_other, order, node_id, now_taken[node_id])
        return found + [Slot(1)] * (count - len(found))

    def _offer(
        self, free: list[tuple[bool, float, int, str]], is_aimed_at: bool, order: int, node_id: str, taken: int
    ) -> None:
        slots = self._slots(node_id)
        if taken < slots:
            heapq.heappush(free, (not is_aimed_at, taken / slots, order, node_id))

    def slot_for(self, job: Job, taken: Mapping[str, int]) -> Slot | None:
        aim = self._aims.get(job.proposal.trial_id)
        has_room = aim is not None and taken.get(aim.node_id, 0) < self._slots(aim.node_id)
        return self._slot_on(aim.node_id) if aim is not None and has_room else None

    def _slot_on(self, node_id: str) -> Slot:
        per_gpu = self._per_gpu(node_id)
        return Slot(int(1e4 / per_gpu) / 1e4, node_id, per_gpu)  # Ray counts in ten thousandths

    def suits(self, worker: Worker) -> bool:
        return worker.place not in self._nodes or worker.slot.per_gpu == self._per_gpu(worker.place)

    def takes(self, worker: Worker, job: Job) -> bool:
        aim = self._aims.get(job.proposal.trial_id)
        if aim is None or self._room(worker) >= aim.room:
            return True
        return worker.place == aim.node_id and worker.slot.per_gpu <= aim.per_gpu  # made for it

    def _room(self, worker: Worker) -> float:
        return self._memory.get(worker.place or "", 0) / worker.slot.per_gpu

    def learn(self, worker: Worker, job: Job, outcome: Measurement | Failure, memory: int | None) -> bool:
        trial_id, node_id = job.proposal.trial_id, worker.place
        if memory is not None and node_id is not None and memory < self._memory.get(node_id, math.inf):
            self._memory[node_id] = memory  # of its smallest
            self.version += 1
        if isinstance(outcome, Measurement):
            if memory is not None and (outcome.peak_memory_bytes or 0) > self._peak:  # elsewhere it is not a GPU's
                self._raise_peak(outcome.peak_memory_bytes or 0)
            if trial_id in self._crowds:
                size, crowd = self._crowds[trial_id]
                self._limits[size] = max(1, min(self._limits.get(size, self._most), crowd - 1))
        elif outcome.kind is FailureKind.OUT_OF_MEMORY and self._aim(worker, trial_id):
            return True
        self._forget(trial_id)
        return False

    def _raise_peak(self, peak: int) -> None:
        before, self._peak = self._peak, peak
        sizes = set(self._memory.values())
        if not before or any(children_that_fit(m, peak) != children_that_fit(m, before) for m in sizes):
            self.version += 1

    def _aim(self, worker: Worker, trial_id: int) -> bool:
        """Choose where there is more room: the least that is twice as much, else the most."""
        had = self._room(worker)
        places = [
            _Aim(self._memory[node_id] / per_gpu, node_id, per_gpu)
            for node_id in self._nodes.keys() & self._memory.keys()
            for per_gpu in range(1, self._fitting(node_id) + 1)
        ]
        places = [place for place in places if place.room > had]
        if not had or not places:
            return False
        twice = [place for place in places if place.room >= 2 * had]
        aim = min(twice, key=lambda p: (p.room, p.node_id != worker.place)) if twice else max(places)
        self._aims[trial_id] = aim
        self.version += 1
        if worker.slot.per_gpu > 1:
            self._crowds.setdefault(trial_id, (self._memory[worker.place or ""], worker.slot.per_gpu))
        _log.warning(
            "trial %d ran out of memory with %d on a GPU: tried again with %.1f GiB instead of %.1f",
            *(trial_id, worker.slot.per_gpu, aim.room / 2**30, had / 2**30),
        )
        return True

    def _forget(self, trial_id: int) -> None:
        forgotten = self._aims.pop(trial_id, None), self._crowds.pop(trial_id, None)
        if any(forgotten):
            self.version += 1
