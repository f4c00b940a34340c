"""When the hours are used up, what was submitted and has not begun stays open."""

from _stand_in import closed_form

from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.strategies.random_search import RandomSearch
from nao_ray.trial import Fidelity, TrialState


def test_what_waits_for_a_worker_is_not_begun(tmp_path):
    clock, evaluator = VirtualClock(), closed_form()
    executor = SimulatedExecutor(evaluator, clock, workers=1, duration=lambda job, outcome: 100.0)
    executor.capacity = 5  # it takes five and works on one
    pool = PoolWriter.create(tmp_path / "pool", {"config": {"strategy": "random_search", "task": "none"}})
    strategy = RandomSearch(evaluator.space, RandomSearch.Config(), 0, Fidelity())
    with pool.acquire():
        budget = Budget(trials=20, seconds=150)
        snapshot = SearchLoop(pool, LocalProposer(strategy), executor, budget, clock=clock).run()
    assert (snapshot.done, snapshot.running) == (3, 0)  # begun after 0, 100 and, before the loop heard of it, 200 s
    assert clock.seconds() == 300
    left = [trial for trial in pool.log() if trial.state is TrialState.RUNNING]
    assert len(left) == snapshot.asked - 3 > 0
