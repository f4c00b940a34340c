"""Finalists in a real Tuner: stopped in the middle, gone on with by the same call, ended early by ASHA."""

import json

import pytest

from nao_ray.pool import PoolReader
from nao_ray.service.training.finalists import finalists_config
from nao_ray.service.training.tuning import Tuning
from nao_ray.service.tune.finalists import tune_finalists
from tests.service._searched import searched_pool

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("default"),  # Tune's own
]


def config(tmp_path, *overrides):
    pool = searched_pool(tmp_path / "pool")
    tuning = Tuning.parse(["lr=0.05,0.1"])
    return finalists_config(pool, 2, None, ("evaluator.epochs=3", "workers.count=2", *overrides), tuning=tuning)


def interrupt_after(done):
    def listener(snapshot):
        assert snapshot.total == 4
        if snapshot.done == done:
            raise KeyboardInterrupt

    return listener


def test_a_grid_that_was_stopped_goes_on_by_the_same_call(tmp_path):
    asked, url = config(tmp_path), str(tmp_path / "finalists")
    with pytest.raises(KeyboardInterrupt):
        tune_finalists(asked, url, stops_early=False, listener=interrupt_after(1))
    pool = PoolReader.open(url)
    before = pool.trials().set_index("trial_id")
    assert 1 <= len(before) < 4
    for _ in range(2):  # the second time there is nothing to do
        tune_finalists(asked, url, stops_early=False)
    after = pool.trials().set_index("trial_id").sort_index()
    assert after["state"].tolist() == ["COMPLETED"] * 4
    assert after["epochs"].tolist() == [3] * 4
    assert [len(curve) for curve in after["curve"]] == [3] * 4
    assert [json.loads(text)["lr"] for text in after["settings"]] == [0.05, 0.1] * 2
    assert after.loc[before.index, "finished_at"].equals(before["finished_at"])
    assert after["num_params"].notna().all()
    assert pool.check() == []
    assert PoolReader.open(url).best(1)["valid_accuracy"].notna().all()


def test_what_asha_ends_has_its_last_score_and_says_after_how_many_epochs(tmp_path, monkeypatch):
    monkeypatch.setattr("nao_ray.service.tune.finalists.REDUCTION", 2)
    url = str(tmp_path / "finalists")
    tune_finalists(config(tmp_path), url, stops_early=True)
    trials = PoolReader.open(url).trials().set_index("trial_id").sort_index()
    assert set(trials["state"]) == {"COMPLETED"}
    assert trials["epochs"].between(1, 3).all()
    assert trials["epochs"].max() == 3
    assert [len(curve) for curve in trials["curve"]] == trials["epochs"].tolist()
