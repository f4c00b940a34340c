"""The figures behind the charts."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nao_ray import yaml_text
from nao_ray.metric import ACCURACY, PERPLEXITY, Metric
from nao_ray.report import tables
from nao_ray.report.text import best_text


def test_best_so_far_follows_the_direction():
    values = np.array([3.0, 5.0, 4.0, 1.0])
    assert tables.best_so_far(values, ACCURACY).tolist() == [3, 5, 5, 5]
    assert tables.best_so_far(values, PERPLEXITY).tolist() == [3, 3, 3, 1]
    assert tables.best_so_far(np.array([]), ACCURACY).tolist() == []


def test_completed_are_in_the_order_told(make_trials):
    trials = make_trials(6, failed=2)
    trials["log_index"] = [3, 1, 0, 2, 4, 5]
    assert tables.completed(trials, ACCURACY)["trial_id"].tolist() == [2, 1, 3, 0]


def test_ranked_breaks_ties_by_trial(make_trials):
    trials = make_trials(4)
    trials["valid_accuracy"] = [0.5, 0.9, 0.9, 0.1]
    assert tables.ranked(trials, ACCURACY, 9)["trial_id"].tolist() == [1, 2, 0, 3]
    trials["valid_score"] = trials["valid_accuracy"]
    assert tables.ranked(trials, Metric("loss", goal="minimize"), 3)["trial_id"].tolist() == [3, 0, 1]


def test_a_perplexity_is_told_by_the_pool_or_by_its_trials(make_trials):
    trials = make_trials(3)
    assert tables.metric_of({}, trials) == ACCURACY
    trials["valid_accuracy"], trials["valid_perplexity"] = None, [80.0, 70.0, 90.0]
    assert tables.metric_of({}, trials) == PERPLEXITY
    loss = {"name": "loss", "unit": "nats", "goal": "minimize"}
    assert tables.metric_of({"metric": loss}, trials) == Metric("loss", "nats", "minimize")


def test_device_time_falls_back_to_wall_time(make_trials):
    trials = make_trials(3)
    trials["device_seconds"] = [1.0, None, 2.0]
    trials["wall_seconds"] = [9.0, 5.0, 9.0]
    assert tables.device_seconds(trials).tolist() == [1, 6, 8]


def test_failures_are_counted_by_kind(make_trials):
    rows = tables.failures(make_trials(10, failed=5))
    assert [(row["kind"], row["count"]) for row in rows] == [("timeout", 3), ("nan", 2)]
    assert (rows[0]["message"], rows[0]["trial_id"]) == ("trial 8 <went> wrong", 8)


def test_of_a_kind_of_failure_the_commonest_message_is_shown(make_trials):
    trials = make_trials(6, failed=6)
    trials["failure_kind"] = "error"
    trials["failure_message"] = ["no 5 GB", "no 6 GB", "no 7 GB", "bad", "bad", None]
    (row,) = tables.failures(trials)
    assert row == {"kind": "error", "count": 6, "message": "no 7 GB", "trial_id": 2, "retried": 0, "cured": 0}


@pytest.mark.parametrize("words", ["object", "category"])
def test_a_failure_without_kind_or_message_is_told_without(make_trials, words):
    trials = make_trials(3, failed=2)
    trials[["failure_kind", "failure_message"]] = None
    trials["failure_message"] = trials["failure_message"].astype(words)
    trials["failure_kind"] = trials["failure_kind"].astype(words)
    (row,) = tables.failures(trials)
    assert (row["kind"], row["count"], row["message"]) == ("unknown", 2, "")


def test_failures_say_how_many_were_asked_again_and_completed_then(make_trials):
    trials = make_trials(12, failed=5)  # 7, 8, 10 and 11 timeout, 9 nan
    trials["retry_of"] = pd.array([8, *[None] * 9, 7, 9], "Int64")  # 0 is 8 again, completed; 10 and 11 failed again
    rows = {row["kind"]: (row["count"], row["retried"], row["cured"]) for row in tables.failures(trials)}
    assert rows == {"timeout": (4, 2, 1), "nan": (1, 1, 0)}


def test_the_map_keeps_the_distances_of_a_plane(make_trials):
    trials = make_trials(12)
    plane = np.linalg.qr(np.arange(24.0).reshape(12, 2) ** 1.5)[0]  # two orthonormal axes in 12 dimensions
    points = np.random.default_rng(0).normal(size=(12, 2)) * [3, 1]
    trials["embedding"] = list(points @ plane.T)
    found, scores = tables.embedding_map(trials, ACCURACY)
    assert np.allclose(_distances(found), _distances(points))
    assert found[:, 0].std() > found[:, 1].std()
    assert scores.tolist() == trials["valid_accuracy"].tolist()


def _distances(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_no_map_without_embeddings(make_trials):
    assert tables.embedding_map(make_trials(20), ACCURACY) is None


def test_fit_curves_are_the_qualities(fits):
    curves = tables.fit_curves(fits)
    assert list(curves) == ["reconstruction", "pairwise accuracy"]
    assert [part.tolist() for part in curves["pairwise accuracy"]] == [[1], [0.71]]


def test_fit_table_leaves_out_empty_columns(fits):
    headings, rows = tables.fit_table(fits.head(1))
    assert headings == [
        "round",
        "num trials",
        "reconstruction",
        "pairwise accuracy",
        "reconstruction loss",
        "cpu seconds",
    ]
    assert rows == [["1", "24", "0.980", "0.710", "0.400", "3.100"]]
    assert tables.fit_table(pd.DataFrame()) == ([], [])


def test_flat_keeps_dotted_keys():
    assert tables.flat({"a": {"b": 1, "c": None}, "d": [1, 2]}) == [("a.b", "1"), ("a.c", "none"), ("d", "[1, 2]")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (18120, "5 h 02 min"), (3599.9, "1 h 00 min")]
)
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


def test_of_a_ladder_the_highest_rung_that_has_enough_is_taken(make_trials):
    done = tables.completed(make_trials(12), ACCURACY)
    assert tables.of_one_rung(done, 99) is done
    climbed = done.assign(epochs=[2] * 7 + [4] * 3 + [8] * 2, parent_trial_id=[None] * 7 + [0, 1, 2, 7, 8])
    of = {fewest: tables.of_one_rung(climbed, fewest)["trial_id"].tolist() for fewest in (1, 3, 4, 99)}
    assert of == {1: [10, 11], 3: [7, 8, 9], 4: [*range(7)], 99: [*range(7)]}
    twice = climbed.assign(genotype=[*climbed["genotype"][:8], climbed["genotype"][7], *climbed["genotype"][9:]])
    assert len(tables.of_one_rung(twice, 3)) == 7, "an architecture counts once"


def test_fits_say_of_which_rung_a_prediction_is(fits):
    assert tables.predicted_rungs(fits) == {}
    told = pd.DataFrame({"round": [1, 2, 3, 4], "rung": [None, 4, 4, 8]}).astype({"rung": "Int64"})
    assert tables.predicted_rungs(told) == {2: 4, 3: 4, 4: 8}


@pytest.mark.parametrize("strategy", ["darts", {"name": "darts", "seeds": 2}, "random_search"])
def test_the_best_of_a_search_by_alphas_say_whether_they_are_of_its_control(strategy):
    best = pd.DataFrame({"trial_id": [7, 3], "valid_accuracy": [0.9, 0.8], "round": [None, 50], "genotype": ["a", "b"]})
    config = {"strategy": strategy}
    for manifest in ({"config": config}, {"config": yaml_text.dump(config)}):
        pool = SimpleNamespace(
            best=lambda _count: best,
            metric=ACCURACY,
            manifest=manifest,
            objectives=(),
            rungs=(),
            front=lambda: None,
            fits=pd.DataFrame,
        )
        text = best_text(pool, 2).splitlines()
        is_said = strategy != "random_search"
        assert ("random control" in text[2], "derived" in text[3]) == (is_said, is_said)


def test_another_than_the_best_may_be_recommended():
    best = pd.DataFrame({"trial_id": [7, 3], "valid_accuracy": [0.9, 0.8], "round": [1, 2], "genotype": ["a", "b"]})
    told = {"best": lambda _count: best, "metric": ACCURACY, "manifest": {"config": {"strategy": "nao"}}}
    for recommended, said in (([7, 3, None], "recommends trial 3,"), ([3, 7, None], None), ([None] * 3, None)):
        fits = pd.DataFrame({"round": [1, 2, 3], "recommended": pd.array(recommended, dtype="Int64")})
        pool = SimpleNamespace(**told, objectives=(), rungs=(), front=lambda: None, fits=lambda fits=fits: fits)
        *_, last = best_text(pool, 2).splitlines()
        assert (said in last) if said else (last.split()[0] == "3")
