"""What several objectives have covered: their hypervolume over trials, and the best by rank, as the pool has them."""

import numpy as np
import pandas as pd
import pytest

from nao_ray import rng
from nao_ray.pareto import Aim, Front, hypervolume
from nao_ray.report.covered import MARKS, aims_of, covered, ranked

AIMS = (Aim("valid_accuracy"), Aim("macs", less_is_better=True))


@pytest.fixture
def done():
    """200 trials; of some the multiply-adds are not known."""
    draws = rng.child(0, "trials", 0)
    macs = pd.array(draws.integers(10**5, 10**7, 200), dtype="Int64")
    macs[::7] = pd.NA
    return pd.DataFrame({"trial_id": range(100, 300), "valid_accuracy": draws.random(200), "macs": macs})


def _signed(done):
    return np.stack([done["valid_accuracy"], -done["macs"].to_numpy(dtype=float, na_value=np.nan)], axis=1)


def test_the_volume_after_each_mark_is_that_of_the_trials_until_then(done):
    told, values = covered(done, AIMS), _signed(done)
    least = [told["reference"]["valid_accuracy"], -told["reference"]["macs"]]
    assert (told["marks"][0], told["marks"][-1], len(told["marks"])) == (1, 200, MARKS)
    expected = [hypervolume(values[:mark], least) for mark in told["marks"]]
    assert told["volumes"] == pytest.approx(expected, rel=1e-12)
    whole = Front.of(done["trial_id"].to_numpy(), values, AIMS)
    assert {name: told[name] for name in whole.plain} == whole.plain
    assert told["volumes"][-1] == pytest.approx(whole.hypervolume)


def test_the_best_are_those_of_the_front_first(done):
    best = ranked(done, AIMS, 30)
    front = Front.of(done["trial_id"].to_numpy(), _signed(done), AIMS).trials
    assert best["trial_id"].tolist()[: len(front)] == list(front)
    assert len(best) == 30
    assert best["macs"].notna().all()


def test_without_objectives_nothing_is_covered_and_without_trials_no_volume(done):
    assert covered(done, ()) is None
    told = covered(done.head(0), AIMS)
    assert (told["marks"], told["volumes"], told["trials"], told["hypervolume"]) == ([], [], [], 0.0)


def test_the_metric_comes_first():
    manifest = {"config": {"objectives": ["-macs", "valid_accuracy"]}}
    assert aims_of(manifest) == AIMS
    assert aims_of({"config": {}}) == ()
