"""Ray's autoscaler adds nodes for the work there is and takes them away after it. Fake nodes, on this machine."""

import time

import pandas as pd
import pytest
import ray
from _autoscaling import AutoscaledCluster
from _misbehaving import GENOTYPE, obedient
from test_run import config

from nao_ray.search.executor import Job
from nao_ray.service.fleet.demand import can_grow
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.service.hosting.run import run
from nao_ray.trial import Proposal

pytestmark = [pytest.mark.ray, pytest.mark.slow]

MOST = 2


@pytest.fixture
def cluster(request):
    ray.shutdown()
    cluster = AutoscaledCluster(MOST, v2=request.param == "v2")
    try:
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, namespace="test")
        yield cluster
    finally:
        ray.shutdown()
        cluster.close()


def until(condition, meanwhile=lambda: time.sleep(0.2)):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end
        meanwhile()


@pytest.mark.parametrize("cluster", ["v2"], indirect=True)
def test_a_search_grows_the_cluster_to_its_limit_and_gives_it_back(cluster, tmp_path):
    seen = []
    assert cluster.nodes() == 0
    wanted = config("workers.count=auto", "workers.gpus=1", "evaluator.sleep_seconds=0.5", "budget.trials=40")
    end = time.monotonic() + 600
    run(
        wanted,
        str(tmp_path / "p"),
        lambda snapshot: seen.append((cluster.nodes(), snapshot.running)),
        stop=lambda: time.monotonic() > end,
    )
    assert max(seen) == (MOST, MOST)
    trials = pd.read_parquet(tmp_path / "p" / "trials")
    assert len(trials) == 40
    assert set(trials["attempt"]) == {1}
    until(lambda: cluster.nodes() == 0)


@pytest.mark.parametrize("cluster", ["v1"], indirect=True)
def test_nodes_are_given_back_as_the_queue_dries_up(cluster, tmp_path):
    plan = WorkerPlan(gpus=1, idle_seconds=1, watch_seconds=0.5)
    executor = RayExecutor(obedient(dict.fromkeys(range(MOST), "sleep 2") | {9: "sleep 600"}, tmp_path), plan)
    try:
        until(can_grow)  # the autoscaler reports for the first time
        executor.expect(None)
        for number in (9, *range(MOST)):
            executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))
        ended = []
        until(lambda: cluster.nodes() == MOST, lambda: ended.extend(executor.wait(0.5)))
        executor.expect(0)
        until(lambda: len(ended) == MOST, lambda: ended.extend(executor.wait(0.5)))
        until(lambda: cluster.nodes() == 1, lambda: ended.extend(executor.wait(0.5)))
        assert {completion.trial_id for completion in ended} == set(range(MOST))  # the long one was not disturbed
        assert len(executor._fleet) == 1
    finally:
        executor.close()
