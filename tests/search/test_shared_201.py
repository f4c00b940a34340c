"""Searches of NAS-Bench-201's cells with shared weights, in this process: by paths, and by alphas."""

import numpy as np
import pytest
import torch
from _stand_in import MemoryPool

from nao_ray.config import RunConfig
from nao_ray.search.budget import Budget
from nao_ray.search.executor import SerialExecutor
from nao_ray.search.loop import SearchLoop
from nao_ray.search.proposer import LocalProposer
from nao_ray.spaces.nas_bench_201 import NasBench201
from nao_ray.strategies.parts.alpha_watch import Rules, Seen, alarms, figures

CONFIG = """
name: cells
space: nas_bench_201
task: {name: synthetic, classes: 2, per_class: 10}
evaluator:
  name: one_shot
  cells_per_stage: 1
  channels: 2
  batch: 8
  recipe: {crop_padding: 1, flip: false, batch: 8}
  alone: {cells_per_stage: 1, channels: 2, epochs: 1, recipe: {name: short, crop_padding: 1, flip: false, batch: 16}}
strategy: STRATEGY
budget: {trials: 100}
"""
RANDOM = "{name: shared_random_search, rounds: 1, epochs: 1, paths: 3, scored: 4, finalists: 1, audited: 0}"
ENAS = """{name: enas, rounds: 1, epochs: 1, paths: 3, updates: 1, candidates: 3, finalists: 1, audited: 0,
  lstm: {hidden: 4, num_aggregate: 2}}"""
NAO = """{name: nao_shared, rounds: 2, epochs: 1, pool: 4, finalists: 1, audited: 0,
  controller: {top_k: 2, round_size: 2, fit: {epochs: 1}}}"""
PERIOD = "channels: 2\n  period: 2\n"
DARTS = "{name: darts, seeds: 1, epochs: 2, order: second, control: 1}"
SPACE = NasBench201()


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def searched(text):
    config, pool = RunConfig.parse(text), MemoryPool()
    executor = SerialExecutor(config.make_evaluator(), weights=pool)
    SearchLoop(pool, LocalProposer(config.make_strategy(), pool.log()), executor, Budget(trials=100)).run(pool.log())
    return sorted(pool.finished, key=lambda trial: trial.trial_id), pool


@pytest.mark.parametrize("strategy", [RANDOM, ENAS, NAO], ids=["random", "enas", "nao"])
def test_searches_by_paths(strategy):
    trials, _ = searched(CONFIG.replace("STRATEGY", strategy))
    scored = [trial for trial in trials if trial.proposal.phase is None]
    assert all(0 <= trial.score <= 1 for trial in scored)
    assert scored[-1].proposal.fidelity.weights_version is None, "the best one is trained on its own"
    assert sum(trial.proposal.fidelity.weights_version is not None for trial in scored) >= 3


def test_a_search_by_alphas():
    text = CONFIG.replace("STRATEGY", DARTS).replace("name: one_shot", "name: darts").replace("  batch: 8\n", "", 1)
    text = text.replace("recipe: {crop", "recipe: {name: darts_search, crop", 1).replace("channels: 2\n", PERIOD, 1)
    trials, pool = searched(text)
    phases = [trial for trial in trials if trial.proposal.phase]
    assert len(phases) == 2
    for trial in phases:
        alphas = np.reshape(trial.measurement.alphas, (6, 5))
        assert trial.derived == SPACE.derive([alphas])
    first = pool.fits[0]
    assert {"skips_normal", "none_normal", "entropy_normal"} <= first.keys()
    assert not any(name.endswith("_reduce") for name in first)


def test_every_edge_has_its_strongest_operation_none_like_any_other():
    alphas = np.zeros((6, 5))
    strongest = ["none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "none", "nor_conv_3x3"]
    for row, name in zip(alphas, strongest, strict=True):
        row[SPACE.primitives.index(name)] = 1
    found = SPACE.derive([alphas])
    assert found.key == "|none~0|+|skip_connect~0|avg_pool_3x3~1|+|nor_conv_1x1~0|none~1|nor_conv_3x3~2|"
    assert SPACE.derive([np.zeros((6, 5))]).key.count("none") == 6, "of equal ones the first"


def test_a_cell_of_skips_alone_gives_an_alarm():
    alphas = np.zeros((6, 5))
    alphas[:, SPACE.primitives.index("skip_connect")] = 3
    seen = Seen(SPACE.derive([alphas]), [alphas])
    assert figures(SPACE, seen)["skips_normal"] == 6
    assert figures(SPACE, seen)["none_normal"] == pytest.approx(1 / (np.exp(3) + 4))
    before = Seen(SPACE.derive([np.zeros((6, 5))]), [np.zeros((6, 5))])
    (alarm,) = alarms(SPACE, [before, seen], Rules())
    assert (alarm.rule, alarm.index) == ("skips", 0)
