"""Earlier pools that a search learns from: frozen when it begins, refused where nothing can be learnt."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.service.hosting.earlier import _ALIKE, _alike
from nao_ray.service.hosting.run import resume, run

BEFORE = """
name: before
space: nao_cnn_small
evaluator: {name: closed_form}
strategy: random_search
budget: {trials: 12}
"""
AFTER = """
name: after
seed: 1
space: nao_cnn_small
evaluator: {name: closed_form}
strategy:
  name: nao
  warm_start: [before]
  pretraining: {steps: 5, genotypes: 40}
  candidates: 24
  neighbours: 2
  top_k: 2
  step_sizes: [1.0]
budget: {trials: 5}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def before():
    run(RunConfig.parse(BEFORE), "before", in_process=True)
    return PoolReader.open("before")


def rows(url):
    return pd.read_parquet(f"{url}/trials").sort_values("trial_id")


def test_what_is_used_is_frozen_and_the_search_goes_on_without_the_earlier_pool(before, folder):
    best = before.best(1)["genotype"].iloc[0]
    run(RunConfig.parse(AFTER), "whole", in_process=True)
    resume("whole", ("budget.trials=8",), in_process=True)
    run(RunConfig.parse(AFTER), "broken", in_process=True)
    shutil.rmtree("before")
    resume("broken", ("budget.trials=8",), in_process=True)
    columns = ["trial_id", "genotype", "seed", "round", "predicted_score", "valid_accuracy"]
    pd.testing.assert_frame_equal(rows("whole")[columns], rows("broken")[columns])

    pool = PoolReader.open("broken")
    where = str(folder / "before")
    assert pool.manifest["warm_start"] == [{"pool": where, "trials": 12, "used": 12}]
    assert pool.manifest["config"]["strategy"]["warm_start"] == [where]
    frozen = pd.read_parquet("broken/warm_start.parquet")
    assert (len(frozen), set(frozen["pool"])) == (12, {where})
    assert rows("broken")["genotype"].iloc[0] == frozen.loc[frozen["score"].idxmax(), "genotype"] == best
    assert len(rows("broken")) == pool.counts().finished == 8, "nothing of the earlier pool is in this one"
    fits = pool.fits()
    assert set(fits["warm_start"].dropna()) <= {"on", "off"}
    assert {"warm_start_source", "warm_start_weight", "left_out_density_warm", "left_out_density_cold"} <= set(fits)
    assert set(fits["warm_start_source"].dropna()) == {where}


def test_what_was_frozen_is_missed(before):
    run(RunConfig.parse(AFTER), "after", in_process=True)
    frozen = pd.read_parquet("after/warm_start.parquet")
    frozen.assign(score=0.0).to_parquet("after/warm_start.parquet")
    with pytest.raises(PoolError, match="not the one that the search began with"):
        resume("after", ("budget.trials=8",), in_process=True)


def test_trials_that_do_not_compare_are_left_out():
    trials = pd.DataFrame({name: [None] * 6 for name in _ALIKE})
    trials["epochs"] = [12, 12, 200, 200, 200, 200]
    trials["weights_version"] = ["w1", None, None, None, None, "w1"]
    assert _alike(trials).index.tolist() == [2, 3, 4], "the largest group of networks with weights of their own"
    trials["weights_version"] = "w1"
    assert _alike(trials).index.tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("pools", "error", "message"),
    [
        ("[nowhere]", PoolError, "there is no pool at"),
        ("[other]", ConfigError, "is of the space nao_cnn, and this search of nao_cnn_small"),
        ("[little]", ConfigError, "has 1 architectures of this space with a score: two are the least"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_before_anything_is_made(pools, error, message):
    if pools == "[other]":
        run(RunConfig.parse(BEFORE, ("space=nao_cnn", "budget.trials=2")), "other", in_process=True)
    if pools == "[little]":
        run(RunConfig.parse(BEFORE, ("budget.trials=1",)), "little", in_process=True)
    config = RunConfig.parse(AFTER, (f"strategy.warm_start={pools}",))
    with pytest.raises(error, match=message):
        run(config, "after", in_process=True)
    assert not PoolReader.exists("after")
