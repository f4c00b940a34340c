"""How long a trial may take when nobody says so."""

import logging

import pytest
from _misbehaving import GENOTYPE

from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.config import Workers
from nao_ray.errors import ConfigError
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.limits import TimeLimits
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import FailureKind, Fidelity, Phase, Proposal


def job(number=0, phase=None, **fidelity):
    return Job(
        proposal=Proposal(genotype=GENOTYPE, trial_id=number, fidelity=Fidelity(**fidelity), phase=phase), attempt=1
    )


def test_ten_times_the_median_and_ten_minutes_at_least_once_three_have_ended():
    limits = TimeLimits("auto")
    assert limits.of([job()]) is None
    limits.note([job()], 1200)
    limits.note([job()], 1000)
    assert limits.of([job()]) is None
    limits.note([job()], 50_000)  # one that was slow
    assert limits.of([job()]) == 12_000
    for _ in range(9):
        limits.note([job()], 5)
    assert limits.of([job()]) == 600


def test_each_fidelity_has_its_own_and_calls_of_several_trials_as_much_for_each():
    limits = TimeLimits("auto")
    for version in ("v1", "v2", "v3"):
        limits.note([job(weights_version=version)] * 4, 1000)
    assert limits.of([job(weights_version="v9")] * 2) == 5000
    assert limits.of([job(epochs=25)]) is None


def test_training_of_shared_weights_takes_any_time():
    phase = Phase(version="v2", source=None, first_epoch=0, last_epoch=1, genotypes=(GENOTYPE.key,))
    assert TimeLimits(5).of([job(phase=phase)]) is None


@pytest.mark.parametrize(("setting", "limit"), [(5.0, 5.0), (None, None)])
def test_a_limit_that_is_set_is_that_whatever_trials_take(setting, limit):
    limits = TimeLimits(setting)
    for _ in range(5):
        limits.note([job()], 1e6)
    assert limits.of([job()]) == limit


def test_a_child_that_hangs_and_answers_pings_is_ended_without_any_setting(caplog):
    cluster, clock = StubCluster({"n": {"CPU": 2}}), VirtualClock()
    executor = RayExecutor(None, WorkerPlan(), clock=clock, remote=cluster)
    executor.submit(job(0))
    executor.wait(0)
    executor.wait(0)
    (hanging,) = cluster.begun
    ended, number = [], 1
    with caplog.at_level(logging.INFO):
        while not any(completion.trial_id == 0 for completion in ended):
            executor.submit(job(number))
            executor.wait(0)
            for _ in range(25):  # of 4 s: each takes 100
                clock.sleep(4)
                ended += executor.wait(0)
            cluster.finish(where=lambda actor: actor is not hanging)
            ended += executor.wait(0)
            number += 1
            assert number < 40
    failure = next(completion.outcome for completion in ended if completion.trial_id == 0)
    assert failure.kind is FailureKind.TIMEOUT
    assert failure.message.startswith("took longer than 1000 s, 10 times what trials take")
    assert "a trial may take 1000 s from now on, see workers.timeout_seconds" in caplog.text
    assert hanging.is_dead


def test_settings():
    assert Workers().timeout_seconds == "auto"
    assert Workers(timeout_seconds="none").timeout_seconds == "none"
    assert Workers(timeout_seconds=None).timeout_seconds is None  # pools of before
    for wrong in (0, -1, True, "never", float("inf")):
        with pytest.raises((ConfigError, ValueError), match="finite number above 0, auto or none"):
            Workers(timeout_seconds=wrong)
