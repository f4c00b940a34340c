"""`NAOSearch` as Tune calls it, without a Tune: whose trials are whose, before and after a restore."""

import json
import math
import pickle
import sys

import pytest
from ray.tune.search import Searcher

from nao_ray.errors import ConfigError, PoolError
from nao_ray.pool import PoolReader
from nao_ray.spaces.nao_cnn_small import NaoCnnSmall
from nao_ray.tune import NAOSearch

WAIT = 300.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """What is asked while nothing runs is waited for."""
    monkeypatch.setattr("nao_ray.service.tune.searcher._WAIT_SECONDS", WAIT)


def search(tmp_path, samples=4, **settings):
    given = {"space": "nao_cnn_small", "strategy": "random_search", "pool": str(tmp_path / "pool"), **settings}
    made = NAOSearch(**given)
    made.set_search_properties("loss", "min", {}, num_samples=samples)
    return made


def suggest(made, tune_id):
    """The next one, once it is there."""
    while (found := made.suggest(tune_id)) is None:
        pass
    return found


def result(iteration, loss, **more):
    return {"loss": loss, "training_iteration": iteration, "time_total_s": 2.0 * iteration, "hostname": "here", **more}


def rows(tmp_path):
    return PoolReader.open(tmp_path / "pool").trials().set_index("trial_id")


def test_each_trial_is_recorded_with_its_last_score_and_how_far_it_came(tmp_path):
    made = search(tmp_path)
    configs = [suggest(made, name) for name in "abcd"]
    assert [config["trial_id"] for config in configs] == [0, 1, 2, 3]
    assert all(NaoCnnSmall().parse(config["genotype"]).key == config["genotype"] for config in configs)
    assert made.suggest("e") == Searcher.FINISHED
    for iteration, loss in ((1, 3.0), (2, 2.5)):
        made.on_trial_result("a", result(iteration, loss))
    made.on_trial_complete("a", result(3, 2.25))
    made.on_trial_complete("b", result(1, 1.5))  # stopped by a scheduler: Tune tells the searcher of its end alone
    made.on_trial_result("c", result(1, 9.0))
    made.on_trial_complete("c", error=True)
    made.on_trial_complete("d", result(1, math.nan))
    found = rows(tmp_path)
    assert found["state"].tolist() == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    assert found["failure_kind"].tolist()[2:] == ["error", "nan"]
    assert found["valid_score"].tolist()[:2] == [2.25, 1.5]
    assert found["epochs"].tolist() == [3, 1, 1, 1]
    assert found["curve"][0].tolist() == [3.0, 2.5, 2.25]
    assert "error.txt in the folder of c" in found["failure_message"][2]
    assert PoolReader.open(tmp_path / "pool").best(1)["trial_id"].tolist() == [1]
    assert PoolReader.open(tmp_path / "pool").check() == []


def test_the_last_result_counts_once_although_tune_tells_it_twice(tmp_path):
    made = search(tmp_path, samples=1)
    suggest(made, "a")
    made.on_trial_result("a", result(1, 3.0))
    made.on_trial_complete("a", result(1, 3.0, done=True))
    made.on_trial_complete("a", result(1, 99.0))
    assert rows(tmp_path)["curve"][0].tolist() == [3.0]
    assert rows(tmp_path)["valid_score"].tolist() == [3.0]


def test_a_trial_that_reported_no_such_number_is_failed_and_told_what_there_is(tmp_path):
    made = search(tmp_path, samples=2)
    for name in "ab":
        suggest(made, name)
    made.on_trial_complete("a", {"training_iteration": 1, "cost": 1.0})
    made.on_trial_complete("b", None)
    messages = rows(tmp_path)["failure_message"].tolist()
    assert messages[0] == "the result has no number loss; those it has are cost"
    assert messages[1] == "Tune ended b before it had reported anything"


def save(made, folder, trials):
    """As a Tuner does it: its own state, then the searcher's."""
    folder.mkdir(exist_ok=True)
    (folder / "experiment_state-1.json").write_text(
        json.dumps({"trial_data": [f'{{"trial_id": "{i}"}}' for i in trials]})
    )
    made.save_to_dir(str(folder), "1")


def restored(made, folder):
    again = pickle.loads(pickle.dumps(made))  # Tune's own, when the Tuner was made
    again.set_search_properties("loss", "min", {}, num_samples=1)  # whatever the number was
    again.restore_from_dir(str(folder))
    return again


def test_what_is_kept_of_it_is_the_address_of_its_pool(tmp_path):
    made = search(tmp_path)
    suggest(made, "a")
    save(made, tmp_path / "state", ["a"])
    (kept,) = (tmp_path / "state").glob("searcher-state-*")
    assert json.loads(kept.read_text()) == {"pool": str(tmp_path / "pool")}
    made.close()


