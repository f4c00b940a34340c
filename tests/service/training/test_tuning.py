"""Finalists under several settings of their recipe: what is tried, what is refused, and all of it without Ray."""

import json

import pytest

from nao_ray.config import RunConfig
from nao_ray.errors import ConfigError
from nao_ray.pool import PoolReader
from nao_ray.service.training.finalists import finalists_config
from nao_ray.service.training.tuning import Tuning
from tests.service._searched import SEARCH, searched_pool

GOOD = " ".join(["0 4 1 2 1 4 2 4 0 4 3 4 1 4 4 4 0 4 5 4"] * 2)


@pytest.fixture
def searched(tmp_path):
    return searched_pool(tmp_path / "pool")


def tuned(pool, *texts, samples=None, overrides=(), count=2):
    return finalists_config(pool, count, None, overrides, tuning=Tuning.parse(texts, samples))


def test_each_finalist_is_trained_under_all_values(searched):
    config = tuned(searched, "lr=0.01,0.1", "clip_norm=null,5")
    given = config.strategy.settings
    assert len(set(given["genotypes"])) == 2
    assert given["genotypes"] == [genotype for genotype in dict.fromkeys(given["genotypes"]) for _ in range(4)]
    both = [{"lr": lr, "clip_norm": norm} for lr in (0.01, 0.1) for norm in (None, 5.0)]
    assert list(given["settings"]) == both * 2
    assert (config.budget.trials, config.evaluator.settings["repeats"]) == (8, 1)


def test_a_random_part_is_drawn_for_each_by_the_seed(searched):
    values = "lr=0.01,0.02,0.03,0.04,0.05,0.06"
    drawn = tuned(searched, values, samples=2).strategy.settings["settings"]
    assert len(drawn) == 4
    assert drawn[0] != drawn[1]
    assert drawn[:2] != drawn[2:]
    assert tuned(searched, values, samples=2).strategy.settings["settings"] == drawn
    assert tuned(searched, values, samples=2, overrides=("seed=7",)).strategy.settings["settings"] != drawn
    assert len(tuned(searched, values, samples=99).strategy.settings["settings"]) == 12


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr"], "--space lr: expected SETTING=VALUE,VALUE,..."),
        (["lr=[1"], "--space lr=[1: "),
        (["lr=0.1", "lr=0.2"], "--space lr=0.2: lr is given twice"),
        (["lr=0.1,0.10"], "--space lr: a value is given twice"),
        (["lr=0.1,abc"], "--space lr=abc: Input should be a valid number"),
        (["drop_path_keep=0.5,1.5"], "--space drop_path_keep=1.5: Input should be less than or equal to 1"),
        (
            ["lrr=0.1"],
            "--space lrr=0.1: lrr is no setting of a recipe that a trial may have of its own; did you mean lr?",
        ),
        (["score=best,last"], "--space score=best: score is no setting"),
        (["epochs=1,2"], "--space epochs=1: epochs is no setting"),
        (["rnn_dropout=0.1"], "--space rnn_dropout=0.1: rnn_dropout is no setting"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_before_anything_starts(searched, texts, message):
    with pytest.raises(ConfigError) as raised:
        tuned(searched, *texts)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scheduler", "asha"], "--scheduler and --samples are of --space"),
        (["--space", "lr=0.1", "--scheduler", "random"], "--samples says how many"),
        (["--space", "lr=0.1", "--samples", "2"], "a grid has all combinations"),
        (["--space", "lr=0.1", "--scheduler", "asha", "--in-process"], "leave out --in-process"),
    ],
)
def test_options_that_do_not_fit_each_other(searched, call, words, message):
    left = call("finalists", searched.url, *words)
    assert left.code == 2
    assert message in left.err


def test_settings_of_its_own_have_only_trials_that_are_trained_alone():
    given = {"name": "given", "genotypes": [GOOD], "settings": [{"lr": 0.1}]}
    whole = {**SEARCH, "strategy": given, "budget": {"trials": 1}}
    RunConfig(**whole)
    with pytest.raises(ConfigError, match="the evaluator trains all alike"):
        RunConfig(**{**whole, "evaluator": "closed_form"})
    with pytest.raises(ConfigError, match="lr: Input should be greater than 0"):
        RunConfig(**{**whole, "strategy": {**given, "settings": [{"lr": -1}]}})
    with pytest.raises(ConfigError, match="there are 2, for 1 genotypes"):
        RunConfig(**{**whole, "strategy": {**given, "settings": [{}, {}]}})
    twice = {**given, "genotypes": [GOOD, GOOD], "settings": [{"lr": 0.1}, {"lr": 0.1}]}
    with pytest.raises(ConfigError, match="the same architecture under the same settings"):
        RunConfig(**{**whole, "strategy": twice}).make_strategy()


def test_a_grid_in_this_process_and_the_command_that_trains_the_winner(searched, call):
    words = (
        "finalists",
        searched.url,
        "-n",
        1,
        "--space",
        "lr=0.05,0.1",
        "--set",
        "evaluator.epochs=1",
        "--in-process",
    )
    left = call(*words)
    assert left.code == 0, left.err
    pool = PoolReader.open(f"{searched.url}-finalists")
    trials = pool.trials()
    assert [json.loads(text) for text in trials["settings"]] == [{"lr": 0.05}, {"lr": 0.1}]
    assert trials["valid_loss"].nunique() == 2
    best = json.loads(pool.best(1)["settings"].iloc[0])
    last = left.out.splitlines()[-1]
    assert last.endswith(f"{searched.url}-finalists:best --recipe short --set recipe.lr={best['lr']}")
    assert call(*words).code == 0
    assert len(pool.trials()) == 2
    other = call(*(word if word != "lr=0.05,0.1" else "lr=0.05,0.2" for word in words))
    assert other.code == 2
    assert "strategy.settings" in other.err


def test_what_is_no_architectures_fault_ends_the_run_and_leaves_its_trial_open(searched, tmp_path):
    from types import SimpleNamespace

    from nao_ray.errors import RunError
    from nao_ray.service.hosting.checks import check_search
    from nao_ray.service.tune.finalists import FinalistsSearch, _Watch

    url = str(tmp_path / "finalists")
    searcher = FinalistsSearch(url, check_search(tuned(searched, "lr=0.05,0.1"), url))
    told = []
    watch = _Watch(searcher, SimpleNamespace(stopped=lambda: False, take=lambda: False), told.append)
    watch.on_step_end(0, [])
    nan = {"failure_kind": "nan", "failure_message": "the loss is nan", "failure_log": None}
    assert searcher.measured(nan, ()).message == "the loss is nan"
    watch.on_step_end(1, [])
    full = {"failure_kind": "environment", "failure_message": "the disk is full", "failure_log": None}
    assert searcher.measured(full, ()) is None, "its trial stays open"
    with pytest.raises(RunError, match=r"^the disk is full; its trial stays open, and the same command goes on$"):
        watch.on_step_end(2, [])
