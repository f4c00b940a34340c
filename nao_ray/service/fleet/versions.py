"""Versions of shared weights in the object store, where every worker reads them."""

from __future__ import annotations

from collections.abc import Iterable

from nao_ray.errors import RunError
from nao_ray.search.executor import Job, WeightsStore
from nao_ray.service.fleet.actors import Weights
from nao_ray.service.fleet.remote import Remote


class Versions:
    """Each is put there once, and stays while a job names it.

    Args:
        store: where versions are found; None: nowhere.
        remote: whose object store it is.
    """

    def __init__(self, store: WeightsStore | None, remote: Remote) -> None:
        self._store, self._remote = store, remote
        self._there: dict[str, Weights] = {}

    def put(self, version: str, open_jobs: Iterable[Job]) -> Weights:
        """The version in the object store; what neither this nor one of those jobs needs is taken from there.

        Raises:
            PoolError: there is no such version.
            RunError: there is no store.
        """
        if version not in self._there:
            if self._store is None:
                raise RunError("a proposal needs shared weights, and there is no pool to keep them")
            named = {version_of(job) for job in open_jobs}
            self._there = {name: weights for name, weights in self._there.items() if name in named}
            self._there[version] = Weights(version, (self._remote.put(self._store.read_weights(version)),))
        return self._there[version]


def version_of(job: Job) -> str | None:
    """What a job goes on from, or is scored with."""
    phase = job.proposal.phase
    return job.proposal.fidelity.weights_version if phase is None else phase.source
