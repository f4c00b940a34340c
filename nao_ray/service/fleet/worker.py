"""What workers are to be, and one of them as the driver sees it: an actor, and the one call that is under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from nao_ray.search.executor import Job
from nao_ray.service.fleet.breaker import Device
from nao_ray.service.fleet.output import LogFile
from nao_ray.service.fleet.shares import Share

if TYPE_CHECKING:
    from nao_ray.service.fleet.gang import Gang


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """How many workers, and what each holds."""

    count: int | None = None
    """At most this many; None: as many as the cluster holds, more when it grows, and it is asked to."""
    cpus: float = 1
    """CPUs per worker, also the threads of its libraries."""
    gpus: float | None = 0
    """GPUs per worker; a fraction puts several on one device; None: as many share a GPU as fit (`placement`)."""
    max_per_gpu: int = 8
    """Of those, at most so many."""
    mps: bool = False
    """Those that share a GPU compute there at the same time, under a daemon of the search's, where that can be."""
    timeout_seconds: float | Literal["auto"] | None = "auto"
    """An evaluation that takes longer is ended as `timeout` (`limits`); training of shared weights takes any time."""
    at_once: int = 1
    """Proposals a worker scores in one call, where one version of shared weights scores them."""
    trained_by: int | None = None
    """Workers that carry out a phase of shared weights together at most; None: all."""
    gather_seconds: float = 30.0
    """A phase of shared weights waits for its workers; after this time it begins with those that have started."""
    idle_seconds: float = 120.0
    """A worker without work is given back after this time, so that a cluster can shrink."""
    watch_seconds: float = 3.0
    """How often the cluster's nodes are looked at."""
    ping_seconds: float = 10.0
    """How often a busy worker is asked for a sign of life, with which it tells what its training has come to, and the
    head whether a starting one has a process."""
    share: Share = field(default_factory=Share)
    """Of a cluster with other searches."""
    silent_seconds: float = 180.0
    """A worker that gives none for this long is lost. Ray itself only notices processes that end."""


class Gpu(NamedTuple):
    """The GPU that a worker has computed on."""

    name: str
    memory: int
    """Bytes."""
    outside: int | None = None
    """Bytes in use there beside PyTorch's allocator: the CUDA context with the libraries' kernels. None: others may be
    on it, whose they are."""


class Slot(NamedTuple):
    """Room for a worker."""

    gpus: float = 0.0
    node_id: str | None = None
    """None: on any node, also on one to come."""
    per_gpu: int = 1
    """Workers that share a GPU there, this one included."""


class Worker:
    """Starting, then idle or busy with a call."""

    def __init__(self, number: int, actor: Any, slot: Slot, now: float) -> None:  # noqa: ANN401
        self.number, self.actor, self.slot = number, actor, slot
        self.call: Any = None  # of start, evaluate or train; None: idle
        self.jobs: list[Job] = []  # none: starting or idle
        self.gang: Gang | None = None  # with whom it is at a phase
        self.node_id: str | None = None  # None: starting
        self.device = Device("", "cpu")  # once it has started
        self.under_mps = False  # likewise: it computes at the same time as others on its device
        self.ended = 0  # calls
        self.is_spent = False  # its device failed as it started
        self.files: tuple[LogFile, ...] = ()
        self.since = now  # of the call, or of being idle
        self.started_at: datetime | None = None
        self.ping: Any = None
        self.heard = now
        self.waits = False  # the head says that it has no process: it waits for room
        self.is_there = False  # it has a process; before, no node may have had room for it

    @property
    def place(self) -> str | None:
        """The node it is on or will be on; None: not known yet."""
        return self.slot.node_id or self.node_id
