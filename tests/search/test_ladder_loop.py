"""A search with a ladder of fidelities on the virtual clock: rows, budget, drivers that die, failures."""

from collections import Counter
from contextlib import suppress

import pytest

from nao_ray.config import RunConfig
from nao_ray.pool import PoolWriter
from nao_ray.search.budget import Budget
from nao_ray.search.clock import VirtualClock
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.search.simulated import SimulatedExecutor

TEXT = """
name: test
seed: 5
space: nao_cnn_small
evaluator: {{name: closed_form, noise: 0.01}}
strategy: {strategy}
budget: {{trials: {trials}}}
fidelity: {{epochs: [1, 3, 9]}}
"""
EVOLUTION = "{name: regularized_evolution, population: 8, sample: 3}"


class KilledError(Exception):
    pass


def run(url, strategy=EVOLUTION, trials=60, workers=4, kill_at=None):
    """One driver's part, which dies once so many trials have ended; the log of the pool."""
    config = RunConfig.parse(TEXT.format(strategy=strategy, trials=trials))
    pool = PoolWriter.open(url) if PoolWriter.exists(url) else PoolWriter.create(url, {"config": config.to_data()})
    clock = VirtualClock()
    executor = SimulatedExecutor(config.make_evaluator(), clock, workers)
    with pool.acquire():
        log = pool.log()
        loop = SearchLoop(
            pool, LocalProposer(config.make_strategy(), log), executor, Budget(trials=config.budget.trials), clock=clock
        )
        if kill_at is not None:
            record = pool.record_finished
            pool.record_finished = lambda ended: record(ended) if pool.counts().finished < kill_at else die()
        with suppress(KilledError):
            loop.run(log)
    return pool.log()


def die():
    raise KilledError


@pytest.mark.parametrize("workers", [1, 4])
def test_rungs_are_rows_and_the_budget_counts_them(tmp_path, workers):
    log = run(tmp_path / "p", workers=workers)
    counts = Counter(trial.proposal.fidelity.epochs for trial in log)
    assert len(log) == 60
    assert counts[1] > counts[3] > counts[9] > 0
    by_id = {trial.trial_id: trial for trial in log}
    for trial in log:
        parent = by_id.get(trial.proposal.parent_trial_id)
        assert (parent is None) == (trial.proposal.fidelity.epochs == 1)
        if parent is not None:
            assert (parent.genotype, parent.proposal.seed) == (trial.genotype, trial.proposal.seed)


@pytest.mark.parametrize("kill_at", [3, 17, 41])
def test_a_driver_that_dies_changes_nothing_of_what_is_asked(tmp_path, kill_at):
    whole = run(tmp_path / "whole", workers=1)
    run(tmp_path / "p", workers=1, kill_at=kill_at)
    log = run(tmp_path / "p", workers=1)
    assert [trial.proposal for trial in log] == [trial.proposal for trial in whole]
    assert [trial.score for trial in log] == [trial.score for trial in whole]


def test_a_strategy_that_is_done_ends_the_search_once_no_promotion_is_due(tmp_path):
    texts = list({trial.genotype.key: None for trial in run(tmp_path / "first", trials=20)})
    log = run(tmp_path / "p", strategy={"name": "given", "genotypes": texts[:9]}, trials=100)
    counts = Counter(trial.proposal.fidelity.epochs for trial in log)
    assert counts[1] == 9
    assert counts[3] >= 3
    assert 1 <= counts[9] <= counts[3]
