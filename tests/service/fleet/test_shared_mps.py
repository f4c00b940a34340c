"""One daemon for several processes, with a stand-in for NVIDIA's program that writes down what it is told."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from _misbehaving import GENOTYPE, obedient
from ray.exceptions import ActorDiedError, OutOfMemoryError

from nao_ray.bench import _stub_cluster
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet import actors
from nao_ray.service.fleet.actors import EvaluatorActor, Place
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.mps import CONTROL
from nao_ray.service.fleet.shared_mps import SharedMps
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import FailureKind, Measurement, Phase, Proposal

_CONTROL = """#!/bin/sh
if [ "$1" = -d ]; then
    echo "start ${CUDA_VISIBLE_DEVICES-all}" >> "$TOLD"
    exit 0
fi
read word rest
echo "$word" >> "$TOLD"
"""
_WORKER = """
import pathlib, sys
from nao_ray.service.fleet.shared_mps import SharedMps
print(SharedMps("search", pathlib.Path(sys.argv[1]), ("true",)).environ["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def told(tmp_path, monkeypatch):
    """What the stand-in was told."""
    program = tmp_path / "bin" / CONTROL
    program.parent.mkdir()
    program.write_text(_CONTROL)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    return tmp_path / "told"


def ended_within(folder, name="search*"):
    """Wait until nothing of a daemon is left."""
    end = time.monotonic() + 600
    while left := list(folder.glob(name)):
        assert time.monotonic() < end, left
        time.sleep(0.02)


def test_workers_share_a_daemon_which_ends_with_the_last_one_however_they_end(tmp_path, told):
    start = [sys.executable, "-c", _WORKER, str(tmp_path)]
    workers = [subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    pipes = {worker.stdout.readline().strip() for worker in workers}
    assert len(pipes) == 1
    assert Path(pipes.pop()).is_relative_to(tmp_path / "search")
    workers[0].send_signal(signal.SIGKILL)
    workers[0].wait()
    SharedMps("search", tmp_path, ("true",)).close()  # one more comes and goes
    assert told.read_text().splitlines() == ["start all"]  # every GPU, whatever the first one sees
    workers[0].communicate()
    workers[1].communicate()
    workers[2].send_signal(signal.SIGKILL)
    workers[2].communicate()
    ended_within(tmp_path)
    assert told.read_text().splitlines() == ["start all", "quit"]


def test_a_search_that_begins_workers_again_has_a_daemon_again(tmp_path, told):
    for _ in range(2):
        SharedMps("search", tmp_path, ("true",)).close()
        ended_within(tmp_path)
    assert told.read_text().splitlines() == ["start all", "quit"] * 2


def test_what_a_killed_process_has_left_is_no_daemon(tmp_path, told):
    (tmp_path / "search").mkdir()
    os.mkfifo(tmp_path / "search" / "users")
    (tmp_path / "search" / "answer").write_text('{"CUDA_MPS_PIPE_DIRECTORY": "gone"}')
    mps = SharedMps("search", tmp_path, ("true",))
    assert mps.environ["CUDA_MPS_PIPE_DIRECTORY"] != "gone"
    mps.close()
    ended_within(tmp_path)


def test_where_it_does_not_work_every_worker_is_told_why_and_one_alone_tries(tmp_path, told):
    probe = ("sh", "-c", f"echo tried >> {tmp_path}/tries; echo CUDA error 805; exit 1")
    parts = [SharedMps("search", tmp_path, probe) for _ in range(2)]
    for part in parts:
        assert part.problem == "a process under it: exit code 1; CUDA error 805"
        assert not part.environ
        part.close()
    assert (tmp_path / "tries").read_text().splitlines() == ["tried"]
    ended_within(tmp_path)


def test_a_machine_without_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert SharedMps("search", tmp_path).problem == f"there is no {CONTROL} on this machine"


def test_what_goes_wrong_under_the_lock_is_told_as_it_is(tmp_path, told):
    (tmp_path / "search").touch()
    with pytest.raises(FileExistsError):
        SharedMps("search", tmp_path, ("true",))


def test_the_daemon_of_another_user_is_not_asked(tmp_path, told, monkeypatch):
    (tmp_path / "search").mkdir()
    os.mkfifo(tmp_path / "search" / "users")
    reading = os.open(tmp_path / "search" / "users", os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "search" / "answer").write_text('{"LD_PRELOAD": "theirs"}')
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    mps = SharedMps("search", tmp_path, ("true",))
    assert "LD_PRELOAD" not in mps.environ
    mps.close()
    os.close(reading)
    ended_within(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "gpus", "reason", "environ", "said"),
    [
        (True, 0.5, None, "/run/mps", None),
        (True, 0.5, "no daemon here", None, "no daemon here"),
        (True, 1.0, None, None, None),  # a GPU of its own
        (False, 0.5, None, None, None),
    ],
)
def test_a_worker_with_a_share_computes_under_it_from_before_its_evaluator_is_made(
    monkeypatch, wanted, gpus, reason, environ, said
):
    def join(name):
        assert name == "nao_ray_n_07"
        told = {} if reason else {"CUDA_MPS_PIPE_DIRECTORY": "/run/mps"}
        return SimpleNamespace(environ=told, problem=reason)

    context = SimpleNamespace(get_assigned_resources=lambda: {"GPU": gpus}, get_job_id=lambda: "07")
    monkeypatch.setattr(actors.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(actors, "_place", lambda: Place("n", 1, "gpu:0"))
    monkeypatch.setattr(actors, "SharedMps", join)
    monkeypatch.setattr(os, "environ", {})
    seen = []

    def make():
        seen.append(os.environ.get("CUDA_MPS_PIPE_DIRECTORY"))
        return SimpleNamespace(uses_gpu=False, prepare=lambda: None)

    place = EvaluatorActor(mps=wanted).start(make)
    assert (place.under_mps, place.no_mps) == (environ is not None, said)
    assert seen == [environ]


def test_why_workers_take_turns_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(_stub_cluster, "Place", partial(Place, no_mps="no daemon here"))
    cluster = _stub_cluster.StubCluster({"a": {"CPU": 8, "GPU": 4}})
    executor = RayExecutor(None, WorkerPlan(gpus=0.5, mps=True), clock=VirtualClock(), remote=cluster)
    executor.expect(8)
    for _ in range(3):
        executor.wait(0)
    assert len(cluster.actors) == 8
    told = [record.getMessage() for record in caplog.records if "MPS" in record.getMessage()]
    assert told == ["workers that share a GPU of host-a take turns on it, without MPS: no daemon here"]


@pytest.mark.parametrize("under_mps", [True, False])
@pytest.mark.parametrize("how", ["dies", "is cancelled"])
def test_what_computes_beside_a_trial_that_is_ended_in_the_middle_begins_again(monkeypatch, how, under_mps):
    numbers = iter(range(100))

    def place(node_id, pid, device, fault):  # two to a GPU
        return Place(node_id, pid, f"gpu:{next(numbers) // 2}", fault, under_mps=under_mps)

    monkeypatch.setattr(_stub_cluster, "Place", place)
    cluster = _stub_cluster.StubCluster({"a": {"CPU": 4, "GPU": 2}})
    executor = RayExecutor(None, WorkerPlan(gpus=0.5, mps=True), clock=VirtualClock(), remote=cluster)
    for number in range(4):
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))
    while len(cluster.begun) < 4:
        executor.wait(0)
    numbers = iter(range(10, 100))  # those that follow have another GPU
    (victim, *_), beside = cluster.begun, {actor.proposals[0].trial_id: actor for actor in cluster.begun}
    (number,) = (proposal.trial_id for proposal in victim.proposals)
    devices = {
        trial_id: executor._fleet.busy[at].device
        for at, worker in executor._fleet.busy.items()
        for trial_id in [worker.jobs[0].proposal.trial_id]
    }
    (neighbour,) = (other for other in devices if other != number and devices[other] == devices[number])
    if how == "dies":
        cluster.begun.remove(victim)
        victim.call.end(ActorDiedError())
    else:
        executor.cancel(number)
    ended = []
    for _ in range(4):
        ended += executor.wait(0)
    assert beside[neighbour].is_dead is under_mps
    assert not any(beside[other].is_dead for other in devices if other not in (number, neighbour))
    while len(ended) < (4 if how == "dies" else 3):
        cluster.finish()
        ended += executor.wait(0)
    good = {
        completion.trial_id: completion.attempt for completion in ended if completion.outcome.__class__ is Measurement
    }
    assert good == {other: 1 for other in devices if other != number}


BROKEN = Failure(FailureKind.LOST, "RuntimeError: CUDA error: an illegal memory access", is_of_device=True)


def test_an_error_of_a_gpu_is_no_attempt_of_those_beside_and_one_alone_is_the_trials_own(monkeypatch):
    """Each of those on the GPU lost an attempt, for MPS tells all of them."""
    monkeypatch.setattr(_stub_cluster, "Place", lambda *at: Place(*at[:2], "gpu:0", under_mps=True))

    def outcome(actor, proposal):  # trial 1 breaks the GPU for whoever is there
        beside = {other.proposals[0].trial_id for other in at_work}
        return BROKEN if 1 in beside else Measurement(valid_accuracy=0.5)

    cluster, clock = _stub_cluster.StubCluster({"a": {"CPU": 4, "GPU": 1}}, outcome=outcome), VirtualClock()
    executor = RayExecutor(None, WorkerPlan(gpus=0.5, mps=True), clock=clock, remote=cluster)
    for number in range(2):
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))
    ended, crowds = {}, []
    for _ in range(60):
        clock.sleep(2)
        for completion in executor.wait(0):
            ended[completion.trial_id] = completion
        at_work = [actor for actor in cluster.begun if not actor.is_dead]
        crowds += [{actor.proposals[0].trial_id for actor in at_work}] if at_work else []
        cluster.finish()
    assert crowds[0] == {0, 1}
    assert {0} in crowds, "alone, and well"
    assert (ended[0].outcome, ended[0].attempt) == (Measurement(valid_accuracy=0.5), 1)
    assert isinstance(ended[1].outcome, Failure)
    assert ended[1].outcome.message == BROKEN.message


