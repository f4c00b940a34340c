"""Two objectives: parents and sources are of the front, a choice adds to the hypervolume, and a replay repeats it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nao_ray import pareto
from nao_ray.cli.app import main
from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.pareto import Aim
from nao_ray.pool import PoolReader
from nao_ray.spaces.nas_bench_201 import NasBench201, NasBench201Config
from nao_ray.strategies.parts.nao_objectives import Objectives
from nao_ray.strategies.regularized_evolution import EvolutionConfig, RegularizedEvolution
from nao_ray.trial import Fidelity, Measurement, Trial

OPS = ("none", "nor_conv_1x1", "nor_conv_3x3")
SPACE = NasBench201(NasBench201Config(ops=OPS, twins="distinct"))
LESS = Aim("macs", less_is_better=True)
QUICK = "pretraining: {steps: 20, genotypes: 60}"
TEXT = f"""
name: two
space: {{name: nas_bench_201, ops: [{", ".join(OPS)}], twins: distinct}}
evaluator: {{name: tabular, path: table.csv, genotype: cell, valid: score, unit: fraction, macs: work, twins: distinct}}
strategy: {{name: nao, {QUICK}}}
budget: {{trials: 9}}
objectives: [valid_accuracy, -macs]
"""


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [SPACE.decode(np.array(row) + 1) for row in np.ndindex((3,) * 6)]
    large, small = (np.array([cell.key.count(f"nor_conv_{k}") for cell in cells]) for k in ("3x3", "1x1"))
    score = 0.5 + 0.06 * large + 0.03 * small
    frame = pd.DataFrame({"cell": [cell.key for cell in cells], "score": score, "work": 10 * large + 4 * small})
    frame.to_csv("table.csv", index=False)
    return frame


def test_best_is_by_pareto_rank_and_the_pool_says_what_it_covers(table, capsys):
    with open("two.yaml", "w") as file:
        file.write(TEXT)
    _call("search", "two.yaml", "--in-process")
    pool = PoolReader.open("pools/two")
    best, trials = pool.best(9), pool.trials()
    values = np.stack([trials["valid_accuracy"], -trials["macs"].astype(float)], axis=1)
    expected = trials["trial_id"].to_numpy()[pareto.order(values)]
    assert best["trial_id"].tolist() == expected.tolist()
    assert best["pareto_rank"].is_monotonic_increasing
    assert list(pool.front().trials) == best["trial_id"][best["pareto_rank"] == 0].tolist()
    capsys.readouterr()
    _call("pool", "pools/two")
    assert "trials that none beats in valid_accuracy, -macs; hypervolume" in capsys.readouterr().out
    whole = RunConfig.load("two.yaml").make_strategy()
    whole.restore([trial for trial in pool.log() if trial.trial_id < 6])
    (asked,) = whole.ask(1)
    assert asked.genotype.key == trials["genotype"][6], "a replay asks for the same"


def _call(*words):
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert end.value.code == 0


def test_evolution_takes_its_parents_of_the_front():
    strategy = RegularizedEvolution(SPACE, EvolutionConfig(population=6, sample=6), 0, Fidelity())
    strategy.objectives = (LESS,)
    costs = [5, 1, 9, 9, 9, 9]
    for k, proposal in enumerate(strategy.ask(6)):
        measured = Measurement(valid_accuracy=[0.9, 0.2, 0.8, 0.7, 0.6, 0.5][k], macs=costs[k])
        strategy.tell([Trial(proposal=proposal, attempt=1).complete(measured, log_index=k)])
    parents = {proposal.source_trial_id for proposal in strategy.ask(8)}
    assert parents <= {0, 1}, "no other beats these two"


def test_a_choice_adds_most_to_what_is_reached_or_pending():
    genotypes = [SPACE.decode(np.array(row)) for row in ((1,) * 6, (2,) * 6, (3,) * 6)]
    costs = dict(zip((genotype.key for genotype in genotypes), (10.0, 30.0, 40.0), strict=True))
    several = Objectives((LESS,), lambda g: {"macs": costs[g.key]}, np.array([[0.5, -20.0], [0.1, -50.0]]))
    bounds = np.array([0.3, 0.9, 0.95])
    assert several.choose(bounds, genotypes, 3, pending=0) == [1, 0, 2]
    assert several.choose(bounds, genotypes, 1, pending=2) == [0], "the only one that is left"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: nao, " + QUICK, "name: local_search", "the strategy local_search knows the score alone"),
        (", macs: work", "", "no macs that can be aimed at; they have valid_accuracy"),
        ("-macs", "macs, -macs", "each once"),
    ],
)
def test_what_cannot_be_aimed_at_is_refused(old, new, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.parse(TEXT.replace(old, new))
