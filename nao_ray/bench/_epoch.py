"""An epoch of shared weights as a search has it: a phase that worker actors on a local Ray train together."""

from __future__ import annotations

import time
from contextlib import closing

from nao_ray import registry, rng
from nao_ray.config import RunConfig
from nao_ray.errors import RunError
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.actors import EvaluatorFactory
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.service.hosting.cluster import ray_session
from nao_ray.trial import Phase, Proposal

PLANS = ((1, 1), (1, 2), (2, 1))
"""Workers, and CPUs of each."""
_GENOTYPES = 20
_CLASSES = 10


def seconds_of_epochs(images: int, epochs: int, batch: int, n: int, f: int) -> dict[tuple[int, int], list[float]]:
    """Wall time of each epoch after a first one that is not timed, as the driver sees it, for each of `PLANS`.

    An epoch is a version of the weights: they go to the workers before, and come back after it.

    Raises:
        RunError: an epoch failed.
    """
    config = _config(images, batch, n, f)
    with ray_session(config.workers, shares_weights=True):
        return {plan: _epochs(config, WorkerPlan(count=plan[0], cpus=plan[1]), epochs) for plan in PLANS}


def _epochs(config: RunConfig, plan: WorkerPlan, epochs: int) -> list[float]:
    versions: dict[str, bytes] = {}
    seconds = []
    with closing(RayExecutor(EvaluatorFactory(config.to_yaml()), plan, weights=_Store(versions))) as executor:
        for epoch in range(epochs + 1):
            start = time.perf_counter()
            executor.submit(Job(proposal=_phase(epoch), attempt=1))
            while not (ended := executor.wait(1.0)):
                pass
            if isinstance(ended[0].outcome, Failure) or ended[0].weights is None:
                raise RunError(f"bench supernet: an epoch failed: {ended[0].outcome}")
            versions[f"e{epoch + 1}"] = ended[0].weights
            seconds.append(time.perf_counter() - start)
    return seconds[1:]


class _Store:
    """Versions in memory."""

    def __init__(self, versions: dict[str, bytes]) -> None:
        self._versions = versions

    def read_weights(self, version: str) -> bytes:
        return self._versions[version]


def _phase(epoch: int) -> Proposal:
    space = registry.load("space", "nao_cnn_small")()
    genotypes = [space.sample(rng.child(0, "bench epoch", index)) for index in range(_GENOTYPES)]
    phase = Phase(
        version=f"e{epoch + 1}",
        source=f"e{epoch}" if epoch else None,
        first_epoch=epoch,
        last_epoch=epoch + 1,
        genotypes=tuple(genotype.key for genotype in genotypes),
    )
    return Proposal(genotype=genotypes[0], phase=phase, seed=0)


def _config(images: int, batch: int, n: int, f: int) -> RunConfig:
    per_class = -(-images * 10 // 9 // _CLASSES)  # a tenth is validation
    task = {"name": "synthetic", "size": 32, "channels": 3, "classes": _CLASSES, "per_class": max(5, per_class)}
    evaluator = {"name": "one_shot", "cells_per_stage": n, "channels": f, "period": 1000}
    return RunConfig.model_validate(
        {
            "name": "bench",
            "space": "nao_cnn_small",
            "task": task,
            "evaluator": {**evaluator, "recipe": {"name": "paper_shared", "batch": batch, "drop_path_keep": 1.0}},
            "strategy": "shared_random_search",
            "budget": {"trials": 1},
            "workers": {"count": 2, "cpus": 1},
        }
    )
