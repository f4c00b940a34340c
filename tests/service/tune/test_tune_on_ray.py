"""`NAOSearch` in a real Tuner: schedulers, limits, failures, an end in the middle and a restore."""

import re
import sys
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter

from nao_ray.pool import PoolReader
from nao_ray.tune import NAOSearch

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("default"),  # Tune's own
]

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


class Trains(tune.Trainable):
    """Loses a little every epoch; its level is in its genotype, and every fifth trial breaks down."""

    epochs = 3

    def setup(self, config):
        self.config, self.done = config, 0

    def step(self):
        self.done += 1
        trial_id = self.config["trial_id"]
        if trial_id % 5 == 4:
            raise ValueError(f"trial {trial_id} is broken")
        return {"loss": trial_id + 1 / self.done, "done": self.done == self.epochs}

    def reset_config(self, config):
        self.setup(config)
        return True

    def save_checkpoint(self, folder):
        Path(folder, "done").write_text(str(self.done))

    def load_checkpoint(self, folder):
        self.done = int(Path(folder, "done").read_text())


def tuner(tmp_path, searcher, samples, callbacks=None, **settings):
    config = tune.TuneConfig(
        metric="loss", mode="min", num_samples=samples, search_alg=searcher, reuse_actors=True, **settings
    )
    run_config = tune.RunConfig(storage_path=str(tmp_path), name="tuned", verbose=0, callbacks=callbacks)
    return tune.Tuner(Trains, tune_config=config, run_config=run_config)


def search(tmp_path):
    return NAOSearch("nao_cnn_small", "random_search", pool=str(tmp_path / "pool"))


def rows(tmp_path):
    pool = PoolReader.open(tmp_path / "pool")
    assert pool.check() == []
    assert not [trial for trial in pool.log() if trial.log_index is None]  # nothing is open
    return pool.trials().set_index("trial_id")


def test_a_scheduler_stops_trials_and_failing_ones_are_recorded_beside_them(tmp_path):
    asha = ASHAScheduler(max_t=Trains.epochs, grace_period=1, reduction_factor=2)
    results = tuner(tmp_path, search(tmp_path), 6, scheduler=asha).fit()
    found = rows(tmp_path)
    assert found.index.tolist() == list(range(6))
    assert found["state"].tolist() == ["COMPLETED"] * 4 + ["FAILED", "COMPLETED"]
    assert found["failure_kind"][4] == "error"
    assert results.num_errors == 1
    done = found[found["state"] == "COMPLETED"]
    for trial_id, row in done.iterrows():
        assert row["valid_score"] == trial_id + 1 / row["epochs"]
        assert row["curve"].tolist() == [trial_id + 1 / (epoch + 1) for epoch in range(row["epochs"])]
    assert done["epochs"].max() == Trains.epochs
    assert done["epochs"].min() < Trains.epochs  # those were stopped


class Counts(tune.Callback):
    """How many trials run at a time."""

    most = 0

    def on_step_end(self, iteration, trials, **info):
        self.most = max(self.most, sum(trial.status in ("RUNNING", "PENDING") for trial in trials))


def test_a_limiter_limits_it(tmp_path):
    counts = Counts()
    tuner(tmp_path, ConcurrencyLimiter(search(tmp_path), max_concurrent=1), 3, callbacks=[counts]).fit()
    assert counts.most == 1
    found = rows(tmp_path)
    assert found["state"].tolist() == ["COMPLETED"] * 3
    assert found["asked_after"].max() >= 1


class CutError(Exception):
    """The driver's end."""


class Cuts(tune.Callback):
    """Ends the driver in the middle, once so many trials have ended."""

    def __init__(self, after):
        self.after = after

    def on_step_end(self, iteration, trials, **info):
        if sum(trial.is_finished() for trial in trials) >= self.after:
            raise CutError


@pytest.mark.parametrize("seconds", [0, 1000], ids=["Tune knows all", "Tune knows what was at the beginning"])
def test_a_restored_tuner_loses_and_doubles_nothing(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", str(seconds))
    made = tuner(tmp_path, search(tmp_path), 8, callbacks=[Cuts(after=3)])
    with pytest.raises(CutError):
        made.fit()
    pool = PoolReader.open(tmp_path / "pool")
    before = {trial.trial_id: trial for trial in pool.log()}
    ended = {trial_id for trial_id, trial in before.items() if trial.log_index is not None}
    assert 3 <= len(ended) < len(before) < 8
    again = tune.Tuner.restore(str(tmp_path / "tuned"), Trains)
    again._local_tuner._run_config.callbacks = []
    again.fit()
    assert rows(tmp_path).index.tolist() == list(range(8))
    after = {trial.trial_id: trial for trial in pool.log()}
    assert {i: after[i].genotype for i in before} == {i: trial.genotype for i, trial in before.items()}
    assert {i: after[i] for i in ended} == {i: before[i] for i in ended}
    assert len({trial.genotype for trial in after.values()}) == 8


def test_the_program_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ray.train.constants.DEFAULT_STORAGE_PATH", str(tmp_path / "tune"))
    page = (Path(__file__).parents[3] / "docs" / "components.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n# tuned.py\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    names = {"__name__": "__main__"}
    exec(program, names)
    assert names["results"].num_errors == 0
    pool = PoolReader.open("pools/tuned")
    assert pool.trials()["state"].tolist() == ["COMPLETED"] * 4
    assert pool.trials()["epochs"].max() == 3
