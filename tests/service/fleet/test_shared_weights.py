"""Shared weights trained by several worker actors, one of which is killed on the way."""

import time

import psutil
import pytest
import ray

from nao_ray import rng
from nao_ray.config import RunConfig
from nao_ray.errors import PoolError
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.actors import EvaluatorFactory
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import FailureKind, Fidelity, Phase, Proposal

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

CONFIG = """
name: ws
space: nao_cnn_small
task: {name: synthetic, per_class: 20}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 4
  period: 400
  recipe: {name: paper_shared, crop_padding: 1, flip: false, batch: 24, lr: 0.05}
strategy: {name: shared_random_search}
budget: {trials: 10}
"""
SPACE = RunConfig.parse(CONFIG).make_space()
GENOTYPES = [SPACE.sample(rng.child(0, "shared", index)) for index in range(6)]


def phase(first, last, source=None):
    texts = tuple(genotype.key for genotype in GENOTYPES)
    given = Phase(version=f"v{last}", source=source, first_epoch=first, last_epoch=last, genotypes=texts)
    return Proposal(genotype=GENOTYPES[0], phase=given, seed=7)


def finish(executor, seconds=240.0):
    """What ends next, sooner than the others of a broken group would have given up (5 minutes)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ended := executor.wait(1.0):
            return ended
    raise AssertionError("nothing ended")


def until_they_train(*workers, seconds=600.0):
    """They have computed for longer than it takes to meet."""
    end = time.monotonic() + seconds
    begun = [worker.cpu_times().user for worker in workers]
    while any(worker.cpu_times().user < before + 1 for worker, before in zip(workers, begun, strict=True)):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_is_killed_in_a_phase_and_training_goes_on_from_the_last_version(shelf):
    executor = RayExecutor(EvaluatorFactory(CONFIG), WorkerPlan(count=2, at_once=3), weights=shelf)
    try:
        executor.submit(Job(proposal=phase(0, 1), attempt=1))
        (done,) = finish(executor)
        assert done.outcome.train_loss > 0
        shelf["v1"] = done.weights
        assert len(executor._fleet) == 2
        executor.submit(Job(proposal=phase(1, 400, "v1"), attempt=1))
        while len(executor._fleet.group) < 2:
            executor.wait(0.1)
        members = [worker.actor.ping.options(concurrency_group="control") for worker in executor._fleet.group.values()]
        first, second = (psutil.Process(ray.get(ping.remote()).pid) for ping in members)
        until_they_train(first, second)
        second.kill()
        (lost,) = finish(executor)
        assert isinstance(lost.outcome, Failure)
        assert lost.outcome.kind is FailureKind.LOST
        assert lost.weights is None, "nothing of the broken phase is kept"
        executor.submit(Job(proposal=phase(1, 2, "v1"), attempt=2))
        (done,) = finish(executor)
        assert done.outcome.train_loss > 0
        shelf["v2"] = done.weights
        for number, genotype in enumerate(GENOTYPES):
            fidelity = Fidelity(weights_version="v2")
            executor.submit(Job(proposal=Proposal(genotype=genotype, trial_id=number, fidelity=fidelity), attempt=1))
        ended = []
        while len(ended) < len(GENOTYPES):
            ended += finish(executor)
        assert {each.trial_id for each in ended} == set(range(len(GENOTYPES)))
        assert all(each.outcome.valid_accuracy is not None for each in ended)
        for broken in (
            Proposal(genotype=GENOTYPES[0], trial_id=90, fidelity=Fidelity(weights_version="v3")),
            phase(3, 4, "v3"),
        ):
            shelf["v3"] = b"of something else"
            executor.submit(Job(proposal=broken, attempt=1))
            with pytest.raises(PoolError, match="weights v3 are not of this supernet"):
                finish(executor)
            executor.close()
    finally:
        executor.close()
