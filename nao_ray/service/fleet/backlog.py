"""Jobs that wait for a worker, and which of them one worker is given in one call."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from nao_ray.search.executor import Job


class Backlog:
    """First in, first out, but for jobs that come back.

    Args:
        at_once: proposals a worker scores in one call, where one version of shared weights scores them.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._jobs: deque[Job] = deque()
        self._choosy: dict[int, Job] = {}  # before all others, by trial
        self._singly: set[int] = set()  # trials that are given to a worker without others

    def __len__(self) -> int:
        return len(self._jobs) + len(self._choosy)

    def __iter__(self) -> Iterator[Job]:
        yield from self._choosy.values()
        yield from self._jobs

    def add(self, job: Job) -> None:
        """A job, behind all others."""
        self._jobs.append(job)

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Jobs of a call that says nothing about any of them, before all others: each in a call of its own now."""
        self._singly.update(job.proposal.trial_id for job in jobs)
        self._jobs.extendleft(reversed(jobs))

    def hold(self, job: Job) -> None:
        """A job that is not for every worker: it waits for one it can be given to, and nothing is given out for it."""
        self._choosy[job.proposal.trial_id] = job

    @property
    def choosy(self) -> Mapping[int, Job]:
        """Those held, by trial."""
        return self._choosy

    def take_choosy(self, trial_id: int) -> list[Job]:
        """One of those held, for a worker."""
        return [self._choosy.pop(trial_id)]

    @property
    def phases_next(self) -> int:
        """Phases of shared weights that come next, before any other job; nothing passes them."""
        return sum(1 for _ in takewhile(lambda job: job.proposal.phase is not None, self._jobs))

    def take_phase(self) -> Job:
        """The phase that is next."""
        assert self.phases_next
        return self._jobs.popleft()

    def take(self, workers: int) -> list[Job]:
        """What a worker gets that may be given any; of those scored alike, its share among so many; []: nothing."""
        if not self._jobs or self._jobs[0].proposal.phase is not None:
            return []
        first = self._jobs.popleft()
        count = min(self._at_once, math.ceil((len(self._jobs) + 1) / workers)) if self._is_shared(first) else 1
        jobs = [first]
        while len(jobs) < count and self._jobs and self._goes_with(first, self._jobs[0]):
            jobs.append(self._jobs.popleft())
        return jobs

    def _is_shared(self, job: Job) -> bool:
        return job.proposal.fidelity.weights_version is not None and job.proposal.trial_id not in self._singly

    def _goes_with(self, first: Job, other: Job) -> bool:
        return other.proposal.fidelity == first.proposal.fidelity and self._is_shared(other)

    def drop(self, trial_id: int) -> None:
        """Forget a job, if it is here."""
        self._choosy.pop(trial_id, None)
        self._jobs = deque(job for job in self._jobs if job.proposal.trial_id != trial_id)

    def clear(self) -> list[Job]:
        """Give all up; these they were."""
        jobs = list(self)
        self._choosy.clear()
        self._jobs.clear()
        return jobs
