"""How many children share a GPU, where they go, and what becomes of one that ran out of memory."""

from types import SimpleNamespace

import pytest
import ray

from nao_ray.config import Workers
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.placement import Placement, SharedGpus, children_that_fit, resolve_gpus
from nao_ray.service.fleet.worker import Gpu, Slot, Worker, WorkerPlan
from nao_ray.sharing import Shared
from nao_ray.trial import FailureKind, Measurement, Proposal

GIB = 2**30
LARGE, SMALL = Gpu("A", 40 * GIB), Gpu("B", 16 * GIB)
AS_MANY_AS_FIT = [Shared(kind, 99, 99, is_settled=True) for kind in ("A, 40 GiB", "B, 16 GiB")]
NODES = {
    "large": {"CPU": 16, "GPU": 2},
    "small": {"CPU": 16, "GPU": 1},
    "head": {"CPU": 8},
}
OUT = Failure(FailureKind.OUT_OF_MEMORY, "CUDA out of memory")


def on(node_id, per_gpu=1):
    worker = Worker(0, None, Slot(1 / per_gpu, node_id, per_gpu), 0.0)
    worker.node_id = node_id
    return worker


def job(number=0):
    return Job(proposal=Proposal(genotype=None, trial_id=number), attempt=1)


def used(gib):
    return Measurement(valid_accuracy=0.5, peak_memory_bytes=int(gib * GIB))


@pytest.fixture
def gpus():
    """Both kinds of GPU are known, the largest peak is 3 GiB: 8 (at most) on a large GPU, 3 on a small one."""
    gpus = SharedGpus(WorkerPlan(gpus=None), AS_MANY_AS_FIT)
    assert gpus.look(NODES) == 3
    assert not gpus.learn(on("large"), job(), used(3), LARGE)
    assert not gpus.learn(on("small"), job(), used(2), SMALL)
    return gpus


@pytest.mark.parametrize(
    ("memory", "peak", "children"),
    [
        (16, 20, 1),  # it ran, so one fits
        (16, 12, 1),
        (16, 3, 3),  # 16 / (3.75 + 0.75) = 3.6
        (40, 3, 8),
        (80, 1, 40),
        (15, 0.001, 19),  # contexts alone fill it
    ],
)
def test_children_that_fit(memory, peak, children):
    assert children_that_fit(memory * GIB, int(peak * GIB)) == children


def test_a_gpu_begins_with_one_child_until_its_memory_and_a_peak_are_known():
    gpus = SharedGpus(WorkerPlan(gpus=None), AS_MANY_AS_FIT)
    assert gpus.look(NODES) == 3
    gpus.learn(on("large"), job(), used(3), LARGE)
    assert gpus.look(NODES) == 2 * 8 + 1  # of the small ones nothing is known yet
    gpus.learn(on("small"), job(), used(2), SMALL)
    assert gpus.look(NODES) == 2 * 8 + 3
    gpus.learn(on("small"), job(), used(5), SMALL)
    assert gpus.look(NODES) == 2 * 5 + 2


def test_peaks_of_cpus_do_not_count(gpus):
    gpus.learn(on("large"), job(), used(30), None)
    assert gpus.look(NODES) == 2 * 8 + 3


def test_the_nodes_cpus_and_the_cap_limit_the_share():
    gpus = SharedGpus(WorkerPlan(gpus=None, cpus=3, max_per_gpu=4), AS_MANY_AS_FIT)
    nodes = {"many": {"CPU": 64, "GPU": 1}, "few": {"CPU": 12, "GPU": 2}, "fewer": {"CPU": 4, "GPU": 2}}
    assert gpus.look(nodes) == 1 + 2 + 1
    for node_id in nodes:
        gpus.learn(on(node_id), job(), used(1), LARGE)
    assert gpus.look(nodes) == 4 + 2 * 2 + 1


def test_workers_go_where_most_is_free_then_to_a_node_to_come(gpus):
    gpus.look(NODES)
    slots = gpus.slots(20, {})
    assert slots.count(Slot(0.125, "large", 8)) == 16
    assert slots.count(Slot(0.3333, "small", 3)) == 3
    assert slots[-1] == Slot(1, None, 1)  # the demand for a GPU
    assert {slot.node_id for slot in slots[:2]} == {"large", "small"}


def test_a_worker_whose_share_has_changed_is_to_be_replaced(gpus):
    assert gpus.suits(on("large", 8))
    assert not gpus.suits(on("large", 1))
    gpus.learn(on("large", 8), job(), used(7), LARGE)
    assert not gpus.suits(on("large", 8))
    assert gpus.suits(on("large", 4))


def test_a_child_that_runs_out_of_memory_gets_twice_the_room_and_in_the_end_the_largest_gpu_alone(gpus):
    worker, rooms = on("large", 8), []
    while gpus.learn(worker, job(9), OUT, LARGE):
        assert not gpus.takes(worker, job(9))
        slot = gpus.slot_for(job(9), {})
        worker = on(slot.node_id, slot.per_gpu)
        assert gpus.takes(worker, job(9))
        rooms.append((slot.node_id, slot.per_gpu))
    assert rooms == [("large", 4), ("large", 2), ("large", 1)]  # then it is the architecture
    assert gpus.look(NODES) == 2 * 8 + 3  # and says nothing of the others
    assert gpus.slot_for(job(9), {}) is None


