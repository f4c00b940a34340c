"""Ask and tell in ten lines: whose trials are whose, what is refused, and a pool like any other."""

import math
import re
import threading

import pytest
from _guided import SEEDS, value_of

import nao_ray
from nao_ray.errors import ConfigError, GenotypeError, NaoRayError, NothingToAskError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall


def keys(pool):
    return pool.trials(["genotype"])["genotype"].tolist()


def test_what_is_told_is_in_the_pool(told, call):
    study = told(6)
    trials = study.pool.trials().set_index("trial_id")
    assert trials["state"].tolist() == ["COMPLETED"] * 3 + ["FAILED"] + ["COMPLETED"] * 2
    assert (trials.loc[3, "failure_kind"], trials.loc[3, "failure_message"]) == ("error", "why not")
    assert (trials["wall_seconds"].dropna() >= 0).all()
    assert trials.loc[5, "num_params"] == 1005
    study.close()
    assert call("pool", study.pool.url, "check").code == 0
    assert f"{trials['valid_accuracy'].max():.4f}" in call("pool", study.pool.url).out
    assert call("report", study.pool.url).code == 0


def test_what_else_is_told_of_a_trial(told):
    study = told(0)
    trial = study.ask()
    ended = study.tell(trial.trial_id, 0.5, epochs=3, curve=[0.1, 0.5], seconds=7)
    assert (ended.score, ended.proposal.fidelity.epochs) == (0.5, 3)
    (row,) = study.pool.trials(["curve", "wall_seconds", "epochs"]).to_dict("records")
    assert (list(row["curve"]), row["wall_seconds"], row["epochs"]) == ([0.1, 0.5], 7.0, 3)


@pytest.mark.parametrize("strategy", ["random_search", {"name": "regularized_evolution", "population": 4, "sample": 2}])
def test_the_same_seed_asks_the_same_and_a_study_goes_on_where_it_was_left(told, strategy):
    whole = told(10, "whole", strategy=strategy, seed=5)
    first = told(4, "parts", strategy=strategy, seed=5)
    left = first.ask()
    first.close()
    second = told(0, "parts", strategy=strategy, seed=5)
    again = second.ask()
    assert (again.trial_id, again.genotype, again.attempt) == (left.trial_id, left.genotype, 2)
    second.tell(again, value_of(again))
    for _ in range(5):
        trial = second.ask()
        second.tell(trial, value_of(trial))
    assert keys(second.pool) == keys(whole.pool)
    assert keys(told(4, "other", strategy=strategy, seed=6).pool) != keys(whole.pool)[:4]


def test_less_may_be_better(told):
    study = told(0, metric="loss", minimize=True)
    for loss in (3.0, 1.0, 2.0):
        study.tell(study.ask(), loss)
    assert study.pool.best(1)[["valid_score", "valid_loss"]].values.tolist() == [[1.0, 1.0]]
    assert study.pool.metric.label == "validation loss"
    assert re.fullmatch(
        r"<View 3 trials, 0 failed, best loss 1 \(trial 1\), \S+ an hour, its driver is alive>",
        repr(study.pool.status()),
    )
    with pytest.raises(PoolError, match=r"evaluator\.goal"):
        nao_ray.Study("nas_bench_201", "random_search", study.pool.url, metric="loss")


def test_without_a_pool_it_is_a_folder_that_goes_with_the_study():
    with nao_ray.Study(NaoCnnSmall, "random_search") as study:
        study.tell(study.ask(), 0.25)
        assert study.pool.best(1)["valid_accuracy"].tolist() == [0.25]
        assert PoolReader.exists(study.pool.url)
    assert not PoolReader.exists(study.pool.url)


def test_it_ends_with_its_trials(told):
    study = told(3, trials=3)
    assert study.is_over
    with pytest.raises(NothingToAskError, match="is over: 3 trials were told, and nothing is left to ask"):
        study.ask()
    study.close()
    more = told(0, trials=4)
    more.tell(more.ask(), 0.5)
    assert more.is_over
    assert len(more.pool.trials()) == 4


