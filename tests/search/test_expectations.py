"""What the loop says to an executor of the work to come, in virtual time."""

from _stand_in import MemoryPool, SharedForm, closed_form, shared_search

from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.strategies.base import StrategyConfig
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.trial import Fidelity, Proposal


class Told(SimulatedExecutor):
    """Remembers what it was told to expect, and how many jobs it had been given by then."""

    given = 0

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.told = []

    def submit(self, job):
        self.given += 1
        super().submit(job)

    def expect(self, jobs):
        self.told.append((self.given, jobs))


def search(strategy, budget, evaluator=None, workers=2):
    clock, pool = VirtualClock(), MemoryPool()
    executor = Told(evaluator or closed_form(), clock, workers, weights=pool)
    SearchLoop(pool, LocalProposer(strategy), executor, budget, clock=clock).run()
    return executor.told


def random_search(cls=RandomSearch):
    return cls(NaoCnnSmall(), StrategyConfig(), 0, Fidelity())


class InTwos(RandomSearch):
    """Two at a time: more when both have been told."""

    def propose(self, k, rng) -> Proposal | None:
        return None if k - k % 2 > self.num_told else super().propose(k, rng)


def test_work_to_come_is_what_the_budget_leaves():
    told = search(random_search(), Budget(trials=9))
    assert all(given + jobs == 9 for given, jobs in told)
    assert told[-1] == (9, 0)


def test_without_a_number_of_trials_there_is_no_limit_until_the_time_is_over():
    told = search(random_search(), Budget(seconds=20))
    assert {jobs for _, jobs in told} <= {None, 0}
    assert told[0][1] is None


def test_a_strategy_that_waits_for_results_has_no_more_work_than_it_has_given():
    told = search(random_search(InTwos), Budget(trials=20), workers=5)
    assert all(jobs == 0 for _, jobs in told)
    assert {given for given, _ in told} == {2, 4, 6, 8, 10, 12, 14, 16, 18, 20}


def test_a_plan_that_is_shorter_than_the_budget_is_the_limit():
    strategy = shared_search()
    planned = strategy.planned
    told = search(strategy, Budget(trials=500), evaluator=SharedForm())
    assert planned is not None
    assert max(given + jobs for given, jobs in told) <= planned
    assert told[-1][1] == 0
