"""Where workers go, and how much of a GPU each gets.

By default all are alike, and Ray puts them where there is room. With ``gpus: auto`` a GPU is shared by as many workers
as bring more than fewer (`ladder`), and as its memory allows, measured as the search goes: a GPU begins with one; from
then on there is room for

    children per GPU = memory of the GPU / (1.25 * largest peak so far + context)

at least 1, at most `max_per_gpu` and what the node has CPUs for. So a node of large GPUs may run more children per GPU
than one of small ones. The quarter is for larger children to come and what the allocator cannot use; the context is
each process's CUDA context with the libraries' kernels, which the peak does not contain: what was in use beside the
allocator while a child had such a GPU alone, 0.75 GiB where that is not known. Nodes without a GPU take no worker then.

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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import ray

from nao_ray.config import Workers
from nao_ray.evaluators.base import Evaluator
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.demand import can_grow
from nao_ray.service.fleet.ladder import Company, Ladder, Span
from nao_ray.service.fleet.worker import Gpu, Slot, Worker, WorkerPlan
from nao_ray.sharing import Shared
from nao_ray.trial import FailureKind, Measurement

_log = logging.getLogger(__name__)

_GROWTH = 1.25
_CONTEXT_BYTES = 768 * 2**20  # where it was not measured
_STEP_BYTES = 64 * 2**20  # measurements of it are rounded up to

Resources = Mapping[str, float]


def children_that_fit(memory: int, peak: int, context: int | None = None) -> int:
    """Children of this peak, and this context each, that share a GPU of this memory, all in bytes; at least 1."""
    return max(1, int(memory / (_GROWTH * peak + (_CONTEXT_BYTES if context is None else context))))


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

    def learn(self, worker: Worker, job: Job, outcome: Measurement | Failure, gpu: Gpu | None) -> bool:
        """Take in how an evaluation ended, and on which GPU; whether to try it again with more room."""
        return False

    def note_call(self, worker: Worker, job: Job, span: Span, beside: Iterable[float], *, well: bool) -> None:
        """A call has ended; since when others run on its device, and whether it has ended well."""

    def note_no_mps(self, node_id: str) -> None:
        """Workers of a node that share a GPU take turns, where they were to compute at the same time."""

    @property
    def sharing(self) -> Sequence[Shared]:
        """As `Executor.sharing`."""
        return ()


class _Aim(NamedTuple):
    """Where a child that ran out of memory is tried again."""

    room: float
    """Bytes for one child."""
    node_id: str
    per_gpu: int


class SharedGpus(Placement):
    """Workers that share GPUs, as described above.

    Args:
        plan: what they are to be.
        known: what was found before, by kind of GPU.
    """

    def __init__(self, plan: WorkerPlan, known: Iterable[Shared] = ()) -> None:
        super().__init__(plan)
        self._most, self._wants_mps = plan.max_per_gpu, plan.mps
        self._peak = 0  # bytes, of any child so far
        self._outside: dict[str, int] = {}  # likewise, beside the allocator, by name of GPU
        self._gpus_of: dict[str, Gpu] = {}  # by node: the smallest
        self._no_mps: set[str] = set()  # nodes
        self._known = {sharing.gpu: sharing for sharing in known}
        self._ladders: dict[str, Ladder] = {}  # by kind
        self._company = Company()
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
        resources, gpu = self._nodes[node_id], self._gpus_of.get(node_id)
        if gpu is None or not self._peak:
            return 1
        by_cpus = int(resources.get("CPU", 0.0) / self._cpus / int(resources["GPU"]) + 1e-6)
        limit = self._limits.get(gpu.memory, self._most)
        return max(1, min(self._room_on(gpu), by_cpus, limit, self._most))

    def _room_on(self, gpu: Gpu) -> int:
        """Children whose memory a GPU has."""
        return children_that_fit(gpu.memory, self._peak, self._outside.get(gpu.name))

    def _per_gpu(self, node_id: str) -> int:
        """Workers per GPU of a node, with regard to those that need more room."""
        aims = [aim.per_gpu for aim in self._aims.values() if aim.node_id == node_id]
        ladder = self._ladders.get(self._kind(node_id))
        return min([self._fitting(node_id), 1 if ladder is None else ladder.children, *aims])

    def _kind(self, node_id: str) -> str:
        """Of the node's GPUs, those on which as many children are best; "": not known yet."""
        gpu = self._gpus_of.get(node_id)
        if gpu is None:
            return ""
        how = ", MPS" if self._wants_mps and node_id not in self._no_mps else ""
        return f"{gpu.name}, {gpu.memory / 2**30:.0f} GiB{how}"

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
        return self._memory_on(worker.place or "") / worker.slot.per_gpu

    def _memory_on(self, node_id: str) -> int:
        return self._gpus_of[node_id].memory if node_id in self._gpus_of else 0

    def learn(self, worker: Worker, job: Job, outcome: Measurement | Failure, gpu: Gpu | None) -> bool:
        trial_id = job.proposal.trial_id
        if gpu is not None and worker.place is not None:
            self._take_in(worker.place, gpu, outcome)
        if isinstance(outcome, Measurement):
            if trial_id in self._crowds:
                size, crowd = self._crowds[trial_id]
                self._limits[size] = max(1, min(self._limits.get(size, self._most), crowd - 1))
        elif outcome.kind is FailureKind.OUT_OF_MEMORY and self._aim(worker, trial_id):
            return True
        self._forget(trial_id)
        return False

    def _take_in(self, node_id: str, gpu: Gpu, outcome: Measurement | Failure) -> None:
        """What a child on a GPU says of its size, and of the room there."""
        known = self._gpus_of.get(node_id)
        if known is None or gpu.memory < known.memory:
            self._gpus_of[node_id] = gpu
            self._ladders.setdefault(self._kind(node_id), Ladder(self._known.get(self._kind(node_id))))
            self.version += 1
        peak = (outcome.peak_memory_bytes or 0) if isinstance(outcome, Measurement) else 0
        outside = 0 if gpu.outside is None else math.ceil(gpu.outside / _STEP_BYTES) * _STEP_BYTES
        if peak <= self._peak and outside <= self._outside.get(gpu.name, 0):
            return
        gpus = set(self._gpus_of.values())
        before = [self._room_on(each) for each in gpus] if self._peak else []
        self._peak = max(peak, self._peak)
        if outside:
            self._outside[gpu.name] = max(outside, self._outside.get(gpu.name, 0))
        if before != [self._room_on(each) for each in gpus]:
            self.version += 1

    # -- what more of them bring --------------------------------------------------------------------------

    def note_call(self, worker: Worker, job: Job, span: Span, beside: Iterable[float], *, well: bool) -> None:
        places, node_id = worker.slot.per_gpu, worker.place or ""
        was_full = self._company.was_full(worker.device, span, beside, places)
        ladder = self._ladders.get(self._kind(node_id))
        if ladder is None or not well or not was_full or worker.ended <= 1:
            return
        ladder.note(places, job.proposal.fidelity, span.until - span.since)
        text = ladder.turn(self._fitting(node_id))
        if text is not None:
            self.version += 1
            _log.info("children on a GPU (%s): %s", self._kind(node_id), text)

    def note_no_mps(self, node_id: str) -> None:
        if node_id not in self._no_mps:
            self._no_mps.add(node_id)
            if node_id in self._gpus_of:
                self._ladders.setdefault(self._kind(node_id), Ladder(self._known.get(self._kind(node_id))))
            self.version += 1

    @property
    def sharing(self) -> Sequence[Shared]:
        return [Shared(kind, ladder.children, ladder.kept, ladder.is_settled) for kind, ladder in self._ladders.items()]

    # -- room ---------------------------------------------------------------------------------------------

    def _aim(self, worker: Worker, trial_id: int) -> bool:
        """Choose where there is more room: the least that is twice as much, else the most."""
        had = self._room(worker)
        places = [
            _Aim(self._memory_on(node_id) / per_gpu, node_id, per_gpu)
            for node_id in self._nodes.keys() & self._gpus_of.keys()
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
            self._crowds.setdefault(trial_id, (self._memory_on(worker.place or ""), worker.slot.per_gpu))
        _log.warning(
            "trial %d ran out of memory with %d on a GPU: tried again with %.1f GiB instead of %.1f",
            *(trial_id, worker.slot.per_gpu, aim.room / 2**30, had / 2**30),
        )
        return True

    def _forget(self, trial_id: int) -> None:
        forgotten = self._aims.pop(trial_id, None), self._crowds.pop(trial_id, None)
        if any(forgotten):
            self.version += 1
