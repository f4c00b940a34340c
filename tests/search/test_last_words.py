"""What the strategy says of the last trials is recorded, also where they end the search: the failures were too many."""

import pytest
from _stand_in import MemoryPool, SharedForm, beside

from nao_ray.errors import RunError
from nao_ray.search import executor
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor
from nao_ray.search.trouble import Limits
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.darts import Darts, DartsConfig
from nao_ray.trial import Fidelity


class Diverging(SharedForm):
    """No training of alphas ends its first epoch."""

    def __init__(self):
        super().__init__()
        self.space = NasBench201()

    def train(self, proposal, source, group):
        raise FloatingPointError("loss is nan")


@pytest.mark.parametrize(("workers", "ended"), [(12, 12), (1, 10), (4, 12)])
def test_trainings_that_all_fail_at_once_have_their_rows(workers, ended, monkeypatch):
    """Twelve, of which ten in a row end the search; of those that ended side by side not a row was left."""
    monkeypatch.setattr(executor, "_free_memory", lambda *_: None)  # nothing is trained, and each takes 0.2 s
    pool, clock = MemoryPool(), VirtualClock()
    strategy = Darts(NasBench201(), DartsConfig(seeds=12, epochs=3), 3, Fidelity())
    loop = SearchLoop(
        pool,
        LocalProposer(strategy),
        SimulatedExecutor(Diverging(), clock, workers, weights=pool),
        Budget(trials=1000),
        clock=clock,
        **beside(limits=Limits(failures=10, bears_failed_phases=True)),
    )
    with pytest.raises(RunError, match=r"^the last \d+ trials failed, all alike|^no training of alphas has ended"):
        loop.run()
    assert [row["ended"] for row in pool.fits] == ["nan"] * ended == ["nan"] * len(pool.finished)
