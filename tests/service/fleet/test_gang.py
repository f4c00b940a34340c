"""Phases of shared weights: who takes part, side by side or one after the other, and what the end of a member costs."""

import pytest
from _misbehaving import GENOTYPE
from ray.exceptions import ActorDiedError, OutOfMemoryError

from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.worker import WorkerPlan
from nao_ray.trial import FailureKind, Fidelity, Measurement, Phase, Proposal


class Shelf(dict):
    """Versions, and which were read, in order."""

    def __init__(self, *names):
        super().__init__({name: name.encode() for name in names})
        self.read = []

    def read_weights(self, version):
        self.read.append(version)
        return self[version]


def phase(trial_id, training, epoch=0, attempt=1):
    """An epoch of a training, whose versions are named `a1`, `a2` and so on."""
    given = Phase(
        version=f"{training}{epoch + 1}",
        source=f"{training}{epoch}" if epoch else None,
        first_epoch=epoch,
        last_epoch=epoch + 1,
        genotypes=(GENOTYPE.key,),
        seed=ord(training),
    )
    return Job(proposal=Proposal(genotype=GENOTYPE, trial_id=trial_id, phase=given), attempt=attempt)


def score(trial_id, version=None):
    fidelity = Fidelity(weights_version=version)
    return Job(proposal=Proposal(genotype=GENOTYPE, trial_id=trial_id, fidelity=fidelity), attempt=1)


