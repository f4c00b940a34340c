"""How many children share a GPU by what more of them bring, on made-up GPUs as fast as measured ones."""

import pytest
from _misbehaving import GENOTYPE

from nao_ray import rng
from nao_ray.bench._stub_cluster import StubCluster
from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Failure, Job
from nao_ray.service.fleet.executor import RayExecutor
from nao_ray.service.fleet.ladder import Company, Ladder, Span, is_enough
from nao_ray.service.fleet.worker import Gpu, WorkerPlan
from nao_ray.sharing import Shared
from nao_ray.trial import FailureKind, Fidelity, Measurement, Proposal

IN_TURNS = (8007, 7673, 7671, 7670, 7670, 7670, 7670, 7670)
UNDER_MPS = (8007, 9580, 10399, 10900, 11000, 11000, 11000, 11000)
"""Images a second of so many children together on an H200; from the fourth on made up."""
LEVEL = (8000, *[10000] * 7)
"""Made up: two are better than one, and as good as more."""
GIB = 2**30
H200 = Gpu("NVIDIA H200", 140 * GIB)
KIND = "NVIDIA H200, 140 GiB"
LONG, SHORT = Fidelity(epochs=25), Fidelity(epochs=1)


def climb(throughput, ladder=None, room=8, spread=0.0, fidelity=LONG):
    """What a ladder does with children of 100 s, so many at a time as it says; until it is settled or stands still."""
    ladder, noise, texts = ladder or Ladder(), rng.child(7, "ladder"), []
    for _ in range(400):
        seconds = 100 * ladder.children * throughput[0] / throughput[ladder.children - 1]
        ladder.note(ladder.children, fidelity, seconds * float(noise.lognormal(sigma=spread)))
        if (text := ladder.turn(room)) is not None:
            texts.append(text)
    return ladder, texts


def test_in_turns_one_child_is_best_and_stays():
    ladder, texts = climb(IN_TURNS)
    assert (ladder.children, ladder.is_settled) == (1, True)
    assert texts == [
        "2 are tried instead of 1",
        "2 bring 0.96 times what 1 bring, less than 1.1: 1 from now on",
    ]


def test_under_mps_a_second_child_is_kept_and_a_third_is_not():
    ladder, texts = climb(UNDER_MPS)
    assert (ladder.children, ladder.is_settled) == (2, True)
    assert texts == [
        "2 are tried instead of 1",
        "2 bring 1.20 times what 1 bring: kept",
        "3 are tried instead of 2",
        "3 bring 1.09 times what 2 bring, less than 1.1: 2 from now on",
    ]


@pytest.mark.parametrize("room", [1, 2, 5])
def test_no_more_are_tried_than_there_is_room_for(room):
    ladder, _ = climb(range(1, 9), room=room)
    assert (ladder.children, ladder.is_settled) == (room, False)


def test_five_equal_trials_are_enough_and_unequal_ones_are_more():
    assert not is_enough([100.0] * 4)
    assert is_enough([100.0] * 5)
    unequal = [100.0 * 1.3**sign for sign in (-1, 1) * 10]
    assert not is_enough(unequal[:19])
    assert is_enough(unequal)


@pytest.mark.parametrize("throughput", [IN_TURNS, UNDER_MPS])
def test_children_of_unequal_size_lead_to_the_same(throughput):
    assert climb(throughput, spread=0.1)[0].children == climb(throughput)[0].children


def test_trials_of_two_fidelities_are_not_compared():
    ladder = Ladder()
    for _ in range(5):
        ladder.note(1, LONG, 100.0)
    assert ladder.turn(8) == "2 are tried instead of 1"
    for _ in range(5):
        ladder.note(2, SHORT, 4.0)
    assert ladder.turn(8) == "1 again, for trials are others now"
    ladder, _ = climb(IN_TURNS, ladder, fidelity=SHORT)
    assert (ladder.children, ladder.is_settled) == (1, True)


@pytest.mark.parametrize(("is_settled", "children"), [(True, 3), (False, 8)])
def test_what_was_found_before_is_where_it_begins(is_settled, children):
    ladder, _ = climb(range(1, 9), Ladder(Shared(KIND, 4, 3, is_settled)))
    assert ladder.children == children


