"""What a report says: complete, as JSON holds it, and there for pools with nothing in them."""

import json

import numpy as np
import pandas as pd
import pytest

from nao_ray.report.facts import COLUMNS, facts
from nao_ray.report.tracks import trainings


def plain(found):
    """What was found, as a page is given it."""
    assert json.loads(json.dumps(found, allow_nan=False)) is not None
    return found


def test_a_full_pool(make_trials, fits, manifest):
    found = plain(facts(manifest, make_trials(60, failed=5), fits, 2))
    assert found["name"] == "digits"
    assert dict(found["tiles"])["unfinished"] == "2"
    assert len(found["best"]) == 20
    assert found["best"][0]["score"] == max(row["score"] for row in found["best"])
    assert [row["kind"] for row in found["failures"]] == ["timeout", "nan"]
    assert found["failures"][0]["message"].endswith("<went> wrong")
    assert ("config.space.name", "nao_cnn") in found["manifest"]
    assert found["fits"]["headings"][:3] == ["round", "num trials", "reconstruction"]
    assert found["fits"]["rows"][0][2] == "0.980"
    assert found["fit_curves"]["pairwise accuracy"] == {"round": [1.0], "value": [0.71]}
    assert (found["audit"], found["versions"], found["comparison"], found["derived"]) == (None, [], [], {})


@pytest.mark.parametrize(("n", "failed"), [(0, 0), (1, 0), (2, 0), (1, 1), (3, 1)])
def test_young_pools(n, failed, make_trials, fits, manifest):
    found = plain(facts(manifest, make_trials(n, failed), fits.head(0), 1))
    assert len(found["best"]) == n - failed
    assert sum(row["count"] for row in found["failures"]) == failed


def test_perplexities_are_ranked_downwards(make_trials, manifest):
    trials = make_trials(30)
    trials["valid_perplexity"] = 100 - 30 * trials["valid_accuracy"]
    trials["valid_accuracy"] = None
    tested = pd.DataFrame([{"name": "trial5", "trial_id": 5, "test_perplexity": 71.5, "num_params": 12345}])
    found = plain(facts(manifest, trials, pd.DataFrame(), 0, tested))
    assert found["best"][0]["score"] == f"{trials['valid_perplexity'].min():.2f}"
    assert found["tests"][0]["test"] == "71.50"


def test_a_loss_is_ranked_by_the_least_and_told_with_its_unit(make_trials, manifest):
    trials = make_trials(30)
    trials["valid_score"], trials["valid_accuracy"] = 4 - 3 * trials["valid_accuracy"], None
    loss = {"name": "loss", "unit": "nats", "goal": "minimize"}
    found = plain(facts({**manifest, "metric": loss}, trials, pd.DataFrame(), 0))
    assert found["best"][0]["score"] == f"{trials['valid_score'].min():.5g}"
    expected = "Of the validation loss in nats less is better; it is measured on the validation split."
    assert found["notes"][0] == expected


def test_it_says_who_read_the_test_split(make_trials, fits, manifest):
    scores = [{"name": "trial5", "trial_id": 5, "recipe": "short", "test_accuracy": 0.87654, "num_params": 12345}]
    scores.append({"name": "NAONet-A", "trial_id": None, "test_accuracy": 0.9})

    def found(tested):
        return plain(facts(manifest, make_trials(6), fits, 0, pd.DataFrame(scores[:tested])))

    assert found(0)["notes"][1] == "The test split was not read."
    assert found(1)["notes"][1] == "The test split was read by one full training alone."
    two = found(2)
    assert two["notes"][1] == "The test split was read by 2 full trainings alone."
    assert [(row["name"], row["trial"], row["test"]) for row in two["tests"]] == [
        ("trial5", "5", "0.8765"),
        ("NAONet-A", "", "0.9000"),
    ]
    assert two["notes"][0].startswith("Of the validation accuracy, in [0, 1], more is better;")