def test_what_is_killed_for_memory_is_tried_alone_once_although_all_on_its_gpu_begin_again(monkeypatch):
    monkeypatch.setattr(_stub_cluster, "Place", lambda *at: Place(*at[:2], "gpu:0", under_mps=True))
    cluster, clock = _stub_cluster.StubCluster({"a": {"CPU": 4, "GPU": 1}}), VirtualClock()
    executor = RayExecutor(None, WorkerPlan(gpus=0.5, mps=True), clock=clock, remote=cluster)
    for number in range(2):
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))

    def at_work():
        for _ in range(4):
            clock.sleep(2)
            assert executor.wait(0) == []
        return {actor.proposals[0].trial_id: actor for actor in cluster.begun if not actor.is_dead}

    def kill(actor):
        cluster.begun.remove(actor)
        actor.call.end(OutOfMemoryError("Task was killed due to the node running low on memory"))
        return executor.wait(0)

    assert kill(at_work()[0]) == []
    assert at_work().keys() == {0}, "nothing beside it"
    (ended,) = kill(at_work()[0])
    assert ended.outcome.kind is FailureKind.OUT_OF_MEMORY
    assert at_work().keys() == {1}


def test_a_phase_beside_a_trial_that_is_ended_in_the_middle_begins_again_with_all_that_carry_it_out(monkeypatch):
    """It went on in a state that is undefined, for phases had all workers to themselves."""
    numbers = iter(range(100))

    def place(node_id, pid, device, fault):  # two to a GPU
        return Place(node_id, pid, f"gpu:{next(numbers) // 2}", fault, under_mps=True)

    monkeypatch.setattr(_stub_cluster, "Place", place)
    cluster = _stub_cluster.StubCluster({"a": {"CPU": 4, "GPU": 2}})
    executor = RayExecutor(None, WorkerPlan(gpus=0.5, mps=True, trained_by=3), clock=VirtualClock(), remote=cluster)
    phase = Phase(version="v1", source=None, first_epoch=0, last_epoch=1, genotypes=())
    for proposal in (Proposal(genotype=GENOTYPE, trial_id=0, phase=phase), Proposal(genotype=GENOTYPE, trial_id=1)):
        executor.submit(Job(proposal=proposal, attempt=1))
    while len(cluster.begun) < 4:
        executor.wait(0)
    (alone,) = (actor for actor in cluster.begun if actor.group is None)
    alone.call.end(ActorDiedError())
    (ended,) = executor.wait(0)
    assert ended.trial_id == 1
    assert all(actor.is_dead for actor in cluster.begun), "one has computed beside it, and the others wait for that one"
    cluster.begun.clear()
    while len(cluster.begun) < 3:
        executor.wait(0)
    cluster.finish()
    ended = [completion for _ in range(3) for completion in executor.wait(0)]
    assert [(completion.trial_id, completion.attempt, completion.weights) for completion in ended] == [(0, 1, b"v1")]