def test_company_is_who_computed_at_the_same_time():
    company = Company()
    assert company.was_full("gpu:0", Span(0, 100), [], places=1)
    assert not company.was_full("gpu:0", Span(100, 200), [], places=2)
    assert company.was_full("gpu:0", Span(100, 200), [], places=2), "the one before"
    assert company.was_full("gpu:0", Span(200, 300), [150], places=2)
    assert not company.was_full("gpu:0", Span(300, 400), [350], places=2), "half of the time"
    assert not company.was_full("gpu:1", Span(200, 300), [], places=2), "another device"


class Machine:
    """A node with GPUs: beside each other children take as long as `throughput` says; a tick is two seconds."""

    def __init__(self, throughput, *, gpus=1, peak=GIB, known=(), **plan):
        self.throughput, self.peak = throughput, peak
        self.clock, self.left, self.crowds = VirtualClock(), {}, []
        self.cluster = StubCluster({"n": {"CPU": 16, "GPU": gpus}}, outcome=self.outcome, gpu=lambda _: H200)
        plan = WorkerPlan(gpus=None, **plan)
        self.executor = RayExecutor(None, plan, clock=self.clock, remote=self.cluster, known=known)
        self.sizes, self.asked, self.ended = rng.child(5, "sizes"), 0, []

    def outcome(self, actor, proposal):
        if proposal.trial_id % 9 == 8:
            return Failure(FailureKind.ERROR, "out of luck")
        return Measurement(valid_accuracy=0.5, peak_memory_bytes=self.peak)

    def run(self, trials):
        while len(self.ended) < trials:
            while self.asked - len(self.ended) <= self.executor.capacity:  # one more than there are places
                proposal = Proposal(genotype=GENOTYPE, trial_id=self.asked, fidelity=LONG)
                self.executor.submit(Job(proposal=proposal, attempt=1))
                self.asked += 1
            self.ended += self.executor.wait(0)
            self.compute()
        return self

    def compute(self):
        self.clock.sleep(2)
        at_work, done = [actor for actor in self.cluster.begun if not actor.is_dead], set()
        for actor in at_work:
            (proposal,) = actor.proposals
            beside = sum(other.device == actor.device for other in at_work)
            left = self.left.setdefault(proposal.trial_id, 60 * float(self.sizes.lognormal(sigma=0.03)))
            self.left[proposal.trial_id] = left - 2 * self.throughput[beside - 1] / self.throughput[0] / beside
            if self.left[proposal.trial_id] <= 0:
                done.add(proposal.trial_id)
                self.crowds.append(beside)
        self.cluster.finish(where=lambda actor: actor.proposals[0].trial_id in done)

    @property
    def sharing(self):
        return [tuple(sharing) for sharing in self.executor.sharing]


@pytest.mark.parametrize(
    ("throughput", "gpus", "kept"), [(IN_TURNS, 1, 1), (LEVEL, 1, 2), (LEVEL, 2, 2)], ids=["turns", "level", "two"]
)
def test_a_search_ends_with_as_many_on_a_gpu_as_bring_more(throughput, gpus, kept, caplog):
    """It put as many on a GPU as its memory holds: eight, which in turns train on less than one."""
    caplog.set_level("INFO")
    machine = Machine(throughput, gpus=gpus).run(60 * gpus)
    assert machine.sharing == [(KIND, kept, kept, True)]
    assert set(machine.crowds[-10:]) == {kept}
    told = [record.getMessage() for record in caplog.records if "children on a GPU" in record.getMessage()]
    assert told[0] == f"children on a GPU ({KIND}): 2 are tried instead of 1"
    assert len(told) == 2 * kept
    assert sorted(done.trial_id for done in machine.ended) == sorted({done.trial_id for done in machine.ended})
    assert all(done.attempt == 1 for done in machine.ended)


def test_a_resumed_search_begins_with_what_was_found():
    known = [Shared(KIND, 2, 2, True)]
    machine = Machine(UNDER_MPS, known=known).run(20)
    assert machine.crowds[:1] == [1], "until a child's memory is known"
    assert set(machine.crowds[2:]) == {2}


@pytest.mark.parametrize(("peak", "plan"), [(100 * GIB, {}), (GIB, {"max_per_gpu": 1})])
def test_where_memory_or_the_user_allow_one_alone_no_more_are_tried(peak, plan):
    machine = Machine(UNDER_MPS, peak=peak, **plan).run(20)
    assert set(machine.crowds) == {1}
    assert machine.sharing == [(KIND, 1, 1, False)]
