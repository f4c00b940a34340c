"""Which waiting jobs a worker is given."""

import pytest

from nao_ray import rng
from nao_ray.search.executor import Job
from nao_ray.service.fleet.backlog import Backlog
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.trial import Fidelity, Phase, Proposal

SPACE = NaoCnnSmall(NaoCnnSmall.Config())
GENOTYPE = SPACE.sample(rng.child(0, "backlog"))


def job(trial_id, version=None, phase=None):
    proposal = Proposal(trial_id=trial_id, genotype=GENOTYPE, fidelity=Fidelity(weights_version=version), phase=phase)
    return Job(proposal=proposal, attempt=1)


def backlog(*jobs, at_once=4):
    made = Backlog(at_once)
    for item in jobs:
        made.add(item)
    return made


def ids(jobs):
    return [item.proposal.trial_id for item in jobs]


def test_jobs_that_train_alone_are_given_one_by_one():
    waiting = backlog(job(0), job(1))
    assert ids(waiting.take(1)) == [0]
    assert ids(waiting.take(1)) == [1]
    assert waiting.take(1) == []


@pytest.mark.parametrize(("workers", "given"), [(1, [0, 1, 2, 3]), (2, [0, 1, 2]), (3, [0, 1]), (9, [0])])
def test_scores_of_one_version_are_shared_out_among_the_workers(workers, given):
    waiting = backlog(*(job(k, version="v1") for k in range(5)))
    assert ids(waiting.take(workers)) == given[: len(given)]


def test_another_version_is_another_call():
    waiting = backlog(job(0, "v1"), job(1, "v1"), job(2, "v2"), job(3, "v2"))
    assert ids(waiting.take(1)) == [0, 1]
    assert ids(waiting.take(1)) == [2, 3]


def test_what_came_to_nothing_together_is_tried_one_by_one_and_first():
    waiting = backlog(*(job(k, version="v1") for k in range(6)), at_once=3)
    waiting.put_back(waiting.take(1))
    assert [ids(waiting.take(1)) for _ in range(4)] == [[0], [1], [2], [3, 4, 5]]


def test_nobody_passes_a_phase():
    phase = Phase(version="v2", source=None, first_epoch=0, last_epoch=1, genotypes=(GENOTYPE.key,))
    waiting = backlog(job(0, phase=phase), job(1, "v2"))
    assert waiting.phases_next == 1
    assert waiting.take(1) == []
    assert waiting.take_phase().proposal.trial_id == 0
    assert ids(waiting.take(1)) == [1]


def test_a_job_that_is_not_for_every_worker_is_first_and_given_out_by_name():
    phase = Phase(version="v2", source=None, first_epoch=0, last_epoch=1, genotypes=(GENOTYPE.key,))
    waiting = backlog(job(0, phase=phase), job(1))
    waiting.hold(job(7))
    assert ids(waiting) == [7, 0, 1]
    assert waiting.take(1) == []
    assert ids(waiting.take_choosy(7)) == [7]
    assert waiting.phases_next == 1
