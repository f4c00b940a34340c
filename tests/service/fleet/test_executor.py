"""Worker actors: results as they finish, and every way to lose one."""

import os
import time
from collections import Counter
from dataclasses import replace

import psutil
import pytest
import ray
from _misbehaving import GENOTYPE, freezes_as_it_loads, freezes_at_first, no_data, no_library, obedient, slow_to_start

from nao_ray.errors import DataError, RunError
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.actors import EvaluatorActor
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import FailureKind, Interim, Measurement, Proposal

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.fixture
def start(tmp_path):
    """Makes executors, and ends their workers after the test."""
    made = []

    def make(orders=None, factory=None, **plan):
        executor = RayExecutor(factory or obedient(orders or {}, tmp_path), WorkerPlan(**plan))
        made.append(executor)
        return executor

    yield make
    for executor in made:
        executor.close()


def submit(executor, *numbers, attempt=1):
    for number in numbers:
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=attempt))


def collect(executor, n, seconds=600.0):
    ended, end = [], time.monotonic() + seconds
    while len(ended) < n:
        assert time.monotonic() < end, ended
        ended += executor.wait(1.0)
    return ended


def kinds(ended):
    return {c.trial_id: c.outcome.kind if isinstance(c.outcome, Failure) else None for c in ended}


def pids(folder):
    return Counter(mark.read_text() for mark in folder.iterdir() if mark.name.isdigit())


def test_results_come_as_they_finish_from_as_many_workers_as_planned(start, tmp_path):
    executor = start({0: "sleep 1.5", 1: "sleep 0.5"}, count=2)
    submit(executor, 4, 5)
    collect(executor, 2)
    while len(executor._fleet.idle) < 2:  # both are there
        executor.wait(0.1)
    submit(executor, 0, 1, 2, 3)
    ended = collect(executor, 4)
    assert [c.trial_id for c in ended] == [1, 2, 3, 0]
    assert len(pids(tmp_path)) == 2
    assert all(isinstance(c.outcome, Measurement) and c.attempt == 1 for c in ended)
    assert ended[3].node == os.uname().nodename
    assert ended[3].device == "cpu"
    assert (ended[3].finished_at - ended[3].started_at).total_seconds() >= 1.5


@pytest.mark.parametrize(
    ("order", "kind", "trace"),
    [
        ("talk-raise no such layer", FailureKind.ERROR, "Traceback (most recent call last)"),
        ("talk-die", FailureKind.LOST, "worker process has died"),
    ],
)
def test_what_a_failed_trial_said_comes_with_it(start, order, kind, trace):
    executor = start({1: order}, count=1)
    submit(executor, 0)
    collect(executor, 1)
    submit(executor, 1)
    (ended,) = collect(executor, 1)
    assert ended.outcome.kind is kind
    log = ended.outcome.log
    assert trace in log
    for said in ("line 299", "UserWarning: take heed", "library INFO: this may help", "from a process of the trial"):
        assert said in log
    assert "line 200\n" in log
    assert "line 199\n" not in log


def test_a_training_tells_its_scores_with_each_sign_of_life(start):
    executor = start({1: "tell 1.5"}, count=1, ping_seconds=0.1)
    submit(executor, 1)
    heard, ended = [], []
    while not ended:
        ended = executor.wait(0.1)
        heard += executor.overheard()
    assert list(dict.fromkeys(heard)) == [Interim(1, 1, 0.25), Interim(1, 2, 0.375)]
    submit(executor, 2)
    collect(executor, 1)
    assert executor.overheard() == [], "of what ended before nothing is told again"


def test_auto_means_what_the_cluster_holds(start):
    settles(start(watch_seconds=0.1), 4)
    settles(start(cpus=1.5, watch_seconds=0.1), 2)
    settles(start(gpus=1, watch_seconds=0.1), 1)  # none: one waits, and is the demand
    settles(start(count=3, watch_seconds=0.1), 3)


def settles(executor, capacity, seconds=600.0):
    """Its capacity becomes this, once Ray knows what the test before has given back."""
    end = time.monotonic() + seconds
    while executor.capacity != capacity:
        assert time.monotonic() < end, executor.capacity
        executor.wait(0.1)


def test_a_second_search_commits_what_it_has_places_for_and_is_given_one(start, monkeypatch):
    monkeypatch.setattr("nao_ray.service.fleet.neighbours._PATIENCE_SECONDS", 1.0)
    first, number = start(dict.fromkeys(range(1000), "sleep 0.5"), watch_seconds=0.2), 0
    first.expect(None)
    settles(first, 4)

    def go_on():
        nonlocal number
        while number - done < 4:
            submit(first, number)
            number += 1
        return len(first.wait(0.1))

    done = 0
    while len(first._fleet.busy) < 4:
        done += go_on()
    second = start(watch_seconds=0.2)
    settles(second, 1)
    submit(second, 5000)
    ended, end = [], time.monotonic() + 600
    while not ended:
        assert time.monotonic() < end
        done += go_on()
        ended = second.wait(0.1)
    assert kinds(ended) == {5000: None}
    settles(first, 3)
    assert second.capacity == 1


def test_no_more_workers_than_work_and_idle_ones_are_given_back(start, tmp_path):
    executor = start(count=3, idle_seconds=0.3)
    submit(executor, 0)
    collect(executor, 1)
    assert len(executor._fleet) == 1
    time.sleep(0.4)
    executor.wait(0)
    assert not len(executor._fleet)
    submit(executor, 1)
    assert kinds(collect(executor, 1)) == {1: None}
    assert len(pids(tmp_path)) == 2