def test_after_a_restore_each_trial_has_the_proposal_it_had_and_the_others_come_first(tmp_path):
    made = search(tmp_path)
    before = {name: suggest(made, name) for name in ("tune-a", "tune-b")}
    save(made, tmp_path / "state", ["tune-a", "tune-b"])
    before["tune-c"] = suggest(made, "tune-c")  # of which the Tuner's state says nothing
    made.on_trial_complete("tune-a", result(1, 1.0))  # nor of that
    again = restored(made, tmp_path / "state")  # in this process: the one before gives way
    again.on_trial_complete("tune-a", result(1, 7.0))  # redone: it has a result
    again.on_trial_complete("tune-b", result(1, 2.0))
    assert suggest(again, "tune-d") == before["tune-c"]
    again.on_trial_complete("tune-d", result(1, 3.0))
    assert suggest(again, "tune-e")["trial_id"] == 3
    again.on_trial_complete("tune-e", result(1, 4.0))
    assert again.suggest("tune-f") == Searcher.FINISHED
    assert rows(tmp_path)["valid_score"].to_dict() == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}
    assert PoolReader.open(tmp_path / "pool").check() == []


def test_a_new_tuner_on_the_pool_asks_for_as_many_more(tmp_path):
    made = search(tmp_path, samples=2)
    for name in "ab":
        suggest(made, name)
    made.on_trial_complete("a", result(1, 1.0))
    made.close()
    again = search(tmp_path, samples=2)
    configs = [suggest(again, name) for name in "cd"]
    assert [config["trial_id"] for config in configs] == [1, 2]  # what was left open, and a new one
    for name in "cd":
        again.on_trial_complete(name, result(1, 1.0))
    assert again.suggest("e") == Searcher.FINISHED
    assert len(rows(tmp_path)) == 3


def test_a_tuner_without_an_end_asks_on_and_on(tmp_path):
    made = search(tmp_path, samples=2)
    for name in "ab":
        suggest(made, name)
        made.on_trial_complete(name, result(1, 1.0))
    assert made.suggest("c") == Searcher.FINISHED
    made.close()
    again = search(tmp_path, samples=sys.maxsize)  # what Tune makes of -1
    for name in "cdef":
        suggest(again, name)
    again.close()
    assert PoolReader.open(tmp_path / "pool").changed_budget().now.trials is None


def test_a_restored_tuner_without_its_pool_is_told_so(tmp_path):
    made = search(tmp_path)
    save(made, tmp_path / "state", [])
    with pytest.raises(PoolError, match="pool is gone, the pool of the Tuner that is restored"):
        restored(made, tmp_path / "state").suggest("a")


def test_another_search_is_not_mixed_into_a_pool(tmp_path):
    made = search(tmp_path)
    suggest(made, "a")
    made.close()
    with pytest.raises(PoolError, match="seed"):
        search(tmp_path, seed=1).suggest("b")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "nao_cnn_smal"}, "no space is named 'nao_cnn_smal'; did you mean nao_cnn_small"),
        ({"strategy": "shared_random_search"}, "trains shared weights"),
        ({"strategy": {"name": "nao", "round": 3}}, "strategy.round"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message) as raised:
        search(tmp_path, **settings)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "pool").exists()


def test_a_metric_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match="as mode min or max"):
        NAOSearch("nao_cnn_small", "random_search", pool=str(tmp_path / "pool")).suggest("a")


def test_a_percentage_is_no_accuracy(tmp_path):
    made = NAOSearch(NaoCnnSmall, "random_search", pool=str(tmp_path / "pool"), metric="accuracy", mode="max")
    made.set_search_properties(None, None, {}, num_samples=2)
    for name in "ab":
        suggest(made, name)
    made.on_trial_complete("a", {"accuracy": 0.5, "training_iteration": 1})
    made.on_trial_complete("b", {"accuracy": 93.2, "training_iteration": 1})
    found = rows(tmp_path)
    assert found["valid_accuracy"][0] == 0.5
    assert "expected a share in [0, 1]" in found["failure_message"][1]


def test_a_pool_of_tunes_is_opened_as_any_and_no_search_goes_on_with_it(tmp_path, call):
    made = search(tmp_path, samples=2)
    for name in "ab":
        suggest(made, name)
        made.on_trial_complete(name, result(1, 1.0))
    assert "loss" in call("pool", tmp_path / "pool", "best").out
    left = call("resume", tmp_path / "pool", "--in-process")
    assert left.code == 2
    assert "told by whoever asks for them" in left.err


def test_results_of_running_trials_are_heard(tmp_path):
    made = search(tmp_path, samples=None, strategy={"name": "nao", "pretraining": {"steps": 1}})
    suggest(made, "a")
    suggest(made, "b")
    made.on_trial_result("a", result(1, 3.0))
    made.on_trial_result("a", result(2, 2.5))
    made.on_trial_complete("b", result(1, 4.0))
    heard = []
    for name in "cdef":  # what was asked ahead does not know of it
        suggest(made, name)
        heard += made._desk.trial(name).proposal.heard
    assert heard == [(0, 2, -2.5)]