def test_it_begins_with_what_was_searched(make_trials, fits, manifest):
    config = manifest["config"] | {"strategy": {"name": "nao"}, "task": {"name": "digits"}, "evaluator": "standalone"}
    config["budget"] = {"trials": 1200, "hours": 1.5}
    found = plain(facts({"config": config}, make_trials(3), fits, 0))
    assert [" ".join(pair) for pair in found["facts"]] == [
        "space nao_cnn",
        "strategy nao",
        "evaluator standalone",
        "task digits",
        "budget 1,200 trials or 1 h 30 min",
    ]


def _of_phases(phases):
    """The rows of trainings with all columns that are looked at."""
    trials = phases.assign(**dict.fromkeys([name for name in COLUMNS if name not in phases]))
    return trials.assign(wall_seconds=1.0, device_seconds=1.0, asked_at=pd.NaT, finished_at=pd.NaT)


def test_trainings_of_alphas_are_told_with_their_alarms(make_trainings, manifest):
    """There was a table of every epoch under "Controller fits", and talk of shared scores, of which there are none."""
    phases, watched = make_trainings(6)
    found = plain(facts(manifest, _of_phases(phases), watched, 0, None, trainings(phases, watched)))
    assert found["trainings"]["headings"][:2] == ["training", "so far"]
    assert [row[:2] for row in found["trainings"]["rows"]] == [["seed 0", "epoch 6"], ["seed 1", "epoch 6"]]
    assert found["alarms"] == [
        {
            "training": "seed 0",
            "moment": "epoch 4",
            "alarm": "skips",
            "instead": watched["alarm_genotype"].dropna().iloc[0],
        }
    ]
    assert (found["is_shared"], found["best"], found["comparison"]) == (False, [], [])
    assert found["fits"]["rows"] == []


def test_trainings_that_failed_are_told_and_the_others_keep_their_numbers(make_trainings, manifest):
    """The training that failed at once was none, and the second one was called `seed 0`."""
    phases, watched = make_trainings(2)
    phases.loc[phases["trial_id"] == 0, ["state", "derived_genotype", "alphas"]] = ["FAILED", None, None]
    phases = phases[phases["trial_id"] != 2]
    watched = watched[watched["seed_index"] == 1]
    row = {"round": 1, "seed_index": 0, "ended": "nan"}
    fits = pd.concat([watched, pd.DataFrame([row])], ignore_index=True)
    tracks = trainings(phases, fits)
    assert [(track.name, len(track.frames)) for track in tracks] == [("seed 1", 2)]
    found = plain(facts(manifest, _of_phases(phases), fits, 0, None, tracks))
    assert found["ends"] == [{"training": "seed 0", "epoch": 1, "kind": "nan", "has_cell": False}]


@pytest.mark.parametrize(("best", "verdict"), [(0.8, "found no better cell than"), (0.81, "found a better cell than")])
def test_derived_cells_are_compared_with_the_random_control(best, verdict, make_trainings, make_trials, manifest):
    phases, watched = make_trainings(2)
    row = {"round": 3, "best_derived": best, "best_control": 0.8, "num_derived": 2, "num_control": 4}
    row |= {"search_seconds": 100.0, "derived_seconds": 20.0, "control_seconds": 119.0}
    fits = pd.concat([watched, pd.DataFrame([row])], ignore_index=True)
    scores = [0.7, 0.79 if best == 0.8 else 0.81, 0.8, 0.7, 0.71, 0.72]
    trials = make_trials(6).assign(round=None, origin=[None, None, *["control"] * 4], valid_accuracy=scores)
    found = plain(facts(manifest, trials, fits, 0, None, trainings(phases, fits)))
    text = " ".join(found["comparison"])
    assert (
        f"the best of 2 derived cells has a validation accuracy of {best:.4f}, the best of 4 random ones 0.8000" in text
    )
    assert "The search took 2 min 00 s of device time, the random cells 1 min 59 s." in text
    assert f"The search {verdict} its control." in text
    assert sum(row["is_control"] for row in found["best"]) == 4, "as they are marked, whatever their round"
    assert ("best validation accuracy, of the random control" in dict(found["tiles"])) == (best == 0.8)
    assert {name: len(values) for name, values in found["derived"].items()} == {"derived": 2, "random control": 4}
    np.testing.assert_array_equal(found["derived"]["derived"], scores[:2])