@pytest.fixture
def one_gpu():
    """A Ray with a GPU that is none."""
    ray.shutdown()
    store = 80 * 2**20
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=store,
        log_to_driver=False,
        configure_logging=False,
        namespace="test",
    )
    yield
    ray.shutdown()


@pytest.mark.ray
def test_it_outlasts_the_worker_that_began_it_and_ends_with_the_search(tmp_path, told, monkeypatch, request, caplog):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    request.getfixturevalue("one_gpu")
    executor = RayExecutor(obedient({0: "die", 1: "sleep 600"}, tmp_path), WorkerPlan(count=2, gpus=0.5, mps=True))
    ended, end = [], time.monotonic() + 600
    try:
        for number in range(2):
            executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=number), attempt=1))
        while not ended or not (tmp_path / "1").exists():
            assert time.monotonic() < end
            ended += executor.wait(0.5)
        (folder,) = tmp_path.glob("nao_ray_*_*[0-9]")
        begun = (folder / "answer").stat().st_mtime_ns
        executor.submit(Job(proposal=Proposal(genotype=GENOTYPE, trial_id=2), attempt=1))
        while len(ended) < 2:
            assert time.monotonic() < end
            ended += executor.wait(0.5)
        assert (folder / "answer").stat().st_mtime_ns == begun  # it was there for the worker that came later
    finally:
        executor.close()
    assert [completion.trial_id for completion in ended] == [0, 2]
    ended_within(tmp_path, "nao_ray_*")
    assert caplog.text.count("take turns on it, without MPS: a process under it") == 1  # no GPU
