"""The controller actor: it dies and is rebuilt, and nobody can tell from what it proposes."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import psutil
import pytest
import ray
from _misbehaving import Counting, counting

from nao_ray.errors import RunError
from nao_ray.search.proposer import LocalProposer
from nao_ray.service.hosting import proposer as proposers
from nao_ray.service.hosting.proposer import RayProposer
from nao_ray.trial import Measurement, Trial

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


def answer_of(proposer, seconds=600.0):
    end = time.monotonic() + seconds
    while True:
        answer = proposer.poll(1.0)
        if answer is not None:
            return answer
        assert time.monotonic() < end


class Log:
    """What a pool would give back."""

    def __init__(self):
        self.trials = []

    def __call__(self):
        return list(self.trials)

    def asked(self, answer):
        self.trials += [Trial(proposal=p, asked_at=datetime.now(UTC)) for p in answer.proposals]

    def finish(self):
        """Ends every running trial; returns them."""
        ended = []
        for i, trial in enumerate(self.trials):
            if trial.log_index is None:
                done = trial.complete(Measurement(valid_accuracy=0.5))
                self.trials[i] = replace(done, log_index=i)
                ended.append(self.trials[i])
        return ended


def expected(n):
    local = LocalProposer(Counting())
    local.request(n, [])
    return [proposal.genotype for proposal in local.poll().proposals]


def test_a_controller_killed_between_and_within_requests_goes_on_as_if_nothing_was(tmp_path, monkeypatch):
    monkeypatch.setattr(proposers, "_AT_ONCE", 2)  # of the log
    monkeypatch.setattr(proposers, "_ON_THE_WAY", 1)
    log = Log()
    proposer = RayProposer(counting("die once", tmp_path), log)
    proposer.request(3, [])
    log.asked(answer_of(proposer))
    told = log.finish()
    proposer.request(2, told)  # dies within this one
    second = answer_of(proposer)
    assert (tmp_path / "died").exists()
    assert second.num_told == 3
    log.asked(second)
    told = log.finish()
    proposer._actor.learn.remote(log())
    pid = ray.get(proposer._actor.start.remote(counting(), len(log()))).pid
    psutil.Process(pid).kill()
    proposer.request(3, told)
    third = answer_of(proposer)
    assert third.num_told == 5
    log.asked(third)
    proposer.close()
    assert [trial.genotype for trial in log()] == expected(8)
    assert [trial.proposal.asked_after for trial in log()] == [0, 0, 0, 3, 3, 5, 5, 5]


def test_a_strategy_that_raises_ends_the_run_with_the_reason():
    proposer = RayProposer(counting("raise"), Log())
    proposer.request(1, [])
    with pytest.raises(RunError, match=r"the strategy failed: ZeroDivisionError: division by zero \(in propose, "):
        answer_of(proposer)
    proposer.close()


def test_a_controller_that_always_dies_ends_the_run_with_what_it_said_last(tmp_path, caplog):
    proposer = RayProposer(counting("die always", tmp_path), Log())
    proposer.request(1, [])
    expected = "the controller died 5 times at one request: .*; its last line: the table of moves is broken"
    with pytest.raises(RunError, match=expected):
        answer_of(proposer)
    proposer.close()
    assert caplog.text.count("its last lines:\n  ") == 4
