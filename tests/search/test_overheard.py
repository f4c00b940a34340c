"""What trainings under way tell in virtual time, and how it comes to the strategy."""

import numpy as np
from _stand_in import Greedy, MemoryPool, closed_form, simulate

from nao_ray.search.clock import VirtualClock
from nao_ray.search.executor import Completion, Job, SerialExecutor
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.base import StrategyConfig
from nao_ray.trial import Fidelity, Proposal

GENOTYPE = NaoCnnSmall().sample(np.random.default_rng(3))


class Attentive(StrategyConfig):
    @property
    def hears(self) -> bool:
        return True


class Hearing(Greedy):
    """Is told of what is under way."""

    def __init__(self):
        super().__init__()
        self.config, self.fidelity = Attentive(), Fidelity(epochs=4)


def job(trial_id, epochs=4):
    fidelity = Fidelity(epochs=epochs)
    return Job(proposal=Proposal(genotype=GENOTYPE, trial_id=trial_id, fidelity=fidelity), attempt=1)


def test_each_tells_the_latest_after_its_share_of_the_time():
    clock = VirtualClock()
    executor = SimulatedExecutor(closed_form(), clock, workers=2, duration=lambda *_: 8.0)
    executor.submit(job(0))
    assert executor.overheard() == []
    executor.wait(3.0)  # of virtual time
    executor.submit(job(1))
    executor.wait(2.0)  # after 5 s: two epochs of the first, one of the second
    heard = executor.overheard()
    assert [(interim.trial_id, interim.epochs) for interim in heard] == [(0, 2), (1, 1)]
    assert executor.overheard() == [], "until something is new"
    executor.wait(0.9)
    assert executor.overheard() == []
    executor.wait(1.2)
    executor.cancel(1)
    assert [(interim.trial_id, interim.epochs) for interim in executor.overheard()] == [(0, 3)]
    (ended,) = executor.wait()
    assert isinstance(ended, Completion)
    curve = ended.outcome.curve
    assert [interim.score for interim in heard] == [curve[1], curve[0]]
    assert executor.overheard() == [], "the end is told otherwise"


def test_one_at_a_time_is_never_heard_of():
    executor = SerialExecutor(closed_form())
    executor.submit(job(0))
    assert executor.overheard() == []


def test_the_loop_tells_what_runs_and_a_proposal_keeps_it():
    pool, evaluator = MemoryPool(), closed_form(epochs=4)
    strategy = Hearing()
    simulate(pool, strategy=strategy, evaluator=evaluator, workers=3, trials=20)[1]()
    by_id = {trial.trial_id: trial for trial in pool.finished}
    kept = [(trial, interim) for trial in pool.finished for interim in trial.proposal.heard]
    assert len(kept) > 20
    for trial, interim in kept:
        curve = by_id[interim.trial_id].measurement.curve
        assert interim.score == curve[interim.epochs - 1]
        assert interim.epochs < 4
        assert by_id[interim.trial_id].log_index >= trial.proposal.asked_after
    again = Hearing()
    again.restore(pool.log())
    assert again.heard == strategy.heard
    deaf = MemoryPool()
    simulate(deaf, strategy=Greedy(), evaluator=evaluator, workers=3, trials=20)[1]()
    assert not any(trial.proposal.heard for trial in deaf.finished)
