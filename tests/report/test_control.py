"""A random control is there to compare with: it is marked, and nothing of it is taken for what a search has found."""

import logging
from types import SimpleNamespace

import pandas as pd
import pytest

from nao_ray.errors import PoolError
from nao_ray.report.control import best_found, has_control, is_control

DARTS, OWN = ({"config": {"strategy": {"name": name}}} for name in ("darts", "mine:Search"))


def pool(scores, origins, rounds=None, manifest=OWN):
    frame = pd.DataFrame(
        {"trial_id": range(len(scores)), "valid_accuracy": scores, "genotype": list("abcdef")[: len(scores)]}
    )
    frame = frame.assign(origin=origins, round=rounds or [None] * len(scores))
    frame = frame.sort_values("valid_accuracy", ascending=False, ignore_index=True)
    return SimpleNamespace(url="p", manifest=manifest, best=frame.head)


def test_the_best_is_none_of_the_control_and_that_is_said(caplog):
    found = best_found(pool([0.9, 0.8, 0.7, 0.6], ["control", "control", None, None]), 1)
    assert found["trial_id"].tolist() == [2]
    (said,) = caplog.messages
    assert (
        said == "the best of all, trial 0, is of the random control; of what was found trial 2 is the best, and taken"
    )


def test_nothing_is_said_where_the_search_was_better(caplog):
    caplog.set_level(logging.INFO)
    assert best_found(pool([0.9, 0.8, 0.7], [None, "control", None]), 5)["trial_id"].tolist() == [0, 2]
    assert not caplog.messages


def test_the_control_is_taken_where_it_is_asked_for():
    found = best_found(pool([0.9, 0.8], ["control", None]), 2, with_control=True)
    assert found["trial_id"].tolist() == [0, 1]


def test_a_pool_of_nothing_but_its_control_names_none():
    with pytest.raises(PoolError, match="no trial but those of its random control: name one, p:0"):
        best_found(pool([0.9], ["control"]), 1)


def test_pools_of_before_tell_by_the_strategy_and_the_round():
    found = best_found(pool([0.9, 0.8], [None, None], [None, 50.0], DARTS), 1)
    assert found["trial_id"].tolist() == [1]
    assert best_found(pool([0.9, 0.8], [None, None]), 1)["trial_id"].tolist() == [0], "another strategy's"


def test_a_strategy_of_ones_own_marks_its_control_alike():
    best = pool([0.9, 0.8], ["control", None]).best(2)
    assert is_control(best, OWN).tolist() == [True, False]
    assert has_control(best, OWN)
    assert not has_control(best.assign(origin=None), OWN)


def test_a_pool_that_goes_on_has_controls_of_before_and_marked_ones():
    found = best_found(pool([0.9, 0.8, 0.7], [None, "control", None], [None, None, 50.0], DARTS), 1)
    assert found["trial_id"].tolist() == [2]
