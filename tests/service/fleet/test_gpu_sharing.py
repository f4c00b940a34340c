"""Children share GPUs by the memory they were measured to use. Fake nodes and GPUs, a stand-in for their memory."""

import time
from collections import defaultdict

import pytest
import ray
from _misbehaving import GENOTYPE, hungry
from ray.cluster_utils import Cluster

from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.sharing import Shared
from nao_ray.trial import FailureKind, Proposal

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster():
    """One node with a GPU of 16 GiB and one with a GPU of 6; a head without."""
    ray.shutdown()
    store = 80 * 2**20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "num_gpus": 0,
            "include_dashboard": False,
            "object_store_memory": store,
            "include_log_monitor": False,
        },
    )
    for gib in ("16", "6"):
        cluster.add_node(num_cpus=4, num_gpus=1, object_store_memory=store, labels={"gpu-gib": gib})
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False, namespace="test")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_large_gpus_run_more_children_and_one_that_is_out_of_memory_gets_room(cluster, tmp_path):
    needs = {20: "9", 21: "30"}  # the others 2 GiB: 16 / (2.5 + 0.75) is 4, 6 / (2.5 + 0.75) is 1
    known = [Shared(f"fake, {gib} GiB", 8, 8, is_settled=True) for gib in (16, 6)]  # what they bring is not the matter
    executor = RayExecutor(hungry(needs, tmp_path), WorkerPlan(gpus=None, watch_seconds=0.5), known=known)
    ended, submitted, most, end = [], 0, 0, time.monotonic() + 600
    try:
        assert executor.capacity == 2
        while len(ended) < 30:
            assert time.monotonic() < end, (submitted, len(ended))
            while submitted < 30 and submitted - len(ended) < executor.capacity:
                executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=submitted), attempt=1))
                submitted += 1
            ended += executor.wait(0.5)
            most = max(most, executor.capacity)
    finally:
        executor.close()
    assert most == 5
    assert sorted(completion.trial_id for completion in ended) == list(range(30))
    failed = [completion for completion in ended if isinstance(completion.outcome, Failure)]
    assert [(completion.trial_id, completion.outcome.kind) for completion in failed] == [
        (21, FailureKind.OUT_OF_MEMORY)
    ]
    tries = defaultdict(list)  # trial -> GiB of the GPU, children on it; in order
    for mark in sorted(tmp_path.iterdir(), key=lambda mark: int(mark.name.rsplit("-", 1)[-1])):
        trial, gib, per_gpu, _ = mark.name.split("-")
        tries[int(trial)].append((int(gib), int(per_gpu)))
    assert tries[0] in ([(16, 1)], [(6, 1)])
    assert any((16, 4) in where for where in tries.values())
    assert {per_gpu for where in tries.values() for gib, per_gpu in where if gib == 6} == {1}
    assert len(tries[20]) > 1
    assert tries[20][-1] == tries[21][-1] == (16, 1)  # alone on the largest, and only then a verdict
    assert all(len(where) == 1 for trial, where in tries.items() if trial < 20)  # none was ended in the middle