def test_what_is_wrong_is_said(told):
    study = told(1)
    trial = study.ask()
    for arguments in ({}, {"value": 0.5, "failed": "both"}):
        with pytest.raises(ConfigError, match="either a value or failed"):
            study.tell(trial, **arguments)
    with pytest.raises(ConfigError, match=r"accuracy is 93, expected a number in \[0, 1\]"):
        study.tell(trial, 93)
    assert [open_one.trial_id for open_one in study.open] == [1]
    with pytest.raises(ConfigError, match="accuracy is 'x', expected a number"):
        study.tell(trial, "x")
    assert study.tell(trial, math.nan).failure_kind == "nan"
    with pytest.raises(PoolError, match="trial 1 is not open"):
        study.tell(trial, 0.5)
    with pytest.raises(PoolError, match="pid"):
        nao_ray.Study("nas_bench_201", "random_search", study.pool.url)
    with pytest.raises(PoolError, match="seed"):
        nao_ray.Study("nas_bench_201", "random_search", study.pool.url, seed=1)
    for wrong, what in (({"space": "nas_bench"}, "nas_bench_201"), ({"strategy": "enas"}, "shared weights")):
        with pytest.raises((ConfigError, GenotypeError), match=what):
            nao_ray.Study(**{"space": "nas_bench_201", "strategy": "random_search", **wrong})


def test_a_closed_study_says_so(told):
    study = told(0)
    study.close()
    with pytest.raises(ConfigError, match="is closed: make it again"):
        study.ask()


def test_threads_tell_while_others_ask(told):
    study = told(0, trials=40, strategy={"name": "regularized_evolution", "population": 5, "sample": 2})
    wrong = []

    def work():
        try:
            while True:
                trial = study.ask(wait=300)
                study.tell(trial, value_of(trial))
        except NaoRayError as error:
            wrong.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [line[:17] for line in wrong] == ["the study is over"] * 4
    assert study.pool.check() == []
    assert sorted(study.pool.trials()["trial_id"]) == list(range(40))


def test_a_strategy_that_wants_to_be_told_first_is_waited_for(guided):
    study = guided(0)
    asked = [study.ask() for _ in range(SEEDS)]
    with pytest.raises(NothingToAskError, match="4 trials are open; tell one of them"):
        study.ask()
    telling = threading.Timer(0.2, lambda: [study.tell(trial, value_of(trial)) for trial in asked])
    telling.start()
    more = study.ask(wait=300)
    telling.join()
    assert (more.trial_id, more.proposal.round) == (SEEDS, 1)


def test_what_a_training_has_come_to_is_told_with_the_next_proposal(told):
    study = told(0, metric="loss", minimize=True, strategy={"name": "nao", "pretraining": {"steps": 1}})
    first, second = study.ask(), study.ask()
    study.report(first, 3.5, epochs=1)
    study.report(first.trial_id, 2.5, epochs=2)
    study.report(second, 4.0, epochs=1)
    study.tell(second, 3.0)
    third = study.ask()
    assert third.proposal.heard == ((first.trial_id, 2, -2.5),), "the latest, and nothing of what has ended"
    assert study.ask().proposal.heard == (), "once"
    with pytest.raises(PoolError, match=f"trial {second.trial_id} is not open in this study"):
        study.report(second, 3.0, epochs=2)
    with pytest.raises(ConfigError, match="epochs is 0, expected those that the training has done, at least 1"):
        study.report(first, 3.0, epochs=0)
    (row,) = study.pool.trials().to_dict("records")
    assert row["trial_id"] == second.trial_id
    study.tell(first, 2.0)
    study.tell(third, 2.0)
    kept = study.pool.trials().set_index("trial_id")["heard_scores"]
    assert kept[third.trial_id].tolist() == [-2.5]