class Bench:
    """An executor over made-up machines of four workers each."""

    def __init__(self, workers, shelf=None, *, nodes=1, **plan):
        self.ends = {}  # by trial: how it ends, once
        self.clock = VirtualClock()
        self.cluster = StubCluster({f"n{k}": {"CPU": workers // nodes} for k in range(nodes)}, outcome=self.outcome)
        self.shelf = Shelf("a1", "a2", "b1", "b2", "c1") if shelf is None else shelf
        plan = WorkerPlan(gather_seconds=30.0, **plan)
        self.executor = RayExecutor(None, plan, clock=self.clock, weights=self.shelf, remote=self.cluster)

    def outcome(self, _, proposal):
        measurement = Measurement(train_loss=1.0) if proposal.phase else Measurement(valid_accuracy=0.5)
        return self.ends.pop(proposal.trial_id, measurement)

    def submit(self, *jobs):
        for job in jobs:
            self.executor.submit(job)
        for _ in range(3):
            assert self.executor.wait(0) == []

    def sleep(self, seconds):
        for _ in range(0, seconds, 4):  # more would be a driver that stood still
            self.clock.sleep(4)
            assert self.executor.wait(0) == []

    def at_work(self):
        """Trials under way, and how many workers each has, in the order they began."""
        found = {}
        for actor in self.cluster.begun:
            if not actor.is_dead:
                for proposal in actor.proposals:
                    found[proposal.trial_id] = found.get(proposal.trial_id, 0) + 1
        return found

    def finish(self, *trial_ids):
        self.cluster.finish(where=lambda actor: any(p.trial_id in trial_ids for p in actor.proposals))
        return self.executor.wait(0)

    def workers_of(self, trial_id):
        return [actor for actor in self.cluster.begun if actor.proposals[0].trial_id == trial_id and not actor.is_dead]


def sources(bench):
    return {actor.proposals[0].trial_id: actor.weights and actor.weights.version for actor in bench.cluster.begun}


def test_phases_of_several_trainings_are_carried_out_side_by_side_each_from_its_own_version():
    """They were carried out one after the other, the other workers idle."""
    bench = Bench(4, trained_by=1)
    bench.submit(phase(0, "a", 1), phase(1, "b", 2), phase(2, "c"))
    assert bench.at_work() == {0: 1, 1: 1, 2: 1}
    assert sources(bench) == {0: "a1", 1: "b2", 2: None}
    (done,) = bench.finish(1)
    assert (done.trial_id, done.weights) == (1, b"b3")
    bench.shelf["b3"] = b"b3"
    bench.submit(phase(3, "b", 3))
    assert bench.at_work() == {0: 1, 2: 1, 3: 1}
    assert {(done.trial_id, done.weights) for done in bench.finish(0, 2, 3)} == {(0, b"a2"), (2, b"c1"), (3, b"b4")}


@pytest.mark.parametrize("others", [0, 1])
def test_a_worker_that_dies_costs_its_own_training_alone(others):
    bench = Bench(3, trained_by=1)
    bench.submit(phase(0, "a", 1), phase(1, "b", 1), *(score(9, "c1") for _ in range(others)))
    bench.ends[0] = ActorDiedError()
    (lost,) = bench.finish(0)
    assert (lost.trial_id, lost.outcome.kind, lost.weights) == (0, FailureKind.LOST, None)
    assert set(bench.at_work()) == {1, *[9][:others]}, "the others are unharmed"
    bench.submit(phase(0, "a", 1, attempt=2))
    assert sources(bench)[0] == "a1"
    assert {(done.trial_id, done.attempt, done.weights) for done in bench.finish(0, 1)} == {
        (0, 2, b"a2"),
        (1, 1, b"b2"),
    }


def test_several_trainings_share_the_workers_evenly_and_a_single_one_has_all():
    bench = Bench(8, trained_by=6)
    bench.submit(phase(0, "a"))
    assert bench.at_work() == {0: 6}
    bench.finish(0)
    bench.submit(phase(1, "a", 1), phase(2, "b"))
    assert bench.at_work() == {1: 4, 2: 4}
    assert sorted(actor.group.rank for actor in bench.workers_of(2)) == [0, 1, 2, 3]


def test_a_phase_waits_for_its_part_of_the_workers_but_not_as_long_as_a_phase_takes():
    bench = Bench(8, trained_by=6)
    bench.submit(phase(0, "a"))
    bench.submit(phase(1, "b"))
    assert bench.at_work() == {0: 6}, "two are idle, its part is four"
    bench.sleep(20)
    assert bench.at_work() == {0: 6}
    bench.sleep(20)
    assert bench.at_work() == {0: 6, 1: 2}


def test_a_member_that_dies_ends_its_group_and_no_other():
    """The end of a group was that of all that trained."""
    bench = Bench(4, trained_by=2)
    bench.submit(phase(0, "a"), phase(1, "b"))
    assert bench.at_work() == {0: 2, 1: 2}
    second = bench.workers_of(0)[1]
    second.call.end(ActorDiedError())
    (lost,) = bench.executor.wait(0)
    assert (lost.trial_id, lost.outcome.kind) == (0, FailureKind.LOST)
    assert bench.at_work() == {1: 2}
    bench.submit(phase(0, "a", attempt=2))
    assert bench.at_work() == {1: 2, 0: 2}
    assert sorted(done.trial_id for done in bench.finish(0, 1)) == [0, 1]


def test_more_trainings_than_workers_have_one_each_and_take_turns():
    bench = Bench(2, trained_by=8)
    bench.submit(phase(0, "a"), phase(1, "b"), phase(2, "c"))
    assert bench.at_work() == {0: 1, 1: 1}
    bench.finish(0)
    assert bench.at_work() == {1: 1, 2: 1}


def test_a_phase_of_several_begins_after_a_while_with_those_that_have_started():
    bench = Bench(4, nodes=2, trained_by=4)
    bench.cluster.dead.add("n1")  # which the driver does not know yet
    bench.submit(phase(0, "a"))
    assert bench.at_work() == {}
    bench.cluster.dead.clear()
    bench.sleep(20)
    assert bench.at_work() == {}
    bench.sleep(20)
    assert bench.at_work() == {0: 2}


def test_members_that_do_not_end_when_the_weights_are_there_are_ended_after_a_while():
    bench = Bench(4, trained_by=2)
    bench.submit(phase(0, "a"), phase(1, "b"))
    first, second = bench.workers_of(0)
    bench.cluster.begun.remove(second)
    (done,) = bench.finish(0)
    assert done.weights == b"a1"
    bench.sleep(20)
    assert not second.is_dead
    bench.sleep(20)
    assert second.is_dead
    assert not first.is_dead
    assert bench.at_work() == {1: 2}


def test_a_member_that_dies_after_the_weights_were_there_ends_nothing():
    bench = Bench(2, trained_by=2)
    bench.submit(phase(0, "a"))
    _, second = bench.workers_of(0)
    bench.cluster.begun.remove(second)
    assert [done.weights for done in bench.finish(0)] == [b"a1"]
    second.call.end(ActorDiedError())
    assert bench.executor.wait(0) == []


def test_a_failure_of_one_member_is_that_of_the_phase():
    bench = Bench(4, trained_by=2)
    bench.submit(phase(0, "a"), phase(1, "b"))
    second = bench.workers_of(0)[1]
    bench.cluster.begun = [second]
    bench.ends[0] = Failure(FailureKind.ERROR, "out of luck")
    (done,) = bench.finish(0)
    assert done.outcome.message == "out of luck"
    assert sum(actor.is_dead for actor in bench.cluster.actors) == 1, "the first, which would wait for it"


def test_scores_of_several_versions_go_to_workers_with_theirs():
    bench = Bench(2, trained_by=1, at_once=3)
    bench.submit(*(score(k, "a2") for k in range(3)), *(score(k, "b2") for k in range(3, 6)))
    ended = []
    while bench.cluster.begun:
        for actor in bench.cluster.begun:
            versions = {proposal.fidelity.weights_version for proposal in actor.proposals}
            assert versions == {actor.weights.version}
        bench.cluster.finish(1)
        ended += bench.executor.wait(0)
    assert sorted(done.trial_id for done in ended) == list(range(6))
    assert bench.shelf.read == ["a2", "b2"], "each version is fetched once"


def test_a_version_is_put_into_the_object_store_once_however_many_trainings_there_are():
    """The last two were kept there: of three trainings each was fetched anew for every job."""
    bench = Bench(3, Shelf("a1", "b1", "c1"), trained_by=1)
    for number in range(0, 9, 3):
        bench.submit(*(score(number + k, version) for k, version in enumerate(("a1", "b1", "c1"))))
        assert len(bench.at_work()) == 3
        bench.submit(*(score(100 + number + k, version) for k, version in enumerate(("a1", "b1", "c1"))))
        bench.finish(*range(number, number + 3))
        assert len(bench.finish(*range(100 + number, 103 + number))) == 3
    assert bench.shelf.read == ["a1", "b1", "c1"]


def test_a_phase_that_was_ended_for_memory_beside_others_is_tried_alone():
    """A phase that fails so for good would be the end of the search."""
    bench = Bench(2, trained_by=1)
    bench.submit(phase(0, "a", 1), phase(1, "b", 1))
    bench.ends[0] = OutOfMemoryError("Task was killed due to the node running low on memory")
    assert bench.finish(0) == []
    bench.submit()
    assert bench.at_work() == {1: 1}
    (done,) = bench.finish(1)
    bench.sleep(20)
    assert bench.at_work() == {0: 1}
    (done,) = bench.finish(0)
    assert (done.attempt, done.weights) == (1, b"a2")