def test_a_killed_worker_is_a_lost_job_and_a_new_worker(start):
    executor = start({1: "die"}, count=1)
    submit(executor, 0)
    collect(executor, 1)
    submit(executor, 1)
    ended = collect(executor, 1)
    assert kinds(ended) == {1: FailureKind.LOST}
    assert "ActorDiedError" in ended[0].outcome.message
    submit(executor, 1, attempt=2)
    again = collect(executor, 1)[0]
    assert isinstance(again.outcome, Measurement)
    assert again.attempt == 2


def test_exceptions_are_failures_and_the_worker_lives_on(start, tmp_path):
    executor = start({0: "raise shapes differ", 1: "raise CUDA out of memory"}, count=1)
    submit(executor, 0, 1, 2)
    ended = collect(executor, 3)
    assert kinds(ended) == {0: FailureKind.ERROR, 1: FailureKind.OUT_OF_MEMORY, 2: None}
    assert ended[0].outcome.message.startswith("RuntimeError: shapes differ (in evaluate, ")
    assert len(pids(tmp_path)) == 1


def test_a_broken_cuda_context_costs_the_worker(start, tmp_path):
    executor = start({1: "raise CUDA error: an illegal memory access was encountered"}, count=1)
    submit(executor, 0, 1, 2)
    assert kinds(collect(executor, 3)) == {0: None, 1: FailureKind.LOST, 2: None}
    assert len(pids(tmp_path)) == 2


def test_a_job_beyond_its_time_is_ended_and_holds_up_nobody(start):
    executor = start({0: "sleep 600"}, count=1, timeout_seconds=2)
    submit(executor, 0, 1)
    ended = collect(executor, 2)
    assert kinds(ended) == {0: FailureKind.TIMEOUT, 1: None}
    assert "workers.timeout_seconds 2" in ended[0].outcome.message


def test_a_limit_counts_the_work_and_not_the_start_of_a_worker(start, tmp_path):
    executor = start(factory=slow_to_start(4, {0: "sleep 600"}, tmp_path), count=1, timeout_seconds=2)
    submit(executor, 0, 1, 2)
    assert kinds(collect(executor, 3)) == {0: FailureKind.TIMEOUT, 1: None, 2: None}
    assert len(pids(tmp_path)) == 2  # the one that had to end, and the next, which took longer to start than the limit


def test_a_worker_that_gives_no_sign_of_life_is_lost(start, tmp_path):
    executor = start({0: "freeze", 1: "sleep 5"}, count=2, ping_seconds=0.5, silent_seconds=3)
    submit(executor, 0, 1)
    ended = collect(executor, 2)
    assert kinds(ended) == {0: FailureKind.LOST, 1: None}  # the other works for longer, and answers
    assert "no sign of life" in ended[0].outcome.message
    ends(int((tmp_path / "0").read_text()))


def test_a_worker_that_freezes_while_it_starts_is_replaced(start, tmp_path):
    executor = start(factory=freezes_at_first(tmp_path), count=1, ping_seconds=0.5, silent_seconds=3)
    submit(executor, 0)
    assert kinds(collect(executor, 1)) == {0: None}
    ends(int((tmp_path / "frozen").read_text()))


def test_a_worker_that_freezes_before_it_says_anything_is_replaced(start, tmp_path, monkeypatch):
    monkeypatch.setattr("nao_ray.service.fleet.remote.EvaluatorActor", freezes_as_it_loads(tmp_path))
    executor = start(count=1, ping_seconds=0.5, silent_seconds=3)
    submit(executor, 0)
    assert kinds(collect(executor, 1)) == {0: None}
    ends(int((tmp_path / "frozen").read_text()))


def test_a_worker_that_waits_for_room_may_be_silent(start):
    holder = ray.remote(num_cpus=4)(EvaluatorActor).remote()
    ray.get(holder.ping.remote())
    executor = start(count=1, ping_seconds=0.2, silent_seconds=1)
    submit(executor, 0)
    executor.wait(0)
    (worker,) = executor._fleet.starting.values()
    end = time.monotonic() + 3  # longer than it may be silent elsewhere
    while time.monotonic() < end:
        assert executor.wait(0.2) == []
        assert list(executor._fleet.starting.values()) == [worker]
    assert not worker.is_there
    ray.kill(holder)
    executor._fleet._plan = replace(executor._fleet._plan, silent_seconds=30)
    assert kinds(collect(executor, 1)) == {0: None}
    assert list(executor._fleet.idle.values()) == [worker]


def ends(pid, seconds=600.0):
    """A process ends soon, also one that cannot be asked to because it is stopped."""
    end = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_creation_that_hangs_holds_up_nobody(start, tmp_path):
    executor = start(count=9)  # the cluster holds four
    submit(executor, *range(12))
    assert set(kinds(collect(executor, 12)).values()) == {None}
    assert len(pids(tmp_path)) <= 4


def test_workers_that_cannot_start_end_the_run_with_the_reason(start):
    executor = start(factory=no_data, count=1)
    submit(executor, 0)
    with pytest.raises(DataError, match=r"no images in /data: give task\.folder"):
        collect(executor, 1)
    executor = start(factory=no_library, count=2)
    submit(executor, 0, 1)
    # the third is not the last if another is still starting, which might succeed
    with pytest.raises(RunError, match=r"no worker can start, tried [34] times: ImportError: libnothing\.so"):
        collect(executor, 1)


def test_wait_returns_when_something_else_is_ready(start):
    executor = start({0: "sleep 600"}, count=1)
    submit(executor, 0)
    while not executor._fleet.busy:
        executor.wait(0.1)
    assert executor.wait(None, [ray.put(1)]) == []