def test_out_of_memory_alone_on_a_small_gpu_is_tried_on_a_large_one(gpus):
    assert gpus.learn(on("small"), job(9), OUT, SMALL)
    assert gpus.slot_for(job(9), {}) == Slot(1, "large", 1)
    assert gpus.look(NODES) == 2 + 3  # the node makes room
    assert not gpus.suits(on("large", 8))
    assert gpus.takes(on("large", 8), job(1))
    assert not gpus.takes(on("small"), job(9))
    assert not gpus.learn(on("large"), job(9), used(20), LARGE)
    assert gpus.look(NODES) == 2 * 1 + 1  # 40 / (25 + 0.75)


def test_too_many_for_a_gpu_by_no_peak_are_not_put_there_again(gpus):
    assert gpus.learn(on("large", 8), job(9), OUT, LARGE)
    gpus.learn(on("large", 4), job(9), used(3), LARGE)
    assert gpus.look(NODES) == 2 * 7 + 3


def test_other_failures_and_unknown_gpus_are_not_tried_again(gpus):
    assert not gpus.learn(on("large", 8), job(9), Failure(FailureKind.ERROR, "shapes"), LARGE)
    unknown = SharedGpus(WorkerPlan(gpus=None), AS_MANY_AS_FIT)
    unknown.look(NODES)
    assert not unknown.learn(on("large"), job(9), OUT, None)
    fixed = Placement(WorkerPlan(gpus=0.5))
    assert not fixed.learn(on("large"), job(9), OUT, LARGE)


def test_room_on_a_node_that_dies_is_no_longer_waited_for(gpus):
    assert gpus.learn(on("small"), job(9), OUT, SMALL)
    gpus.look({"small": NODES["small"]})
    assert gpus.takes(on("small", 3), job(9))


def test_fixed_shares_are_what_they_were():
    fixed = Placement(WorkerPlan(gpus=0.5, cpus=2))
    assert fixed.look(NODES) == 4 + 2
    assert fixed.slots(2, {}) == [Slot(0.5)] * 2
    assert fixed.suits(on("large"))
    assert Placement(WorkerPlan(cpus=3)).look(NODES) == 5 + 5 + 2


def test_what_a_process_uses_beside_its_allocator_is_measured_where_it_has_a_gpu_alone():
    """It was taken to be 0.75 GiB, whatever it is."""
    gpus = SharedGpus(WorkerPlan(gpus=None, max_per_gpu=40), AS_MANY_AS_FIT)
    gpus.look({"large": {"CPU": 64, "GPU": 1}})
    gpus.learn(on("large"), job(), used(1), LARGE)
    assert gpus.look(gpus._nodes) == 20  # 40 / (1.25 + 0.75)
    version = gpus.version
    gpus.learn(on("large"), job(), used(1), LARGE._replace(outside=int(0.24 * GIB)))
    assert gpus.look(gpus._nodes) == 26  # 40 / (1.25 + 0.25)
    assert gpus.version > version
    gpus.learn(on("large"), job(), OUT, LARGE._replace(outside=int(1.25 * GIB)))
    assert gpus.look(gpus._nodes) == 16
    gpus.learn(on("large"), job(), used(1), LARGE._replace(outside=int(0.3 * GIB)))
    assert gpus.look(gpus._nodes) == 16, "the most that was seen"


def test_a_node_without_mps_is_a_kind_of_its_own():
    nodes = {"a": {"CPU": 8, "GPU": 1}, "b": {"CPU": 8, "GPU": 1}}
    gpus = SharedGpus(WorkerPlan(gpus=None, mps=True), [Shared("A, 40 GiB, MPS", 3, 3, is_settled=True)])
    gpus.look(nodes)
    for node_id in nodes:
        gpus.learn(on(node_id), job(), used(1), LARGE)
    assert gpus.look(nodes) == 6
    gpus.note_no_mps("b")
    assert gpus.look(nodes) == 3 + 1
    assert [shared.gpu for shared in gpus.sharing] == ["A, 40 GiB, MPS", "A, 40 GiB"]


@pytest.mark.parametrize(
    ("uses_gpu", "shares_weights", "node_gpus", "grows", "gpus"),
    [
        (True, False, 1, False, None),
        (True, False, 0, True, None),  # a head without, machines to come
        (True, False, 0, False, 0),  # a laptop
        (True, True, 4, False, 1),
        (False, False, 4, True, 0),
    ],
)
def test_what_auto_means_for_gpus(monkeypatch, uses_gpu, shares_weights, node_gpus, grows, gpus):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": float(node_gpus)}}])
    monkeypatch.setattr("nao_ray.service.fleet.placement.can_grow", lambda: grows)
    evaluator = SimpleNamespace(uses_gpu=uses_gpu, shares_weights=shares_weights)
    assert resolve_gpus(Workers(gpus="auto"), evaluator) == gpus
    assert resolve_gpus(Workers(gpus=0.5), evaluator) == 0.5
